// The LSTM cell: c = f c_before + i g, h = o activate(c), with i, f, o = sigmoid and g = activate of x + h_before w.
// 4 gates: [T, B, 4, H], i, f, g, o; 5 cs: [T + 1, B, H].

import package::recurrent_places::{activate, At, in_slot, in_step, p};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 4u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> cs: array<f32>;

// Stores gates and states, from the products of the state before, and returns the new state.
fn cell(at: At, sums: array<f32, GATES>) -> f32 {
  let first = in_step(at, 4u);
  let second = first + p.hidden;
  let third = second + p.hidden;
  let fourth = third + p.hidden;
  let i = sigmoid_f32(x[first] + sums[0]);
  let f = sigmoid_f32(x[second] + sums[1]);
  let g = activate(x[third] + sums[2]);
  let o = sigmoid_f32(x[fourth] + sums[3]);
  gates[first] = i;
  gates[second] = f;
  gates[third] = g;
  gates[fourth] = o;
  let c = f * cs[in_slot(at.from_slot, at)] + i * g;
  cs[in_slot(at.to_slot, at)] = c;
  let h = o * activate(c);
  set_hs(in_slot(at.to_slot, at), h);
  return h;
}
