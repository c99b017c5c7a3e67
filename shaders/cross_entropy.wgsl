// losses[n] = log(s) - (x[n, labels[n]] - m), with m = max_k x[n, k] and s = sum_k exp(x[n, k] - m); or, with
// `gradient` 1, dx[n, k] = (exp(x[n, k] - m) / s - (1 where k = labels[n])) dy[n]; or, with BOTH, both.
// Bindings: shaders/cross_entropy_rows.wgsl.
// A workgroup computes 64 rows, an invocation one.
// An out-of-range class is never used as an index: the row gets NaN and the status becomes 1. Requires C >= 1.
// Reference: CrossEntropy::reference in src/ops/cross_entropy.rs.

import package::cross_entropy_rows::{BOTH, d, exp_of, labels, scale_of, status, store_loss, x, y};

const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

@compute @workgroup_size(64)
fn cross_entropy(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = row * d.size;
  var m = x[start];
  for (var k = 1u; k < d.size; k++) {
    m = max(m, x[start + k]);
  }
  var s = 0.0;
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = 0.0;
    for (; k < stop; k++) {
      run += exp_of(x[start + k] - m);
    }
    s += run;
  }
  let label = labels[row];
  let valid = label < d.size;
  if (!valid) {
    atomicStore(&status[0], 1u);
  }
  if (BOTH || d.gradient == 0u) {
    store_loss(row, start, label, m, s);
    @if(!BOTH) return;
  }
  let scale = scale_of(row, valid);
  for (var k = 0u; k < d.size; k++) {
    let hit = select(0.0, 1.0, k == label);
    y[start + k] = (exp_of(x[start + k] - m) / s - hit) * scale;
  }
}
