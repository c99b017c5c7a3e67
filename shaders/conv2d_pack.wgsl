// packed[n, y, x, q][k] = source[n, c, (y - top) / UP_Y, (x step + v dilation - left) / UP_X],
// where 4 q + k = c fold + v; zero if a quotient is not whole or is outside the source.
// source [N, C, H, W] with contiguous rows; packed [N, PH, PW, Q] of vec4: channels last, with zeros for padding and
// gaps, so that a convolution reads it without branches. The last row of an image may be incomplete.
// One invocation writes up to 4 vec4.
// No reference: conv2d in src/ops/conv2d/reference.rs skips what is zero here.

struct Pack {
  by_blocks: vec2<u32>, by_image: vec2<u32>, by_pw: vec2<u32>, by_fold: vec2<u32>,
  // image: positions per image of the copy; blocks: groups of up to 4 vec4 per position.
  count: u32, image: u32, pw: u32, quads: u32, blocks: u32, fold: u32,
  channels: u32, h: u32, w: u32, top: i32, left: i32, step: i32, dilation: i32,
  // Offset and strides of the source; stride_n wraps around (is negative) for reversed taps.
  offset: u32, stride_n: u32, stride_c: u32, stride_y: u32,
}
@group(0) @binding(0) var<uniform> s: Pack;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

const UP_Y: i32 = 1i;
const UP_X: i32 = 1i;

@compute @workgroup_size(64)
fn conv2d_pack(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let position = quotient(i, s.by_blocks);
  let n = quotient(position, s.by_image);
  let y = quotient(position - n * s.image, s.by_pw);
  let x = position - n * s.image - y * s.pw;
  let from_y = i32(y) - s.top;
  let from_x = i32(x) * s.step - s.left;
  let iy = from_y / UP_Y;
  let inside = iy * UP_Y == from_y && u32(iy) < s.h;
  let first = (i - position * s.blocks) * 4u;
  let last = min(first + 4u, s.quads);
  // Uniforms are loaded once here; compilers may reload them after the stores in the loops.
  let fold = s.fold;
  let stride = s.stride_c;
  let w = s.w;
  let channels = select(0u, s.channels, inside);
  let row = s.offset + n * s.stride_n + u32(max(iy, 0)) * s.stride_y;
  // Without folding: one column, channel by channel.
  let straight = select(first, last, fold == 1u);
  let column = from_x / UP_X;
  let whole = column * UP_X == from_x && u32(column) < w;
  let end = select(0u, channels, whole);
  var at = row + u32(column) + first * 4u * stride;
  for (var q = first; q < straight; q++) {
    var quad = vec4<f32>();
    @unroll for (var k = 0u; k < 4u; k++) {
      if (q * 4u + k < end) {
        quad[k] = source[at];
      }
      at += stride;
    }
    packed[position * s.quads + q] = quad;
  }
  // With folding: neighbours along the row of one channel, then of the next.
  var c = quotient(first * 4u, s.by_fold);
  var v = first * 4u - c * fold;
  for (var q = straight; q < last; q++) {
    var quad = vec4<f32>();
    @unroll for (var k = 0u; k < 4u; k++) {
      let across = from_x + i32(v) * s.dilation;
      let ix = across / UP_X;
      if (c < channels && ix * UP_X == across && u32(ix) < w) {
        quad[k] = source[row + c * stride + u32(ix)];
      }
      v++;
      if (v == fold) {
        v = 0u;
        c++;
      }
    }
    packed[position * s.quads + q] = quad;
  }
}
