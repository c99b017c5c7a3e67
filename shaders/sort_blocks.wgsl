// y[line, b + r] = p, with r the place of x[line, p] among the 64 elements of its block, which begins at b.
// 1 x: lines of `count` elements, any strides; 2 y: numbers within their lines, any strides.
// An invocation finds the place of one element by comparing it with its block, a workgroup takes 64 elements.
// Equal elements keep their order. Inputs are not NaN.
// The first launch of Argsort, src/ops/sort.rs, whose reference is the twin.
// sort_keys.wgsl is appended.

const BLOCK: u32 = 64u;

@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn sort_blocks(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let n = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (n >= d.total) {
    return;
  }
  let line = n / d.count;
  let p = n - line * d.count;
  let o = line / d.inner;
  let i = line - o * d.inner;
  let base = d.x.w + o * d.x.x + i * d.x.z;
  let key = x[base + p * d.x.y];
  let first = p / BLOCK * BLOCK;
  let end = min(first + BLOCK, d.count);
  var place = first;
  for (var q = first; q < end; q++) {
    let other = x[base + q * d.x.y];
    if (before(other, key) || (q < p && !before(key, other))) {
      place++;
    }
  }
  y[o * d.to.x + place * d.to.y + i * d.to.z] = p;
}
