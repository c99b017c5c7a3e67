// y[k] = exp(x[k] - m) / s with m = max_j x[j], s = sum_j exp(x[j] - m); LOG: x[k] - m - log(s).
// 1 x, 2 y: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes 64 rows, an invocation one (or four, one per vec4 component).
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes and lanes_max) or in four rows.
// Reference: Softmax::reference in src/ops/softmax.rs.

import package::elements::{V};
import package::norm_lanes::{lanes};
import package::softmax_row::{d, exp_of, keep_nan, lanes_max, RUN, start_of};

const LOG: bool = false;

@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

@compute @workgroup_size(64)
fn softmax(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = start_of(row);
  var m = x[start];
  for (var k = 1u; k < d.size; k++) {
    m = max(m, x[start + k * d.inner]);
  }
  m = V(lanes_max(m));
  var s = V(0.0);
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = V(0.0);
    for (; k < stop; k++) {
      let at = start + k * d.inner;
      let e = exp_of(x[at] - m);
      run += e;
      if (!LOG) {
        y[at] = e; // recomputing exp costs more than rereading y
      }
    }
    s += run;
  }
  s = V(lanes(s));
  let shift = keep_nan(s, log(s));
  let scale = 1.0 / s;
  for (var k = 0u; k < d.size; k++) {
    let at = start + k * d.inner;
    if (LOG) {
      y[at] = (x[at] - m) - shift;
    } else {
      y[at] *= scale;
    }
  }
}
