// A 2x2 window: two vec2 of x [planes, H, W / 2], one above the other.

import package::pool2d::{place_of, s};

@group(0) @binding(1) var<storage, read> x: array<vec2<f32>>;

// The index of the upper vec2 of window i; the lower one follows W / 2 later.
fn upper_of(i: u32) -> u32 {
  let place = place_of(i);
  return (place.z * s.h + place.y * 2u) * s.columns + place.x;
}
