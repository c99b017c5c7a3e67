// y[part, row] as in argmax.wgsl, with a workgroup for each.
// 1 x: [outer, size, inner] row-major, a row per (outer, inner); 2 y: [parts, rows], k from the start of the row.
// An invocation examines every THREADS-th element of the chunk, then a tree combines the results.
// Requires size >= 1 and no empty chunks.
// Reference: Argmax::reference in src/ops/argmax.rs.

import package::argmax_order::{beats, d, start_of, T, x};
import package::tree::{own_subgroup, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // or 128
alias Tree = vec2<u32>; // the bits of an element, and its position

@group(0) @binding(2) var<storage, read_write> y: array<u32>;

// The first of two elements if neither beats the other.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let x = bitcast<T>(a.x);
  let y = bitcast<T>(b.x);
  return select(a, b, beats(y, x) || (!beats(x, y) && b.y < a.y));
}

@compute @workgroup_size(THREADS)
fn argmax_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
) {
  @if(SUBGROUPS) own_subgroup = subgroup;
  // Surplus workgroups recompute the last element without storing it.
  let count = d.rows * d.parts;
  let number = group_number(group, groups);
  let i = min(number, count - 1u);
  let start = start_of(i % d.rows);
  let first = i / d.rows * d.chunk;
  let end = min(first + d.chunk, d.size);
  // Without an element of its own, an invocation begins with the first of the chunk.
  var best = select(first, first + lane, first + lane < end);
  var largest = x[start + best * d.inner];
  for (var k = first + lane + THREADS; k < end; k += THREADS) {
    let v = x[start + k * d.inner];
    if (beats(v, largest)) {
      largest = v;
      best = k;
    }
  }
  let found = tree_better(lane, vec2(bitcast<u32>(largest), best));
  if (lane == 0u && number < count) {
    y[i] = found.y;
  }
}
