// The right operand of conv2d_tile.wgsl, forward and for the input gradient, read from the data itself, [N, C, H, W].
// Requires that C is a multiple of 4, and that kernels have at most 8 rows and columns. Positions and terms are those of
// conv2d_blocks.wgsl. Neighbouring invocations read neighbouring windows of the same channel.
// Elements outside an image are not read: each window has a bit for every kernel row and column that is inside.

import package::conv2d_product::s;

@group(0) @binding(1) var<storage, read> data: array<f32>;

// Terms k .. k + 4 of four windows. `at`: where term k is, or would be. `place`: channel quad + 2^16 kernel row
// + 2^24 kernel column. `inside`: a bit for each kernel row and column that is inside the image. One word has the bits of
// two windows: rows from bits 0 and 16 on, columns from bits 8 and 24 on.
struct Cursor { at: vec4<u32>, place: u32, inside: vec2<u32> }

fn right_cursor(four: u32, _part: u32, k: u32) -> Cursor {
  let tap = k / 4u / s.quads;
  let quad = k / 4u % s.quads;
  let row = tap / s.taps_x;
  let column = tap % s.taps_x;
  let offset = row * s.tap_row + column * s.tap_column + quad * 4u * s.data_plane;
  var at: vec4<u32>;
  var rows: vec4<i32>;
  var columns: vec4<i32>;
  @unroll for (var w = 0u; w < 4u; w++) {
    let p = min(four * 4u + w, s.positions - 1u);
    let n = quotient(p, s.by_plane);
    let rest = p - n * s.plane;
    let line = quotient(rest, s.by_width);
    rows[w] = i32(line * s.step_y) - s.top;
    columns[w] = i32((rest - line * s.width) * s.step_x) - s.left;
    at[w] = offset + n * s.image + u32(rows[w]) * s.data_width + u32(columns[w]);
  }
  let down = inside(rows, s.taps_y, s.dilation_y, s.data_height);
  let both = down | (inside(columns, s.taps_x, s.dilation_x, s.data_width) << vec4(8u));
  return Cursor(at, quad | (row << 16u) | (column << 24u), vec2(both.x | (both.y << 16u), both.z | (both.w << 16u)));
}

// Bit t: whether first + t dilation is in 0 .. size.
fn inside(first: vec4<i32>, taps: u32, dilation: u32, size: u32) -> vec4<u32> {
  var bits = vec4<u32>();
  for (var t = 0u; t < taps; t++) {
    bits |= select(vec4<u32>(), vec4(1u << t), vec4<u32>(first + i32(t * dilation)) < vec4(size));
  }
  return bits;
}

// The cursor `terms` later.
fn later(here: Cursor, terms: u32) -> Cursor {
  var to = Cursor(here.at, here.place + terms / 4u, here.inside);
  var distance = terms * s.data_plane;
  while ((to.place & 0xffffu) >= s.quads) {
    to.place += (1u << 24u) - s.quads;
    distance += s.tap_column - s.quads * 4u * s.data_plane;
    if (to.place >> 24u == s.taps_x) {
      to.place += (1u << 16u) - (s.taps_x << 24u);
      distance += s.tap_row - s.taps_x * s.tap_column;
    }
  }
  to.at += distance;
  return to;
}

// Column t: term k + t of the four windows; zeros outside the images and from `last` on.
fn right_block(here: Cursor, k: u32, last: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  if (k >= last) { return block; }
  let row = (here.place >> 16u) & 0xffu;
  let column = here.place >> 24u;
  let reads = (here.inside >> vec2(row)) & (here.inside >> vec2(8u + column));
  @unroll for (var w = 0u; w < 4u; w++) {
    if ((reads[w / 2u] & (1u << (w % 2u * 16u))) != 0u) {
      @unroll for (var t = 0u; t < 4u; t++) {
        block[t][w] = data[here.at[w] + t * s.data_plane];
      }
    }
  }
  return block;
}

fn turned(block: mat4x4<f32>) -> mat4x4<f32> { return block; }
