// p.steps backward steps: dh[b, j] = dhs[to, b, j] + sum over k of ds[later, b, k] * w[k, j], then the cell's gradient.
// 1 dhs: [T + 1, B, H]; 2 w: [GATES H, H]; 3 ds: gradient of the sums, [T, B, GATES, H]; from 4 on, bindings of the
// cell (recurrent_rnn_grad.wgsl and others).
// A workgroup computes one batch row, with ds of the later step in workgroup memory; an invocation several units. ds of
// p.later is complete. Requires H <= 512, and p.steps times the iterations over k below 16,000.
// Reference: backward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn_grad::{cell_grad, GATES};
@elif(CELL == 1)
import package::recurrent_lstm_grad::{cell_grad, GATES};
@else
import package::recurrent_gru_grad::{cell_grad, GATES};
import package::recurrent_places::{At, CELL, in_slot, next, p};

const THREADS: u32 = 256u; // or 128

@group(0) @binding(1) var<storage, read> dhs: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> ds: array<f32>;

var<workgroup> behind: array<f32, GATES * 512u>;

@compute @workgroup_size(THREADS)
fn recurrent_grad_workgroup(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  // Surplus workgroups do nothing, but reach every barrier.
  let row = group_number(group, groups);
  let units = select(0u, p.hidden, row < p.batch);
  var at = At(p.step, p.from_slot, p.to_slot, row, 0u);
  var later = p.later;
  var terms = p.terms;
  for (var n = 0u; n < p.steps; n++) {
    let end = select(0u, terms, row < p.batch);
    for (var k = lane; k < end; k += THREADS) {
      behind[k] = ds[(later * p.batch + row) * GATES * p.hidden + k];
    }
    workgroupBarrier();
    for (var unit = lane; unit < units; unit += THREADS) {
      at.unit = unit;
      var sum = 0.0;
      for (var k = 0u; k < terms; k++) {
        sum += behind[k] * w[k * p.hidden + unit];
      }
      cell_grad(at, sum + dhs[in_slot(at.to_slot, at)], terms > 0u);
    }
    later = at.step;
    terms = GATES * p.hidden;
    at = next(at, p.reverse == 0u);
    storageBarrier(); // makes the writes visible to the other invocations,
    workgroupBarrier(); // and waits for their reads before overwriting
  }
}
