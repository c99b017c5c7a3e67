// y[part, m, n] = sum over the part-th range of k of left[k, m] right[k, n], by cooperative matrices: operands are
// rounded to f16, sums are in f32.
// left is a of a matrix product, and right is b (matmul_cooperative.wgsl); in convolutions and their gradients they are
// the operands of conv2d_tile.wgsl (conv2d_blocks.wgsl, conv2d_weight_blocks.wgsl).
// A workgroup computes a TILE x TILE tile of y, TERMS terms of the sum at a time, from tiles of both operands in
// workgroup memory. A subgroup computes BLOCKS_M x BLOCKS_N matrices of SIDE x SIDE; SUBGROUPS_N subgroups are side by
// side. If subgroups may be smaller than the host assumed (SURPLUS), those that are left only load and store. Rows and
// columns beyond the edges repeat the last ones and are not stored; terms beyond the last are 0.
// Reference: Matmul::reference in src/ops/matmul.rs; conv2d and conv2d_weight_grad in src/ops/conv2d/reference.rs.

enable f16;
enable wgpu_cooperative_matrix;

import package::cooperative_matrices::{
  block_of, Cell, CELL, MatrixA, MatrixB, MatrixC, put_TILE, rounded, SIDE,
};

@if(CONV2D)
import package::conv2d_blocks::{
  later, Left, left_block, left_place, Right, right_block, right_cursor, store, tile_of, tiles, turned,
};
@elif(CONV2D_WEIGHT)
import package::conv2d_weight_blocks::{
  later, Left, left_block, left_place, Right, right_block, right_cursor, store, tile_of, tiles, turned,
};
@else
import package::matmul_cooperative::{later, Left, left_place, Right, right_cursor, tile_of, tiles, turned};
@if(!CONV2D && !CONV2D_WEIGHT)
import package::matmul_blocks::{left_block, right_block, store};

// Whether this is a convolution or the gradient of its input, or of its weight.
const CONV2D: bool = false;
const CONV2D_WEIGHT: bool = false;
const TILE: u32 = 128u;
const TILE_M: u32 = TILE;
const TILE_N: u32 = TILE;
const TERMS: u32 = 32u;
const BLOCKS_M: u32 = 4u;
const BLOCKS_N: u32 = 2u;
const SUBGROUPS_N: u32 = 4u;
// As many as there are 4 x 4 blocks of an operand: each invocation loads one of either.
const LANES: u32 = TILE * TERMS / 16u;
const SURPLUS: bool = false;
// Whether an operand is contiguous along the terms, and whether it is known to be within the range of f16.
const LEFT_BY_TERMS: bool = false;
const RIGHT_BY_TERMS: bool = false;
const LEFT_IN_RANGE: bool = false;
const RIGHT_IN_RANGE: bool = false;
const SUBGROUPS: u32 = TILE * TILE / (BLOCKS_M * BLOCKS_N * SIDE * SIDE);
const BLOCKS: u32 = BLOCKS_M * BLOCKS_N;
// In workgroup memory the terms of an operand are contiguous, as AMD's matrix units load them. Rows are padded, which
// spreads them over the banks; cooperative matrices must be aligned to 16 bytes.
const STRIDE: u32 = TERMS + 8u;

var<workgroup> left: array<Cell, TILE * STRIDE / CELL>; // [m, k]
var<workgroup> right: array<Cell, TILE * STRIDE / CELL>; // [n, k]
// One matrix of each subgroup.
var<workgroup> results: array<f32, SUBGROUPS * SIDE * SIDE>;

@if(Left == f16)
fn left_f16(block: mat4x4<Left>) -> mat4x4<f16> { return block; }
@else
fn left_f16(block: mat4x4<Left>) -> mat4x4<f16> { return rounded(block, LEFT_IN_RANGE); }

@if(Right == f16)
fn right_f16(block: mat4x4<Right>) -> mat4x4<f16> { return block; }
@else
fn right_f16(block: mat4x4<Right>) -> mat4x4<f16> { return rounded(block, RIGHT_IN_RANGE); }

@compute @workgroup_size(LANES)
fn cooperative_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let number = group_number(group, groups);
  // Surplus workgroups have no terms, and store nothing. They do not return here: naga takes the result of a function
  // for non-uniform, and would refuse cooperative matrices behind the condition.
  let here = tile_of(number);

  let of_left = block_of(lane, LEFT_BY_TERMS);
  let of_right = block_of(lane, RIGHT_BY_TERMS);
  let k_left = of_left.k4 * 4u;
  let k_right = of_right.k4 * 4u;
  let to_left = of_left.outer4 * 4u * STRIDE + k_left;
  let to_right = of_right.outer4 * 4u * STRIDE + k_right;
  let rows = left_place(here.m / 4u + of_left.outer4, here.part);
  var columns = right_cursor(here.n / 4u + of_right.outer4, here.part, here.first + k_right);
  let row = subgroup / SUBGROUPS_N * (BLOCKS_M * SIDE);
  let column = subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE);
  var sum: array<MatrixC, BLOCKS>; // [block of rows * BLOCKS_N + block of columns]
  var matrices: array<MatrixA, BLOCKS_M>; // declared here: inside the loop it would be zeroed each time
  // The next blocks are loaded while the current ones are multiplied. They are rounded only afterwards, so that
  // the products do not wait for the loads.
  var next_left = left_block(rows, here.first + k_left, here.last);
  var next_right = right_block(columns, here.first + k_right, here.last);
  for (var k = here.first; k < here.last; k += TERMS) {
    let block_left = left_f16(transpose(next_left));
    let block_right = right_f16(transpose(turned(next_right)));
    workgroupBarrier();
    @unroll for (var i = 0u; i < 4u; i++) {
      put_left(to_left + i * STRIDE, block_left[i]);
      put_right(to_right + i * STRIDE, block_right[i]);
    }
    workgroupBarrier();
    columns = later(columns, TERMS);
    next_left = left_block(rows, k + TERMS + k_left, here.last);
    next_right = right_block(columns, k + TERMS + k_right, here.last);
    // A loop of one round: naga takes an `if` for non-uniform, and cooperative matrices must not be used in one.
    for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
      @unroll for (var t = 0u; t < TERMS / SIDE; t++) {
        @unroll for (var i = 0u; i < BLOCKS_M; i++) {
          matrices[i] = coopLoadT<MatrixA>(&left[((row + i * SIDE) * STRIDE + t * SIDE) / CELL], STRIDE / CELL);
        }
        @unroll for (var j = 0u; j < BLOCKS_N; j++) {
          let matrix = coopLoad<MatrixB>(&right[((column + j * SIDE) * STRIDE + t * SIDE) / CELL], STRIDE / CELL);
          @unroll for (var i = 0u; i < BLOCKS_M; i++) {
            sum[i * BLOCKS_N + j] = coopMultiplyAdd(matrices[i], matrix, sum[i * BLOCKS_N + j]);
          }
        }
      }
    }
  }
  // Results are staged through workgroup memory, one matrix of each subgroup at a time, so that the store and epilogue
  // code occurs once.
  for (var done = 0u; done < BLOCKS; done++) {
    workgroupBarrier();
    for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
      let to = subgroup * (SIDE * SIDE);
      let next = sum[0];
      coopStoreT(next, &results[to], SIDE);
      // Moves the others forward.
      @unroll for (var i = 0u; i < BLOCKS; i++) {
        sum[i] = sum[min(i + 1u, BLOCKS - 1u)];
      }
    }
    workgroupBarrier();
    let elements = select(0u, SUBGROUPS * SIDE * SIDE / 4u, number < tiles());
    for (var e = lane; e < elements; e += LANES) {
      let matrix = e / (SIDE * SIDE / 4u);
      let at_m = (matrix / SUBGROUPS_N * BLOCKS_M + done / BLOCKS_N) * SIDE + e / (SIDE / 4u) % SIDE;
      let at_n = (matrix % SUBGROUPS_N * BLOCKS_N + done % BLOCKS_N) * SIDE + e % (SIDE / 4u) * 4u;
      let v = vec4(results[e * 4u], results[e * 4u + 1u], results[e * 4u + 2u], results[e * 4u + 3u]);
      if (here.n + at_n < here.columns) {
        store(here.part, here.m + at_m, here.n + at_n, v);
      }
    }
  }
}
