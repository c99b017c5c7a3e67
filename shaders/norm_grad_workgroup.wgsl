// dx[k] = epilogue(r (dy[k] - a - y[k] b)), a = mean of dy (0 without CENTERED), b = mean of y dy over the row, r = 1 /
// sqrt(v + eps). 1 y, 2 stats: [2, rows], v in the second line; 3 dy, 4 dx: [rows, size] in V.
// A workgroup computes ROWS rows, an invocation every LANES-th element. HELD of them stay in registers; the rest of
// longer rows is read again. V is f32, or vec4<f32> of four neighbours (reduced by `lanes`).
// Reference: NormalizeGrad::reference in src/ops/norm.rs.

import package::elements::{store_OUT, V};
import package::norm_lanes::{lanes};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 1024
const HELD: u32 = 4u;
const RUN: u32 = 64u; // elements that an invocation adds sequentially
const CENTERED: bool = true;
alias Tree = vec2<f32>;

struct Dims { rows: u32, size: u32, n: f32, eps: f32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> stats: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<V>;
@group(0) @binding(4) var<storage, read_write> dx: array<V>;

@compute @workgroup_size(THREADS)
fn norm_grad_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  // Surplus workgroups do nothing, but reach every barrier.
  let number = group_number(group, groups) * ROWS + place / LANES;
  let row = min(number, d.rows - 1u);
  let end = select(0u, d.size, number < d.rows);
  let start = row * d.size;
  var held_y: array<V, HELD>;
  var held_dy: array<V, HELD>;
  var a = V(0.0);
  var b = V(0.0);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      held_y[h] = y[start + lane + h * LANES];
      held_dy[h] = dy[start + lane + h * LANES];
      a += held_dy[h];
      b += held_y[h] * held_dy[h];
    }
  }
  for (var k = lane + HELD * LANES; k < end;) {
    let stop = min(k + RUN * LANES, end);
    var run_a = V(0.0);
    var run_b = V(0.0);
    for (; k < stop; k += LANES) {
      run_a += dy[start + k];
      run_b += y[start + k] * dy[start + k];
    }
    a += run_a;
    b += run_b;
  }
  var means = tree_sum(vec2<f32>(lanes(a), lanes(b))) / d.n;
  if (!CENTERED) {
    means.x = 0.0;
  }
  let r = inverseSqrt(stats[d.rows + row] + d.eps);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      store_dx(start + lane + h * LANES, (held_dy[h] - V(means.x) - held_y[h] * means.y) * r);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    store_dx(start + k, (dy[start + k] - V(means.x) - y[start + k] * means.y) * r);
  }
}
