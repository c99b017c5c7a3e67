// partial[k, r, o] = sum over the k-th range of positions p of packed[p shifted by tap, q][e] dy[p, o]
// where row r = 4 (tap Q + q) + e. Bindings and the layout of the result are in
// conv2d_weight_product.wgsl.
// One invocation computes 4 row quads x 8 channels in registers: no workgroup memory, no barriers.
// Requires ranges under 16,000 positions. Reference: conv2d_weight_grad in src/ops/conv2d/reference.rs.

import package::conv2d_weight_product::{dy, next, packed, s, shift, start, store};

@compute @workgroup_size(32)
fn conv2d_weight_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = group_number(group, groups) * 32u + lane;
  if (block >= s.blocks) { return; }
  let column = block % s.column_blocks * 2u;
  let second = min(column + 1u, s.columns - 1u) - column;
  let first_row = block / s.column_blocks % s.row_blocks * 4u;
  let split = block / s.column_blocks / s.row_blocks;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  var shifts: array<u32, 4>;
  @unroll for (var r = 0u; r < 4u; r++) {
    shifts[r] = shift(first_row + r);
  }
  var left: array<vec4<f32>, 16>;
  var right: array<vec4<f32>, 16>;
  @unroll for (var i = 0u; i < 16u; i++) {
    left[i] = vec4<f32>();
    right[i] = vec4<f32>();
  }
  var walk = start(begin);
  for (var p = begin; p < end; p++) {
    let d0 = dy[p * s.columns + column];
    let d1 = dy[p * s.columns + column + second];
    @unroll for (var r = 0u; r < 4u; r++) {
      let x = packed[walk.corner + shifts[r]];
      @unroll for (var e = 0u; e < 4u; e++) {
        left[r * 4u + e] += x[e] * d0;
        right[r * 4u + e] += x[e] * d1;
      }
    }
    walk = next(walk);
  }
  // Stores the first row and shifts the others up: only one store instruction, and the sums stay in registers.
  let last = 4u * min(4u, s.rows - first_row);
  for (var r = 0u; r < last; r++) {
    store(split, first_row * 4u + r, column, left[0]);
    store(split, first_row * 4u + r, column + 1u, right[0]);
    @unroll for (var i = 0u; i < 15u; i++) {
      left[i] = left[i + 1u];
      right[i] = right[i + 1u];
    }
  }
}
