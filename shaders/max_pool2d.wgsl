// y[window] = v[where x has its first maximum in the window]; with v = x the maximum itself.
// x, v [planes, H, W], y [planes, OH, OW], all contiguous; padding counts as minus infinity.
// One invocation computes one window.
// Padding at most half a window, so that every window covers an element.
// Twin: max_pool2d in src/ops/pool2d/reference.rs.

struct Pool {
  count: u32, h: u32, w: u32, oh: u32, ow: u32,
  py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const KH: u32 = 2u;
const KW: u32 = 2u;
const SY: u32 = 2u;
const SX: u32 = 2u;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d(
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
  // In coordinates of the input; max() guards the padding before it.
  let y0 = max(top, s.py) - s.py;
  let x0 = max(left, s.px) - s.px;
  let y1 = min(top + KH - s.py, s.h);
  let x1 = min(left + KW - s.px, s.w);
  var at = (plane * s.h + y0) * s.w + x0;
  var best = x[at];
  for (var iy = y0; iy < y1; iy++) {
    for (var ix = x0; ix < x1; ix++) {
      let here = (plane * s.h + iy) * s.w + ix;
      let value = x[here];
      if (value > best) {
        best = value;
        at = here;
      }
    }
  }
  y[i] = epilogue(v[at], i);
}
