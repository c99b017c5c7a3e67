// y[window] = sum of x over the window / divisor
// x [planes, H, W], y [planes, OH, OW], contiguous; padding counts as zero, and in the divisor
// where `include` is 1. One invocation computes one window.
// Padding at most half a window, so that every window covers an element; KH KW under 16,000.
// Twin: avg_pool2d in src/ops/pool2d/reference.rs.

struct Pool {
  count: u32, h: u32, w: u32, oh: u32, ow: u32,
  py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const KH: u32 = 2u;
const KW: u32 = 2u;
const SY: u32 = 2u;
const SX: u32 = 2u;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn avg_pool2d(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let row = i / s.ow;
  let plane = row / s.oh;
  let top = (row - plane * s.oh) * SY;
  let left = (i - row * s.ow) * SX;
  let y0 = max(top, s.py) - s.py;
  let x0 = max(left, s.px) - s.px;
  let y1 = min(top + KH - s.py, s.h);
  let x1 = min(left + KW - s.px, s.w);
  var sum = 0.0;
  for (var iy = y0; iy < y1; iy++) {
    for (var ix = x0; ix < x1; ix++) {
      sum += x[(plane * s.h + iy) * s.w + ix];
    }
  }
  let divisor = select((y1 - y0) * (x1 - x0), KH * KW, s.include == 1u);
  y[i] = epilogue(sum / f32(divisor), i);
}
