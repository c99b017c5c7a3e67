// Operands of cooperative_tile.wgsl for y[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n].
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.

import package::matmul_blocks::{left_terms, right_terms};
import package::matmul_operands::{columns_of_b, p, rows_of_a};

// A tile of y: its first row and column, the end of the columns, the number of part and batch, and the terms that it
// adds up.
struct Tile { m: u32, n: u32, columns: u32, part: u32, first: u32, last: u32 }

fn tiles() -> u32 { return p.tiles_n * p.tiles_m * p.batches * p.parts; }

fn tile_of(number: u32) -> Tile {
  let row_of_tiles = number / p.tiles_n;
  let slice = row_of_tiles / p.tiles_m;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  return Tile(row_of_tiles % p.tiles_m * TILE, number % p.tiles_n * TILE, p.n, slice, first, last);
}

// The positions of four rows.
fn left_place(four: u32, slice: u32) -> vec4<u32> { return rows_of_a(slice % p.batches, four * 4u); }

// The positions of four columns.
fn right_cursor(four: u32, slice: u32, _k: u32) -> vec4<u32> { return columns_of_b(slice % p.batches, four * 4u); }

fn later(columns: vec4<u32>, _terms: u32) -> vec4<u32> { return columns; }

// Column t: term k + t of four rows; zeros from `last` on.
fn left_block(rows: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  return left_terms(rows, k, last);
}

// Column t: term k + t of four columns; zeros from `last` on.
fn right_block(columns: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) { return mat4x4<f32>(); }
  return right_terms(columns, k, last);
}

fn turned(block: mat4x4<f32>) -> mat4x4<f32> { return block; }
