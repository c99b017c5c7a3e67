// y[part, row] = sum times a factor (or max, min, product) of the part-th chunk of x[row, :].
// 1 x: any strides; 2 y: [parts, rows] row-major.
// A workgroup computes one element of y: each invocation reduces its share of the chunk in blocks of RUN elements, then
// a tree combines the shares. Requires chunk * parts >= count.
// Reference: Reduce::reference in src/ops/reduce.rs.

import package::elements::{T};
import package::reduce_walk::{combine, d, element, identity, RUN, scaled, start_of, store, x};
import package::tree::{tree_JOIN};

const THREADS: u32 = 256u; // or 128
alias Tree = T;

@compute @workgroup_size(THREADS)
fn reduce_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups);
  let inside = i < d.rows * d.parts;
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = identity();
  if (inside) {
    let end = min((part + 1u) * d.chunk, d.count);
    for (var j = part * d.chunk + lane; j < end;) {
      let stop = min(j + RUN * THREADS, end);
      var block = identity();
      for (; j < stop; j += THREADS) {
        block = combine(block, x[element(start, j)]);
      }
      acc = combine(acc, block);
    }
  }
  acc = tree_combine(lane, acc);
  if (inside && lane == 0u) {
    store(i, scaled(acc));
  }
}
