// y[m, n] = epilogue(sum over k of a[m, k] * w[n, k]) for few rows m and a quantised w.
// Bindings: 0 Params, 1 a, 3 y, as in matmul_operands.wgsl; 2 words, 4 scales, 5 zeros, as in quantized_weights.wgsl.
// A workgroup computes a TM x TN tile of y, TN a multiple of 4. Its invocations split k, 8 terms each, so neighbours
// read adjacent words, and each has TN of them in flight; finally their sums are added.
// Reference: QuantizedMatmul::reference in src/ops/quantized_matmul.rs.

import package::matmul_blocks::left_row;
import package::matmul_operands::{B_BITS, p, rows_of_a};
import package::matmul_sums::{QUADS, store_sums};
import package::quantized_weights::{blocks_in_row, centred, scales, words, zero_of};

const TM: u32 = 1u;
const TN: u32 = 8u;

@compute @workgroup_size(64)
fn quantized_gemv(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let n = number % p.tiles_n * TN;
  let m = number / p.tiles_n % p.tiles_m * TM;
  let part = number / p.tiles_n / p.tiles_m;
  if (part >= p.parts) { return; } // uniform in the workgroup

  var rows: array<u32, TM>;
  @unroll for (var r = 0u; r < TM; r++) {
    rows[r] = rows_of_a(0u, m + r).x;
  }
  // sum[row * TN / 4 + column / 4]
  var sum: array<vec4<f32>, QUADS>;
  let blocks = blocks_in_row();
  let first = part * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first + lane * 8u; k < last; k += 512u) {
    var left = array<vec4<f32>, 2u * TM>();
    @unroll for (var r = 0u; r < TM; r++) {
      left[2u * r] = left_row(rows[r], k, last);
      left[2u * r + 1u] = left_row(rows[r], k + 4u, last);
    }
    @unroll for (var j = 0u; j < TN; j++) {
      let row = min(n + j, p.n - 1u) * blocks;
      let pack = words[row * 4u + k / 8u];
      let zero = zero_of(row + k / 32u);
      let scale = scales[row + k / 32u];
      @if(B_BITS == 8) let right = mat2x4(centred(pack.x, zero), centred(pack.y, zero));
      @else let right = mat2x4(centred(pack, zero), centred(pack >> 16u, zero));
      @unroll for (var r = 0u; r < TM; r++) {
        sum[r * TN / 4u + j / 4u][j % 4u] += (dot(left[2u * r], right[0]) + dot(left[2u * r + 1u], right[1])) * scale;
      }
    }
  }
  store_sums(sum, lane, part, m, n);
}
