// The RNN cell: h = activate(x + h_before w).

import package::recurrent_places::{activate, At, in_slot, in_step};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;

// Stores the new state, from the products of the one before, and returns it.
fn cell(at: At, sums: array<f32, GATES>) -> f32 {
  let h = activate(x[in_step(at, 1u)] + sums[0]);
  set_hs(in_slot(at.to_slot, at), h);
  return h;
}
