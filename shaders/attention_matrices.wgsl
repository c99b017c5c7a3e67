// Products of the attention kernels by cooperative matrices: operands are rounded to f16, sums are in f32.
// LANES invocations share TILE rows of the result. For TILE of `others` (keys, or queries) at a time, they compute
// TILE x TILE scores, from TERMS elements of both operands at a time, and multiply what they make of these by panels of
// TILE columns. A subgroup computes BLOCKS_M x BLOCKS_N matrices of SIDE x SIDE of each; SUBGROUPS_N subgroups are side
// by side. If subgroups may be smaller than the host assumed (SURPLUS), those that are left only load and store.
// Cooperative matrices have no elementwise operations, so scores pass through workgroup memory: two invocations share a
// row of it. 31 KiB of workgroup memory.

enable f16;
enable wgpu_cooperative_matrix;

import package::attention_operands::{p, rows_of};
import package::cooperative_matrices::{
  block_of, Cell, CELL, MatrixA, MatrixB, MatrixC, put_TILE, rounded, SIDE,
};

const BLOCKS_M: u32 = 2u;
const BLOCKS_N: u32 = 2u;
const SUBGROUPS_N: u32 = 2u;
const SURPLUS: bool = false;
// Whether q, k, v and dy are known to be within the range of f16.
const IN_RANGE: bool = false;
// Panels of columns of a result.
const PANELS: u32 = 1u; // or 2
const LANES: u32 = 128u;
const TILE: u32 = 64u;
const TERMS: u32 = 32u;
const BLOCKS: u32 = BLOCKS_M * BLOCKS_N;
const SUBGROUPS: u32 = TILE * TILE / (BLOCKS * SIDE * SIDE);
// Matrices of a result, [panel * BLOCKS + block of rows * BLOCKS_N + block of columns]. Scores have those of one panel.
const SUMS: u32 = PANELS * BLOCKS;
// vec4 of a row of scores in each of its two invocations.
const QUADS: u32 = TILE / 8u;
// Distances of rows in workgroup memory. Padding spreads them over the banks; cooperative matrices must be aligned to
// 16 bytes.
const TERMS_STRIDE: u32 = TERMS + 8u;
const FACTORS_STRIDE: u32 = TILE + 8u;
const SCORES_STRIDE: u32 = TILE + 4u;

// In dot: [row, TERMS elements]; in add: [row, factors of the other rows]. The terms of a product are contiguous, as
// AMD's matrix units load them.
var<workgroup> left: array<Cell, TILE * FACTORS_STRIDE / CELL>;
// [other row, TERMS elements] or [column, TERMS other rows].
var<workgroup> right: array<Cell, TILE * TERMS_STRIDE / CELL>;
// Scores, or a panel of a result, and per row up to 4 numbers that its two invocations exchange.
var<workgroup> scores: array<f32, TILE * SCORES_STRIDE>;

// The tile of a workgroup: its first row, the first vec4 of its columns, and the number of the head and batch. Surplus
// workgroups have no other rows, and store nothing. They do not return at once: naga takes the result of a function for
// non-uniform, and would refuse cooperative matrices behind the condition.
struct Place { tile: u32, chunk: u32, b: u32, works: bool }

fn place_of(number: u32) -> Place {
  let row_of_tiles = number / p.chunks;
  let slice = row_of_tiles / p.tiles;
  let chunk = number % p.chunks * (PANELS * TILE / 4u);
  return Place(row_of_tiles % p.tiles * TILE, chunk, min(slice, p.batches - 1u), slice < p.batches);
}

fn load_scores(at: u32) -> vec4<f32> {
  return vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
}

fn store_scores(at: u32, quad: vec4<f32>) {
  @unroll for (var t = 0u; t < 4u; t++) {
    scores[at + t] = quad[t];
  }
}

// The row of an invocation, and the first column of its vec4 h of the row.
fn own_row(lane: u32) -> u32 { return lane / 2u; }
fn own_column(lane: u32, h: u32) -> u32 { return (h * 2u + lane % 2u) * 4u; }
fn own_start(lane: u32) -> u32 { return own_row(lane) * SCORES_STRIDE; }

// Factors of an invocation's row, within the range of f16, for add.
fn store_factors(lane: u32, h: u32, factors: vec4<f32>) {
  put_left(own_row(lane) * FACTORS_STRIDE + own_column(lane, h), vec4<f16>(factors));
}

// The first row and column of a subgroup in a tile.
fn first_row(subgroup: u32) -> u32 { return subgroup / SUBGROUPS_N * (BLOCKS_M * SIDE); }
fn first_column(subgroup: u32) -> u32 { return subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE); }

// sums[panel] += left[row, from .. from + TERMS] * right[column, ..].
fn multiply(sums: ptr<function, array<MatrixC, SUMS>>, panel: u32, stride: u32, begin: u32, subgroup: u32) {
  let row = first_row(subgroup) * stride + begin;
  let column = first_column(subgroup) * TERMS_STRIDE;
  var a: array<MatrixA, BLOCKS_M>;
  // A loop of one round: naga takes an `if` for non-uniform, and cooperative matrices must not be used in one.
  for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
    @unroll for (var t = 0u; t < TERMS / SIDE; t++) {
      @unroll for (var i = 0u; i < BLOCKS_M; i++) {
        a[i] = coopLoadT<MatrixA>(&left[(row + i * SIDE * stride + t * SIDE) / CELL], stride / CELL);
      }
      @unroll for (var j = 0u; j < BLOCKS_N; j++) {
        let b = coopLoad<MatrixB>(&right[(column + j * SIDE * TERMS_STRIDE + t * SIDE) / CELL], TERMS_STRIDE / CELL);
        @unroll for (var i = 0u; i < BLOCKS_M; i++) {
          let at = panel * BLOCKS + i * BLOCKS_N + j;
          (*sums)[at] = coopMultiplyAdd(a[i], b, (*sums)[at]);
        }
      }
    }
  }
}

// Writes a panel to `scores`.
fn store_panel(sums: ptr<function, array<MatrixC, SUMS>>, panel: u32, subgroup: u32) {
  let start = first_row(subgroup) * SCORES_STRIDE + first_column(subgroup);
  for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
    @unroll for (var i = 0u; i < BLOCKS_M; i++) {
      @unroll for (var j = 0u; j < BLOCKS_N; j++) {
        let to = start + i * SIDE * SCORES_STRIDE + j * SIDE;
        let matrix = (*sums)[panel * BLOCKS + i * BLOCKS_N + j];
        coopStoreT(matrix, &scores[to], SCORES_STRIDE);
      }
    }
  }
}

// Reads a panel from `scores`.
fn load_panel(sums: ptr<function, array<MatrixC, SUMS>>, panel: u32, subgroup: u32) {
  let start = first_row(subgroup) * SCORES_STRIDE + first_column(subgroup);
  for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
    @unroll for (var i = 0u; i < BLOCKS_M; i++) {
      @unroll for (var j = 0u; j < BLOCKS_N; j++) {
        let begin = start + i * SIDE * SCORES_STRIDE + j * SIDE;
        (*sums)[panel * BLOCKS + i * BLOCKS_N + j] = coopLoadT<MatrixC>(&scores[begin], SCORES_STRIDE);
      }
    }
  }
}

// `scores` = the dot products of TILE rows of LEFT from `row` on and of RIGHT from `column` on; rows beyond the last
// repeat it. Ends with a barrier.
@template(LEFT, RIGHT)
fn dot_LEFT_RIGHT(b: u32, row: u32, column: u32, lane: u32, subgroup: u32) {
  // Each invocation stages 4 x 4 elements of both.
  let block = block_of(lane, true);
  let inner = block.k4;
  let to = block.outer4 * 4u * TERMS_STRIDE + inner * 4u;
  let left_at = rows_of(p.LEFT, b, row + block.outer4 * 4u);
  let right_at = rows_of(p.RIGHT, b, column + block.outer4 * 4u);
  var sums: array<MatrixC, SUMS>;
  for (var e = inner; e < p.LEFT.width + inner; e += TERMS / 4u) {
    var l = mat4x4<f16>();
    var r = mat4x4<f16>();
    if (e < p.LEFT.width) {
      let begin = left_at + e;
      let other = right_at + e;
      // Both are loaded before either is needed.
      let of_left = mat4x4(LEFT[begin.x], LEFT[begin.y], LEFT[begin.z], LEFT[begin.w]);
      let of_right = mat4x4(RIGHT[other.x], RIGHT[other.y], RIGHT[other.z], RIGHT[other.w]);
      l = rounded(of_left, IN_RANGE);
      r = rounded(of_right, IN_RANGE);
    }
    workgroupBarrier();
    @unroll for (var i = 0u; i < 4u; i++) {
      put_left(to + i * TERMS_STRIDE, l[i]);
      put_right(to + i * TERMS_STRIDE, r[i]);
    }
    workgroupBarrier();
    multiply(&sums, 0u, TERMS_STRIDE, 0u, subgroup);
  }
  store_panel(&sums, 0u, subgroup);
  workgroupBarrier();
}

// sums[r] += sum over i < TILE of the factor of row r and other row i, times row `column + i` of ADDED, from its vec4
// `chunk` on.
@template(ADDED)
fn add_ADDED(
  sums: ptr<function, array<MatrixC, SUMS>>, b: u32, column: u32, chunk: u32, lane: u32, subgroup: u32,
) {
  let block = block_of(lane, false);
  let outer = block.outer4;
  let inner = block.k4 * 4u;
  let to = outer * 4u * TERMS_STRIDE + inner;
  for (var i = 0u; i < TILE; i += TERMS) {
    let rows = rows_of(p.ADDED, b, column + i + inner);
    @unroll for (var panel = 0u; panel < PANELS; panel++) {
      let at = rows + min(chunk + panel * (TILE / 4u) + outer, p.ADDED.width - 1u);
      let x = rounded(transpose(mat4x4(ADDED[at.x], ADDED[at.y], ADDED[at.z], ADDED[at.w])), IN_RANGE);
      workgroupBarrier();
      @unroll for (var c = 0u; c < 4u; c++) {
        put_right(to + c * TERMS_STRIDE, x[c]);
      }
      workgroupBarrier();
      multiply(sums, panel, FACTORS_STRIDE, i, subgroup);
    }
  }
}

// Reads sums that a previous launch has stored: an invocation's row of RESULT begins at `row` and has `size` vec4, here
// from its vec4 `chunk` on.
@template(RESULT)
fn resume_RESULT(
  sums: ptr<function, array<MatrixC, SUMS>>, row: u32, size: u32, chunk: u32, lane: u32, subgroup: u32,
) {
  @unroll for (var panel = 0u; panel < PANELS; panel++) {
    @unroll for (var h = 0u; h < QUADS; h++) {
      let column = own_column(lane, h);
      store_scores(own_start(lane) + column, RESULT[row + min(chunk + (panel * TILE + column) / 4u, size - 1u)]);
    }
    workgroupBarrier();
    load_panel(sums, panel, subgroup);
    workgroupBarrier();
  }
}

// Stores `rows` rows of sums, each times the factor of its invocations, in rows of RESULT at distances of `stride` from
// `start` on; these have `size` vec4, here from their vec4 `chunk` on.
@template(RESULT)
fn finish_RESULT(
  sums: ptr<function, array<MatrixC, SUMS>>, factor: f32, start: u32, stride: u32, rows: u32, size: u32, chunk: u32,
  lane: u32, subgroup: u32,
) {
  @unroll for (var panel = 0u; panel < PANELS; panel++) {
    workgroupBarrier();
    store_panel(sums, panel, subgroup);
    scores[own_start(lane) + TILE + lane % 2u] = factor;
    workgroupBarrier();
    // Neighbours store neighbouring elements.
    for (var e = lane; e < TILE * TILE / 4u; e += LANES) {
      let row = e / (TILE / 4u);
      let column = chunk + panel * (TILE / 4u) + e % (TILE / 4u);
      if (row < rows && column < size) {
        let begin = row * SCORES_STRIDE;
        RESULT[start + row * stride + column] = load_scores(begin + e % (TILE / 4u) * 4u) * scores[begin + TILE];
      }
    }
  }
}
