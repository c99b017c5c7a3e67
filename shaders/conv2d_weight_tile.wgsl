// partial[k, r, o] = sum over the k-th stretch of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. packed [N, PH, PW, Q] of vec4 and dy [N OH OW, COLUMNS] of vec4 from
// conv2d_pack; partial [splits, 4 ROWS, COLUMNS] of vec4, which conv2d_weight_sum adds up.
// One workgroup computes 16 row quads x 64 channels from tiles of 16 positions in workgroup memory
// (8 KiB), one invocation 2 row quads x 8 channels.
// A stretch has under 16,000 positions. Twin: conv2d_weight_grad in src/ops/conv2d/reference.rs.

struct Product {
  positions: u32, plane: u32, width: u32, height: u32, image: u32, row: u32, column: u32,
  taps_x: u32, tap_row: u32, tap_column: u32, quads: u32,
  rows: u32, columns: u32, row_blocks: u32, column_blocks: u32, blocks: u32, stretch: u32,
}
@group(0) @binding(0) var<uniform> s: Product;
@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<vec4<f32>>;

/// Where row quad `r` (clamped to the last) lies, from the corner of a window.
fn shift(r: u32) -> u32 {
  let safe = min(r, s.rows - 1u);
  let tap = safe / s.quads;
  return tap / s.taps_x * s.tap_row + tap % s.taps_x * s.tap_column + safe % s.quads;
}

// Position-major: x_tile[position * 16 + row quad], dy_tile[position * 16 + channel / 4].
var<workgroup> x_tile: array<vec4<f32>, 256>;
var<workgroup> dy_tile: array<vec4<f32>, 256>;
// Where the windows of 16 positions begin, of the tile that is summed next and of the one behind it.
var<workgroup> corners: array<u32, 32>;

fn corner(position: u32) -> u32 {
  let p = min(position, s.positions - 1u);
  let rest = p % s.plane;
  return p / s.plane * s.image + rest / s.width * s.row + rest % s.width * s.column;
}

// A position's dy; zeros behind the end of the stretch.
fn gradient(position: u32, end: u32, column: u32) -> vec4<f32> {
  if (position < end) { return dy[position * s.columns + column]; }
  return vec4<f32>();
}

@compute @workgroup_size(64)
fn conv2d_weight_tile(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  // A surplus workgroup computes the last block again and stores nothing.
  let number = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let block = min(number, s.blocks - 1u);
  let first_column = block % s.column_blocks * 16u;
  let first_row = block / s.column_blocks % s.row_blocks * 16u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  // Loading: this invocation's row quad and column.
  let load_shift = shift(first_row + lid % 16u);
  let load_column = min(first_column + lid % 16u, s.columns - 1u);
  // Computing: row quads rows and 8 more, columns and 8 more.
  let rows = lid / 8u;
  let columns = lid % 8u;
  var sums: array<vec4<f32>, 16>;
  if (lid < 32u) { corners[lid] = corner(begin + lid); }
  workgroupBarrier();
  // The next 16 positions are on their way while these are summed. What x holds at positions behind
  // the end meets zeros of dy; it need only be finite.
  var x: array<vec4<f32>, 4>;
  var g: array<vec4<f32>, 4>;
  for (var j = 0u; j < 4u; j++) { // unroll
    x[j] = packed[corners[j * 4u + lid / 16u] + load_shift];
    g[j] = gradient(begin + j * 4u + lid / 16u, end, load_column);
  }
  var odd = 0u;
  for (var p = begin; p < end; p += 16u) {
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) { // unroll
      x_tile[j * 64u + lid] = x[j];
      dy_tile[j * 64u + lid] = g[j];
    }
    if (lid < 16u) { corners[odd + lid] = corner(p + 32u + lid); }
    odd = 16u - odd;
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) { // unroll
      x[j] = packed[corners[odd + j * 4u + lid / 16u] + load_shift];
      g[j] = gradient(p + 16u + j * 4u + lid / 16u, end, load_column);
    }
    for (var d4 = 0u; d4 < 16u; d4 += 4u) {
      let at_x = d4 * 16u + rows;
      let at_dy = d4 * 16u + columns;
      for (var d = 0u; d < 4u; d++) { // unroll
        let x0 = x_tile[at_x + d * 16u];
        let x1 = x_tile[at_x + d * 16u + 8u];
        let d0 = dy_tile[at_dy + d * 16u];
        let d1 = dy_tile[at_dy + d * 16u + 8u];
        for (var e = 0u; e < 4u; e++) { // unroll
          sums[e * 2u] += x0[e] * d0;
          sums[e * 2u + 1u] += x0[e] * d1;
          sums[8u + e * 2u] += x1[e] * d0;
          sums[8u + e * 2u + 1u] += x1[e] * d1;
        }
      }
    }
  }
  let column = first_column + columns;
  for (var r = 0u; r < 2u; r++) { // unroll
    let row = first_row + rows + r * 8u;
    for (var e = 0u; e < 4u; e++) { // unroll
      if (number < s.blocks && row < s.rows) {
        let to = ((split * s.rows + row) * 4u + e) * s.columns + column;
        if (column < s.columns) { partial_sums[to] = sums[r * 8u + e * 2u]; }
        if (column + 8u < s.columns) { partial_sums[to + 8u] = sums[r * 8u + e * 2u + 1u]; }
      }
    }
  }
}
