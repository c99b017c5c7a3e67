// y[k] = epilogue((x[k] - m) r), r = 1 / sqrt(v + eps), with m and v the row's mean and biased variance; without
// CENTERED m = 0, and v is the mean square. 1 x, 2 y: [rows, size] in V; 3 stats: [2, rows], m and v.
// A workgroup computes 64 rows, an invocation one, in three passes. V is f32, or vec4<f32> of four neighbours (reduced
// by `lanes`). Requires size <= 4096.
// Reference: Normalize::reference in src/ops/norm.rs.

import package::elements::{store_OUT, V};
import package::norm_lanes::{lanes};

const CENTERED: bool = true;
const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

struct Dims { rows: u32, size: u32, n: f32, eps: f32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(64)
fn norm_invocation(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = row * d.size;
  let end = start + d.size;
  var mean = 0.0;
  if (CENTERED) {
    var sum = V(0.0);
    for (var at = start; at < end;) {
      let stop = min(at + RUN, end);
      var run = V(0.0);
      for (; at < stop; at++) {
        run += x[at];
      }
      sum += run;
    }
    mean = lanes(sum) / d.n;
  }
  // The residual mean (rounding error of the mean) corrects both the mean and the variance.
  var rest = V(0.0);
  var squares = V(0.0);
  for (var at = start; at < end;) {
    let stop = min(at + RUN, end);
    var run = V(0.0);
    var run_squares = V(0.0);
    for (; at < stop; at++) {
      let c = x[at] - V(mean);
      run += c;
      run_squares += c * c;
    }
    rest += run;
    squares += run_squares;
  }
  var v = lanes(squares) / d.n;
  if (CENTERED) {
    let more = lanes(rest) / d.n;
    mean += more;
    v = max(v - more * more, 0.0);
  }
  stats[row] = mean;
  stats[d.rows + row] = v;
  let r = inverseSqrt(v + d.eps);
  for (var at = start; at < end; at++) {
    store_y(at, (x[at] - V(mean)) * r);
  }
}
