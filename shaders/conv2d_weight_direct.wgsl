// partial[k, o, c, u, v] = sum over the k-th range of positions (n, i, j) of
// dy[n, o, i, j] x[n, c, i sy + u dy - py, j sx + v dx - px];  x [N, C, H, W], dy [N, O, OH, OW].
// One invocation sums one range of `end` positions for one weight element; sum_of_parts (src/ops/reduce.rs) adds the
// `splits` ranges. Any stride, padding, dilation and groups. Requires `end` under 16,000.
// Reference: conv2d_weight_grad in src/ops/conv2d/reference.rs.

import package::conv2d_sizes::{s};

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial_sums: array<f32>;

@compute @workgroup_size(64)
fn conv2d_weight_direct(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i >= s.count * s.splits) { return; }
  let element = i % s.count;
  let v = element % s.kw;
  let u = element / s.kw % s.kh;
  let oc = element / (s.kw * s.kh);
  let o = oc / s.group_c;
  let c = o / s.group_o * s.group_c + oc % s.group_c;
  let shift_y = i32(u * s.dy) - s.py;
  let shift_x = i32(v * s.dx) - s.px;
  let image = s.oh * s.ow;
  // `begin` positions in total, `end` per range.
  let first = i / s.count * s.end;
  let last = min(first + s.end, s.begin);
  var n = first / image;
  var oy = first % image / s.ow;
  var ox = first % s.ow;
  var sum = 0.0;
  for (var p = first; p < last; p++) {
    let iy = i32(oy * s.sy) + shift_y;
    let ix = i32(ox * s.sx) + shift_x;
    if (iy >= 0 && iy < s.h && ix >= 0 && ix < s.w) {
      let at = ((n * s.c + c) * u32(s.h) + u32(iy)) * u32(s.w) + u32(ix);
      sum += x[at] * dy[(n * s.o + o) * image + oy * s.ow + ox];
    }
    ox++;
    if (ox == s.ow) {
      ox = 0u;
      oy++;
      if (oy == s.oh) {
        oy = 0u;
        n++;
      }
    }
  }
  partial_sums[i] = sum;
}
