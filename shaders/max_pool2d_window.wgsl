// The maximum of a window of x.

import package::pool2d::{inside, KH, KW, origin, s, SX, SY, UNROLL};

@group(0) @binding(1) var<storage, read> x: array<f32>;

// The position of the first maximum, or the first NaN, in the window at (column, row, plane).
fn first_maximum(window: vec3<u32>) -> u32 {
  let top = window.y * SY;
  let left = window.x * SX;
  let plane = origin(window.z);
  // The first element that is not padding: at most half of the window is.
  var at = plane + max(top, s.py) * s.w + max(left, s.px);
  var best = x[at];
  @unroll(UNROLL) for (var u = 0u; u < KH; u++) {
    @unroll(UNROLL) for (var v = 0u; v < KW; v++) {
      if (inside(top + u, left + v)) {
        let here = plane + (top + u) * s.w + left + v;
        let value = x[here];
        if (exceeds(value, best)) {
          best = value;
          at = here;
        }
      }
    }
  }
  return at;
}
