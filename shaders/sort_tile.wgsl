// Sorts runs of TILE neighbours of each line of x, which sort_merge.wgsl merges.
// 1 x: lines of `count` elements, any strides; 2 y: pairs, or indices; see sort_run.wgsl.
// A workgroup sorts a run by a bitonic network (Batcher, Sorting Networks and Their Applications, 1968), in the form in
// which the first step of each merge mirrors one of the sequences, so that all of them ascend. Each invocation takes
// eight elements at a time through up to three steps in registers; workgroup memory exchanges them between invocations.
// Equal elements are ordered by index, which makes the sort stable.
// Requires TILE to be a power of two, 16 or more.
// The first launch of Argsort, src/ops/sort.rs, which has the reference.

import package::sort_keys::{key_of, T};
import package::sort_run::{d, place_of, put, target_of};

const TILE: u32 = 2048u;
const THREADS: u32 = TILE / 8u;

@group(0) @binding(1) var<storage, read> x: array<T>;

// Keys and indices. Position i of the run is at swizzled(i).
var<workgroup> tile: array<vec2<u32>, TILE>;

// Invocations that access positions in steps of any power of two access different banks of workgroup memory.
// swizzled(i ^ j) is swizzled(i) ^ swizzled(j).
fn swizzled(i: u32) -> u32 {
  return i ^ ((i >> 3u) & 15u);
}

// Puts two elements in order.
fn exchange(own: ptr<function, array<vec2<u32>, 8>>, i: u32, j: u32) {
  let a = (*own)[i];
  let b = (*own)[j];
  let swap = (b.x < a.x) | ((b.x == a.x) & (b.y < a.y)); // without branches
  (*own)[i] = select(a, b, swap);
  (*own)[j] = select(b, a, swap);
}

// The steps between elements 2 and 1 apart.
fn exchange_2(own: ptr<function, array<vec2<u32>, 8>>) {
  @unroll for (var k = 0u; k < 2u; k++) {
    exchange(own, k, k + 2u);
    exchange(own, k + 4u, k + 6u);
  }
}
fn exchange_1(own: ptr<function, array<vec2<u32>, 8>>) {
  @unroll for (var k = 0u; k < 4u; k++) {
    exchange(own, 2u * k, 2u * k + 1u);
  }
}

// The step that mirrors the second half.
fn exchange_mirrored(own: ptr<function, array<vec2<u32>, 8>>) {
  @unroll for (var k = 0u; k < 4u; k++) {
    exchange(own, k, 7u - k);
  }
}

@compute @workgroup_size(THREADS)
fn sort_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let chunk = group_number(group, groups);
  if (chunk >= d.chunks) { return; } // uniform in the workgroup
  let line = quotient(chunk, d.by_row_chunks);
  let first = (chunk - line * d.row_chunks) * TILE;
  let size = min(TILE, d.count - first);
  let place = place_of(line);
  let base = d.x.w + place.x * d.x.x + place.y * d.x.z + first * d.x.y;
  // The order in which the network gets the elements is free. Beyond the end: the largest keys and indices.
  var own: array<vec2<u32>, 8>;
  @unroll for (var k = 0u; k < 8u; k++) {
    let i = lane + k * THREADS;
    let key = key_of(x[base + min(i, size - 1u) * d.x.y]);
    own[k] = vec2(select(0xffffffffu, key, i < size), first + i);
  }
  // Sequences of 2, of 4, and of 8.
  exchange_1(&own);
  @unroll for (var k = 0u; k < 2u; k++) {
    exchange(&own, k, 3u - k);
    exchange(&own, k + 4u, 7u - k);
  }
  exchange_1(&own);
  exchange_mirrored(&own);
  exchange_2(&own);
  exchange_1(&own);
  @unroll for (var k = 0u; k < 8u; k++) {
    tile[swizzled(8u * lane + k)] = own[k];
  }
  // Sequences of 16 to TILE, whose merges take `log` steps. The elements of an invocation are 2^low positions apart; in
  // the first round of a merge, the bits below of the second half are mirrored.
  for (var log = 4u; (1u << log) <= TILE; log++) {
    for (var steps = log; steps > 0u;) {
      let low = max(steps, 3u) - 3u;
      let below = (1u << low) - 1u;
      let begin = swizzled(((lane >> low) << (low + 3u)) + (lane & below));
      let mirror = select(0u, swizzled(below), steps == log);
      workgroupBarrier();
      @unroll for (var k = 0u; k < 4u; k++) {
        own[k] = tile[begin ^ swizzled(k << low)];
        own[k + 4u] = tile[begin ^ (swizzled((k + 4u) << low) ^ mirror)];
      }
      if (steps == log) {
        exchange_mirrored(&own);
      } else if (steps >= 3u) {
        @unroll for (var k = 0u; k < 4u; k++) {
          exchange(&own, k, k + 4u);
        }
      }
      if (steps >= 2u) {
        exchange_2(&own);
      }
      exchange_1(&own);
      @unroll for (var k = 0u; k < 4u; k++) {
        tile[begin ^ swizzled(k << low)] = own[k];
        tile[begin ^ (swizzled((k + 4u) << low) ^ mirror)] = own[k + 4u];
      }
      steps = low;
    }
  }
  workgroupBarrier();
  let to = target_of(line);
  for (var i = lane; i < size; i += THREADS) {
    put(to.x + (first + i) * to.y, tile[swizzled(i)]);
  }
}
