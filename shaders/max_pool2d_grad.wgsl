// dx[element] = sum of dy over the windows that have their first maximum of x at that element.
// place (of that maximum, from max_pool2d_index) and dy [planes, OH, OW], dx [planes, H, W], contiguous.
// One invocation gathers one element of dx: no atomics, the same bits every time.
// Fewer than 16,000 windows cover an element.
// Twin: max_pool2d_grad in src/ops/pool2d/reference.rs.

struct Pool {
  count: u32, h: u32, w: u32, oh: u32, ow: u32,
  py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;
@group(0) @binding(1) var<storage, read> place: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

const KH: u32 = 2u;
const KW: u32 = 2u;
const SY: u32 = 2u;
const SX: u32 = 2u;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d_grad(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let row = i / s.w;
  let plane = row / s.h;
  let py = row - plane * s.h + s.py;
  let px = i - row * s.w + s.px;
  // The windows that cover the element: corner <= position < corner + kernel.
  let oy0 = (max(py + SY, KH) - KH) / SY;
  let ox0 = (max(px + SX, KW) - KW) / SX;
  let oy1 = min(py / SY + 1u, s.oh);
  let ox1 = min(px / SX + 1u, s.ow);
  var sum = 0.0;
  for (var oy = oy0; oy < oy1; oy++) {
    for (var ox = ox0; ox < ox1; ox++) {
      let window = (plane * s.oh + oy) * s.ow + ox;
      sum += select(0.0, dy[window], place[window] == i);
    }
  }
  dx[i] = epilogue(sum, i);
}
