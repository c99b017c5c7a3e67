// dx = epilogue((dy - a - y b) / sqrt(v + eps)), with v, a and b of the element's row.
// 1 y, 3 dy, 5 dx: [outer, rows, inner] in V; 2 stats: [2, rows] in S, v in the second line; 4 sums: [2, rows] in S, a
// and b. V and S as in norm_rows.wgsl.
// A workgroup computes 256 consecutive elements; an invocation four, 64 apart.
// Reference: NormalizeGrad::reference in src/ops/norm.rs.

import package::elements::{store_OUT, V};
import package::norm_lanes::{S};

struct Dims {
  rows: u32, inner: u32, count: u32, eps: f32,
  by_inner: vec2<u32>, by_rows: vec2<u32>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> stats: array<S>;
@group(0) @binding(3) var<storage, read> dy: array<V>;
@group(0) @binding(4) var<storage, read> sums: array<S>;
@group(0) @binding(5) var<storage, read_write> dx: array<V>;

@compute @workgroup_size(64)
fn norm_grad_apply(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = group_number(group, groups) * 256u + lane;
  for (var q = 0u; q < 4u; q++) {
    let i = first + 64u * q;
    if (i < d.count) {
      let row = remainder(quotient(i, d.by_inner), d.rows, d.by_rows);
      let r = inverseSqrt(stats[d.rows + row] + S(d.eps));
      store_dx(i, (dy[i] - V(sums[row]) - y[i] * V(sums[d.rows + row])) * V(r));
    }
  }
}
