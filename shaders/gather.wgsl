// y[o, j, i] = epilogue(x[o, index[o, j, i], i]).
// 1 x: [outer, bound, inner] and 2 index: [outer, size, inner], i32 or u32 bits, both any strides; 3 y: row-major.
// An invocation computes `chunk` adjacent elements of y, a workgroup 64 chunks.
// x, y in V; a vec4 requires that the index is the same along inner. An out-of-range index is never used: the element
// gets the bits of NaN and the status becomes 1. Reference: Gather::reference in src/ops/gather.rs.

import package::elements::{store_OUT, T, V};

struct Dims {
  count: u32, // of y, in V
  size: u32,
  inner: u32, // in V
  chunk: u32,
  bound: u32,
  nan: u32,
  pad0: u32,
  pad1: u32,
  // Strides of outer, axis and inner; offset.
  x: vec4<u32>,
  index: vec4<u32>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<V>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn gather(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups) * 64u + lane;
  let first = number * d.chunk;
  let end = min(first + d.chunk, d.count);
  let row = first / d.inner;
  var i = first - row * d.inner;
  var o = row / d.size;
  var j = row - o * d.size;
  for (var n = first; n < end; n++) {
    let k = index[d.index.w + o * d.index.x + j * d.index.y + i * d.index.z];
    var v = V(bitcast<T>(d.nan));
    if (k < d.bound) {
      v = x[d.x.w + o * d.x.x + k * d.x.y + i * d.x.z];
    } else {
      atomicStore(&status[0], 1u);
    }
    store_y(n, v);
    i++;
    if (i == d.inner) {
      i = 0u;
      j++;
      if (j == d.size) {
        j = 0u;
        o++;
      }
    }
  }
}
