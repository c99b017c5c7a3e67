// y[window] = the maximum of x in the window (NaN if it contains one), for adjacent 2x2 windows, rows of vec2.
// x [planes, H, W / 2] of vec2, y [planes, OH, OW], contiguous; no padding.
// One invocation computes one window.
// Reference: max_pool2d in src/ops/pool2d/reference.rs.

import package::max_pool2d_pair::{upper_of, x};
import package::pool2d::{s};

@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn max_pool2d_pairs(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let at = upper_of(i);
  let upper = x[at];
  let lower = x[at + s.columns];
  let column = select(upper, lower, lower > upper);
  let largest = select(column.x, column.y, column.y > column.x);
  // The largest magnitude, as bits: NaN if any element is NaN.
  let bits = max(bitcast<vec2<u32>>(upper) & vec2(MAGNITUDE_BITS), bitcast<vec2<u32>>(lower) & vec2(MAGNITUDE_BITS));
  let magnitude = max(bits.x, bits.y);
  y[i] = epilogue(select(largest, bitcast<f32>(magnitude), magnitude > INFINITY_BITS), i);
}
