// y[window] = the maximum of x in the window, for windows of 2x2 side by side and rows of whole vec4.
// x [planes, H, W / 4] of vec4, y [planes, OH, OW / 2] of vec2, contiguous; no padding.
// One invocation computes two neighbouring windows. Behind it: max_pool2d_pair.wgsl and pool2d.wgsl.
// Twin: max_pool2d in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read_write> y: array<vec2<f32>>;

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
  let upper = x[at];
  let lower = x[at + s.columns];
  let left = max(max(upper.x, upper.y), max(lower.x, lower.y));
  let right = max(max(upper.z, upper.w), max(lower.z, lower.w));
  y[i] = vec2(epilogue(left, 2u * i), epilogue(right, 2u * i + 1u));
}

