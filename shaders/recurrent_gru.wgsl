// The GRU cell: h = (1 - z) n + z h_before with r, z = sigmoid(x + s), n = activate(x + r q), s, q = h_before w + bias.
// 4 gates: [T, B, 4, H], r, z, n, q; 5 bias: [3, H].

import package::recurrent_places::{activate, At, in_slot, in_step, p};
import package::recurrent_state::{get_BUFFER, set_BUFFER};

const GATES: u32 = 3u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> gates: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

// Stores gates and state, from the products of the state before, and returns the new state.
fn cell(at: At, sums: array<f32, GATES>) -> f32 {
  let of_x = in_step(at, 3u);
  let first = in_step(at, 4u);
  let second = first + p.hidden;
  let third = second + p.hidden;
  let r = sigmoid_f32(x[of_x] + (sums[0] + bias[at.unit]));
  let z = sigmoid_f32(x[of_x + p.hidden] + (sums[1] + bias[p.hidden + at.unit]));
  let q = sums[2] + bias[2u * p.hidden + at.unit];
  let n = activate(x[of_x + 2u * p.hidden] + r * q);
  gates[first] = r;
  gates[second] = z;
  gates[third] = n;
  gates[third + p.hidden] = q;
  let h = (1.0 - z) * n + z * get_hs(in_slot(at.from_slot, at));
  set_hs(in_slot(at.to_slot, at), h);
  return h;
}
