// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack; y [N, O, OH, OW] contiguous.
// One workgroup, a subgroup of 8, computes 64 positions x 32 WIDE channels: each lane computes WIDE vec4 of channels
// of all 64 positions, loads 8 positions and shares them by shuffles with constant indices. No barriers.
// Requires KH KW Q under 16,000. Reference: conv2d in src/ops/conv2d/reference.rs.

import package::conv2d_product::{corner, s, store};

const WIDE: u32 = 1u;

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

var<workgroup> results: array<vec4<f32>, 512 * WIDE>;

@compute @workgroup_size(8)
fn conv2d_shuffle(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let block = group_number(group, groups);
  if (block >= s.blocks) { return; }
  let first = block / s.column_blocks * 64u;
  let column = (block % s.column_blocks * 8u + lane) * WIDE;
  var corners: array<u32, 8>;
  var sums: array<vec4<f32>, 64 * WIDE>; // [position, column]
  @unroll for (var j = 0u; j < 8u; j++) {
    corners[j] = corner(first + j * 8u + lane);
  }
  @unroll for (var i = 0u; i < 64u * WIDE; i++) {
    sums[i] = vec4<f32>();
  }
  var w_at: array<u32, WIDE>;
  @unroll for (var c = 0u; c < WIDE; c++) {
    w_at[c] = min(column + c, s.columns - 1u);
  }
  for (var u = 0u; u < s.taps_y; u++) {
    for (var v = 0u; v < s.taps_x; v++) {
      let tap = u * s.tap_row + v * s.tap_column;
      for (var q = tap; q < tap + s.quads; q++) {
        var w = array<mat4x4<f32>, WIDE>();
        @unroll for (var c = 0u; c < WIDE; c++) {
          let at = w_at[c];
          w[c] = mat4x4(weight[at], weight[at + s.columns], weight[at + 2u * s.columns], weight[at + 3u * s.columns]);
          w_at[c] = at + 4u * s.columns;
        }
        @unroll for (var j = 0u; j < 8u; j++) {
          let mine = packed[corners[j] + q];
          @unroll for (var l = 0u; l < 8u; l++) {
            let x = subgroupShuffle(mine, l);
            @unroll for (var c = 0u; c < WIDE; c++) {
              sums[(j * 8u + l) * WIDE + c] += w[c] * x;
            }
          }
        }
      }
    }
  }
  // Each lane uses its own part of workgroup memory: a dynamically indexed private array takes the compilers of some
  // drivers seconds.
  @unroll for (var i = 0u; i < 64u * WIDE; i++) {
    results[i * 8u + lane] = sums[i];
  }
  let last = min(64u, s.positions - first);
  for (var p = 0u; p < last; p += 4u) {
    @unroll for (var c = 0u; c < WIDE; c++) {
      let at = (p * WIDE + c) * 8u + lane;
      let four = mat4x4(results[at], results[at + 8u * WIDE], results[at + 16u * WIDE], results[at + 24u * WIDE]);
      let by_channel = transpose(four);
      @unroll for (var k = 0u; k < 4u; k++) {
        store(by_channel[k], first + p, (column + c) * 4u + k);
      }
    }
  }
}
