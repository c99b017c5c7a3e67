// dx[n, c, y, x] = sum over o, u, v with y = i sy + u dy - py, x = j sx + v dx - px of
// dy[n, o, i, j] weight[o, c, u, v];  dy [N, O, OH, OW], weight [O, C / groups, KH, KW], dx [N, C, H, W].
// One invocation computes one element from output channels begin..end of its group; dx holds the sum over previous
// channels. Any stride, padding, dilation and groups. Requires (end - begin) KH KW under 16,000.
// Reference: conv2d_input_grad in src/ops/conv2d/reference.rs.

import package::conv2d_sizes::{s};

@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn store(v: f32, i: u32) { dx[i] = epilogue(v, i); }

@compute @workgroup_size(64)
fn conv2d_input_direct(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let row = i / u32(s.w);
  let plane = row / u32(s.h);
  let n = plane / s.c;
  let c = plane % s.c;
  let taps = s.kh * s.kw;
  let image = s.oh * s.ow;
  let bottom = i32(row % u32(s.h)) + s.py;
  let right = i32(i % u32(s.w)) + s.px;
  let o0 = c / s.group_c * s.group_o;
  let dy0 = (n * s.o + o0) * image;
  let w0 = (o0 * s.group_c + c % s.group_c) * taps;
  let w_step = s.group_c * taps;
  var sum = 0.0;
  if (s.begin > 0u) { sum = dx[i]; }
  for (var u = 0u; u < s.kh; u++) {
    let down = bottom - i32(u * s.dy);
    let oy = u32(max(down, 0)) / s.sy;
    if (down >= 0 && oy * s.sy == u32(down) && oy < s.oh) {
      for (var v = 0u; v < s.kw; v++) {
        let across = right - i32(v * s.dx);
        let ox = u32(max(across, 0)) / s.sx;
        if (across >= 0 && ox * s.sx == u32(across) && ox < s.ow) {
          let at = dy0 + oy * s.ow + ox;
          let tap = w0 + u * s.kw + v;
          for (var o = s.begin; o < s.end; o++) {
            sum += dy[at + o * image] * weight[tap + o * w_step];
          }
        }
      }
    }
  }
  store(sum, i);
}
