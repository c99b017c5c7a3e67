// y[m, n] = epilogue(sum over k of a[m, k] * w[n, k]) for few rows m and a quantised w, for subgroups of 8.
// Bindings: 0 Params, 1 a, 3 y, as in matmul_operands.wgsl; 2 words, 4 scales, 5 zeros, as in quantized_weights.wgsl.
// A workgroup computes TM x 32 elements of y, an invocation 4 of each row. It loads whole blocks of its 4 rows of w, 16
// bytes at a time. Each lane holds 4 of the 32 terms of each row of a and shares them by shuffles with constant
// indices. One workgroup is one subgroup.
// Reference: QuantizedMatmul::reference in src/ops/quantized_matmul.rs.

import package::matmul_blocks::{left_row, store};
import package::matmul_operands::{B_BITS, four, p, rows_of_a};
import package::quantized_weights::{blocks_in_row, centred, scales, words, zero_of};

const TM: u32 = 1u;

@compute @workgroup_size(8)
fn quantized_gemv_shuffle(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let number = group_number(group, groups);
  let n = (number % p.tiles_n * 8u + lane) * 4u;
  let m = number / p.tiles_n % p.tiles_m * TM;
  let part = number / p.tiles_n / p.tiles_m;
  if (part >= p.parts) { return; } // uniform in the workgroup

  var rows: array<u32, TM>;
  @unroll for (var r = 0u; r < TM; r++) {
    rows[r] = rows_of_a(0u, m + r).x;
  }
  let blocks = four(n, p.n) * blocks_in_row();
  var sum: array<vec4<f32>, TM>;
  let first = part * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first; k < last; k += 32u) {
    var left = array<vec4<f32>, TM>();
    @unroll for (var r = 0u; r < TM; r++) {
      left[r] = left_row(rows[r], k + lane * 4u, last);
    }
    let block = blocks + k / 32u;
    let zero = vec4(zero_of(block.x), zero_of(block.y), zero_of(block.z), zero_of(block.w));
    var dots = array<vec4<f32>, TM>();
    @unroll for (var pack = 0u; pack < B_BITS / 4u; pack++) {
      let i = block * (B_BITS / 4u) + pack;
      let w0 = words[i.x];
      let w1 = words[i.y];
      let w2 = words[i.z];
      let w3 = words[i.w];
      @unroll for (var q = 0u; q < 32u / B_BITS; q++) {
        // Four terms of the lane's rows, from the lower or upper half of a word, or from all of it.
        let word = q * B_BITS / 8u;
        let right = transpose(mat4x4(
          centred(w0[word] >> (q * B_BITS % 8u * 4u), zero.x), centred(w1[word] >> (q * B_BITS % 8u * 4u), zero.y),
          centred(w2[word] >> (q * B_BITS % 8u * 4u), zero.z), centred(w3[word] >> (q * B_BITS % 8u * 4u), zero.w),
        ));
        @unroll for (var t = 0u; t < 4u; t++) {
          @unroll for (var r = 0u; r < TM; r++) {
            dots[r] += subgroupShuffle(left[r][t], pack * (32u / B_BITS) + q) * right[t];
          }
        }
      }
    }
    let scale = vec4(scales[block.x], scales[block.y], scales[block.z], scales[block.w]);
    @unroll for (var r = 0u; r < TM; r++) {
      sum[r] += dots[r] * scale;
    }
  }
  // Stores the first row and shifts the others up, so that the store and epilogue code occurs once.
  let inside = min(TM, p.m - m);
  for (var r = 0u; r < inside; r++) {
    store(part, m + r, n, sum[0]);
    @unroll for (var i = 0u; i < TM; i++) {
      sum[i] = sum[min(i + 1u, TM - 1u)];
    }
  }
}
