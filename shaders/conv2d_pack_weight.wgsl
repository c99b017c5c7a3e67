// packed[u, r, q][k] = weight element (row r / fold, column 4 q + k, tap u fold + r % fold), zero
// where there is no such row or column; with `flip` 1 the taps run backwards.
// weight [O, C, KH KW] contiguous, whose row and column strides (of O and C in either order) the
// uniform gives; packed [KH KW / fold, R, Q] of vec4. One invocation writes one vec4.
// Twin: none of its own; it only moves elements.

struct Pack {
  count: u32, rows: u32, columns: u32, quads: u32, padded_rows: u32, fold: u32,
  row_stride: u32, column_stride: u32, taps: u32, flip: u32,
}
@group(0) @binding(0) var<uniform> s: Pack;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

@compute @workgroup_size(64)
fn conv2d_pack_weight(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let first = i % s.quads * 4u;
  let padded_row = i / s.quads % s.padded_rows;
  let row = padded_row / s.fold;
  let forward = i / s.quads / s.padded_rows * s.fold + padded_row % s.fold;
  let tap = select(forward, s.taps - 1u - forward, s.flip == 1u);
  var quad = vec4<f32>();
  for (var k = 0u; k < 4u; k++) { // unroll
    if (row < s.rows && first + k < s.columns) {
      quad[k] = weight[row * s.row_stride + (first + k) * s.column_stride + tap];
    }
  }
  packed[i] = quad;
}
