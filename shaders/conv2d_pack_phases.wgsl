// packed[t, r, q][k] = weight[r, c, uy, ux] for column 4 q + k = (c SY + ry) SX + rx, tap t = ty VX + tx,
// uy = ry + SY (VY - 1 - ty) and ux likewise; zero if there is no such row, column or element.
// weight [O, C, KH, KW] contiguous; packed [VY VX, R, Q] of vec4: the kernel elements of each of the SY SX phases of
// an input gradient, with reversed taps. One invocation writes one vec4.
// No reference: it only moves elements.

struct Pack {
  count: u32, rows: u32, channels: u32, quads: u32, padded_rows: u32,
  kh: u32, kw: u32, sy: u32, sx: u32, vy: u32, vx: u32,
}
@group(0) @binding(0) var<uniform> s: Pack;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;

@compute @workgroup_size(64)
fn conv2d_pack_phases(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count) { return; }
  let first = i % s.quads * 4u;
  let row = i / s.quads % s.padded_rows;
  let tap = i / s.quads / s.padded_rows;
  let uy = s.sy * (s.vy - 1u - tap / s.vx);
  let ux = s.sx * (s.vx - 1u - tap % s.vx);
  var quad = vec4<f32>();
  @unroll for (var k = 0u; k < 4u; k++) {
    let c = (first + k) / (s.sy * s.sx);
    let y = uy + (first + k) / s.sx % s.sy;
    let x = ux + (first + k) % s.sx;
    if (row < s.rows && c < s.channels && y < s.kh && x < s.kw) {
      quad[k] = weight[((row * s.channels + c) * s.kh + y) * s.kw + x];
    }
  }
  packed[i] = quad;
}
