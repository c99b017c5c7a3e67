// z[o, k, i] = epilogue(sum of src[o, order[line, t], i] over t from starts[line, k] to starts[line, k + 1]).
// 1 src: [outer, count, inner], any strides; 2 order: [lines, count]; 3 starts: [lines, size + 1]; 4 part: sums of
// whole blocks of t, [outer, blocks, inner]; 5 z: [outer, size, inner]. An invocation computes one V of z: first the
// terms before and after whole blocks, one by one, then the blocks. A workgroup computes 64.
// src, part, z in V. Reference: ScatterSum in src/ops/scatter.rs.

import package::elements::{store_OUT, V};

const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs
const BLOCKS: bool = false; // whether `part` is used: lines are long

struct Dims {
  outputs: u32, // in V
  count: u32,
  size: u32,
  inner: u32, // in V
  block: u32,
  blocks: u32,
  line_outer: u32, // line = o * line_outer + i * line_inner
  line_inner: u32,
  src: vec4<u32>, // strides of outer, axis and inner, and the offset
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> src: array<V>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read> part: array<V>;
@group(0) @binding(5) var<storage, read_write> z: array<V>;

// The sum of src over t from `first` to `end` in a line of the order that starts at `base`.
fn sum_of(first: u32, end: u32, base: u32, source: u32) -> V {
  var sum = V(0);
  for (var t = first; t < end;) {
    let stop = min(t + RUN, end);
    var run = V(0);
    for (; t < stop; t++) {
      run += src[source + order[base + t] * d.src.y];
    }
    sum += run;
  }
  return sum;
}

@compute @workgroup_size(64)
fn scatter_sum(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = group_number(group, groups) * 64u + lane;
  if (n >= d.outputs) {
    return;
  }
  let row = n / d.inner;
  let i = n - row * d.inner;
  let o = row / d.size;
  let k = row - o * d.size;
  let line = o * d.line_outer + i * d.line_inner;
  let first = starts[line * (d.size + 1u) + k];
  let end = starts[line * (d.size + 1u) + k + 1u];
  // Whole blocks from `low` to `high`, whose sums are in `part`.
  var low = end;
  var high = end;
  if (BLOCKS) {
    low = min((first + d.block - 1u) / d.block * d.block, end);
    high = max(end / d.block * d.block, low);
  }
  let source = d.src.w + o * d.src.x + i * d.src.z;
  var sum = sum_of(first, low, line * d.count, source);
  if (BLOCKS) {
    sum += sum_of(high, end, line * d.count, source);
    for (var b = low / d.block; b < high / d.block;) {
      let stop = min(b + RUN, high / d.block);
      var run = V(0);
      for (; b < stop; b++) {
        run += part[(o * d.blocks + b) * d.inner + i];
      }
      sum += run;
    }
  }
  store_z(n, sum);
}
