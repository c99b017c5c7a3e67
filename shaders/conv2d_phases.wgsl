// The store of a strided input gradient.
// Channel (c SY + ry) SX + rx at window (i, j) is dx[n, c, i SY + ry + origin_y, j SX + rx + origin_x];
// positions outside dx are padding. dx [N, C, height, breadth] contiguous.

import package::conv2d_product::{s, SX, SY, y};

fn store_within(v: vec4<f32>, position: u32, channel: u32, end: u32) {
  if (channel < s.channels) {
    let down = i32(channel / SX % SY) + s.origin_y;
    let across = i32(channel % SX) + s.origin_x;
    @unroll for (var k = 0u; k < 4u; k++) {
      let p = position + k;
      let n = quotient(p, s.by_plane);
      let rest = p - n * s.plane;
      let line = quotient(rest, s.by_width);
      let i = i32(line * SY) + down;
      let j = i32((rest - line * s.width) * SX) + across;
      if (p < end && i >= 0 && i < s.height && j >= 0 && j < s.breadth) {
        let plane = n * (s.channels / (SY * SX)) + channel / (SY * SX);
        let at = (plane * u32(s.height) + u32(i)) * u32(s.breadth) + u32(j);
        y[at] = epilogue(v[k], at);
      }
    }
  }
}
