// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), without workgroup memory.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// One invocation computes a TM x TN tile of y. A workgroup is 64 of them, along n first, all in the same part.
// TM and TN are multiples of 4; parts and tiles as in Params; surplus invocations do nothing.
// Reference: Matmul::reference in src/ops/matmul.rs.

import package::matmul_blocks::{left_terms, right_terms, store};
import package::matmul_operands::{columns_of_b, p, rows_of_a};

const TM: u32 = 8u;
const TN: u32 = 8u;

@compute @workgroup_size(64)
fn matmul_register(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // All tiles of a workgroup are in one part, so that its invocations are at the same k.
  let group_number = group_number(group, groups);
  let groups_in_part = (p.batches * p.tiles_m * p.tiles_n + 63u) / 64u;
  let part = group_number / groups_in_part;
  let number = group_number % groups_in_part * 64u + lane;
  let n = number % p.tiles_n * TN;
  let m = number / p.tiles_n % p.tiles_m * TM;
  let batch = number / p.tiles_n / p.tiles_m;
  if (part >= p.parts || batch >= p.batches) { return; }
  let slice = part * p.batches + batch;

  var rows: array<vec4<u32>, TM / 4u>;
  @unroll for (var i = 0u; i < TM / 4u; i++) {
    rows[i] = rows_of_a(batch, m + i * 4u);
  }
  var columns: array<vec4<u32>, TN / 4u>;
  @unroll for (var j = 0u; j < TN / 4u; j++) {
    columns[j] = columns_of_b(batch, n + j * 4u);
  }
  // sum[row * TN / 4 + column / 4]
  var sum: array<vec4<f32>, TM * TN / 4u>;
  let first = part * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first; k < last; k += 4u) {
    var right = array<mat4x4<f32>, TN / 4u>();
    @unroll for (var j = 0u; j < TN / 4u; j++) {
      right[j] = right_terms(columns[j], k, last);
    }
    @unroll for (var i = 0u; i < TM / 4u; i++) {
      let left = left_terms(rows[i], k, last);
      @unroll for (var t = 0u; t < 4u; t++) {
        @unroll for (var r = 0u; r < 4u; r++) {
          @unroll for (var j = 0u; j < TN / 4u; j++) {
            sum[(i * 4u + r) * TN / 4u + j] += left[t][r] * right[j][t];
          }
        }
      }
    }
  }
  // Stores the first row and shifts the others up, so that the store and epilogue code occurs once.
  let inside = min(TM, p.m - m);
  for (var i = 0u; i < inside; i++) {
    @unroll for (var j = 0u; j < TN / 4u; j++) {
      store(slice, m + i, n + j * 4u, sum[j]);
    }
    @unroll for (var j = 0u; j < TM * TN / 4u; j++) {
      sum[j] = sum[min(j + TN / 4u, TM * TN / 4u - 1u)];
    }
  }
}
