// part[o, b, i] = sum of src[o, order[line, t], i] over the t of block b, if the whole block has one index; else 0.
// 1 index: [outer, count, inner] and 2 src: likewise, both any strides; 3 order: [lines, count], sorts the index; 4
// part: [outer, blocks, inner]. An invocation sums one V of one block, a workgroup 64 of them.
// src, part in V. Only whole blocks are summed: those that scatter_sum may use as one term.
// Reference: ScatterSum in src/ops/scatter.rs.

import package::elements::{V};

const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

struct Dims {
  total: u32, // of part, in V
  count: u32,
  inner: u32, // in V
  block: u32,
  blocks: u32,
  line_outer: u32, // line = o * line_outer + i * line_inner
  line_inner: u32,
  pad0: u32,
  // Strides of outer, axis and inner, and the offset.
  index: vec4<u32>,
  src: vec4<u32>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> src: array<V>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> part: array<V>;

@compute @workgroup_size(64)
fn scatter_blocks(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = group_number(group, groups) * 64u + lane;
  if (n >= d.total) {
    return;
  }
  let row = n / d.inner;
  let i = n - row * d.inner;
  let o = row / d.blocks;
  let block = row - o * d.blocks;
  let first = (o * d.line_outer + i * d.line_inner) * d.count + block * d.block;
  let last = first + d.block - 1u;
  let at = d.index.w + o * d.index.x + i * d.index.z;
  let whole = index[at + order[first] * d.index.y] == index[at + order[last] * d.index.y];
  let source = d.src.w + o * d.src.x + i * d.src.z;
  let end = select(first, first + d.block, whole);
  var sum = V(0);
  for (var t = first; t < end;) {
    let stop = min(t + RUN, end);
    var run = V(0);
    for (; t < stop; t++) {
      run += src[source + order[t] * d.src.y];
    }
    sum += run;
  }
  part[n] = sum;
}
