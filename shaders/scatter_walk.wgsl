// z[o, k, i] = epilogue(sum of src[o, j, i] over the j with index[o, j, i] = k).
// 1 index: [outer, count, inner], i32 or u32 bits, and 2 src: likewise, both any strides; 3 z: [outer, size, inner].
// An invocation owns one V of z and scans all j in order; a workgroup has 64. src, z in V; a V of four neighbours
// requires an index that is constant along inner. Requires count <= 8192. An index out of range adds nothing and sets
// the status to 1. Reference: ScatterSum::reference in src/ops/scatter.rs.

import package::elements::{store_OUT, V};

const RUN: u32 = 64u; // elements scanned sequentially: errors grow with RUN and the number of runs

struct Dims {
  outputs: u32, // in V
  count: u32,
  size: u32,
  inner: u32, // in V
  // Strides of outer, axis and inner, and the offset.
  index: vec4<u32>,
  src: vec4<u32>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> src: array<V>;
@group(0) @binding(3) var<storage, read_write> z: array<V>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn scatter_walk(
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
  var at = d.index.w + o * d.index.x + i * d.index.z;
  var source = d.src.w + o * d.src.x + i * d.src.z;
  var sum = V(0);
  var inside = true;
  for (var j = 0u; j < d.count;) {
    let stop = min(j + RUN, d.count);
    var run = V(0);
    for (; j < stop; j++) {
      let found = index[at];
      inside = inside && found < d.size;
      if (found == k) {
        run += src[source];
      }
      at += d.index.y;
      source += d.src.y;
    }
    sum += run;
  }
  if (!inside) {
    atomicStore(&status[0], 1u);
  }
  store_z(n, sum);
}
