// Operands of conv2d_tile.wgsl and cooperative_tile.wgsl, forward and for the input gradient.
// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack. Rows are channels o, columns
// positions (n, i, j), terms (u, v, 4 q + e). Part p of the sum is y[p, ..].

import package::conv2d_product::{corner, s, store_within};

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

alias Left = f32;
alias Right = f32;

// A tile of y: its first row and column, the end of the columns, and the terms that it adds up.
struct Tile { m: u32, n: u32, columns: u32, part: u32, first: u32, last: u32 }

fn tiles() -> u32 { return s.blocks; }

fn tile_of(number: u32) -> Tile {
  let row_of_tiles = number / s.column_blocks;
  let across = (s.positions + TILE_N - 1u) / TILE_N;
  let part = row_of_tiles / across;
  let first = part * s.part_terms;
  let last = min(first + s.part_terms, s.taps_y * s.taps_x * s.quads * 4u);
  return Tile(number % s.column_blocks * TILE_M, row_of_tiles % across * TILE_N, s.positions, part, first, last);
}

// Where an invocation reads its rows: a vec4 of channels (clamped to the last).
fn left_place(four: u32, _part: u32) -> vec4<u32> { return vec4(min(four, s.columns - 1u)); }

// Where it reads its columns: terms k .. k + 4 of four windows, with their channel quad and kernel column. The loop
// advances all four positions: NVIDIA's compiler recomputes loop-invariant positions in each round.
struct Cursor { at: vec4<u32>, quad: u32, column: u32 }

fn right_cursor(four: u32, _part: u32, k: u32) -> Cursor {
  let p = four * 4u;
  let corners = vec4(corner(p), corner(p + 1u), corner(p + 2u), corner(p + 3u));
  let tap = k / 4u / s.quads;
  let column = tap % s.taps_x;
  let quad = k / 4u % s.quads;
  return Cursor(corners + tap / s.taps_x * s.tap_row + column * s.tap_column + quad, quad, column);
}

// The cursor `terms` later.
fn later(here: Cursor, terms: u32) -> Cursor {
  var to = Cursor(here.at, here.quad + terms / 4u, here.column);
  var distance = terms / 4u;
  while (to.quad >= s.quads) {
    to.quad -= s.quads;
    distance += s.tap_column - s.quads;
    to.column++;
    if (to.column == s.taps_x) {
      to.column = 0u;
      distance += s.tap_row - s.taps_x * s.tap_column;
    }
  }
  to.at += distance;
  return to;
}

// Column t: term k + t of four channels; zeros from `last` on.
fn left_block(place: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  let at = k * s.columns + place.x;
  return mat4x4(weight[at], weight[at + s.columns], weight[at + 2u * s.columns], weight[at + 3u * s.columns]);
}

// Column i: the terms of window i; zeros from `last` on.
fn right_block(here: Cursor, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  return mat4x4(packed[here.at.x], packed[here.at.y], packed[here.at.z], packed[here.at.w]);
}

// Column t: term t of the four windows of a block.
fn turned(block: mat4x4<f32>) -> mat4x4<f32> { return transpose(block); }

fn store(part: u32, m: u32, n: u32, v: vec4<f32>) {
  // The images of a part follow those of the part before it.
  let start = part * s.positions;
  store_within(v, start + n, m, start + s.positions);
}
