// Gradient of the RNN cell. 4 hs: [T + 1, B, H].

import package::recurrent_places::{At, in_slot, in_step, slope};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 1u;

@group(0) @binding(4) var<storage, read> hs: array<f32>;

// Stores the gradient of the sums, and returns it.
fn cell_grad(at: At, dh: f32, carries: bool) -> array<f32, GATES> {
  let d = dh * slope(hs[in_slot(at.to_slot, at)]);
  set_ds(in_step(at, 1u), d);
  return array<f32, GATES>(d);
}
