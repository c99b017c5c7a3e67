// Gradient of the LSTM cell, from dh and the gradient of c.
// 4 gates: [T, B, 4, H], i, f, g, o; 5 cs: [T + 1, B, H]; 6 dcs: gradient of cs, if CELLS; 7 dc: gradient passed to the
// previous cell state, [B, H].

import package::recurrent_places::{activate, At, in_slot, in_step, p, slope};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 4u;
const CELLS: bool = true;

@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read> cs: array<f32>;
@group(0) @binding(6) var<storage, read> dcs: array<f32>;
@group(0) @binding(7) var<storage, read_write> dc: array<f32>;

// Stores the gradients of the sums and of the cell state before, and returns the former.
fn cell_grad(at: At, dh: f32, carries: bool) -> array<f32, GATES> {
  let first = in_step(at, 4u);
  let i = gates[first];
  let f = gates[first + p.hidden];
  let g = gates[first + 2u * p.hidden];
  let o = gates[first + 3u * p.hidden];
  let a = activate(cs[in_slot(at.to_slot, at)]);
  var d = dh * o * slope(a);
  if (CELLS) {
    d += dcs[in_slot(at.to_slot, at)];
  }
  let own = in_slot(0u, at);
  if (carries) {
    d += dc[own];
  }
  let of_i = d * g * (i * (1.0 - i));
  let of_f = d * cs[in_slot(at.from_slot, at)] * (f * (1.0 - f));
  let of_g = d * i * slope(g);
  let of_o = dh * a * (o * (1.0 - o));
  set_ds(first, of_i);
  set_ds(first + p.hidden, of_f);
  set_ds(first + 2u * p.hidden, of_g);
  set_ds(first + 3u * p.hidden, of_o);
  dc[own] = d * f;
  return array<f32, GATES>(of_i, of_f, of_g, of_o);
}
