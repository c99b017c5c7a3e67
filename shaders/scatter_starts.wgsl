// starts[line, k] = number of the line's indices below k, for k from 0 to size.
// 1 index: lines of `count`, i32 or u32 bits, any strides; 2 order: [lines, count], sorts each line; 3 starts.
// An invocation computes one element by binary search, a workgroup 64.
// An index out of range (negative ones are large as u32) sets the status to 1.
// Reference: ScatterSum in src/ops/scatter.rs.

struct Dims {
  total: u32, // lines * (size + 1)
  count: u32,
  inner: u32, // line = outer * inner + i
  size: u32,
  index: vec4<u32>, // strides of outer, axis and inner, and the offset
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> starts: array<u32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn scatter_starts(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = group_number(group, groups) * 64u + lane;
  if (n >= d.total) {
    return;
  }
  let line = n / (d.size + 1u);
  let k = n - line * (d.size + 1u);
  let o = line / d.inner;
  let base = d.index.w + o * d.index.x + (line - o * d.inner) * d.index.z;
  var low = 0u;
  var high = d.count;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (index[base + order[line * d.count + middle] * d.index.y] < k) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  starts[n] = low;
  if (k == d.size && low < d.count) {
    atomicStore(&status[0], 1u);
  }
}
