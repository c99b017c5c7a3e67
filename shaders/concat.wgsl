// y[row, start + k] = x[row, k]: copies one input of a concatenation, bit for bit.
// 1 x: [rows, length] row-major; 2 y: [rows, total] row-major; both in V, one word or four.
// An invocation copies `chunk` adjacent elements of a row of x, a workgroup 64 chunks.
// Requires start + length <= total; other launches write the rest of y.
// Reference: Concat::reference in src/ops/concat.rs.

alias V = u32;

struct Dims {
  chunks: u32, // in total
  row_chunks: u32, // per row
  chunk: u32,
  length: u32,
  total: u32,
  start: u32,
  pad0: u32,
  pad1: u32,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

@compute @workgroup_size(64)
fn concat(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups) * 64u + lane;
  if (number >= d.chunks) {
    return;
  }
  let row = number / d.row_chunks;
  let first = (number - row * d.row_chunks) * d.chunk;
  for (var k = first; k < min(first + d.chunk, d.length); k++) {
    y[row * d.total + d.start + k] = x[row * d.length + k];
  }
}
