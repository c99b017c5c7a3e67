// dx[k] = y[k] (dy[k] - s) with s = sum_j y[j] dy[j]; LOG: dx[k] = dy[k] - exp(y[k]) s, s = sum_j dy[j].
// 1 y, 2 dy, 3 dx: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes 64 rows, an invocation one (or four, one per vec4 component).
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes) or in four rows.
// Reference: SoftmaxGrad::reference in src/ops/softmax.rs.

import package::elements::{V};
import package::norm_lanes::{lanes};
import package::softmax_row::{d, exp_of, RUN, start_of};

const LOG: bool = false;

@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> dy: array<V>;
@group(0) @binding(3) var<storage, read_write> dx: array<V>;

@compute @workgroup_size(64)
fn softmax_grad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = start_of(row);
  var s = V(0.0);
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = V(0.0);
    for (; k < stop; k++) {
      let at = start + k * d.inner;
      if (LOG) {
        run += dy[at];
      } else {
        run += y[at] * dy[at];
      }
    }
    s += run;
  }
  s = V(lanes(s));
  for (var k = 0u; k < d.size; k++) {
    let at = start + k * d.inner;
    if (LOG) {
      dx[at] = dy[at] - exp_of(y[at]) * s;
    } else {
      dx[at] = y[at] * (dy[at] - s);
    }
  }
}
