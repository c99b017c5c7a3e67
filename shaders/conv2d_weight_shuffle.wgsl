// partial[k, r, o] = sum over the k-th stretch of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. packed [N, PH, PW, Q] of vec4 and dy [N OH OW, COLUMNS] of vec4 from
// conv2d_pack; partial [splits, 4 ROWS, COLUMNS] of vec4, which conv2d_weight_sum adds up.
// One workgroup, a subgroup of 8, computes 16 row quads x 32 channels: each lane a vec4 of channels of
// all 64 rows; each lane loads 2 row quads, and constant shuffles show them to the others. No barrier.
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

/// A position on its walk: the column, the row, and where its window begins in `packed`.
struct Walk { ox: u32, oy: u32, corner: u32 }

fn start(position: u32) -> Walk {
  let rest = position % s.plane;
  let oy = rest / s.width;
  let ox = rest % s.width;
  return Walk(ox, oy, position / s.plane * s.image + oy * s.row + ox * s.column);
}

fn next(here: Walk) -> Walk {
  var to = Walk(here.ox + 1u, here.oy, here.corner + s.column);
  let wraps = to.ox == s.width;
  to.corner += select(0u, s.row - s.width * s.column, wraps);
  to.ox = select(to.ox, 0u, wraps);
  to.oy += select(0u, 1u, wraps);
  let ends = to.oy == s.height;
  to.corner += select(0u, s.image - s.height * s.row, ends);
  to.oy = select(to.oy, 0u, ends);
  return to;
}

@compute @workgroup_size(8)
fn conv2d_weight_shuffle(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let block = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  if (block >= s.blocks) { return; }
  let column = block % s.column_blocks * 8u + lane;
  let safe_column = min(column, s.columns - 1u);
  let first_row = block / s.column_blocks % s.row_blocks * 16u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  let shift0 = shift(first_row + lane);
  let shift1 = shift(first_row + 8u + lane);
  var sums: array<vec4<f32>, 64>;
  for (var i = 0u; i < 64u; i++) { // unroll
    sums[i] = vec4<f32>();
  }
  var walk = start(begin);
  // Four positions at a time, so that a sum is loaded and stored once for four products.
  for (var p = begin; p < end; p += 4u) {
    var x0: array<vec4<f32>, 4>;
    var x1: array<vec4<f32>, 4>;
    var d: array<vec4<f32>, 4>;
    for (var j = 0u; j < 4u; j++) { // unroll
      let inside = p + j < end;
      let corner = select(0u, walk.corner, inside);
      x0[j] = packed[corner + shift0];
      x1[j] = packed[corner + shift1];
      d[j] = select(vec4<f32>(), dy[select(0u, p + j, inside) * s.columns + safe_column], inside);
      walk = next(walk);
    }
    for (var l = 0u; l < 8u; l++) { // unroll
      let a0 = subgroupShuffle(x0[0], l);
      let a1 = subgroupShuffle(x0[1], l);
      let a2 = subgroupShuffle(x0[2], l);
      let a3 = subgroupShuffle(x0[3], l);
      let b0 = subgroupShuffle(x1[0], l);
      let b1 = subgroupShuffle(x1[1], l);
      let b2 = subgroupShuffle(x1[2], l);
      let b3 = subgroupShuffle(x1[3], l);
      for (var e = 0u; e < 4u; e++) { // unroll
        sums[l * 4u + e] += a0[e] * d[0] + a1[e] * d[1] + a2[e] * d[2] + a3[e] * d[3];
        sums[32u + l * 4u + e] += b0[e] * d[0] + b1[e] * d[1] + b2[e] * d[2] + b3[e] * d[3];
      }
    }
  }
  if (column < s.columns) {
    let to = (split * s.rows + first_row) * 4u * s.columns + column;
    for (var r = 0u; r < 16u; r++) { // unroll
      if (first_row + r < s.rows) {
        for (var e = 0u; e < 4u; e++) { // unroll
          partial_sums[to + (r * 4u + e) * s.columns] = sums[r * 4u + e];
        }
      }
    }
  }
}
