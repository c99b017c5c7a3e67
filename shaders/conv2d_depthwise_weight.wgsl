// partial[k, c, t] = sum over the k-th range of positions p of packed[p shifted by t, c / 4][c % 4] dy[p, c]
// Bindings as in conv2d_weight_product.wgsl; here a row quad is one kernel element of 4 channels.
// An invocation sums one row quad; neighbours have neighbouring channels. The result is [splits, C, KH KW].
// Requires ranges under 16,000 positions.
// Reference: conv2d_weight_grad in src/ops/conv2d/reference.rs.

import package::conv2d_weight_product::{dy, next, packed, partial_sums, s, shift, start};

@compute @workgroup_size(64)
fn conv2d_depthwise_weight(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = group_number(group, groups) * 64u + lane;
  if (id >= s.blocks) { return; }
  let row = id % s.rows;
  let split = id / s.rows;
  let q = row % s.quads;
  let begin = split * s.stretch;
  let end = min(begin + s.stretch, s.positions);
  let at = shift(row);
  var sum = vec4<f32>();
  var walk = start(begin);
  for (var p = begin; p < end; p++) {
    sum += packed[walk.corner + at] * dy[p * s.columns + q];
    walk = next(walk);
  }
  @unroll for (var k = 0u; k < 4u; k++) {
    let c = q * 4u + k;
    if (c < s.channels) {
      partial_sums[(split * s.channels + c) * s.taps + row / s.quads] = sum[k];
    }
  }
}
