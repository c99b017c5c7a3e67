// losses[n] = log(s) - (x[n, labels[n]] - m), with m = max_k x[n, k] and s = sum_k exp(x[n, k] - m); or, with
// `gradient` 1, dx[n, k] = (exp(x[n, k] - m) / s - (1 where k = labels[n])) dy[n]; or, with BOTH, both.
// Bindings: shaders/cross_entropy_rows.wgsl.
// A workgroup computes ROWS rows, an invocation every LANES-th class. HELD of them stay in registers; the rest of
// longer rows is read again.
// An out-of-range class is never used as an index: the row gets NaN and the status becomes 1. Requires C >= 1.
// Reference: CrossEntropy::reference in src/ops/cross_entropy.rs.

import package::cross_entropy_rows::{BOTH, d, exp_of, labels, scale_of, status, store_loss, x, y};
import package::tree::{LANES, place, place_in, ROWS, SUBGROUPS, tree_barrier, tree_JOIN};

const THREADS: u32 = 256u; // 64 to 1024
alias Tree = f32;
const HELD: u32 = 4u;
const RUN: u32 = 64u; // elements that an invocation adds sequentially

@compute @workgroup_size(THREADS)
fn cross_entropy_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SUBGROUPS) @builtin(subgroup_id) subgroup: u32,
  @if(SUBGROUPS) @builtin(subgroup_invocation_id) index: u32,
  @else @builtin(local_invocation_index) index: u32,
) {
  @if(SUBGROUPS) place = place_in(subgroup, index);
  @else place = index;
  let lane = place % LANES;
  // Excess workgroups of the grid read the last row, compute nothing and reach every barrier.
  let number = group_number(group, groups) * ROWS + place / LANES;
  let inside = number < d.rows;
  let row = min(number, d.rows - 1u);
  let end = select(0u, d.size, inside);
  let start = row * d.size;
  var held: array<f32, HELD>;
  var m = x[start];
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      held[h] = x[start + lane + h * LANES];
      m = max(m, held[h]);
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    m = max(m, x[start + k]);
  }
  m = tree_max(m);
  tree_barrier();
  var s = 0.0;
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      held[h] = exp_of(held[h] - m);
      s += held[h];
    }
  }
  for (var k = lane + HELD * LANES; k < end;) {
    let stop = min(k + RUN * LANES, end);
    var run = 0.0;
    for (; k < stop; k += LANES) {
      run += exp_of(x[start + k] - m);
    }
    s += run;
  }
  s = tree_sum(s);
  let label = labels[row];
  let valid = label < d.size;
  if (inside && !valid) {
    atomicStore(&status[0], 1u);
  }
  if (BOTH || d.gradient == 0u) {
    if (inside && lane == 0u) {
      store_loss(row, start, label, m, s);
    }
    @if(!BOTH) return;
  }
  let scale = scale_of(row, valid);
  @unroll for (var h = 0u; h < HELD; h++) {
    if (lane + h * LANES < end) {
      let hit = select(0.0, 1.0, lane + h * LANES == label);
      y[start + lane + h * LANES] = (held[h] / s - hit) * scale;
    }
  }
  for (var k = lane + HELD * LANES; k < end; k += LANES) {
    let hit = select(0.0, 1.0, k == label);
    y[start + k] = (exp_of(x[start + k] - m) / s - hit) * scale;
  }
}
