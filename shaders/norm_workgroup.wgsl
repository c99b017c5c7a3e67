// y[k] = epilogue((x[k] - m) r), r = 1 / sqrt(v + eps), with m and v the row's mean and biased variance; without
// CENTERED m = 0, and v is the mean square. 1 x, 2 y: [rows, size] in V; 3 stats: [2, rows], m and v.
// A workgroup computes ROWS rows, an invocation every LANES-th element. HELD of them stay in registers; the rest of
// longer rows is read again. V is f32, or vec4<f32> of four neighbours (reduced by `lanes`).
// Reference: Normalize::reference in src/ops/norm.rs.

import package::elements::{store_OUT, V};
import package::norm_lanes::{lanes};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_barrier, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 1024
const HELD: u32 = 4u;
const RUN: u32 = 64u; // elements that an invocation adds sequentially
const CENTERED: bool = true;
alias Tree = vec2<f32>;

struct Dims { rows: u32, size: u32, n: f32, eps: f32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;

@compute @workgroup_size(THREADS)
fn norm_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  // Surplus workgroups do nothing, but reach every barrier.
  let row = group_number(group, groups) * ROWS + place / LANES;
  let end = select(0u, d.size, row < d.rows);
  let start = row * d.size;
  var held: array<V, HELD>;
  var sum = V(0.0);
  @unroll for (var h = 0u; h < HELD; h++) {
    held[h] = V(0.0);
    if (lane + h * LANES < end) {
      held[h] = x[start + lane + h * LANES];
    }
    sum += held[h];
  }
  var mean = 0.0;
  if (CENTERED) {
    for (var k = lane + HELD * LANES; k < end;) {
      let stop = min(k + RUN * LANES, end);
      var run = V(0.0);
      for (; k < stop; k += LANES) {
        run += x[start + k];
      }
      sum += run;
    }
    mean = tree_sum(vec2<f32>(lanes(sum), 0.0)).x / d.n;
    tree_barrier();
  }
  // The residual mean (rounding error of the mean) corrects both the mean and the variance.
  var rest = V(0.0);
  var squares = V(0.0);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      let c = held[h] - V(mean);
      rest += c;
      squares += c * c;
    }
  }
  for (var k = lane + HELD * LANES; k < end;) {
    let stop = min(k + RUN * LANES, end);
    var run = V(0.0);
    var run_squares = V(0.0);
    for (; k < stop; k += LANES) {
      let c = x[start + k] - V(mean);
      run += c;
      run_squares += c * c;
    }
    rest += run;
    squares += run_squares;
  }
  let moments = tree_sum(vec2<f32>(lanes(rest), lanes(squares))) / d.n;
  var v = moments.y;
  if (CENTERED) {
    mean += moments.x;
    v = max(v - moments.x * moments.x, 0.0);
  }
  if (lane < 2u && row < d.rows) {
    stats[lane * d.rows + row] = select(mean, v, lane == 1u);
  }
  let r = inverseSqrt(v + d.eps);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      store_y(start + lane + h * LANES, (held[h] - V(mean)) * r);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    store_y(start + k, (x[start + k] - V(mean)) * r);
  }
}
