// One backward step: dh[b, j] = dhs[to, b, j] + sum over k of ds[later, b, k] * w[k, j], then the cell's gradient.
// 1 dhs: [T + 1, B, H]; 2 w: [GATES H, H]; 3 ds: gradient of the sums, [T, B, GATES, H]; from 4 on, bindings of the
// cell (recurrent_rnn_grad.wgsl and others).
// An invocation computes WIDTH units for ROWS batch rows; a workgroup is THREADS of these, along the units first. V is
// f32, or vec4<f32> if H is a multiple of 4. ds of step p.later is complete, that of p.step is written. Requires H <=
// 4000.
// Reference: backward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn_grad::{cell_grad, GATES};
@elif(CELL == 1)
import package::recurrent_lstm_grad::{cell_grad, GATES};
@else
import package::recurrent_gru_grad::{cell_grad, GATES};
import package::recurrent_places::{At, CELL, in_slot, in_step, p};
import package::recurrent_state::{get_BUFFER, part, set_BUFFER, V, WIDTH};

const ROWS: u32 = 8u;
const THREADS: u32 = 32u;

@group(0) @binding(1) var<storage, read> dhs: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<V>;
@group(0) @binding(3) var<storage, read_write> ds: array<V>;

@compute @workgroup_size(THREADS)
fn recurrent_grad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups) * THREADS + lane;
  let units = p.hidden / WIDTH;
  let unit = number % units;
  let row = number / units * ROWS;
  if (row >= p.batch) { return; }
  let rows = min(ROWS, p.batch - row);
  // Rows beyond the last repeat the last.
  var later: array<u32, ROWS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    later[r] = (p.later * p.batch + row + min(r, rows - 1u)) * p.terms;
  }
  var sum: array<V, ROWS>;
  for (var k = 0u; k < p.terms; k++) {
    var d = array<V, ROWS>();
    @unroll for (var r = 0u; r < ROWS; r++) {
      d[r] = ds[later[r] + k];
    }
    @unroll for (var t = 0u; t < WIDTH; t++) {
      let weight = w[(k * WIDTH + t) * units + unit];
      @unroll for (var r = 0u; r < ROWS; r++) {
        sum[r] += part(d[r], t) * weight;
      }
    }
  }
  // Sums are staged through memory so that the cell's code occurs once; the rows shift up as the first is stored.
  for (var r = 0u; r < rows; r++) {
    @unroll for (var t = 0u; t < WIDTH; t++) {
      set_ds(in_step(At(p.step, p.from_slot, p.to_slot, row + r, unit * WIDTH + t), GATES), part(sum[0], t));
    }
    @unroll for (var i = 0u; i < ROWS; i++) {
      sum[i] = sum[min(i + 1u, ROWS - 1u)];
    }
  }
  for (var i = 0u; i < rows * WIDTH; i++) {
    let at = At(p.step, p.from_slot, p.to_slot, row + i / WIDTH, unit * WIDTH + i % WIDTH);
    cell_grad(at, get_ds(in_step(at, GATES)) + dhs[in_slot(at.to_slot, at)], p.terms > 0u);
  }
}
