// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack; y [N, O, OH, OW] contiguous.
// One workgroup computes 64 positions x 64 channels from tiles of depth 16 in workgroup memory (8 KiB), one invocation
// 8 positions x 8 channels.
// Requires KH KW Q under 64,000. Reference: conv2d in src/ops/conv2d/reference.rs.

import package::conv2d_product::{corner, s, store};

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

// Depth-major: x_tile[depth, position / 4], then w_tile[depth, channel / 4], both 16 x 16; finally half of the results.
var<workgroup> tile: array<vec4<f32>, 512>;

// Advances the position in the sum: kernel row (as an offset in packed), kernel column, channel quad.
fn next(at: vec3<u32>) -> vec3<u32> {
  if (at.z + 1u < s.quads) { return vec3(at.x, at.y, at.z + 1u); }
  if (at.y + 1u < s.taps_x) { return vec3(at.x, at.y + 1u, 0u); }
  return vec3(at.x + s.tap_row, 0u, 0u);
}

// This position as an offset from the corner of a window.
fn reach(at: vec3<u32>) -> u32 { return at.x + at.y * s.tap_column + at.z; }

// One channel quad of four windows, transposed: column e holds channel e of each; zeros unless `some`.
fn windows(corners: vec4<u32>, offset: u32, some: bool) -> mat4x4<f32> {
  if (!some) { return mat4x4<f32>(); }
  let at = corners + offset;
  return transpose(mat4x4(packed[at.x], packed[at.y], packed[at.z], packed[at.w]));
}

@compute @workgroup_size(64)
fn conv2d_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Excess workgroups recompute the last block and store nothing.
  let number = group_number(group, groups);
  let block = min(number, s.blocks - 1u);
  let first = block / s.column_blocks * 64u;
  let first_column = block % s.column_blocks * 16u;
  // For loading: this invocation's four windows, of which it loads one of every four steps, and its row and column of
  // the weight tile. Weight rows beyond the last are multiplied by zeros of x and only need to be finite; the last row
  // is used.
  let outer = lane % 16u;
  let step = lane / 16u;
  let p = first + outer * 4u;
  let corners = vec4(corner(p), corner(p + 1u), corner(p + 2u), corner(p + 3u));
  let w_mine = step * s.columns + min(first_column + outer, s.columns - 1u);
  // For computing: positions x4 * 4 + 0..4 and these + 32, channels c4 * 4 + 0..4 and these + 32.
  let x4 = lane % 8u;
  let c4 = lane / 8u;
  var sums: array<vec4<f32>, 16>;
  let depth = s.taps_y * s.taps_x * s.quads;
  // The next four steps are loaded while these are summed.
  var at = vec3<u32>();
  var x: mat4x4<f32>;
  var w: array<vec4<f32>, 4>;
  var offset = 0u;
  @unroll for (var j = 0u; j < 4u; j++) {
    offset = select(offset, reach(at), step == j);
    w[j] = weight[w_mine + min(j, depth - 1u) * 4u * s.columns];
    at = next(at);
  }
  x = windows(corners, offset, step < depth);
  for (var k = 4u; k < depth + 4u; k += 4u) {
    workgroupBarrier();
    @unroll for (var j = 0u; j < 4u; j++) {
      tile[step * 64u + j * 16u + outer] = x[j];
      tile[256u + j * 64u + lane] = w[j];
    }
    workgroupBarrier();
    @unroll for (var j = 0u; j < 4u; j++) {
      offset = select(offset, reach(at), step == j);
      w[j] = weight[w_mine + min(k + j, depth - 1u) * 4u * s.columns];
      at = next(at);
    }
    x = windows(corners, offset, k + step < depth);
    for (var d4 = 0u; d4 < 16u; d4 += 4u) {
      let at_x = d4 * 16u + x4;
      let at_w = d4 * 16u + c4 + 256u;
      @unroll for (var d = 0u; d < 4u; d++) {
        let x0 = tile[at_x + d * 16u];
        let x1 = tile[at_x + d * 16u + 8u];
        let w0 = tile[at_w + d * 16u];
        let w1 = tile[at_w + d * 16u + 8u];
        @unroll for (var e = 0u; e < 4u; e++) {
          sums[e * 2u] += w0[e] * x0;
          sums[e * 2u + 1u] += w0[e] * x1;
          sums[e * 2u + 8u] += w1[e] * x0;
          sums[e * 2u + 9u] += w1[e] * x1;
        }
      }
    }
  }
  // Stages the results through workgroup memory, so that stores coalesce and there is only one store, with its
  // epilogue. The loop bound is not constant, so that compilers do not unroll the loop.
  let position4 = 15u - outer; // counting down keeps no registers of the loads alive
  let position = first + position4 * 4u;
  let end = select(0u, 32u, number < s.blocks && position < s.positions);
  for (var half = 0u; half < 2u; half++) {
    workgroupBarrier();
    @unroll for (var e = 0u; e < 4u; e++) {
      @unroll for (var j = 0u; j < 2u; j++) {
        tile[(c4 * 4u + e) * 16u + x4 + j * 8u] = select(sums[e * 2u + j], sums[e * 2u + j + 8u], half == 1u);
      }
    }
    workgroupBarrier();
    for (var c = step; c < end; c += 4u) {
      store(tile[c * 16u + position4], position, first_column * 4u + half * 32u + c);
    }
  }
}
