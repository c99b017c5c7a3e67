// Matrices that are quantised in blocks of 32 numbers along their rows, as in src/ops/quantized_matmul.rs.
// Number i of a block is (u - zero) scale, where u are bits i B_BITS .. (i + 1) B_BITS of the block's B_BITS words.

import package::matmul_operands::{B_BITS, four, p};

// Whether blocks have zero points; otherwise they are 2^(B_BITS - 1).
const ZEROS: bool = false;
// Whether b[k, n] is number n of row k; otherwise it is number k of row n.
const TRANSPOSED: bool = false;
// What is loaded at once.
alias Words = u32;

@group(0) @binding(2) var<storage, read> words: array<Words>;
@group(0) @binding(4) var<storage, read> scales: array<f32>;
@if(ZEROS)
@group(0) @binding(5) var<storage, read> zeros: array<u32>;

// The number of blocks in a row.
fn blocks_in_row() -> u32 {
  @if(TRANSPOSED) return (p.n + 31u) / 32u;
  @else return (p.k + 31u) / 32u;
}

fn zero_of(block: u32) -> f32 {
  @if(ZEROS) return f32(zeros[block]);
  @else return f32(1u << (B_BITS - 1u));
}

// The four numbers u in the low bits of a word, minus their zero point. They are small, and conversion from i32 is the
// faster one on CPUs.
fn centred(word: u32, zero: f32) -> vec4<f32> {
  let u = (vec4(word) >> vec4(0u, B_BITS, 2u * B_BITS, 3u * B_BITS)) & vec4((1u << B_BITS) - 1u);
  return vec4<f32>(vec4<i32>(u)) - zero;
}

// Numbers i .. i + 4 of a row, for i a multiple of 4.
fn weights(row: u32, i: u32) -> vec4<f32> {
  let block = row * blocks_in_row() + i / 32u;
  let bit = i % 32u * B_BITS;
  return centred(words[block * B_BITS + bit / 32u] >> (bit % 32u), zero_of(block)) * scales[block];
}

// Column j: b[k + j, n .. n + 4], for these columns.
fn quantized_terms(columns: vec4<u32>, k: u32) -> mat4x4<f32> {
  @if(TRANSPOSED) {
    let rows = four(k, p.k);
    let n = columns.x / 4u * 4u;
    return mat4x4(weights(rows.x, n), weights(rows.y, n), weights(rows.z, n), weights(rows.w, n));
  }
  @else {
    return transpose(
      mat4x4(weights(columns.x, k), weights(columns.y, k), weights(columns.z, k), weights(columns.w, k))
    );
  }
}
