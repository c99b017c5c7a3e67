// y[row, start + k] = x[row, k]: one input of a concatenation put in its place, bits as they are.
// 1 x: [rows, length] row-major; 2 y: [rows, total] row-major; both in V, one word or four.
// A workgroup copies 64 elements of x, an invocation one.
// start + length <= total; other launches write the rest of y.
// Twin: Concat::reference in src/ops/concat.rs.

alias V = u32;

struct Dims { count: u32, length: u32, total: u32, start: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

@compute @workgroup_size(64)
fn concat(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = (wid.y * grid.x + wid.x) * 64u + lid;
  if (i < d.count) {
    y[i / d.length * d.total + d.start + i % d.length] = x[i];
  }
}
