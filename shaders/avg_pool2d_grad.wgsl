// dx[element] = sum over the windows that cover it of dy[window] / divisor
// dy [planes, OH, OW], dx [planes, H, W], contiguous; padding counts in the divisor where
// `include` is 1. One invocation gathers one element of dx.
// Fewer than 16,000 windows cover an element.
// Twin: avg_pool2d_grad in src/ops/pool2d/reference.rs.

struct Pool {
  count: u32, h: u32, w: u32, oh: u32, ow: u32,
  kh: u32, kw: u32, sy: u32, sx: u32, py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

/// How many elements of an axis a window covers, padding left out.
fn covered(corner: u32, kernel: u32, padding: u32, size: u32) -> u32 {
  return min(corner + kernel - padding, size) - (max(corner, padding) - padding);
}

@compute @workgroup_size(64)
fn avg_pool2d_grad(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = (wid.y * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let row = i / s.w;
  let plane = row / s.h;
  let py = row % s.h + s.py;
  let px = i % s.w + s.px;
  // The windows that cover the element: corner <= position < corner + kernel.
  let oy0 = (max(py + s.sy, s.kh) - s.kh) / s.sy;
  let ox0 = (max(px + s.sx, s.kw) - s.kw) / s.sx;
  let oy1 = min(py / s.sy + 1u, s.oh);
  let ox1 = min(px / s.sx + 1u, s.ow);
  var sum = 0.0;
  for (var oy = oy0; oy < oy1; oy++) {
    for (var ox = ox0; ox < ox1; ox++) {
      let size = covered(oy * s.sy, s.kh, s.py, s.h) * covered(ox * s.sx, s.kw, s.px, s.w);
      let divisor = select(size, s.kh * s.kw, s.include == 1u);
      sum += dy[(plane * s.oh + oy) * s.ow + ox] / f32(divisor);
    }
  }
  dx[i] = epilogue(sum, i);
}
