// y[part, row] = sum times a factor (or max, min, product) of the part-th chunk of x[row, :].
// 1 x: in V, a scalar or a vec4 of four neighbours in one row, any strides; 2 y: [parts, rows] row-major, in T.
// A workgroup computes one element of y: each invocation reduces its share of the chunk in blocks of RUN elements, then
// a tree combines the shares. Requires chunk * parts >= count.
// Reference: Reduce::reference in src/ops/reduce.rs.

import package::elements::{T, V, VEC4};
import package::reduce_walk::{combine, d, element, FLAT, identity, joined, RUN, start_of, store_element, x};
import package::tree::{own_subgroup, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // or 128
alias Tree = T;

fn join(a: T, b: T) -> T {
  @if(VEC4) return combine(V(a), V(b)).x;
  @else return combine(a, b);
}

@compute @workgroup_size(THREADS)
fn reduce_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
) {
  @if(SUBGROUPS) own_subgroup = subgroup;
  let i = group_number(group, groups);
  let inside = i < d.rows * d.parts;
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = V(identity());
  if (inside) {
    let end = min((part + 1u) * d.chunk, d.count);
    for (var j = part * d.chunk + lane; j < end;) {
      let stop = min(j + RUN * THREADS, end);
      var block = V(identity());
      // Four loads at a time, which compilers arrange by themselves in loops without divisions.
      @if(!FLAT) for (; j + 3u * THREADS < stop; j += 4u * THREADS) {
        let a = x[element(start, j)];
        let b = x[element(start, j + THREADS)];
        let c = x[element(start, j + 2u * THREADS)];
        let e = x[element(start, j + 3u * THREADS)];
        block = combine(block, combine(combine(a, b), combine(c, e)));
      }
      for (; j < stop; j += THREADS) {
        block = combine(block, x[element(start, j)]);
      }
      acc = combine(acc, block);
    }
  }
  let all = tree_join(lane, joined(acc));
  if (inside && lane == 0u) {
    store_element(i, all);
  }
}
