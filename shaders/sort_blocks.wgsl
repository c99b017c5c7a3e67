// Sorts runs of RUN neighbours of each line of x, which sort_merge.wgsl merges.
// 1 x: lines of `count` elements, any strides; 2 y: pairs, or indices; see sort_run.wgsl.
// An invocation sorts one run in registers by exchanging adjacent elements only, which makes the sort stable. A
// workgroup sorts 64 runs.
// The first launch of Argsort, src/ops/sort.rs, which has the reference.

import package::sort_keys::{key_of, T};
import package::sort_run::{d, place_of, put, RUN, target_of};

@group(0) @binding(1) var<storage, read> x: array<T>;

@compute @workgroup_size(64)
fn sort_blocks(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let chunk = group_number(group, groups) * 64u + lane;
  if (chunk >= d.chunks) {
    return;
  }
  let line = quotient(chunk, d.by_row_chunks);
  let first = (chunk - line * d.row_chunks) * RUN;
  let size = min(RUN, d.count - first);
  let place = place_of(line);
  let base = d.x.w + place.x * d.x.x + place.y * d.x.z + first * d.x.y;
  var run: array<vec2<u32>, RUN + 1u>; // one element past the end, accessed by the last odd exchange
  @unroll for (var k = 0u; k < RUN; k++) {
    run[k] = vec2(key_of(x[base + min(k, size - 1u) * d.x.y]), first + k);
  }
  for (var round = 0u; round < RUN / 2u; round++) {
    @unroll for (var k = 0u; k < RUN / 2u; k++) {
      if (2u * k + 1u < size && run[2u * k + 1u].x < run[2u * k].x) {
        let greater = run[2u * k];
        run[2u * k] = run[2u * k + 1u];
        run[2u * k + 1u] = greater;
      }
    }
    @unroll for (var k = 0u; k < RUN / 2u; k++) {
      if (2u * k + 2u < size && run[2u * k + 2u].x < run[2u * k + 1u].x) {
        let greater = run[2u * k + 1u];
        run[2u * k + 1u] = run[2u * k + 2u];
        run[2u * k + 2u] = greater;
      }
    }
  }
  let to = target_of(line);
  @unroll for (var k = 0u; k < RUN; k++) {
    if (k < size) {
      put(to.x + (first + k) * to.y, run[k]);
    }
  }
}
