// y[row] = the k among parts[:, row] with the largest (or smallest) x[row, k], the first one on ties.
// 1 x: [outer, size, inner] row-major, a row per (outer, inner); 2 parts: [parts, rows]; 3 y: [rows].
// A workgroup computes 64 elements of y, an invocation one.
// The second launch of argmax for long rows; parts are in ascending order of k.
// Reference: Argmax::reference in src/ops/argmax.rs.

import package::argmax_order::{beats, d, start_of, x};

@group(0) @binding(2) var<storage, read> parts: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn argmax_parts(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = start_of(row);
  var best = parts[row];
  var largest = x[start + best * d.inner];
  for (var part = 1u; part < d.parts; part++) {
    let k = parts[part * d.rows + row];
    let v = x[start + k * d.inner];
    if (beats(v, largest)) {
      largest = v;
      best = k;
    }
  }
  y[row] = best;
}
