// m = mean of x over a part of a row, v = mean of (x - m)^2; without CENTERED m = 0. With ROOT, sqrt(v) for v.
// 1 x: [outer, rows, inner] in V; 2 moments: [parts, LINES, rows] in S, m and v. See norm_rows.wgsl.
// With three lines the mean is the sum of the first and the third, its rounding error.
// A workgroup computes 64 parts, an invocation one.
// Preconditions: those of norm_rows.wgsl.
// Reference: Normalize::reference in src/ops/norm.rs.

import package::elements::{V};
import package::norm_lanes::{lanes, S};
import package::norm_rows::{count, d, end_of_run, part_of, position, scale_of};

const CENTERED: bool = true;
const ROOT: bool = false;
const LINES: u32 = 2u; // or 3

@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> moments: array<S>;

@compute @workgroup_size(64)
fn norm_moments(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = group_number(group, groups) * 64u + lane;
  if (id >= d.rows * d.parts) {
    return;
  }
  let part = part_of(id);
  let n = count(part.first);
  var mean = S(0.0);
  if (CENTERED) {
    var sum = V(0.0);
    for (var k = part.first; k < d.size;) {
      let stop = end_of_run(k);
      var run = V(0.0);
      for (; k < stop; k += d.parts) {
        run += x[position(part.row, k)];
      }
      sum += run;
    }
    mean = lanes(sum) / n;
  }
  // The residual mean (rounding error of the mean) corrects both the mean and the variance.
  var more = S(0.0);
  var v = S(0.0);
  var scale = S(1.0);
  for (var attempt = 0u; attempt < 2u; attempt++) { // repeated with a scale if squares leave the range of f32
    var rest = V(0.0);
    var squares = V(0.0);
    for (var k = part.first; k < d.size;) {
      let stop = end_of_run(k);
      var run = V(0.0);
      var run_squares = V(0.0);
      for (; k < stop; k += d.parts) {
        let c = (x[position(part.row, k)] - V(mean)) * V(scale);
        run += c;
        run_squares += c * c;
      }
      rest += run;
      squares += run_squares;
    }
    more = lanes(rest) / n;
    v = lanes(squares) / n;
    if (!ROOT || attempt == 1u || all(scale_of(v) == S(1.0))) {
      break;
    }
    scale = scale_of(v);
  }
  if (CENTERED) {
    v = max(v - more * more, S(0.0));
    more /= scale;
  }
  if (ROOT) {
    v = sqrt(v) / scale;
  }
  let at = LINES * part.first * d.rows + part.row;
  moments[at] = mean;
  if (LINES == 3u) {
    moments[at + 2u * d.rows] = more;
  } else if (CENTERED) {
    moments[at] = mean + more;
  }
  moments[at + d.rows] = v;
}
