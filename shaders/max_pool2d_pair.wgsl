// A window of 2x2, which is two vec2 of x [planes, H, W / 2] of vec2, one below the other: this text stands behind
// those of the kernels of max pooling by pairs.
@group(0) @binding(1) var<storage, read> x: array<vec2<f32>>;

// The number of the upper vec2 of window i; the lower one lies W / 2 behind it.
fn upper_of(i: u32) -> u32 {
  let place = place_of(i);
  return (place.z * s.h + place.y * 2u) * s.columns + place.x;
}
