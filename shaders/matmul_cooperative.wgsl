// Operands of cooperative_tile.wgsl for y[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n].
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.

import package::matmul_operands::{columns_of_b, ElementA, ElementB, p, rows_of_a};

alias Left = ElementA;
alias Right = ElementB;

// A tile of y: its first row and column, the end of the columns, the number of part and batch, and the terms that it
// adds up.
struct Tile { m: u32, n: u32, columns: u32, part: u32, first: u32, last: u32 }

fn tiles() -> u32 { return p.tiles_n * p.tiles_m * p.batches * p.parts; }

fn tile_of(number: u32) -> Tile {
  let row_of_tiles = number / p.tiles_n;
  let slice = row_of_tiles / p.tiles_m;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  return Tile(row_of_tiles % p.tiles_m * TILE_M, number % p.tiles_n * TILE_N, p.n, slice, first, last);
}

// The positions of four rows.
fn left_place(four: u32, slice: u32) -> vec4<u32> { return rows_of_a(slice % p.batches, four * 4u); }

// The positions of four columns.
fn right_cursor(four: u32, slice: u32, _k: u32) -> vec4<u32> { return columns_of_b(slice % p.batches, four * 4u); }

fn later(columns: vec4<u32>, _terms: u32) -> vec4<u32> { return columns; }

fn turned(block: mat4x4<Right>) -> mat4x4<Right> { return block; }
