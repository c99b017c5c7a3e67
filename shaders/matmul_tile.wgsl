// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), by tiles in workgroup memory.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes a TILE_M x TILE_N tile of y, TERMS terms of the sum at a time; an invocation 4 QUADS_M rows x
// QUADS_N vec4. The LANES = TILE_M TILE_N / (16 QUADS_M QUADS_N) invocations must be at least as many as the 4 x 4
// blocks of either operand, TILE_M TERMS / 16 and TILE_N TERMS / 16. Rows and columns beyond the edges repeat the last
// ones and are not stored; terms beyond k are 0.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_block, right_block, store};
import package::matmul_operands::{columns_of_b, p, rows_of_a};
import package::tile_blocks::block_of;

const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const TERMS: u32 = 16u;
const QUADS_M: u32 = 2u;
const QUADS_N: u32 = 2u;
const LANES: u32 = 64u;
// Invocations along m and n.
const LANES_M: u32 = TILE_M / 4u / QUADS_M;
const LANES_N: u32 = TILE_N / 4u / QUADS_N;
// Whether neighbouring invocations load adjacent terms of an operand, which must be contiguous along the terms. Then
// PAD vec4 follow each four terms, so that 8 neighbours store in different banks of workgroup memory.
const LEFT_BY_TERMS: bool = false;
const RIGHT_BY_TERMS: bool = false;
const PAD: u32 = 32u / TERMS;
// Four terms of a, and of b, in the tile.
const TERMS_A: u32 = TILE_M + u32(LEFT_BY_TERMS) * PAD;
const TERMS_B: u32 = TILE_N + u32(RIGHT_BY_TERMS) * PAD;
// Start of b in the tile.
const TILE_B: u32 = TERMS_A * (TERMS / 4u);
// Beyond every k.
const FAR: u32 = 0x80000000u;

// Rows of each invocation whose results the tile holds at the end.
@if(LANES_M * TILE_N * 2 > (TILE_M + TILE_N) * TERMS)
const STAGED: u32 = 1u;
@else
const STAGED: u32 = 2u;

// a[k, m / 4], followed by b[k, n / 4]; at the end, STAGED rows of each invocation.
var<workgroup> tile: array<vec4<f32>, (TERMS_A + TERMS_B) * (TERMS / 4u)>;

@compute @workgroup_size(LANES)
fn matmul_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let n = number % p.tiles_n * TILE_N;
  let m = number / p.tiles_n % p.tiles_m * TILE_M;
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // uniform in the workgroup
  let batch = slice % p.batches;

  // The first invocations each load a 4 x 4 block of a, the last ones a block of b.
  let block_a = lane;
  let block_b = LANES - 1u - lane;
  let loads_a = block_a < TILE_M * TERMS / 16u;
  let loads_b = block_b < TILE_N * TERMS / 16u;
  let of_a = block_of(block_a, TILE_M, LEFT_BY_TERMS);
  let of_b = block_of(block_b, TILE_N, RIGHT_BY_TERMS);
  let row = rows_of_a(batch, m + of_a.outer4 * 4u);
  let column = columns_of_b(batch, n + of_b.outer4 * 4u);
  let to_a = of_a.k4 * TERMS_A + of_a.outer4;
  let to_b = of_b.k4 * TERMS_B + of_b.outer4 + TILE_B;
  let ahead_a = select(FAR, of_a.k4 * 4u, loads_a);
  let ahead_b = select(FAR, of_b.k4 * 4u, loads_b);
  // Each invocation sums rows y4 * 4 + 0..4, and another QUADS_M - 1 groups at distances of 4 LANES_M; columns
  // likewise. Neighbours 2 i and 2 i + 1 read the same columns, neighbours i and i + 2 the same rows: NVIDIA's GPUs then
  // serve 16 invocations at once, otherwise 8. On an H100, products of 4096 take 5% less time. (^ instead of +: then
  // NVIDIA's compiler sees that addresses differ by constants.)
  let x4 = lane / 2u % LANES_N;
  let y4 = (lane / (2u * LANES_N) * 2u) ^ (lane % 2u);
  // sum[row * QUADS_N + column / 4]
  var sum: array<vec4<f32>, QUADS_M * QUADS_N * 4u>;
  var rows: array<vec4<f32>, QUADS_M>; // declared here: inside the loop it would be zeroed each time
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  // Prefetches the next blocks while the current ones are summed.
  var left = left_block(row, first + ahead_a, last);
  var right = right_block(column, first + ahead_b, last);
  for (var k = first; k < last; k += TERMS) {
    workgroupBarrier();
    if (loads_a) {
      @unroll for (var t = 0u; t < 4u; t++) {
        tile[to_a + t * (TILE_M / 4u)] = left[t];
      }
    }
    if (loads_b) {
      @unroll for (var t = 0u; t < 4u; t++) {
        tile[to_b + t * (TILE_N / 4u)] = right[t];
      }
    }
    workgroupBarrier();
    left = left_block(row, k + TERMS + ahead_a, last);
    right = right_block(column, k + TERMS + ahead_b, last);
    for (var t4 = 0u; t4 < TERMS; t4 += 4u) {
      let at_a = t4 / 4u * TERMS_A + y4;
      let at_b = t4 / 4u * TERMS_B + x4 + TILE_B;
      @unroll for (var t = 0u; t < 4u; t++) {
        @unroll for (var i = 0u; i < QUADS_M; i++) {
          rows[i] = tile[at_a + (t * (TILE_M / 4u) + i * LANES_M)];
        }
        @unroll for (var j = 0u; j < QUADS_N; j++) {
          let columns = tile[at_b + (t * (TILE_N / 4u) + j * LANES_N)];
          @unroll for (var i = 0u; i < QUADS_M; i++) {
            @unroll for (var r = 0u; r < 4u; r++) {
              sum[(i * 4u + r) * QUADS_N + j] += rows[i][r] * columns;
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
  let end = select(0u, LANES_M * STAGED, n + column4 * 4u < p.n);
  for (var done = 0u; done < QUADS_M * 4u; done += STAGED) {
    workgroupBarrier();
    @unroll for (var r = 0u; r < STAGED; r++) {
      @unroll for (var j = 0u; j < QUADS_N; j++) {
        tile[(y4 * STAGED + r) * (TILE_N / 4u) + x4 + j * LANES_N] = sum[r * QUADS_N + j];
      }
    }
    // Shifts the remaining rows up.
    @unroll for (var j = 0u; j < QUADS_M * QUADS_N * 4u; j++) {
      sum[j] = sum[min(j + QUADS_N * STAGED, QUADS_M * QUADS_N * 4u - 1u)];
    }
    workgroupBarrier();
    let above = m + done / 4u * (LANES_M * 4u) + done % 4u;
    for (var r = lane / (TILE_N / 4u); r < end; r += LANES / (TILE_N / 4u)) {
      store(slice, above + r / STAGED * 4u + r % STAGED, n + column4 * 4u, tile[r * (TILE_N / 4u) + column4]);
    }
  }
}
