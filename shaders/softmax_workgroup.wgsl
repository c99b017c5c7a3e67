// y[k] = exp(x[k] - m) / s with m = max_j x[j], s = sum_j exp(x[j] - m); LOG: x[k] - m - log(s).
// 1 x, 2 y: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes ROWS rows (times four, one per vec4 component), an invocation every LANES-th element. HELD of them
// stay in registers; the rest of longer rows is read again.
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes and lanes_max) or in four rows.
// Reference: Softmax::reference in src/ops/softmax.rs.

import package::elements::{V};
import package::norm_lanes::{lanes, S};
import package::softmax_row::{d, exp_of, keep_nan, lanes_max, RUN, start_of};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_barrier, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 1024
const HELD: u32 = 4u;
const LOG: bool = false;
alias Tree = S;

@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

@compute @workgroup_size(THREADS)
fn softmax_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  // Surplus workgroups recompute the last row without storing it.
  let number = group_number(group, groups) * ROWS + place / LANES;
  let row = min(number, d.rows - 1u);
  let end = select(0u, d.size, number < d.rows);
  let start = start_of(row);
  var held: array<V, HELD>;
  var m = x[start];
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      held[h] = x[start + (lane + h * LANES) * d.inner];
      m = max(m, held[h]);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    m = max(m, x[start + k * d.inner]);
  }
  m = V(tree_max(lanes_max(m)));
  tree_barrier();
  var s = V(0.0);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      held[h] -= m;
      let e = exp_of(held[h]);
      s += e;
      if (!LOG) {
        held[h] = e;
      }
    }
  }
  for (var k = lane + HELD * LANES; k < end;) {
    let stop = min(k + RUN * LANES, end);
    var run = V(0.0);
    for (; k < stop; k += LANES) {
      run += exp_of(x[start + k * d.inner] - m);
    }
    s += run;
  }
  s = V(tree_sum(lanes(s)));
  let shift = keep_nan(s, log(s));
  let scale = 1.0 / s;
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      y[start + (lane + h * LANES) * d.inner] = select(held[h] * scale, held[h] - shift, LOG);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    let at = start + k * d.inner;
    if (LOG) {
      y[at] = (x[at] - m) - shift;
    } else {
      y[at] = exp_of(x[at] - m) * scale;
    }
  }
}
