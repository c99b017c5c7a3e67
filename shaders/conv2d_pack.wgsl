// packed[n, y, x, q][k] = source[n, c, (y - top) / UP_Y, (x step + v dilation - left) / UP_X],
// where 4 q + k = c FOLD + v; zero where a quotient is not whole, or lies outside the source.
// source [N, C, H, W] contiguous; packed [N, PH, PW, Q] of vec4: channels last, borders and gaps
// filled, so that a convolution reads it without a condition. One invocation writes up to 4 vec4.
// Twin: none of its own; conv2d in src/ops/conv2d/reference.rs skips what is zero here.

struct Pack {
  by_blocks: vec2<u32>, by_pw: vec2<u32>, by_ph: vec2<u32>,
  count: u32, channels: u32, h: u32, w: u32, ph: u32, pw: u32, quads: u32, blocks: u32,
  top: i32, left: i32, step: i32, dilation: i32,
}
@group(0) @binding(0) var<uniform> s: Pack;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

const FOLD: u32 = 1u;
const UP_Y: i32 = 1i;
const UP_X: i32 = 1i;

@compute @workgroup_size(64)
fn conv2d_pack(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let position = quotient(i, s.by_blocks);
  let row = quotient(position, s.by_pw);
  let n = quotient(row, s.by_ph);
  let from_y = i32(row - n * s.ph) - s.top;
  let from_x = i32(position - row * s.pw) * s.step - s.left;
  let iy = from_y / UP_Y;
  let inside = from_y >= 0 && iy * UP_Y == from_y && iy < i32(s.h);
  let image = s.h * s.w;
  let base = n * s.channels * image + u32(max(iy, 0)) * s.w;
  let first = (i - position * s.blocks) * 4u;
  let last = min(first + 4u, s.quads);
  for (var q = first; q < last; q++) {
    var quad = vec4<f32>();
    for (var k = 0u; k < 4u; k++) { // unroll
      let c = (q * 4u + k) / FOLD;
      let across = from_x + i32((q * 4u + k) % FOLD) * s.dilation;
      let ix = across / UP_X;
      if (inside && across >= 0 && ix * UP_X == across && ix < i32(s.w) && c < s.channels) {
        quad[k] = source[base + c * image + u32(ix)];
      }
    }
    packed[position * s.quads + q] = quad;
  }
}
