// packed[n, y, x, q][k] = source[n, c, (y - top) / up_y, (x step + v dilation - left) / up_x],
// where 4 q + k = c fold + v; zero where a quotient is not whole, or lies outside the source.
// source [N, C, H, W] contiguous; packed [N, PH, PW, Q] of vec4: channels last, borders and gaps
// filled, so that a convolution reads it without a condition. One invocation writes one vec4.
// Twin: none of its own; conv2d in src/ops/conv2d/reference.rs skips what is zero here.

struct Pack {
  count: u32, channels: u32, h: u32, w: u32, ph: u32, pw: u32, quads: u32, fold: u32,
  top: i32, left: i32, up_y: i32, up_x: i32, step: i32, dilation: i32,
}
@group(0) @binding(0) var<uniform> s: Pack;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

@compute @workgroup_size(64)
fn conv2d_pack(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = (wid.y * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let position = i / s.quads;
  let row = position / s.pw;
  let n = row / s.ph;
  let first = i % s.quads * 4u;
  let from_y = i32(row % s.ph) - s.top;
  let from_x = i32(position % s.pw) * s.step - s.left;
  let iy = from_y / s.up_y;
  let whole_y = from_y >= 0 && iy * s.up_y == from_y && iy < i32(s.h);
  let image = s.h * s.w;
  let base = n * s.channels * image + u32(max(iy, 0)) * s.w;
  var quad = vec4<f32>();
  for (var k = 0u; k < 4u; k++) { // unroll
    let c = (first + k) / s.fold;
    let across = from_x + i32((first + k) % s.fold) * s.dilation;
    let ix = across / s.up_x;
    if (whole_y && across >= 0 && ix * s.up_x == across && ix < i32(s.w) && c < s.channels) {
      quad[k] = source[base + c * image + u32(ix)];
    }
  }
  packed[i] = quad;
}
