// dx[element] = dy of the window that covers it where the element is its first maximum of x, else 0
// x, dx [planes, H, W / 4] of vec4, dy [planes, OH, OW / 2] of vec2, contiguous; windows of 2x2 side by side,
// which fill the plane. One invocation computes two neighbouring windows, and writes what they cover.
// Behind it: max_pool2d_pair.wgsl and pool2d.wgsl. Twin: max_pool2d_grad in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read> dy: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }

// The number, row by row, of a window's first maximum.
fn first_of(upper: vec2<f32>, lower: vec2<f32>) -> u32 {
  let in_lower = max(lower.x, lower.y) > max(upper.x, upper.y);
  let row = select(upper, lower, in_lower);
  return select(0u, 2u, in_lower) + select(0u, 1u, row.y > row.x);
}

@compute @workgroup_size(64)
fn max_pool2d_grad_pairs(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let at = upper_of(i);
  let upper = x[at];
  let lower = x[at + s.columns];
  let first = vec2(first_of(upper.xy, lower.xy), first_of(upper.zw, lower.zw)).xxyy;
  let gradient = dy[i].xxyy;
  let here = vec4(0u, 1u, 0u, 1u);
  dx[at] = epilogue4(select(vec4(0.0), gradient, first == here), 4u * at);
  dx[at + s.columns] = epilogue4(select(vec4(0.0), gradient, first == here + 2u), 4u * (at + s.columns));
}

