// y[part, row] = the k in the part-th chunk with the largest (or smallest) x[row, k]: the first one on ties, or the
// first NaN if any.
// 1 x: [outer, size, inner] row-major, a row per (outer, inner); 2 y: [parts, rows], k from the start of the row.
// A workgroup computes 64 elements of y, an invocation one.
// Requires size >= 1 and no empty chunks.
// Reference: Argmax::reference in src/ops/argmax.rs.

import package::argmax_order::{beats, d, start_of, x};

@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn argmax(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= d.rows * d.parts) {
    return;
  }
  let row = i % d.rows;
  let start = start_of(row);
  var best = i / d.rows * d.chunk;
  let end = min(best + d.chunk, d.size);
  var largest = x[start + best * d.inner];
  for (var k = best + 1u; k < end; k++) {
    let v = x[start + k * d.inner];
    if (beats(v, largest)) {
      largest = v;
      best = k;
    }
  }
  y[i] = best;
}
