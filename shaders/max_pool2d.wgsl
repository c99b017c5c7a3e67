// y[window] = v[position of the first maximum of x in the window]; with v = x the maximum itself.
// x, v [planes, H, W], y [planes, OH, OW], all contiguous; padding counts as minus infinity.
// One invocation computes one window. Appended: max_pool2d_window.wgsl and pool2d.wgsl.
// Requires padding of at most half a window, so that every window covers an element.
// Twin: max_pool2d in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  y[i] = epilogue(v[first_maximum(place_of(i))], i);
}

