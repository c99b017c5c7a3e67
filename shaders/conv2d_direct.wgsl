// y[n, o, i, j] = sum over c, u, v of x[n, c, i sy + u dy - py, j sx + v dx - px] weight[o, c, u, v]
// x [N, C, H, W], weight [O, C / groups, KH, KW], y [N, O, OH, OW], all contiguous.
// One invocation computes one output from channels begin..end of its group; y holds the sum over previous channels.
// Any stride, padding, dilation and groups. Requires (end - begin) KH KW under 16,000.
// Reference: conv2d in src/ops/conv2d/reference.rs.

import package::conv2d_sizes::{s};

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn store(v: f32, i: u32) { y[i] = epilogue(v, i); }

@compute @workgroup_size(64)
fn conv2d_direct(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let row = i / s.ow;
  let plane = row / s.oh;
  let n = plane / s.o;
  let o = plane % s.o;
  let taps = s.kh * s.kw;
  let image = u32(s.h) * u32(s.w);
  let top = i32(row % s.oh * s.sy) - s.py;
  let left = i32(i % s.ow * s.sx) - s.px;
  let x0 = (n * s.c + o / s.group_o * s.group_c) * image;
  let w0 = o * s.group_c * taps;
  var sum = 0.0;
  if (s.begin > 0u) { sum = y[i]; }
  for (var u = 0u; u < s.kh; u++) {
    let iy = top + i32(u * s.dy);
    if (iy >= 0 && iy < s.h) {
      for (var v = 0u; v < s.kw; v++) {
        let ix = left + i32(v * s.dx);
        if (ix >= 0 && ix < s.w) {
          let at = x0 + u32(iy) * u32(s.w) + u32(ix);
          let tap = w0 + u * s.kw + v;
          for (var c = s.begin; c < s.end; c++) {
            sum += x[at + c * image] * weight[tap + c * taps];
          }
        }
      }
    }
  }
  store(sum, i);
}
