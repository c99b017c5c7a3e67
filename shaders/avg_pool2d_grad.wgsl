// dx[element] = sum over the windows that cover it of dy[window] / divisor
// dy [planes, OH, OW], dx [planes, H, W], contiguous; padding counts in the divisor if `include` is 1.
// One invocation gathers one element of dx.
// Requires fewer than 16,000 windows per element.
// Reference: avg_pool2d_grad in src/ops/pool2d/reference.rs.

import package::pool2d::{KH, KW, place_of, s, SX, SY};

@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

// The number of elements that a window covers along an axis, without padding.
fn covered(corner: u32, kernel: u32, padding: u32, size: u32) -> u32 {
  return min(corner + kernel - padding, size) - (max(corner, padding) - padding);
}

@compute @workgroup_size(64)
fn avg_pool2d_grad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let element = place_of(i);
  let py = element.y + s.py;
  let px = element.x + s.px;
  // The windows that cover the element: corner <= position < corner + kernel.
  let oy0 = (max(py + SY, KH) - KH) / SY;
  let ox0 = (max(px + SX, KW) - KW) / SX;
  let oy1 = min(py / SY + 1u, s.oh);
  let ox1 = min(px / SX + 1u, s.ow);
  var sum = 0.0;
  for (var oy = oy0; oy < oy1; oy++) {
    for (var ox = ox0; ox < ox1; ox++) {
      let size = covered(oy * SY, KH, s.py, s.h) * covered(ox * SX, KW, s.px, s.w);
      let divisor = select(size, KH * KW, s.include == 1u);
      sum += dy[(element.z * s.oh + oy) * s.ow + ox] / f32(divisor);
    }
  }
  dx[i] = epilogue(sum, i);
}
