// Gradient of the GRU cell, from dh and the part that flows through z from the later step.
// 4 gates: [T, B, 4, H], r, z, n, q; 5 hs: [T + 1, B, H]; 6 dx: [T, B, 3, H], which differs from ds in n's; 7 direct:
// the gradient that flows to the previous state without a product, [B, H].

import package::recurrent_places::{At, in_slot, in_step, p, slope};
import package::recurrent_state::{set_BUFFER};

const GATES: u32 = 3u;

@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read> hs: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;
@group(0) @binding(7) var<storage, read_write> direct: array<f32>;

// Stores the gradients of the sums and of x, and returns the former.
fn cell_grad(at: At, through_sums: f32, carries: bool) -> array<f32, GATES> {
  let own = in_slot(0u, at);
  var dh = through_sums;
  if (carries) {
    dh += direct[own];
  }
  let first = in_step(at, 4u);
  let r = gates[first];
  let z = gates[first + p.hidden];
  let n = gates[first + 2u * p.hidden];
  let q = gates[first + 3u * p.hidden];
  let of_n = dh * (1.0 - z) * slope(n);
  let of_r = of_n * q * (r * (1.0 - r));
  let of_z = dh * (hs[in_slot(at.from_slot, at)] - n) * (z * (1.0 - z));
  let to_x = in_step(at, 3u);
  set_ds(to_x, of_r);
  set_ds(to_x + p.hidden, of_z);
  set_ds(to_x + 2u * p.hidden, of_n * r);
  dx[to_x] = of_r;
  dx[to_x + p.hidden] = of_z;
  dx[to_x + 2u * p.hidden] = of_n;
  direct[own] = dh * z;
  return array<f32, GATES>(of_r, of_z, of_n * r);
}
