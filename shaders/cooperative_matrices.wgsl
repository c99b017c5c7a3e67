// Cooperative matrices of f16 with sums in f32, and rounding to f16.

enable f16;
enable wgpu_cooperative_matrix;

import package::tile_blocks::Block;

const SIDE: u32 = 16u; // or 8

@if(SIDE == 8)
alias MatrixA = coop_mat8x8<f16, A>;
@else
alias MatrixA = coop_mat16x16<f16, A>;
@if(SIDE == 8)
alias MatrixB = coop_mat8x8<f16, B>;
@else
alias MatrixB = coop_mat16x16<f16, B>;
@if(SIDE == 8)
alias MatrixC = coop_mat8x8<f32, C>;
@else
alias MatrixC = coop_mat16x16<f32, C>;

// Operands in workgroup memory: vec4, or numbers on Metal, which loads cooperative matrices through pointers to numbers.
const NUMBERS: bool = false;
@if(NUMBERS)
alias Cell = f16;
@else
alias Cell = vec4<f16>;
// Numbers in a cell.
@if(NUMBERS)
const CELL: u32 = 1u;
@else
const CELL: u32 = 4u;

// Writes four numbers to TILE, an array of cells; `at` counts numbers, and is a multiple of 4.
@template(TILE)
fn put_TILE(at: u32, terms: vec4<f16>) {
  @if(NUMBERS) {
    @unroll for (var t = 0u; t < 4u; t++) {
      TILE[at + t] = terms[t];
    }
  }
  @else TILE[at / 4u] = terms;
}

// The block of an operand that an invocation loads, of TERMS terms. Neighbours load what is contiguous in memory: 8 of
// them 128 bytes of terms, or 4 of them 64 bytes of rows or columns. (If 8 loaded rows, they would store in the same banks
// of workgroup memory.)
fn block_of(lane: u32, by_terms: bool) -> Block {
  if (by_terms) { return Block(lane % (TERMS / 4u), lane / (TERMS / 4u)); }
  return Block(lane % 2u + lane / 8u % (TERMS / 8u) * 2u, lane / 2u % 4u + lane / TERMS * 4u);
}

// The bits of 65504, the largest f16.
const LARGEST_F16: u32 = 0x477fe000u;

// The largest magnitude in a vector, as bits. NaN exceeds infinity.
fn magnitudes(v: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(v) & vec4(0x7fffffffu); }

// Finite numbers beyond the range of f16 become its ends.
fn within_f16(v: vec4<f32>) -> vec4<f32> {
  let finite = magnitudes(v) < vec4(0x7f800000u);
  return select(v, clamp(v, vec4(-65504.0), vec4(65504.0)), finite);
}

// A block of an operand, rounded to f16.
fn rounded(block: mat4x4<f32>, in_range: bool) -> mat4x4<f16> {
  var terms = block;
  if (!in_range) {
    // Few blocks have such numbers.
    let largest =
      max(max(magnitudes(block[0]), magnitudes(block[1])), max(magnitudes(block[2]), magnitudes(block[3])));
    if (any(largest > vec4(LARGEST_F16))) {
      terms = mat4x4(within_f16(block[0]), within_f16(block[1]), within_f16(block[2]), within_f16(block[3]));
    }
  }
  return mat4x4(vec4<f16>(terms[0]), vec4<f16>(terms[1]), vec4<f16>(terms[2]), vec4<f16>(terms[3]));
}
