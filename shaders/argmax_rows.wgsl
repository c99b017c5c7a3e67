// y[part, row] as in argmax.wgsl, with LANES invocations for each.
// 1 x: [outer, size, inner] row-major, a row per (outer, inner), in V: a T, or a vec4 of four neighbours in one row;
// 2 y: [parts, rows], k from the start of the row. Sizes and chunks are in V.
// An invocation examines every LANES-th V of the chunk, then a tree combines the results.
// Requires size >= 1 and no empty chunks.
// Reference: Argmax::reference in src/ops/argmax.rs.

import package::argmax_order::{beats, d, start_of, x};
import package::elements::{T, V, VEC4};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 256
alias Tree = vec2<u32>; // the bits of an element, and its position

@group(0) @binding(2) var<storage, read_write> y: array<u32>;

// The first of two elements if neither beats the other.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let x = bitcast<T>(a.x);
  let y = bitcast<T>(b.x);
  return select(a, b, beats(y, x) || (!beats(x, y) && b.y < a.y));
}

// `best`, or element k if it beats it.
fn later(best: vec2<u32>, v: T, k: u32) -> vec2<u32> {
  return select(best, vec2(bitcast<u32>(v), k), beats(v, bitcast<T>(best.x)));
}

// `best`, or the best element of the k-th V.
fn best_with(best: vec2<u32>, v: V, k: u32) -> vec2<u32> {
  @if(VEC4) {
    let half = later(later(best, v.x, 4u * k), v.y, 4u * k + 1u);
    return later(later(half, v.z, 4u * k + 2u), v.w, 4u * k + 3u);
  }
  @else return later(best, v, k);
}

// The best element of the k-th V.
fn best_in(v: V, k: u32) -> vec2<u32> {
  @if(VEC4) return best_with(vec2(bitcast<u32>(v.x), 4u * k), v, k);
  @else return vec2(bitcast<u32>(v), k);
}

@compute @workgroup_size(THREADS)
fn argmax_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  // Surplus workgroups recompute the last element without storing it.
  let count = d.rows * d.parts;
  let number = group_number(group, groups) * ROWS + place / LANES;
  let i = min(number, count - 1u);
  let start = start_of(i % d.rows);
  let first = i / d.rows * d.chunk;
  let end = min(first + d.chunk, d.size);
  // Without a V of its own, an invocation begins with the first of the chunk.
  let own = select(first, first + lane, first + lane < end);
  var best = best_in(x[start + own * d.inner], own);
  var k = first + lane + LANES;
  for (; k + 2u * LANES < end; k += 3u * LANES) { // three loads at a time
    let a = x[start + k * d.inner];
    let b = x[start + (k + LANES) * d.inner];
    let c = x[start + (k + 2u * LANES) * d.inner];
    best = best_with(best_with(best_with(best, a, k), b, k + LANES), c, k + 2u * LANES);
  }
  for (; k < end; k += LANES) {
    best = best_with(best, x[start + k * d.inner], k);
  }
  let found = tree_better(best);
  if (lane == 0u && number < count) {
    y[i] = found.y;
  }
}
