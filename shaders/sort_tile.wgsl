// Sorts runs of TILE neighbours of each line of x, which sort_merge.wgsl merges.
// 1 x: lines of `count` elements, any strides; 2 y: pairs, or indices; see sort_run.wgsl.
// A workgroup sorts a run in workgroup memory by a bitonic network (Batcher, Sorting Networks and Their Applications,
// 1968). Equal elements are ordered by index, which makes the sort stable. Requires TILE <= 2048, a power of two.
// The first launch of Argsort, src/ops/sort.rs, which has the reference.

import package::sort_keys::{key_of, T};
import package::sort_run::{d, place_of, put, target_of};

const TILE: u32 = 2048u;
const THREADS: u32 = 256u; // or 128

@group(0) @binding(1) var<storage, read> x: array<T>;

var<workgroup> tile: array<vec2<u32>, TILE>;

fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x < b.x || (a.x == b.x && a.y < b.y);
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
  // Beyond the end, the largest keys with the largest indices.
  for (var i = lane; i < TILE; i += THREADS) {
    let key = key_of(x[base + min(i, size - 1u) * d.x.y]);
    tile[i] = vec2(select(0xffffffffu, key, i < size), first + i);
  }
  // Sorts sequences of `span`, upwards and downwards in turn.
  for (var span = 2u; span <= TILE; span *= 2u) {
    for (var step = span / 2u; step > 0u; step /= 2u) {
      workgroupBarrier();
      for (var i = lane; i < TILE / 2u; i += THREADS) {
        let low = 2u * i - (i & (step - 1u));
        let a = tile[low];
        let b = tile[low + step];
        if (precedes(b, a) == ((low & span) == 0u)) {
          tile[low] = b;
          tile[low + step] = a;
        }
      }
    }
  }
  workgroupBarrier();
  let to = target_of(line);
  for (var i = lane; i < size; i += THREADS) {
    put(to.x + (first + i) * to.y, tile[i]);
  }
}
