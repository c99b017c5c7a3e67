// p.steps steps of a recurrent layer: sums[b, g, j] = sum over k of h_before[b, k] * w[k, g, j], then the cell.
// 1 x: [T, B, GATES, H]; 2 w: [H, GATES, H]; 3 hs: the states, [T + 1, B, H]; from 4 on, bindings of the cell
// (recurrent_rnn.wgsl and others).
// A workgroup computes one batch row. An invocation keeps a column of w in registers and computes its sum, and the cell
// of a unit if it is one of the first H. States pass from step to step in workgroup memory. Slot p.from_slot of hs is
// complete. Requires H = 4 TERMS4, GATES * H <= THREADS, and p.steps below 16,000.
// Reference: forward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn::{cell, GATES};
@elif(CELL == 1)
import package::recurrent_lstm::{cell, GATES};
@else
import package::recurrent_gru::{cell, GATES};
import package::recurrent_places::{At, CELL, in_slot, next, p};

const THREADS: u32 = 256u;
const TERMS4: u32 = 16u;

@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> hs: array<f32>;

var<workgroup> before: array<vec4<f32>, TERMS4>;
var<workgroup> sums: array<f32, THREADS>;
var<workgroup> states: array<f32, 4u * TERMS4>;

@compute @workgroup_size(THREADS)
fn recurrent_registers(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Surplus workgroups read the last row, but compute no cell. Surplus invocations repeat the last column.
  let number = group_number(group, groups);
  var at = At(p.step, p.from_slot, p.to_slot, min(number, p.batch - 1u), lane);
  let columns = GATES * p.hidden;
  let column = min(lane, columns - 1u);
  var weights: array<vec4<f32>, TERMS4>;
  @unroll for (var k = 0u; k < TERMS4; k++) {
    let i = 4u * k * columns + column;
    weights[k] = vec4(w[i], w[i + columns], w[i + 2u * columns], w[i + 3u * columns]);
  }
  if (lane < p.hidden) {
    states[lane] = hs[in_slot(at.from_slot, at)];
  }
  for (var n = 0u; n < p.steps; n++) {
    workgroupBarrier();
    if (lane < TERMS4) {
      before[lane] = vec4(states[4u * lane], states[4u * lane + 1u], states[4u * lane + 2u], states[4u * lane + 3u]);
    }
    workgroupBarrier();
    var sum = vec4(0.0);
    @unroll for (var k = 0u; k < TERMS4; k++) {
      sum += before[k] * weights[k];
    }
    sums[lane] = (sum.x + sum.y) + (sum.z + sum.w);
    workgroupBarrier();
    if (lane < p.hidden && number < p.batch) {
      var of_gates = array<f32, GATES>();
      @unroll for (var g = 0u; g < GATES; g++) {
        of_gates[g] = sums[g * p.hidden + lane];
      }
      states[lane] = cell(at, of_gates);
    }
    at = next(at, p.reverse != 0u);
  }
}
