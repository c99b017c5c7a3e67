// The LSTM cell: c = f c_before + i g, h = o activate(c), with i, f, o = sigmoid and g = activate of x + h_before w.
// 4 gates: [T, B, 4, H], i, f, g, o, which first hold the sums; 5 cs: [T + 1, B, H].

import package::recurrent_places::{activate, At, in_slot, in_step, p};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 4u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> cs: array<f32>;

fn set_sum(at: At, gate: u32, v: f32) {
  gates[in_step(at, 4u) + gate * p.hidden] = v;
}

fn cell(at: At) {
  let first = in_step(at, 4u);
  let second = first + p.hidden;
  let third = second + p.hidden;
  let fourth = third + p.hidden;
  let i = sigmoid_f32(x[first] + gates[first]);
  let f = sigmoid_f32(x[second] + gates[second]);
  let g = activate(x[third] + gates[third]);
  let o = sigmoid_f32(x[fourth] + gates[fourth]);
  gates[first] = i;
  gates[second] = f;
  gates[third] = g;
  gates[fourth] = o;
  let c = f * cs[in_slot(at.from_slot, at)] + i * g;
  cs[in_slot(at.to_slot, at)] = c;
  set_hs(in_slot(at.to_slot, at), o * activate(c));
}
