// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), by tiles in workgroup memory.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes a TILE_M x TILE_N tile of y, TERMS terms of the sum at a time; an invocation 4 QUADS_M rows x
// QUADS_N vec4. LANES = TILE_M TILE_N / (16 QUADS_M QUADS_N). Rows and columns beyond the edges repeat the last ones
// and are not stored; terms beyond k are 0.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_terms, right_terms, store};
import package::matmul_operands::{columns_of_b, p, rows_of_a};

const TILE_M: u32 = 64u;
const TILE_N: u32 = 64u;
const TERMS: u32 = 16u;
const QUADS_M: u32 = 2u;
const QUADS_N: u32 = 2u;
const LANES: u32 = 64u;
// Invocations along m and n.
const LANES_M: u32 = TILE_M / 4u / QUADS_M;
const LANES_N: u32 = TILE_N / 4u / QUADS_N;
// 4 x 4 blocks that the workgroup loads of a, and of both operands, and that an invocation loads.
const BLOCKS_A: u32 = TILE_M * TERMS / 16u;
const BLOCKS: u32 = (TILE_M + TILE_N) * TERMS / 16u;
const EACH: u32 = (BLOCKS + LANES - 1u) / LANES;
// Start of b in the tile.
const TILE_B: u32 = TILE_M * TERMS / 4u;
// Beyond every k.
const FAR: u32 = 0x80000000u;

// a[k, m / 4], followed by b[k, n / 4]; at the end, two rows of each invocation.
var<workgroup> tile: array<vec4<f32>, (TILE_M + TILE_N) * TERMS / 4u>;

// Whether the block with number `number` LANES + lane is one of a.
fn is_a(number: u32, lane: u32) -> bool {
  return number * LANES < BLOCKS_A && ((number + 1u) * LANES <= BLOCKS_A || number * LANES + lane < BLOCKS_A);
}

// Whether there is a block with that number.
fn is_some(number: u32, lane: u32) -> bool {
  return (number + 1u) * LANES <= BLOCKS || number * LANES + lane < BLOCKS;
}

// The block of a or b at k, with zeros for terms from `last` on.
fn block(of_a: bool, at: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) {
    return mat4x4<f32>();
  }
  if (of_a) {
    return left_terms(at, k, last);
  }
  return right_terms(at, k, last);
}

// Stores a block in the tile: term t at to + t * stride.
fn keep(terms: mat4x4<f32>, to: u32, stride: u32) {
  @unroll for (var t = 0u; t < 4u; t++) {
    tile[to + t * stride] = terms[t];
  }
}

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

  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  // Each invocation loads EACH blocks: of these rows or columns, at these terms of a round, to these places in the tile.
  var at: array<vec4<u32>, EACH>;
  var ahead: array<u32, EACH>;
  var to: array<u32, EACH>;
  @unroll for (var e = 0u; e < EACH; e++) {
    if (is_a(e, lane)) {
      let number = e * LANES + lane;
      at[e] = rows_of_a(batch, m + number % (TILE_M / 4u) * 4u);
      ahead[e] = number / (TILE_M / 4u) * 4u;
      to[e] = ahead[e] * (TILE_M / 4u) + number % (TILE_M / 4u);
    } else {
      let number = e * LANES + lane - BLOCKS_A;
      at[e] = columns_of_b(batch, n + number % (TILE_N / 4u) * 4u);
      ahead[e] = number / (TILE_N / 4u) * 4u;
      to[e] = ahead[e] * (TILE_N / 4u) + number % (TILE_N / 4u) + TILE_B;
    }
    if (!is_some(e, lane)) {
      ahead[e] = FAR;
    }
  }
  // Each invocation sums rows y4 * 4 + 0..4, and another QUADS_M - 1 groups at distances of 4 LANES_M; columns
  // likewise. Neighbours 2 i and 2 i + 1 read the same columns, neighbours i and i + 2 the same rows: NVIDIA's GPUs then
  // serve 16 invocations at once, otherwise 8. (^ instead of +: then NVIDIA's compiler sees that addresses differ by
  // constants.)
  let x4 = lane / 2u % LANES_N;
  let y4 = (lane / (2u * LANES_N) * 2u) ^ (lane % 2u);
  // sum[row * QUADS_N + column / 4]
  var sum: array<vec4<f32>, QUADS_M * QUADS_N * 4u>;
  var rows: array<vec4<f32>, QUADS_M>; // declared here: inside the loop it would be zeroed each time
  // The next blocks are loaded while the current ones are summed.
  var blocks: array<mat4x4<f32>, EACH>;
  @unroll for (var e = 0u; e < EACH; e++) {
    blocks[e] = block(is_a(e, lane), at[e], first + ahead[e], last);
  }
  for (var k = first; k < last; k += TERMS) {
    workgroupBarrier();
    @unroll for (var e = 0u; e < EACH; e++) {
      if (is_some(e, lane)) {
        keep(blocks[e], to[e], select(TILE_N / 4u, TILE_M / 4u, is_a(e, lane)));
      }
    }
    workgroupBarrier();
    @unroll for (var e = 0u; e < EACH; e++) {
      blocks[e] = block(is_a(e, lane), at[e], k + TERMS + ahead[e], last);
    }
    for (var t4 = 0u; t4 < TERMS; t4 += 4u) {
      let at_a = t4 * (TILE_M / 4u) + y4;
      let at_b = t4 * (TILE_N / 4u) + x4 + TILE_B;
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
  let end = select(0u, LANES_M * 2u, n + column4 * 4u < p.n);
  for (var done = 0u; done < QUADS_M * 4u; done += 2u) {
    workgroupBarrier();
    @unroll for (var r = 0u; r < 2u; r++) {
      @unroll for (var j = 0u; j < QUADS_N; j++) {
        tile[(y4 * 2u + r) * (TILE_N / 4u) + x4 + j * LANES_N] = sum[r * QUADS_N + j];
      }
    }
    // Shifts the remaining rows up.
    @unroll for (var j = 0u; j < QUADS_M * QUADS_N * 4u; j++) {
      sum[j] = sum[min(j + QUADS_N * 2u, QUADS_M * QUADS_N * 4u - 1u)];
    }
    workgroupBarrier();
    let above = m + done / 4u * (LANES_M * 4u) + done % 4u;
    for (var r = lane / (TILE_N / 4u); r < end; r += LANES / (TILE_N / 4u)) {
      store(slice, above + r / 2u * 4u + r % 2u, n + column4 * 4u, tile[r * (TILE_N / 4u) + column4]);
    }
  }
}
