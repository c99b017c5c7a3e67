// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack; y [N, O, OH, OW] contiguous.
// One invocation computes 16 positions x 8 channels in registers: no workgroup memory, no barriers.
// Requires KH KW Q under 16,000. Reference: conv2d in src/ops/conv2d/reference.rs.

import package::conv2d_product::{corner, s, store};

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

@compute @workgroup_size(32)
fn conv2d_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = group_number(group, groups) * 32u + lane;
  if (block >= s.blocks) { return; }
  let first = block / s.column_blocks * 16u;
  let column = block % s.column_blocks * 2u;
  let second = min(column + 1u, s.columns - 1u) - column;
  var corners: array<u32, 16>;
  var left: array<vec4<f32>, 16>;
  var right: array<vec4<f32>, 16>;
  @unroll for (var i = 0u; i < 16u; i++) {
    corners[i] = corner(first + i);
    left[i] = vec4<f32>();
    right[i] = vec4<f32>();
  }
  var w_at = column;
  for (var u = 0u; u < s.taps_y; u++) {
    for (var v = 0u; v < s.taps_x; v++) {
      let tap = u * s.tap_row + v * s.tap_column;
      for (var q = tap; q < tap + s.quads; q++) {
        let a0 = weight[w_at];
        let b0 = weight[w_at + second];
        let a1 = weight[w_at + s.columns];
        let b1 = weight[w_at + s.columns + second];
        let a2 = weight[w_at + 2u * s.columns];
        let b2 = weight[w_at + 2u * s.columns + second];
        let a3 = weight[w_at + 3u * s.columns];
        let b3 = weight[w_at + 3u * s.columns + second];
        w_at += 4u * s.columns;
        @unroll for (var i = 0u; i < 16u; i++) {
          let x = packed[corners[i] + q];
          left[i] += x.x * a0 + x.y * a1 + x.z * a2 + x.w * a3;
          right[i] += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
        }
      }
    }
  }
  // Stores the first rows and shifts the others up: few store instructions, and the sums stay in registers.
  let last = min(16u, s.positions - first);
  for (var p = 0u; p < last; p += 4u) {
    let a = transpose(mat4x4(left[0], left[1], left[2], left[3]));
    let b = transpose(mat4x4(right[0], right[1], right[2], right[3]));
    @unroll for (var k = 0u; k < 4u; k++) {
      store(a[k], first + p, column * 4u + k);
      store(b[k], first + p, column * 4u + 4u + k);
    }
    @unroll for (var i = 0u; i < 12u; i++) {
      left[i] = left[i + 4u];
      right[i] = right[i + 4u];
    }
  }
}
