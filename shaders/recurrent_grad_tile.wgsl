// One backward step: dh[b, j] = dhs[to, b, j] + sum over k of ds[later, b, k] * w[k, j], then the cell's gradient.
// 1 dhs: [T + 1, B, H]; 2 w: [GATES H, H]; 3 ds: gradient of the sums, [T, B, GATES, H]; from 4 on, bindings of the
// cell (recurrent_rnn_grad.wgsl and others).
// A workgroup computes a tile of batch rows and units, units first (recurrent_sums.wgsl). ds of step p.later is
// complete, that of p.step is written. Requires H <= 4000.
// Reference: backward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn_grad::{cell_grad, GATES};
@elif(CELL == 1)
import package::recurrent_lstm_grad::{cell_grad, GATES};
@else
import package::recurrent_gru_grad::{cell_grad, GATES};
import package::recurrent_places::{At, CELL, in_slot, p};
import package::recurrent_sums::{add_BUFFER, LANES, sum_of, TILE_ROWS, TILE_UNITS};

const COLUMNS: u32 = 1u;

@group(0) @binding(1) var<storage, read> dhs: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> ds: array<f32>;

@compute @workgroup_size(LANES)
fn recurrent_grad_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let tiles = (p.hidden + TILE_UNITS - 1u) / TILE_UNITS;
  let first_row = number / tiles * TILE_ROWS;
  let first_unit = number % tiles * TILE_UNITS;
  if (first_row >= p.batch) { return; } // uniform in the workgroup
  add_ds(lane, p.later * p.batch * GATES * p.hidden, first_row, first_unit, p.terms);
  for (var i = lane; i < TILE_ROWS * TILE_UNITS; i += LANES) {
    let at = At(p.step, p.from_slot, p.to_slot, first_row + i / TILE_UNITS, first_unit + i % TILE_UNITS);
    if (at.row < p.batch && at.unit < p.hidden) {
      cell_grad(at, sum_of(i).x + dhs[in_slot(at.to_slot, at)], p.terms > 0u);
    }
  }
}
