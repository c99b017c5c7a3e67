// dx[element] = dy of the window that covers it if the element is its first maximum of x, else 0.
// x, dx [planes, H, W], dy [planes, OH, OW], all contiguous; padding counts as minus infinity.
// One invocation computes one window and writes the elements between its corner and the next window's.
// Requires disjoint windows: stride >= kernel.
// Reference: max_pool2d_grad in src/ops/pool2d/reference.rs.

import package::max_pool2d_window::{first_maximum};
import package::pool2d::{origin, place_of, s, SX, SY, UNROLL};

@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

// Whether the strides cover the plane exactly, without padding or remainder.
const EXACT: bool = false;

@compute @workgroup_size(64)
fn max_pool2d_grad_disjoint(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let window = place_of(i);
  let at = first_maximum(window);
  let gradient = dy[i];
  let plane = origin(window.z);
  let top = window.y * SY;
  let left = window.x * SX;
  if (EXACT) {
    @unroll(UNROLL) for (var u = 0u; u < SY; u++) {
      @unroll(UNROLL) for (var v = 0u; v < SX; v++) {
        let here = plane + (top + u) * s.w + left + v;
        dx[here] = epilogue(select(0.0, gradient, here == at), here);
      }
    }
    return;
  }
  // The last window also writes the elements after it that no window covers.
  let bottom = select(min(top + SY, s.h + s.py), s.h + s.py, window.y + 1u == s.oh);
  let right = select(min(left + SX, s.w + s.px), s.w + s.px, window.x + 1u == s.ow);
  for (var y = max(top, s.py); y < bottom; y++) {
    for (var x = max(left, s.px); x < right; x++) {
      let here = plane + y * s.w + x;
      dx[here] = epilogue(select(0.0, gradient, here == at), here);
    }
  }
}
