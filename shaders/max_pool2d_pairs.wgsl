// y[window] = the maximum of x in the window, for windows of 2x2 side by side and rows of whole vec2.
// x [planes, H, W / 2] of vec2, y [planes, OH, OW], contiguous; no padding.
// One invocation computes one window. Behind it: max_pool2d_pair.wgsl and pool2d.wgsl.
// Twin: max_pool2d in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d_pairs(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let at = upper_of(i);
  let column = max(x[at], x[at + s.columns]);
  y[i] = epilogue(max(column.x, column.y), i);
}

