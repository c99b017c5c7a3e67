// y[line, r] = p for the p = order[line, s] with r its place among four neighbouring sorted runs of `run` elements.
// 1 x: lines of `count` elements, any strides; 2 order: [lines, count], numbers within their lines, sorted in runs;
// 3 y: likewise, in runs of four times the length, any strides. An invocation places one element: its own place in
// its run, and what goes before it in the three others, found by bisection. A workgroup takes 64 elements.
// Equal elements keep their order. Inputs are not NaN. Part of Argsort, src/ops/sort.rs, whose reference is the twin.
// sort_keys.wgsl is appended.

@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn sort_merge(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let n = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (n >= d.total) {
    return;
  }
  let line = n / d.count;
  let s = n - line * d.count;
  let o = line / d.inner;
  let i = line - o * d.inner;
  let base = d.x.w + o * d.x.x + i * d.x.z;
  let sorted = line * d.count;
  let p = order[sorted + s];
  let key = x[base + p * d.x.y];
  let own = s / d.run;
  let first = own / 4u * 4u;
  var place = s - (own - first) * d.run;
  for (var run = first; run < first + 4u; run++) {
    let start = min(run * d.run, d.count);
    var low = start;
    var high = select(min(start + d.run, d.count), start, run == own);
    while (low < high) {
      let middle = (low + high) / 2u;
      let other = x[base + order[sorted + middle] * d.x.y];
      if (before(other, key) || (run < own && !before(key, other))) {
        low = middle + 1u;
      } else {
        high = middle;
      }
    }
    place += low - start;
  }
  y[o * d.to.x + place * d.to.y + i * d.to.z] = p;
}
