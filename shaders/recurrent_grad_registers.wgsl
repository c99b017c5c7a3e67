// p.steps backward steps: dh[b, j] = dhs[to, b, j] + sum over k of ds[later, b, k] * w[k, j], then the cell's gradient.
// 1 dhs: [T + 1, B, H]; 2 w: [GATES H, H]; 3 ds: gradient of the sums, [T, B, GATES, H]; from 4 on, bindings of the
// cell (recurrent_rnn_grad.wgsl and others).
// A workgroup computes one batch row. An invocation keeps the weights of a unit for one gate in registers and computes
// their part of the sum, and the gradient of the cell if it is one of the first H. ds passes from step to step in
// workgroup memory; that of p.later is complete. Requires H = 4 TERMS4, GATES * H <= THREADS, and p.steps below 16,000.
// Reference: backward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn_grad::{cell_grad, GATES};
@elif(CELL == 1)
import package::recurrent_lstm_grad::{cell_grad, GATES};
@else
import package::recurrent_gru_grad::{cell_grad, GATES};
import package::recurrent_places::{At, CELL, in_slot, next, p};

const THREADS: u32 = 256u;
const TERMS4: u32 = 16u;

@group(0) @binding(1) var<storage, read> dhs: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> ds: array<f32>;

// vec4 of ds of the later step; its elements; the sums of the gates.
var<workgroup> behind: array<vec4<f32>, GATES * TERMS4>;
var<workgroup> latest: array<f32, 4u * GATES * TERMS4>;
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn recurrent_grad_registers(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Surplus workgroups read the last row, but compute no cell. Surplus invocations repeat the last column.
  let number = group_number(group, groups);
  var at = At(p.step, p.from_slot, p.to_slot, min(number, p.batch - 1u), lane);
  let columns = GATES * p.hidden;
  let column = min(lane, columns - 1u);
  let gate = column / p.hidden;
  var weights: array<vec4<f32>, TERMS4>;
  @unroll for (var k = 0u; k < TERMS4; k++) {
    let i = (gate * p.hidden + 4u * k) * p.hidden + column % p.hidden;
    weights[k] = vec4(w[i], w[i + p.hidden], w[i + 2u * p.hidden], w[i + 3u * p.hidden]);
  }
  if (lane < columns && p.terms > 0u) {
    latest[lane] = ds[(p.later * p.batch + at.row) * columns + lane];
  }
  var carries = p.terms > 0u;
  for (var n = 0u; n < p.steps; n++) {
    workgroupBarrier();
    if (lane < GATES * TERMS4) {
      behind[lane] = vec4(latest[4u * lane], latest[4u * lane + 1u], latest[4u * lane + 2u], latest[4u * lane + 3u]);
    }
    workgroupBarrier();
    var sum = vec4(0.0);
    @unroll for (var k = 0u; k < TERMS4; k++) {
      sum += behind[gate * TERMS4 + k] * weights[k];
    }
    sums[lane] = (sum.x + sum.y) + (sum.z + sum.w);
    workgroupBarrier();
    if (lane < p.hidden && number < p.batch) {
      // The last step has no later one, and no sums.
      var total = 0.0;
      if (carries) {
        @unroll for (var g = 0u; g < GATES; g++) {
          total += sums[g * p.hidden + lane];
        }
      }
      let d = cell_grad(at, total + dhs[in_slot(at.to_slot, at)], carries);
      @unroll for (var g = 0u; g < GATES; g++) {
        latest[g * p.hidden + lane] = d[g];
      }
    }
    carries = true;
    at = next(at, p.reverse == 0u);
  }
}
