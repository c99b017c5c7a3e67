// y[part, row] = sum times a factor (or max, min, product) of the part-th chunk of x[row, :].
// 1 x: in V, any strides; 2 y: [parts, rows] row-major, in T (four rows per V of columns).
// A workgroup computes 64 elements of y, an invocation one (or four): sums of blocks of RUN elements, then the sum of
// those, so that rounding errors grow with the block length plus the number of blocks, not with their product. Requires
// chunk * parts >= count.
// Reference: Reduce::reference in src/ops/reduce.rs.

import package::elements::{V};
import package::reduce_walk::{combine, d, element, FLAT, identity, load, RUN, start_of, store};

@compute @workgroup_size(64)
fn reduce(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= d.rows * d.parts) {
    return;
  }
  // Neighbouring invocations have neighbouring rows.
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = V(identity());
  var j = part * d.chunk;
  let end = min(j + d.chunk, d.count);
  // Runs along the innermost axis: the position is computed once per run.
  while (j < end) {
    let stop = min(j + RUN, end);
    var block = V(identity());
    while (j < stop) {
      var run = stop - j;
      if (!FLAT) {
        run = min(run, d.sizes.z - j % d.sizes.z);
      }
      var at = element(start, j);
      for (var k = 0u; k < run; k++) {
        block = combine(block, load(at));
        at += d.strides.z;
      }
      j += run;
    }
    acc = combine(acc, block);
  }
  store(i, acc);
}
