// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), for few rows or few columns.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes ACROSS_M x ACROSS_N blocks of TM x TN elements of y, multiples of 4. The invocations of a block,
// LANES / (ACROSS_M * ACROSS_N) of them, split k, 4 terms each; finally their sums are added. Neighbours read adjacent
// elements of the matrix: along k with one block, else along the blocks.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_terms, right_terms};
import package::matmul_operands::{columns_of_b, p, rows_of_a};
import package::matmul_sums::{ACROSS_M, ACROSS_N, LANES, QUADS, store_sums};

const TM: u32 = 4u;
const TN: u32 = 4u;

// Terms per iteration of a workgroup.
const STEP: u32 = LANES / (ACROSS_M * ACROSS_N) * 4u;

@compute @workgroup_size(LANES)
fn matmul_gemv(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let n = number % p.tiles_n * (ACROSS_N * TN);
  let m = number / p.tiles_n % p.tiles_m * (ACROSS_M * TM);
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // uniform in the workgroup
  let batch = slice % p.batches;

  var rows: array<vec4<u32>, TM / 4u>;
  @unroll for (var i = 0u; i < TM / 4u; i++) {
    rows[i] = rows_of_a(batch, m + lane / ACROSS_N % ACROSS_M * TM + i * 4u);
  }
  var columns: array<vec4<u32>, TN / 4u>;
  @unroll for (var j = 0u; j < TN / 4u; j++) {
    columns[j] = columns_of_b(batch, n + lane % ACROSS_N * TN + j * 4u);
  }
  // sum[row * TN / 4 + column / 4]
  var sum: array<vec4<f32>, QUADS>;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first + lane / (ACROSS_M * ACROSS_N) * 4u; k < last; k += STEP) {
    @unroll for (var i = 0u; i < TM / 4u; i++) {
      let left = left_terms(rows[i], k, last);
      @unroll for (var j = 0u; j < TN / 4u; j++) {
        let right = right_terms(columns[j], k, last);
        @unroll for (var r = 0u; r < 4u; r++) {
          sum[(i * 4u + r) * TN / 4u + j] += right * vec4(left[0][r], left[1][r], left[2][r], left[3][r]);
        }
      }
    }
  }

  store_sums(sum, lane, slice, m, n);
}
