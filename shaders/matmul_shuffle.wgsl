// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), for subgroups of 8.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes 32 BLOCKS rows x 32 COLUMNS columns of y; an invocation COLUMNS vec4 of all rows. Each lane
// holds 4 x 4 elements of each block of a, from 4 rows of its own, and shares them by shuffles with constant indices.
// One workgroup is one subgroup.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_terms, right_terms, store};
import package::matmul_operands::{columns_of_b, p, rows_of_a};

const BLOCKS: u32 = 1u;
const COLUMNS: u32 = 1u;

var<workgroup> results: array<vec4<f32>, 256 * BLOCKS * COLUMNS>;

@compute @workgroup_size(8)
fn matmul_shuffle(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let number = group_number(group, groups);
  let n = (number % p.tiles_n * 8u + lane) * COLUMNS * 4u;
  let m = number / p.tiles_n % p.tiles_m * BLOCKS * 32u;
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // uniform in the workgroup
  let batch = slice % p.batches;

  var rows: array<vec4<u32>, BLOCKS>;
  @unroll for (var b = 0u; b < BLOCKS; b++) {
    rows[b] = rows_of_a(batch, m + b * 32u + lane * 4u);
  }
  var columns: array<vec4<u32>, COLUMNS>;
  @unroll for (var c = 0u; c < COLUMNS; c++) {
    columns[c] = columns_of_b(batch, n + c * 4u);
  }
  var sum: array<vec4<f32>, 32 * BLOCKS * COLUMNS>; // [row, column]
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first; k < last; k += 4u) {
    var right = array<mat4x4<f32>, COLUMNS>();
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      right[c] = right_terms(columns[c], k, last);
    }
    @unroll for (var b = 0u; b < BLOCKS; b++) {
      let left = left_terms(rows[b], k, last);
      @unroll for (var r = 0u; r < 32u; r++) {
        let x = vec4(
          subgroupShuffle(left[0][r % 4u], r / 4u), subgroupShuffle(left[1][r % 4u], r / 4u),
          subgroupShuffle(left[2][r % 4u], r / 4u), subgroupShuffle(left[3][r % 4u], r / 4u),
        );
        @unroll for (var c = 0u; c < COLUMNS; c++) {
          sum[(b * 32u + r) * COLUMNS + c] += right[c] * x;
        }
      }
    }
  }
  // Results are staged through workgroup memory (each lane separately) so that the store and epilogue code occurs once,
  // in a loop whose bound is not a constant: compilers would unroll it otherwise.
  @unroll for (var i = 0u; i < 32u * BLOCKS * COLUMNS; i++) {
    results[i * 8u + lane] = sum[i];
  }
  let end = min(m + 32u * BLOCKS, p.m) - min(m, p.m);
  for (var r = 0u; r < end; r++) {
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      store(slice, m + r, n + c * 4u, results[(r * COLUMNS + c) * 8u + lane]);
    }
  }
}
