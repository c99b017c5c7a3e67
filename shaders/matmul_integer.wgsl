// y[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n] of integers, modulo 2^32.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// One invocation computes 4 x 4 elements of y. A workgroup is 64 of them, along n first, all in the same part. part_k
// is at most 12,000; parts and tiles as in Params; surplus invocations do nothing.
// With DOT4, a and b are words of four signed bytes along k, where they are contiguous.
// Reference: product_of_integers in src/ops/matmul/integer.rs.

import package::matmul_operands::{a, b, columns_of_b, p, rows_of_a, T, y};

const DOT4: bool = false;
// Terms per element of the bindings.
@if(DOT4)
const TERMS: u32 = 4u;
@else
const TERMS: u32 = 1u;

@compute @workgroup_size(64)
fn matmul_integer(
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

  let rows = rows_of_a(batch, m) / TERMS;
  let columns = columns_of_b(batch, n) / TERMS;
  var sum: array<vec4<T>, 4>;
  let last = min(p.k, (part + 1u) * p.part_k) / TERMS;
  for (var k = part * p.part_k / TERMS; k < last; k++) {
    let left = rows + k * p.a_k;
    let right = columns + k * p.b_k;
    let terms = vec4(b[right.x], b[right.y], b[right.z], b[right.w]);
    @unroll for (var i = 0u; i < 4u; i++) {
      let factor = a[left[i]];
      @if(DOT4) {
        sum[i] += vec4<T>(vec4(
          dot4I8Packed(factor, terms.x), dot4I8Packed(factor, terms.y), dot4I8Packed(factor, terms.z),
          dot4I8Packed(factor, terms.w),
        ));
      }
      @else sum[i] += factor * terms;
    }
  }
  let slice = part * p.batches + batch;
  @unroll for (var i = 0u; i < 4u; i++) {
    @unroll for (var j = 0u; j < 4u; j++) {
      if (m + i < p.m && n + j < p.n) {
        y[(slice * p.m + m + i) * p.n + n + j] = sum[i][j];
      }
    }
  }
}
