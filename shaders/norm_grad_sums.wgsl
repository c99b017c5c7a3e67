// a = mean of dy over a part of a row (0 without CENTERED), b = mean of y dy.
// 1 y, 2 dy: [outer, rows, inner] in V; 3 sums: [parts, 2, rows] in S, a and b. See norm_rows.wgsl.
// A workgroup computes 64 parts, an invocation one.
// Preconditions: those of norm_rows.wgsl.
// Reference: NormalizeGrad::reference in src/ops/norm.rs.

import package::elements::{V};
import package::norm_lanes::{lanes, S};
import package::norm_rows::{count, d, end_of_run, part_of, position};

const CENTERED: bool = true;

@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> dy: array<V>;
@group(0) @binding(3) var<storage, read_write> sums: array<S>;

@compute @workgroup_size(64)
fn norm_grad_sums(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = group_number(group, groups) * 64u + lane;
  if (id >= d.rows * d.parts) {
    return;
  }
  let part = part_of(id);
  var a = V(0.0);
  var b = V(0.0);
  for (var k = part.first; k < d.size;) {
    let stop = end_of_run(k);
    var run_a = V(0.0);
    var run_b = V(0.0);
    for (; k < stop; k += d.parts) {
      let at = position(part.row, k);
      if (CENTERED) {
        run_a += dy[at];
      }
      run_b += y[at] * dy[at];
    }
    a += run_a;
    b += run_b;
  }
  let n = count(part.first);
  let at = 2u * part.first * d.rows + part.row;
  sums[at] = lanes(a) / n;
  sums[at + d.rows] = lanes(b) / n;
}
