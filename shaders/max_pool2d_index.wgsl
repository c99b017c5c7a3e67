// place[window] = the position of the first maximum of x in the window.
// x [planes, H, W], place [planes, OH, OW], contiguous; padding counts as minus infinity.
// One invocation computes one window; max_pool2d_grad reads the positions. Requires padding of at most half a window,
// so that every window covers an element.
// Reference: argmax in src/ops/pool2d/reference.rs.

import package::max_pool2d_window::{first_maximum};
import package::pool2d::{place_of, s};

@group(0) @binding(2) var<storage, read_write> place: array<u32>;

@compute @workgroup_size(64)
fn max_pool2d_index(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  place[i] = first_maximum(place_of(i));
}
