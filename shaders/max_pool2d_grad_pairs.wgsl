// dx[element] = dy of the window that covers it if the element is its first maximum of x, else 0.
// x, dx [planes, H, W / 2] of vec2, dy [planes, OH, OW], contiguous. Adjacent windows of 2x2 that cover the plane.
// One invocation computes one window and writes its elements.
// Reference: max_pool2d_grad in src/ops/pool2d/reference.rs.

import package::max_pool2d_pair::{upper_of, x};
import package::pool2d::{s};

@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec2<f32>>;

@compute @workgroup_size(64)
fn max_pool2d_grad_pairs(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let at = upper_of(i);
  let upper = x[at];
  let lower = x[at + s.columns];
  // The first maximum, or the first NaN, in row-major order.
  let second = vec2(exceeds(upper.y, upper.x), exceeds(lower.y, lower.x));
  let in_lower = exceeds(select(lower.x, lower.y, second.y), select(upper.x, upper.y, second.x));
  let in_second = select(second.x, second.y, in_lower);
  let hit = vec2(!in_second, in_second);
  let gradient = select(vec2(0.0), vec2(dy[i]), hit);
  let above = select(gradient, vec2(0.0), in_lower);
  let below = select(vec2(0.0), gradient, in_lower);
  let here = 2u * at;
  dx[at] = vec2(epilogue(above.x, here), epilogue(above.y, here + 1u));
  let under = 2u * (at + s.columns);
  dx[at + s.columns] = vec2(epilogue(below.x, under), epilogue(below.y, under + 1u));
}
