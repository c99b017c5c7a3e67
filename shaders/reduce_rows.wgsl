// y[part, row] = sum times a factor (or max, min, product) of the part-th chunk of x[row, :].
// 1 x: in V, a scalar or a vec4 of four neighbours in one row, any strides; 2 y: [parts, rows] row-major, in T.
// A workgroup computes ROWS elements of y: each invocation reduces its share of a chunk in blocks of RUN elements, then
// a tree combines the shares. Requires chunk * parts >= count.
// Reference: Reduce::reference in src/ops/reduce.rs.

import package::elements::{T, V, VEC4};
import package::reduce_walk::{combine, d, element, FLAT, identity, joined, load, RUN, start_of, store_element};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 256
alias Tree = T;

fn join(a: T, b: T) -> T {
  @if(VEC4) return combine(V(a), V(b)).x;
  @else return combine(a, b);
}

@compute @workgroup_size(THREADS)
fn reduce_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  let i = group_number(group, groups) * ROWS + place / LANES;
  let inside = i < d.rows * d.parts;
  let part = i / d.rows;
  let row = i - part * d.rows;
  let start = start_of(row);
  var acc = V(identity());
  if (inside) {
    let end = min((part + 1u) * d.chunk, d.count);
    for (var j = part * d.chunk + lane; j < end;) {
      let stop = min(j + RUN * LANES, end);
      var block = V(identity());
      // Four loads at a time, which compilers arrange by themselves in loops without divisions.
      @if(!FLAT) for (; j + 3u * LANES < stop; j += 4u * LANES) {
        let a = load(element(start, j));
        let b = load(element(start, j + LANES));
        let c = load(element(start, j + 2u * LANES));
        let e = load(element(start, j + 3u * LANES));
        block = combine(block, combine(combine(a, b), combine(c, e)));
      }
      for (; j < stop; j += LANES) {
        block = combine(block, load(element(start, j)));
      }
      acc = combine(acc, block);
    }
  }
  let all = tree_join(joined(acc));
  if (inside && lane == 0u) {
    store_element(i, all);
  }
}
