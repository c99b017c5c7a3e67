// The RNN cell: h = activate(x + h_before w). hs first holds the sums.

import package::recurrent_places::{activate, At, in_slot, in_step};
import package::recurrent_state::{get_BUFFER, set_BUFFER};

const GATES: u32 = 1u;

@group(0) @binding(1) var<storage, read> x: array<f32>;

fn set_sum(at: At, gate: u32, v: f32) {
  set_hs(in_slot(at.to_slot, at), v);
}

fn cell(at: At) {
  let i = in_slot(at.to_slot, at);
  set_hs(i, activate(x[in_step(at, 1u)] + get_hs(i)));
}
