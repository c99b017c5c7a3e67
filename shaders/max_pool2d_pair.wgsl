// Two neighbouring windows of 2x2, which are two vec4 of x [planes, H, W / 4] of vec4, one below the other: this
// text stands behind those of the kernels of max pooling by pairs.
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

// The number of the upper vec4 of pair i; the lower one lies W / 4 behind it.
fn upper_of(i: u32) -> u32 {
  let place = place_of(i);
  return (place.z * s.h + place.y * 2u) * s.columns + place.x;
}
