// dx[element] = dy of the window that covers it where the element is its first maximum of x, else 0
// x, dx [planes, H, W], dy [planes, OH, OW], all contiguous; padding counts as minus infinity.
// One invocation computes one window and writes what lies between its corner and the next one's.
// Windows do not overlap: the stride is at least the kernel.
// Twin: max_pool2d_grad in src/ops/pool2d/reference.rs.

struct Pool {
  count: u32, h: u32, w: u32, oh: u32, ow: u32,
  py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

const KH: u32 = 2u;
const KW: u32 = 2u;
const SY: u32 = 2u;
const SX: u32 = 2u;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d_grad_disjoint(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let row = i / s.ow;
  let plane = row / s.oh;
  let oy = row - plane * s.oh;
  let ox = i - row * s.ow;
  let base = plane * s.h * s.w;
  // In coordinates of the input; max() guards the padding before it.
  let y0 = max(oy * SY, s.py) - s.py;
  let x0 = max(ox * SX, s.px) - s.px;
  let y1 = min(oy * SY + KH - s.py, s.h);
  let x1 = min(ox * SX + KW - s.px, s.w);
  var at = base + y0 * s.w + x0;
  var best = x[at];
  for (var iy = y0; iy < y1; iy++) {
    for (var ix = x0; ix < x1; ix++) {
      let here = base + iy * s.w + ix;
      let value = x[here];
      if (value > best) {
        best = value;
        at = here;
      }
    }
  }
  let gradient = dy[i];
  // The last window also writes the elements behind it, which no window covers.
  let y2 = select(min((oy + 1u) * SY - s.py, s.h), s.h, oy + 1u == s.oh);
  let x2 = select(min((ox + 1u) * SX - s.px, s.w), s.w, ox + 1u == s.ow);
  for (var iy = y0; iy < y2; iy++) {
    for (var ix = x0; ix < x2; ix++) {
      let here = base + iy * s.w + ix;
      dx[here] = epilogue(select(0.0, gradient, here == at), here);
    }
  }
}
