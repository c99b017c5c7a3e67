// y[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n] of bytes, four terms at a time, modulo 2^32.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl, but a and b are words of four bytes along k.
// One invocation computes 4 x 4 elements of y. A workgroup is 64 of them, along n first, all in the same part. part_k
// is at most 12,000; parts and tiles as in Params; surplus invocations do nothing.
// Reference: product_of_integers in src/ops/matmul/integer.rs.

import package::matmul_operands::{a, b, columns_of_b, p, rows_of_a, y};

@compute @workgroup_size(64)
fn matmul_dot4(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let group_number = group_number(group, groups);
  let groups_in_part = (p.batches * p.tiles_m * p.tiles_n + 63u) / 64u;
  let part = group_number / groups_in_part;
  let number = group_number % groups_in_part * 64u + lane;
  let n = number % p.tiles_n * 4u;
  let m = number / p.tiles_n % p.tiles_m * 4u;
  let batch = number / p.tiles_n / p.tiles_m;
  if (part >= p.parts || batch >= p.batches) { return; }

  // Positions of bytes, which are multiples of 4.
  let rows = rows_of_a(batch, m) / 4u;
  let columns = columns_of_b(batch, n) / 4u;
  var sum: array<vec4<i32>, 4>;
  let last = min(p.k, (part + 1u) * p.part_k) / 4u;
  for (var k = part * p.part_k / 4u; k < last; k++) {
    let left = rows + k;
    let right = columns + k;
    let terms = vec4(b[right.x], b[right.y], b[right.z], b[right.w]);
    @unroll for (var i = 0u; i < 4u; i++) {
      let four = a[left[i]];
      sum[i] += vec4(
        dot4I8Packed(four, terms.x), dot4I8Packed(four, terms.y), dot4I8Packed(four, terms.z),
        dot4I8Packed(four, terms.w),
      );
    }
  }
  let slice = part * p.batches + batch;
  @unroll for (var i = 0u; i < 4u; i++) {
    @unroll for (var j = 0u; j < 4u; j++) {
      if (m + i < p.m && n + j < p.n) {
        y[(slice * p.m + m + i) * p.n + n + j] = bitcast<u32>(sum[i][j]);
      }
    }
  }
}
