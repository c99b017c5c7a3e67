// partial[k, r, o] = sum over the k-th range of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. Bindings and the layout of the result are in
// conv2d_weight_product.wgsl.
// One workgroup computes 16 row quads x 64 channels from tiles of 16 positions in workgroup memory (8 KiB), one
// invocation 2 row quads x 8 channels.
// Requires ranges under 16,000 positions. Reference: conv2d_weight_grad in src/ops/conv2d/reference.rs.

import package::conv2d_weight_product::{dy, packed, s, shift, start, store};

// Position-major: tile[position * 16 + row quad], then tile[256 + position * 16 + channel / 4].
var<workgroup> tile: array<vec4<f32>, 512>;
// The starts of the windows of 16 positions, for the next tile and the one after it.
var<workgroup> corners: array<u32, 32>;

fn corner(position: u32) -> u32 {
  return start(min(position, s.positions - 1u)).corner;
}

// dy at a position; zeros beyond the end of the range.
fn gradient(position: u32, end: u32, column: u32) -> vec4<f32> {
  if (position < end) { return dy[position * s.columns + column]; }
  return vec4<f32>();
}

@compute @workgroup_size(64)
fn conv2d_weight_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Excess workgroups recompute the last block and store nothing.
  let number = group_number(group, groups);
  let block = min(number, s.blocks - 1u);
  let first_column = block % s.column_blocks * 16u;
  let first_row = block / s.column_blocks % s.row_blocks * 16u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  // For loading: this invocation's row quad and column.
  let load_shift = shift(first_row + lane % 16u);
  let load_column = min(first_column + lane % 16u, s.columns - 1u);
  // For computing: row quads `rows` and `rows` + 8, columns likewise.
  let rows = lane / 8u;
  let columns = lane % 8u;
  var sums: array<vec4<f32>, 16>;
  if (lane < 32u) { corners[lane] = corner(begin + lane); }
  workgroupBarrier();
  // The next 16 positions are loaded while these are summed. Beyond the end, x is multiplied by zeros of dy and only
  // needs to be finite.
  var x: array<vec4<f32>, 4>;
  var g: array<vec4<f32>, 4>;
  @unroll for (var j = 0u; j < 4u; j++) {
    x[j] = packed[corners[j * 4u + lane / 16u] + load_shift];
    g[j] = gradient(begin + j * 4u + lane / 16u, end, load_column);
  }
  var odd = 0u;
  for (var p = begin; p < end; p += 16u) {
    workgroupBarrier();
    @unroll for (var j = 0u; j < 4u; j++) {
      tile[j * 64u + lane] = x[j];
      tile[256u + j * 64u + lane] = g[j];
    }
    if (lane < 16u) { corners[odd + lane] = corner(p + 32u + lane); }
    odd = 16u - odd;
    workgroupBarrier();
    @unroll for (var j = 0u; j < 4u; j++) {
      x[j] = packed[corners[odd + j * 4u + lane / 16u] + load_shift];
      g[j] = gradient(p + 16u + j * 4u + lane / 16u, end, load_column);
    }
    for (var d4 = 0u; d4 < 16u; d4 += 4u) {
      let at_x = d4 * 16u + rows;
      let at_dy = d4 * 16u + columns + 256u;
      @unroll for (var d = 0u; d < 4u; d++) {
        let x0 = tile[at_x + d * 16u];
        let x1 = tile[at_x + d * 16u + 8u];
        let d0 = tile[at_dy + d * 16u];
        let d1 = tile[at_dy + d * 16u + 8u];
        @unroll for (var e = 0u; e < 4u; e++) {
          sums[e * 2u] += x0[e] * d0;
          sums[e * 2u + 1u] += x0[e] * d1;
          sums[8u + e * 2u] += x1[e] * d0;
          sums[8u + e * 2u + 1u] += x1[e] * d1;
        }
      }
    }
  }
  // Stages the results through workgroup memory, so that there is only one store instruction.
  let left = select(0u, s.rows - first_row, number < s.blocks);
  for (var half = 0u; half < 2u; half++) {
    workgroupBarrier();
    @unroll for (var e = 0u; e < 4u; e++) {
      @unroll for (var j = 0u; j < 2u; j++) {
        tile[(rows * 4u + e) * 16u + columns + j * 8u] = select(sums[e * 2u + j], sums[8u + e * 2u + j], half == 1u);
      }
    }
    workgroupBarrier();
    let end = 4u * min(8u, max(left, half * 8u) - half * 8u);
    for (var r = lane / 16u; r < end; r += 4u) {
      store(split, (first_row + half * 8u) * 4u + r, first_column + lane % 16u, tile[r * 16u + lane % 16u]);
    }
  }
}
