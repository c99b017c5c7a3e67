// Merges neighbouring sorted runs of `run` elements of each line into runs of 2 `run`.
// 1 pairs: [lines, count]; 2 y: pairs, or indices; see sort_run.wgsl.
// An invocation writes RUN consecutive elements. A binary search finds how many of the elements before them come from
// the first run (the merge path of Odeh, Green, Mwassi, Shmueli and Birk, IPDPSW 2012), and merging starts from there.
// Of equal elements those of the first run come first. A workgroup has 64 invocations.
// Part of Argsort, src/ops/sort.rs, which has the reference.

import package::sort_run::{d, put, RUN, target_of};

@group(0) @binding(1) var<storage, read> pairs: array<vec2<u32>>;

@compute @workgroup_size(64)
fn sort_merge(
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
  // The runs are a .. b and b .. end; `before` elements of both precede the first of this invocation.
  let start = first / (2u * d.run) * (2u * d.run);
  let before = first - start;
  let a_size = min(d.run, d.count - start);
  let b_size = min(d.run, d.count - start - a_size);
  let a = line * d.count + start;
  let b = a + a_size;
  var low = before - min(before, b_size);
  var high = min(before, a_size);
  while (low < high) {
    let middle = (low + high) / 2u;
    if (pairs[a + middle].x <= pairs[b + before - 1u - middle].x) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  var at_a = a + low;
  var at_b = b + before - low;
  let end = b + b_size;
  // What follows a run's end may be read, but is never used.
  var of_a = pairs[min(at_a, end - 1u)];
  var of_b = pairs[min(at_b, end - 1u)];
  let to = target_of(line);
  for (var k = 0u; k < size; k++) {
    let take_a = at_b >= end || (at_a < b && of_a.x <= of_b.x);
    put(to.x + (first + k) * to.y, select(of_b, of_a, take_a));
    at_a += select(0u, 1u, take_a);
    at_b += select(1u, 0u, take_a);
    let next = pairs[min(select(at_b, at_a, take_a), end - 1u)];
    of_a = select(of_a, next, take_a);
    of_b = select(next, of_b, take_a);
  }
}
