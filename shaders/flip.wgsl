// y[o, j, i] = epilogue(x[o, size - 1 - j, i]).
// 1 x: [outer, size, inner], any strides; 2 y: row-major; both in V.
// An invocation computes `chunk` adjacent elements of y, a workgroup 64 chunks.
// V is a vec4 of neighbours if x is contiguous along inner, or along the axis if inner is 1.
// Reference: Flip::reference in src/ops/flip.rs.

import package::elements::{store_OUT, V};

// Whether the four neighbours of a V lie along the flipped axis.
const ALONG: bool = false;

struct Dims {
  by_inner: vec2<u32>, // reciprocals for quotient()
  by_size: vec2<u32>,
  count: u32, // of y, in V
  size: u32,
  inner: u32, // in V
  chunk: u32,
  x: vec4<u32>, // strides of outer, axis and inner; offset
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

// A V in reverse order.
fn turned(v: V) -> V {
  @if(ALONG) return v.wzyx;
  @else return v;
}

@compute @workgroup_size(64)
fn flip(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group_number(group, groups) * 64u + lane) * d.chunk;
  let end = min(first + d.chunk, d.count);
  for (var n = first; n < end; n++) {
    let row = quotient(n, d.by_inner);
    let o = quotient(row, d.by_size);
    let j = d.size - 1u - (row - o * d.size);
    store_y(n, turned(x[d.x.w + o * d.x.x + j * d.x.y + (n - row * d.inner) * d.x.z]));
  }
}
