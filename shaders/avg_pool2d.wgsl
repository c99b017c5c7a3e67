// y[window] = sum of x over the window / divisor
// x [planes, H, W], y [planes, OH, OW], contiguous; padding counts as zero, and in the divisor if `include` is 1.
// One invocation computes one window.
// Requires padding of at most half a window, so that every window covers an element, and KH KW under 16,000.
// Reference: avg_pool2d in src/ops/pool2d/reference.rs.

import package::pool2d::{inside, KH, KW, origin, place_of, s, SX, SY, UNROLL};

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn avg_pool2d(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let window = place_of(i);
  let plane = origin(window.z);
  let top = window.y * SY;
  let left = window.x * SX;
  var sum = 0.0;
  var elements = 0u;
  @unroll(UNROLL) for (var u = 0u; u < KH; u++) {
    @unroll(UNROLL) for (var v = 0u; v < KW; v++) {
      if (inside(top + u, left + v)) {
        sum += x[plane + (top + u) * s.w + left + v];
        elements++;
      }
    }
  }
  let divisor = select(elements, KH * KW, s.include == 1u);
  y[i] = epilogue(sum / f32(divisor), i);
}
