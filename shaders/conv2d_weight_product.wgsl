// Parameters and store of the weight gradient kernels. They sum partial[k, o, c, t] over the k-th
// range of positions, where row r = 4 (u Q + q) + e of the product is channel 4 q + e = c FOLD + v of the copy at
// kernel element t = u FOLD + v (see src/ops/conv2d/packed.rs).
// packed [N, PH, PW, Q] of vec4; dy [N OH OW, COLUMNS] of vec4, or as it is; partial [splits, O, C KH KW].

struct Product {
  by_plane: vec2<u32>, // its reciprocal
  positions: u32, plane: u32, width: u32, height: u32, image: u32, row: u32, column: u32,
  taps_x: u32, tap_row: u32, tap_column: u32, quads: u32,
  rows: u32, columns: u32, row_blocks: u32, column_blocks: u32, blocks: u32, stretch: u32,
  outputs: u32, channels: u32, taps: u32, fold: u32,
}
@group(0) @binding(0) var<uniform> s: Product;
@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<f32>;

// The offset of row quad `r` (clamped to the last) from the corner of a window.
fn shift(r: u32) -> u32 {
  let safe = min(r, s.rows - 1u);
  let tap = safe / s.quads;
  return tap / s.taps_x * s.tap_row + tap % s.taps_x * s.tap_column + safe % s.quads;
}

// A position: its column, its row, and the start of its window in `packed`.
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

// Stores row r of a range for a vec4 of output channels, if they exist.
fn store(split: u32, r: u32, column: u32, v: vec4<f32>) {
  let channel = r % (4u * s.quads);
  let c = channel / s.fold;
  if (c < s.channels) {
    let t = r / (4u * s.quads) * s.fold + channel % s.fold;
    var at = ((split * s.outputs + column * 4u) * s.channels + c) * s.taps + t;
    @unroll for (var k = 0u; k < 4u; k++) {
      if (column * 4u + k < s.outputs) {
        partial_sums[at] = v[k];
      }
      at += s.channels * s.taps;
    }
  }
}
