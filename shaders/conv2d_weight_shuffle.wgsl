// partial[k, r, o] = sum over the k-th range of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. Bindings and the layout of the result are in
// conv2d_weight_product.wgsl.
// One workgroup, a subgroup of 8, computes 16 row quads x 32 WIDE channels: each lane computes WIDE vec4 of channels
// of all 64 rows, loads 2 row quads and shares them by shuffles with constant indices. No barriers.
// Requires ranges under 16,000 positions. Reference: conv2d_weight_grad in src/ops/conv2d/reference.rs.

import package::conv2d_weight_product::{dy, next, packed, s, shift, start, store};

const WIDE: u32 = 1u;

var<workgroup> results: array<vec4<f32>, 512 * WIDE>;

@compute @workgroup_size(8)
fn conv2d_weight_shuffle(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let block = group_number(group, groups);
  if (block >= s.blocks) { return; }
  let column = (block % s.column_blocks * 8u + lane) * WIDE;
  let first_row = block / s.column_blocks % s.row_blocks * 16u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  let shift0 = shift(first_row + lane);
  let shift1 = shift(first_row + 8u + lane);
  var sums: array<vec4<f32>, 64 * WIDE>; // [row, column]
  @unroll for (var i = 0u; i < 64u * WIDE; i++) {
    sums[i] = vec4<f32>();
  }
  var walk = start(begin);
  // Four positions at a time, so that a sum is loaded and stored once per four products.
  for (var p = begin; p < end; p += 4u) {
    var x0 = array<vec4<f32>, 4>();
    var x1 = array<vec4<f32>, 4>();
    var d = array<mat4x4<f32>, WIDE>();
    @unroll for (var j = 0u; j < 4u; j++) {
      let inside = p + j < end;
      let corner = select(0u, walk.corner, inside);
      x0[j] = packed[corner + shift0];
      x1[j] = packed[corner + shift1];
      @unroll for (var c = 0u; c < WIDE; c++) {
        let at = select(0u, p + j, inside) * s.columns + min(column + c, s.columns - 1u);
        d[c][j] = select(vec4<f32>(), dy[at], inside);
      }
      walk = next(walk);
    }
    @unroll for (var l = 0u; l < 8u; l++) {
      let a = mat4x4(
        subgroupShuffle(x0[0], l), subgroupShuffle(x0[1], l), subgroupShuffle(x0[2], l), subgroupShuffle(x0[3], l),
      );
      let b = mat4x4(
        subgroupShuffle(x1[0], l), subgroupShuffle(x1[1], l), subgroupShuffle(x1[2], l), subgroupShuffle(x1[3], l),
      );
      @unroll for (var e = 0u; e < 4u; e++) {
        let a_e = vec4(a[0][e], a[1][e], a[2][e], a[3][e]);
        let b_e = vec4(b[0][e], b[1][e], b[2][e], b[3][e]);
        @unroll for (var c = 0u; c < WIDE; c++) {
          sums[(l * 4u + e) * WIDE + c] += d[c] * a_e;
          sums[(32u + l * 4u + e) * WIDE + c] += d[c] * b_e;
        }
      }
    }
  }
  // Each lane stages its sums in its own part of workgroup memory, so that there is only one store instruction.
  @unroll for (var i = 0u; i < 64u * WIDE; i++) {
    results[i * 8u + lane] = sums[i];
  }
  let last = 4u * min(16u, s.rows - first_row);
  for (var r = 0u; r < last; r++) {
    @unroll for (var c = 0u; c < WIDE; c++) {
      store(split, first_row * 4u + r, column + c, results[(r * WIDE + c) * 8u + lane]);
    }
  }
}
