// Operands of conv2d_tile.wgsl and cooperative_tile.wgsl for the weight gradient.
// y[part, o, r] = sum over the part-th range of positions p of dy[p, o] packed[p shifted by tap, q][e]
// where r = 4 (tap Q + q) + e. Rows are channels o, columns r, terms positions. y [parts, O, 4 ROWS].
// dy is a copy [N OH OW, COLUMNS] or, if PLANES, [N, O, OH OW].
// The other bindings are in conv2d_weight_product.wgsl.

import package::conv2d_weight_product::{dy, next, packed, s, shift, start, Walk};

// Whether the windows of a row are a multiple of 4: four terms are in one row, and blocks are whole.
const WHOLE: bool = false;
// Whether dy is read as it is: its planes consist of whole vec4.
const PLANES: bool = false;

@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

alias Left = f32;
alias Right = f32;

// A tile of y: its first row and column, the end of the columns, and the terms that it adds up.
struct Tile { m: u32, n: u32, columns: u32, part: u32, first: u32, last: u32 }

fn tiles() -> u32 { return s.blocks; }

fn tile_of(number: u32) -> Tile {
  let row_of_tiles = number / s.column_blocks;
  let part = row_of_tiles / s.row_blocks;
  let first = part * s.stretch;
  let last = min(first + s.stretch, s.positions);
  let m = number % s.column_blocks * TILE_M;
  return Tile(m, row_of_tiles % s.row_blocks * TILE_N, s.rows * 4u, part, first, last);
}

// Where an invocation reads its rows: a vec4 of channels, or four planes (clamped to the last).
fn left_place(four: u32, _part: u32) -> vec4<u32> {
  @if(PLANES) return min(vec4(four * 4u) + vec4(0u, 1u, 2u, 3u), vec4(s.outputs - 1u)) * (s.plane / 4u);
  @else return vec4(min(four, s.columns - 1u));
}

// Where it reads its columns: a row quad of the window of position k.
fn right_cursor(four: u32, _part: u32, k: u32) -> Walk {
  let window = start(k);
  return Walk(window.ox, window.oy, window.corner + shift(four));
}

// The cursor `terms` later.
fn later(here: Walk, terms: u32) -> Walk {
  var to = Walk(here.ox + terms, here.oy, here.corner + terms * s.column);
  while (to.ox >= s.width) {
    to.ox -= s.width;
    to.corner += s.row - s.width * s.column;
    to.oy++;
    if (to.oy == s.height) {
      to.oy = 0u;
      to.corner += s.image - s.height * s.row;
    }
  }
  return to;
}

// Column t: position k + t of four channels; zeros from `last` on.
@if(PLANES)
fn left_block(place: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  let n = quotient(k, s.by_plane);
  let i = place + (n * (s.outputs - 1u) * s.plane + k) / 4u;
  return transpose(mat4x4(dy[i.x], dy[i.y], dy[i.z], dy[i.w]));
}
@else
fn left_block(place: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  var block: mat4x4<f32>;
  let at = k * s.columns + place.x;
  @unroll for (var t = 0u; t < 4u; t++) {
    if (k + select(t, 0u, WHOLE) < last) { block[t] = dy[at + t * s.columns]; }
  }
  return block;
}

// Column t: position k + t. From `last` on, these are multiplied by zeros; they repeat position k.
fn right_block(here: Walk, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  let i = four(here, k, last);
  return mat4x4(packed[i.x], packed[i.y], packed[i.z], packed[i.w]);
}

// The same place in the windows of four positions.
fn four(at: Walk, k: u32, last: u32) -> vec4<u32> {
  @if(WHOLE) return vec4(at.corner) + vec4(0u, 1u, 2u, 3u) * s.column;
  @else {
    let second = next(at);
    let third = next(second);
    let corners = vec4(at.corner, second.corner, third.corner, next(third).corner);
    return select(vec4(at.corner), corners, vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(last));
  }
}

fn turned(block: mat4x4<f32>) -> mat4x4<f32> { return block; }

fn store(part: u32, m: u32, n: u32, v: vec4<f32>) {
  if (m < s.outputs) {
    y[(part * s.outputs + m) * s.rows + n / 4u] = v;
  }
}
