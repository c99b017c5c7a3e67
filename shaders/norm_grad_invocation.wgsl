// dx[k] = epilogue(r (dy[k] - a - y[k] b)), a = mean of dy (0 without CENTERED), b = mean of y dy over the row, r = 1 /
// sqrt(v + eps). 1 y, 2 stats: [2, rows], v in the second line; 3 dy, 4 dx: [rows, size] in V.
// A workgroup computes 64 rows, an invocation one, in two passes. V is f32, or vec4<f32> of four neighbours (reduced by
// `lanes`). Requires size <= 4096.
// Reference: NormalizeGrad::reference in src/ops/norm.rs.

import package::elements::{store_OUT, V};
import package::norm_lanes::{lanes};

const CENTERED: bool = true;
const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

struct Dims { rows: u32, size: u32, n: f32, eps: f32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> stats: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<V>;
@group(0) @binding(4) var<storage, read_write> dx: array<V>;

@compute @workgroup_size(64)
fn norm_grad_invocation(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = row * d.size;
  let end = start + d.size;
  var sum = V(0.0);
  var products = V(0.0);
  for (var at = start; at < end;) {
    let stop = min(at + RUN, end);
    var run = V(0.0);
    var run_products = V(0.0);
    for (; at < stop; at++) {
      run += dy[at];
      run_products += y[at] * dy[at];
    }
    sum += run;
    products += run_products;
  }
  var a = lanes(sum) / d.n;
  if (!CENTERED) {
    a = 0.0;
  }
  let b = lanes(products) / d.n;
  let r = inverseSqrt(stats[d.rows + row] + d.eps);
  for (var at = start; at < end; at++) {
    store_dx(at, (dy[at] - V(a) - y[at] * b) * r);
  }
}
