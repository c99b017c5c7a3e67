// place[window] = the position of the first maximum of x in the window.
// x [planes, H, W], place [planes, OH, OW], contiguous; padding counts as minus infinity.
// One invocation computes one window; max_pool2d_grad reads the positions. Appended: max_pool2d_window.wgsl and
// pool2d.wgsl. Requires padding of at most half a window, so that every window covers an element.
// Twin: argmax in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read_write> place: array<u32>;

@compute @workgroup_size(64)
fn max_pool2d_index(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  place[i] = first_maximum(place_of(i));
}

