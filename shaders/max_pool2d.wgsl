// y[window] = v[position of the first maximum of x in the window]; with v = x the maximum itself.
// x, v [planes, H, W], y [planes, OH, OW], all contiguous; padding counts as minus infinity.
// One invocation computes one window.
// Requires padding of at most half a window, so that every window covers an element.
// Reference: max_pool2d in src/ops/pool2d/reference.rs.

import package::max_pool2d_window::{first_maximum};
import package::pool2d::{place_of, s};

@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn max_pool2d(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  y[i] = epilogue(v[first_maximum(place_of(i))], i);
}
