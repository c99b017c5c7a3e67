// p.steps steps of a recurrent layer: sums[b, g, j] = sum over k of h_before[b, k] * w[k, g, j], then the cell.
// 1 x: [T, B, GATES, H]; 2 w: [H, GATES, H]; 3 hs: the states, [T + 1, B, H]; from 4 on, bindings of the cell
// (recurrent_rnn.wgsl and others).
// A workgroup computes one batch row, with the previous state in workgroup memory; an invocation several units. Slot
// p.from_slot of hs is complete. Requires H <= 512, and p.steps times the iterations over k below 16,000.
// Reference: forward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn::{cell, GATES};
@elif(CELL == 1)
import package::recurrent_lstm::{cell, GATES};
@else
import package::recurrent_gru::{cell, GATES};
import package::recurrent_places::{At, CELL, in_slot, next, p};

const THREADS: u32 = 256u; // or 128

@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> hs: array<f32>;

var<workgroup> before: array<f32, 512>;

@compute @workgroup_size(THREADS)
fn recurrent_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Surplus workgroups do nothing, but reach every barrier.
  let row = group_number(group, groups);
  let units = select(0u, p.hidden, row < p.batch);
  var at = At(p.step, p.from_slot, p.to_slot, row, 0u);
  for (var n = 0u; n < p.steps; n++) {
    for (var k = lane; k < units; k += THREADS) {
      before[k] = hs[in_slot(at.from_slot, at) + k];
    }
    workgroupBarrier();
    for (var unit = lane; unit < units; unit += THREADS) {
      at.unit = unit;
      var sum = array<f32, GATES>();
      for (var k = 0u; k < p.hidden; k++) {
        @unroll for (var g = 0u; g < GATES; g++) {
          sum[g] += before[k] * w[(k * GATES + g) * p.hidden + unit];
        }
      }
      cell(at, sum);
    }
    at.unit = 0u;
    at = next(at, p.reverse != 0u);
    storageBarrier(); // makes the writes visible to the other invocations,
    workgroupBarrier(); // and waits for their reads before overwriting
  }
}
