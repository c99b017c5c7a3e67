// y[n, c, i, j] = sum over u, v of packed[n, i, j, shifted by (u, v), c / 4][c % 4] * weight[u, v, c]
// packed [N, PH, PW, Q] and weight [KH KW, Q] of vec4 from conv2d_pack.
// For a strided input gradient, the weight is reversed, and phase (ry, rx) uses its rows KH - 1 - ry - SY t for all
// whole t, and its columns likewise.
// An invocation computes 4 channels of 4 positions and one phase; neighbours have neighbouring channels.
// Requires KH KW under 4,000. Reference: conv2d in src/ops/conv2d/reference.rs.

import package::conv2d_product::{corner, s, store, SX, SY};

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

@compute @workgroup_size(64)
fn conv2d_depthwise(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = group_number(group, groups) * 64u + lane;
  if (id >= s.blocks) { return; }
  let q = id % s.quads;
  let phase = id / s.quads % (SY * SX);
  let first = id / s.quads / (SY * SX) * 4u;
  var corners: array<u32, 4>;
  var sums: array<vec4<f32>, 4>;
  @unroll for (var j = 0u; j < 4u; j++) {
    corners[j] = corner(first + j) + q;
  }
  // Kernel row and column of the first tap; negative (wrapped) if the phase has no such tap.
  let y = s.kernel_y - 1u - SY * (s.taps_y - 1u) - phase / SX;
  let x = s.kernel_x - 1u - SX * (s.taps_x - 1u) - phase % SX;
  let begin_y = select(0u, 1u, i32(y) < 0);
  let begin_x = select(0u, 1u, i32(x) < 0);
  for (var u = begin_y; u < s.taps_y; u++) {
    for (var v = begin_x; v < s.taps_x; v++) {
      let tap = u * s.tap_row + v * s.tap_column;
      let w = weight[((y + u * SY) * s.kernel_x + x + v * SX) * s.quads + q];
      @unroll for (var j = 0u; j < 4u; j++) {
        sums[j] += packed[corners[j] + tap] * w;
      }
    }
  }
  let by_channel = transpose(mat4x4(sums[0], sums[1], sums[2], sums[3]));
  @unroll for (var k = 0u; k < 4u; k++) {
    store(by_channel[k], first, (q * 4u + k) * (SY * SX) + phase);
  }
}
