// y[o, j, i] = epilogue(x[o, index[o, j, i], i]).
// 1 x: [outer, bound, inner] and 2 index: [outer, size, inner], i32 or u32 bits, both any strides; 3 y: row-major.
// An invocation computes `chunk` adjacent elements of y, or EACH elements 64 apart, whose loads do not wait for each
// other; a workgroup 64 times as many.
// x, y in V; a vec4 requires that the index is the same along inner. An out-of-range index is never used: the element
// gets the bits of NaN and the status becomes 1. Reference: Gather::reference in src/ops/gather.rs.

import package::elements::{store_OUT, T, V};

const EACH: u32 = 0u; // 0 for chunks

struct Dims {
  count: u32, // of y, in V
  size: u32,
  inner: u32, // in V
  chunk: u32,
  bound: u32,
  nan: u32,
  by_inner: vec2<u32>, // reciprocals of these numbers
  by_size: vec2<u32>,
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
  @if(EACH > 0) {
    let first = group_number(group, groups) * 64u * EACH + lane;
    var from_start: array<u32, EACH>;
    var chosen: array<u32, EACH>;
    @unroll for (var k = 0u; k < EACH; k++) {
      let n = min(first + 64u * k, d.count - 1u);
      let row = quotient(n, d.by_inner);
      let i = n - row * d.inner;
      let o = quotient(row, d.by_size);
      let j = row - o * d.size;
      from_start[k] = d.x.w + o * d.x.x + i * d.x.z;
      chosen[k] = index[d.index.w + o * d.index.x + j * d.index.y + i * d.index.z];
    }
    var values: array<V, EACH>;
    @unroll for (var k = 0u; k < EACH; k++) {
      values[k] = x[from_start[k] + min(chosen[k], d.bound - 1u) * d.x.y];
    }
    @unroll for (var k = 0u; k < EACH; k++) {
      let n = first + 64u * k;
      if (n < d.count) {
        if (chosen[k] >= d.bound) {
          values[k] = V(bitcast<T>(d.nan));
          atomicStore(&status[0], 1u);
        }
        store_y(n, values[k]);
      }
    }
  }
  @else {
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
}
