// One step of a recurrent layer: sums[b, g, j] = sum over k of h_before[b, k] * w[k, g, j], then the cell.
// 1 x: [T, B, GATES, H]; 2 w: [H, GATES, H]; 3 hs: the states, [T + 1, B, H]; from 4 on, bindings of the cell
// (recurrent_rnn.wgsl and others).
// A workgroup computes a tile of batch rows and units, units first (recurrent_sums.wgsl). Slot p.from_slot of hs is
// complete, slot p.to_slot is written. Requires H <= 4000.
// Reference: forward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn::{cell, GATES};
@elif(CELL == 1)
import package::recurrent_lstm::{cell, GATES};
@else
import package::recurrent_gru::{cell, GATES};
import package::recurrent_places::{At, CELL, p};
import package::recurrent_sums::{add_BUFFER, LANES, sum_of, TILE_ROWS, TILE_UNITS};

const COLUMNS: u32 = GATES;

@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> hs: array<f32>;

@compute @workgroup_size(LANES)
fn recurrent_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let tiles = (p.hidden + TILE_UNITS - 1u) / TILE_UNITS;
  let first_row = number / tiles * TILE_ROWS;
  let first_unit = number % tiles * TILE_UNITS;
  if (first_row >= p.batch) { return; } // uniform in the workgroup
  add_hs(lane, p.from_slot * p.batch * p.hidden, first_row, first_unit, p.hidden);
  for (var i = lane; i < TILE_ROWS * TILE_UNITS; i += LANES) {
    let at = At(p.step, p.from_slot, p.to_slot, first_row + i / TILE_UNITS, first_unit + i % TILE_UNITS);
    if (at.row < p.batch && at.unit < p.hidden) {
      let sums = sum_of(i);
      var of_gates = array<f32, GATES>();
      @unroll for (var g = 0u; g < GATES; g++) {
        of_gates[g] = sums[g];
      }
      cell(at, of_gates);
    }
  }
}
