// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), for few rows or few columns.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes a TM x TN tile of y, multiples of 4, at most 32 elements. Its invocations split k, 4 terms each,
// so neighbours read adjacent elements if k is contiguous; finally their sums are added.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_terms, right_terms};
import package::matmul_operands::{columns_of_b, p, rows_of_a};
import package::matmul_sums::{QUADS, store_sums, sums};

const TM: u32 = 4u;
const TN: u32 = 4u;

@compute @workgroup_size(64)
fn matmul_gemv(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let n = number % p.tiles_n * TN;
  let m = number / p.tiles_n % p.tiles_m * TM;
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // uniform in the workgroup
  let batch = slice % p.batches;

  var rows: array<vec4<u32>, TM / 4u>;
  @unroll for (var i = 0u; i < TM / 4u; i++) {
    rows[i] = rows_of_a(batch, m + i * 4u);
  }
  var columns: array<vec4<u32>, TN / 4u>;
  @unroll for (var j = 0u; j < TN / 4u; j++) {
    columns[j] = columns_of_b(batch, n + j * 4u);
  }
  // sum[row * TN / 4 + column / 4]
  var sum: array<vec4<f32>, QUADS>;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first + lane * 4u; k < last; k += 256u) {
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

  @unroll for (var q = 0u; q < QUADS; q++) {
    sums[lane * QUADS + q] = sum[q];
  }
  store_sums(lane, slice, m, n);
}
