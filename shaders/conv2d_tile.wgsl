// out[part, m, n] = sum over the part-th range of k of left[k, m] right[k, n], by tiles in workgroup memory.
// Forward and for the input gradient, rows m are channels of the result, columns n positions, and terms k kernel
// elements and channels (conv2d_blocks.wgsl, conv2d_plane_blocks.wgsl). For the weight gradient, rows are output
// channels, columns kernel elements and channels, and terms positions (conv2d_weight_blocks.wgsl).
// A workgroup computes TILE_M x TILE_N results, TERMS terms at a time, an invocation 4 QUADS rows x QUADS vec4. There are
// LANES = TILE_M TILE_N / (4 QUADS)^2 invocations, at least as many as the 4 x 4 blocks of either operand.
// Requires ranges of at most 12,000 terms. Reference: conv2d and conv2d_weight_grad in src/ops/conv2d/reference.rs.

@if(CONV2D_WEIGHT)
import package::conv2d_weight_blocks::{
  later, left_block, left_place, right_block, right_cursor, store, tile_of, tiles, turned,
};
@if(!CONV2D_WEIGHT)
import package::conv2d_blocks::{left_block, left_place, store, tile_of, tiles};
@if(!CONV2D_WEIGHT && !COPIED)
import package::conv2d_plane_blocks::{later, right_block, right_cursor, turned};
@if(!CONV2D_WEIGHT && COPIED)
import package::conv2d_blocks::{later, right_block, right_cursor, turned};
import package::tile_blocks::block_of;

// Whether this is a weight gradient.
const CONV2D_WEIGHT: bool = false;
// Whether the right operand is read from a channels-last copy; always for a weight gradient.
const COPIED: bool = true;
const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const TERMS: u32 = 16u;
const QUADS: u32 = 2u;
const LANES: u32 = 64u;
// Invocations along m and n.
const LANES_M: u32 = TILE_M / 4u / QUADS;
const LANES_N: u32 = TILE_N / 4u / QUADS;
// 4 x 4 blocks of each operand.
const BLOCKS_LEFT: u32 = TILE_M * TERMS / 16u;
const BLOCKS_RIGHT: u32 = TILE_N * TERMS / 16u;
// Whether neighbouring invocations load adjacent terms of an operand, which must be contiguous along the terms. Then
// PAD vec4 follow each four terms, so that 8 neighbours store in different banks of workgroup memory.
const LEFT_BY_TERMS: bool = false;
const RIGHT_BY_TERMS: bool = false;
const PAD: u32 = 32u / TERMS;
// Four terms of left, and of right, in the tile.
const TERMS_LEFT: u32 = TILE_M + u32(LEFT_BY_TERMS) * PAD;
const TERMS_RIGHT: u32 = TILE_N + u32(RIGHT_BY_TERMS) * PAD;
// Start of right in the tile.
const RIGHT: u32 = TERMS_LEFT * (TERMS / 4u);

// left[k, m / 4], followed by right[k, n / 4]; at the end, two rows of each invocation.
var<workgroup> tile: array<vec4<f32>, (TERMS_LEFT + TERMS_RIGHT) * (TERMS / 4u)>;

@compute @workgroup_size(LANES)
fn conv2d_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  if (number >= tiles()) { return; } // uniform in the workgroup
  let here = tile_of(number);
  // For loading: the first invocations each load a block of left, the last ones a block of right.
  let block_left = lane;
  let block_right = LANES - 1u - lane;
  let loads_left = BLOCKS_LEFT == LANES || block_left < BLOCKS_LEFT;
  let loads_right = BLOCKS_RIGHT == LANES || block_right < BLOCKS_RIGHT;
  let of_left = block_of(block_left, TILE_M, LEFT_BY_TERMS);
  let of_right = block_of(block_right, TILE_N, RIGHT_BY_TERMS);
  let k_left = of_left.k4 * 4u;
  let k_right = of_right.k4 * 4u;
  let to_left = of_left.k4 * TERMS_LEFT + of_left.outer4;
  let to_right = of_right.k4 * TERMS_RIGHT + of_right.outer4 + RIGHT;
  let row = left_place(here.m / 4u + of_left.outer4, here.part);
  var column = right_cursor(here.n / 4u + of_right.outer4, here.part, here.first + k_right);
  // For summing: rows y4 * 4 + 0..4, and another QUADS - 1 groups at distances of 4 LANES_M; columns likewise.
  let x4 = lane % LANES_N;
  let y4 = lane / LANES_N;
  // sum[row * QUADS + column / 4]
  var sum: array<vec4<f32>, QUADS * QUADS * 4u>;
  var rows: array<vec4<f32>, QUADS>; // declared here: inside the loop it would be zeroed each time
  // The next blocks are loaded while the current ones are summed.
  var left: mat4x4<f32>;
  var right: mat4x4<f32>;
  if (loads_left) { left = left_block(row, here.first + k_left, here.last); }
  if (loads_right) { right = right_block(column, here.first + k_right, here.last); }
  for (var k = here.first; k < here.last; k += TERMS) {
    workgroupBarrier();
    if (loads_left) {
      @unroll for (var t = 0u; t < 4u; t++) {
        tile[to_left + t * (TILE_M / 4u)] = left[t];
      }
    }
    if (loads_right) {
      let terms = turned(right);
      @unroll for (var t = 0u; t < 4u; t++) {
        tile[to_right + t * (TILE_N / 4u)] = terms[t];
      }
    }
    workgroupBarrier();
    if (loads_left) {
      left = left_block(row, k + TERMS + k_left, here.last);
    }
    if (loads_right) {
      column = later(column, TERMS);
      right = right_block(column, k + TERMS + k_right, here.last);
    }
    for (var t4 = 0u; t4 < TERMS; t4 += 4u) {
      let at_left = t4 / 4u * TERMS_LEFT + y4;
      let at_right = t4 / 4u * TERMS_RIGHT + x4 + RIGHT;
      @unroll for (var t = 0u; t < 4u; t++) {
        @unroll for (var i = 0u; i < QUADS; i++) {
          rows[i] = tile[at_left + (t * (TILE_M / 4u) + i * LANES_M)];
        }
        @unroll for (var j = 0u; j < QUADS; j++) {
          let columns = tile[at_right + (t * (TILE_N / 4u) + j * LANES_N)];
          @unroll for (var i = 0u; i < QUADS; i++) {
            @unroll for (var r = 0u; r < 4u; r++) {
              sum[(i * 4u + r) * QUADS + j] += rows[i][r] * columns;
            }
          }
        }
      }
    }
  }
  // Results are staged through workgroup memory, so that stores are coalesced and the store and epilogue code occurs
  // once, in a loop whose bound is not a constant: compilers would unroll it otherwise. (Columns count down because the
  // values computed for loading would otherwise be kept in registers until here.)
  let column4 = TILE_N / 4u - 1u - lane % (TILE_N / 4u);
  let end = select(0u, LANES_M * 2u, here.n + column4 * 4u < here.columns);
  for (var done = 0u; done < QUADS * 4u; done += 2u) {
    workgroupBarrier();
    @unroll for (var r = 0u; r < 2u; r++) {
      @unroll for (var j = 0u; j < QUADS; j++) {
        tile[(y4 * 2u + r) * (TILE_N / 4u) + x4 + j * LANES_N] = sum[r * QUADS + j];
      }
    }
    // Shifts the remaining rows up.
    @unroll for (var j = 0u; j < QUADS * QUADS * 4u; j++) {
      sum[j] = sum[min(j + QUADS * 2u, QUADS * QUADS * 4u - 1u)];
    }
    workgroupBarrier();
    let above = here.m + done / 4u * (LANES_M * 4u) + done % 4u;
    for (var r = lane / (TILE_N / 4u); r < end; r += LANES / (TILE_N / 4u)) {
      store(here.part, above + r / 2u * 4u + r % 2u, here.n + column4 * 4u, tile[r * (TILE_N / 4u) + column4]);
    }
  }
}
