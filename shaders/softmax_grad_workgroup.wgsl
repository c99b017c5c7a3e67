// dx[k] = y[k] (dy[k] - s) with s = sum_j y[j] dy[j]; LOG: dx[k] = dy[k] - exp(y[k]) s, s = sum_j dy[j].
// 1 y, 2 dy, 3 dx: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes ROWS rows (times four, one per vec4 component), an invocation every LANES-th element. HELD of them
// stay in registers; the rest of longer rows is read again.
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes) or in four rows.
// Reference: SoftmaxGrad::reference in src/ops/softmax.rs.

import package::elements::{V};
import package::norm_lanes::{lanes, S};
import package::softmax_row::{d, exp_of, RUN, start_of};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 1024
const HELD: u32 = 4u;
const LOG: bool = false;
alias Tree = S;

@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> dy: array<V>;
@group(0) @binding(3) var<storage, read_write> dx: array<V>;

fn term(y: V, dy: V) -> V {
  if (LOG) {
    return dy;
  }
  return y * dy;
}

fn gradient(y: V, dy: V, s: V) -> V {
  if (LOG) {
    return dy - exp_of(y) * s;
  }
  return y * (dy - s);
}

@compute @workgroup_size(THREADS)
fn softmax_grad_workgroup(
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
  let row = group_number(group, groups) * ROWS + place / LANES;
  let end = select(0u, d.size, row < d.rows);
  let start = start_of(row);
  var held: array<V, HELD>;
  var held_dy: array<V, HELD>;
  var s = V(0.0);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      let at = start + (lane + h * LANES) * d.inner;
      held[h] = y[at];
      held_dy[h] = dy[at];
      s += term(held[h], held_dy[h]);
    }
  }
  for (var k = lane + HELD * LANES; k < end;) {
    let stop = min(k + RUN * LANES, end);
    var run = V(0.0);
    for (; k < stop; k += LANES) {
      let at = start + k * d.inner;
      run += term(y[at], dy[at]);
    }
    s += run;
  }
  s = V(tree_sum(lanes(s)));
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      dx[start + (lane + h * LANES) * d.inner] = gradient(held[h], held_dy[h], s);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    let at = start + k * d.inner;
    dx[at] = gradient(y[at], dy[at], s);
  }
}
