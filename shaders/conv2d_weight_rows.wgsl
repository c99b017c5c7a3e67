// partial[k, r, o] = sum over the k-th stretch of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. packed [N, PH, PW, Q] of vec4 and dy [N OH OW, COLUMNS] of vec4 from
// conv2d_pack; partial [splits, 4 ROWS, COLUMNS] of vec4, which conv2d_weight_sum adds up.
// One invocation computes 4 row quads x 8 channels in registers: no workgroup memory, no barrier.
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

@compute @workgroup_size(32)
fn conv2d_weight_rows(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let block = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 32u + lid;
  if (block >= s.blocks) { return; }
  let column = block % s.column_blocks * 2u;
  let second = min(column + 1u, s.columns - 1u) - column;
  let first_row = block / s.column_blocks % s.row_blocks * 4u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  var shifts: array<u32, 4>;
  for (var r = 0u; r < 4u; r++) { // unroll
    shifts[r] = shift(first_row + r);
  }
  var left: array<vec4<f32>, 16>;
  var right: array<vec4<f32>, 16>;
  for (var i = 0u; i < 16u; i++) { // unroll
    left[i] = vec4<f32>();
    right[i] = vec4<f32>();
  }
  var walk = start(begin);
  for (var p = begin; p < end; p++) {
    let d0 = dy[p * s.columns + column];
    let d1 = dy[p * s.columns + column + second];
    for (var r = 0u; r < 4u; r++) { // unroll
      let x = packed[walk.corner + shifts[r]];
      for (var e = 0u; e < 4u; e++) { // unroll
        left[r * 4u + e] += x[e] * d0;
        right[r * 4u + e] += x[e] * d1;
      }
    }
    walk = next(walk);
  }
  let to = (split * s.rows + first_row) * 4u * s.columns + column;
  for (var r = 0u; r < 4u; r++) { // unroll
    if (first_row + r < s.rows) {
      for (var e = 0u; e < 4u; e++) { // unroll
        partial_sums[to + (r * 4u + e) * s.columns] = left[r * 4u + e];
        if (second == 1u) {
          partial_sums[to + (r * 4u + e) * s.columns + 1u] = right[r * 4u + e];
        }
      }
    }
  }
}
