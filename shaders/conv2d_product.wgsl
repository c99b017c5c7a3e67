// Parameters and store of the convolution kernels. They compute y[n, o, i, j] for position
// (n, i, j) and channel o. y [N, O, OH, OW] contiguous; for a strided input gradient see conv2d_phases.wgsl, the only
// reader of height .. origin_x. conv2d_plane_blocks.wgsl is the only reader of the words after these.

@if(PHASES)
import package::conv2d_phases::{store_within};

struct Product {
  by_plane: vec2<u32>, by_width: vec2<u32>,
  positions: u32, plane: u32, width: u32, channels: u32, columns: u32, column_blocks: u32,
  image: u32, row: u32, column: u32, taps_y: u32, taps_x: u32, tap_row: u32, tap_column: u32, quads: u32,
  blocks: u32, part_terms: u32,
  height: i32, breadth: i32, origin_y: i32, origin_x: i32, kernel_y: u32, kernel_x: u32,
  data_plane: u32, data_height: u32, data_width: u32, top: i32, left: i32,
  step_y: u32, step_x: u32, dilation_y: u32, dilation_x: u32,
}
// Whether this is a strided input gradient, and its phases along each axis.
const PHASES: bool = false;
const SY: u32 = 1u;
const SX: u32 = 1u;
// Whether a plane of y is a multiple of 4, and y is written by vec4.
const Y_VEC4: bool = false;
@group(0) @binding(0) var<uniform> s: Product;
@if(Y_VEC4)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@else
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// The start of window `position` (clamped to the last) in `packed`.
fn corner(position: u32) -> u32 {
  let p = min(position, s.positions - 1u);
  let n = quotient(p, s.by_plane);
  let rest = p - n * s.plane;
  let line = quotient(rest, s.by_width);
  return n * s.image + line * s.row + (rest - line * s.width) * s.column;
}

// Stores a channel's results at a position and the next three, within bounds.
fn store(v: vec4<f32>, position: u32, channel: u32) {
  store_within(v, position, channel, s.positions);
}

// The same for positions below `end`.
@if(!PHASES)
fn store_within(v: vec4<f32>, position: u32, channel: u32, end: u32) {
  @if(Y_VEC4) {
    if (position < end && channel < s.channels) {
      let n = quotient(position, s.by_plane);
      let i = (n * s.channels + channel - n) * s.plane + position;
      y[i / 4u] = epilogue4(v, i);
    }
  }
  @else {
    if (channel < s.channels) {
      @unroll for (var k = 0u; k < 4u; k++) {
        if (position + k < end) {
          let n = quotient(position + k, s.by_plane);
          let i = (n * s.channels + channel - n) * s.plane + position + k;
          y[i] = epilogue(v[k], i);
        }
      }
    }
  }
}
