// One step of a recurrent layer: sums[b, g, j] = sum over k of h_before[b, k] * w[k, g, j], then the cell.
// 1 x: [T, B, GATES, H]; 2 w: [H, GATES, H]; 3 hs: the states, [T + 1, B, H]; from 4 on, bindings of the cell
// (recurrent_rnn.wgsl and others).
// An invocation computes all gates of WIDTH units for ROWS batch rows; a workgroup is THREADS of these, along the units
// first. V is f32, or vec4<f32> if H is a multiple of 4. Slot p.from_slot of hs is complete, slot p.to_slot is written.
// Requires H <= 4000.
// Reference: forward in src/ops/recurrent/reference.rs.

@if(CELL == 0)
import package::recurrent_rnn::{cell, GATES};
@elif(CELL == 1)
import package::recurrent_lstm::{cell, GATES};
@else
import package::recurrent_gru::{cell, GATES};
import package::recurrent_places::{At, CELL, p};
import package::recurrent_state::{part, V, WIDTH};

const ROWS: u32 = 8u;
const THREADS: u32 = 32u;

@group(0) @binding(2) var<storage, read> w: array<V>;
@group(0) @binding(3) var<storage, read_write> hs: array<V>;

@compute @workgroup_size(THREADS)
fn recurrent(
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
  var before: array<u32, ROWS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    before[r] = (p.from_slot * p.batch + row + min(r, rows - 1u)) * units;
  }
  var sum: array<V, ROWS * GATES>;
  for (var k = 0u; k < units; k++) {
    var h = array<V, ROWS>();
    @unroll for (var r = 0u; r < ROWS; r++) {
      h[r] = hs[before[r] + k];
    }
    @unroll for (var t = 0u; t < WIDTH; t++) {
      @unroll for (var g = 0u; g < GATES; g++) {
        let weight = w[((k * WIDTH + t) * GATES + g) * units + unit];
        @unroll for (var r = 0u; r < ROWS; r++) {
          sum[r * GATES + g] += part(h[r], t) * weight;
        }
      }
    }
  }
  // The rows shift up as the first is stored, so that the cell's code occurs once.
  for (var i = 0u; i < rows * WIDTH; i++) {
    var of_gates = array<f32, GATES>();
    @unroll for (var g = 0u; g < GATES; g++) {
      of_gates[g] = part(sum[g], i % WIDTH);
    }
    cell(At(p.step, p.from_slot, p.to_slot, row + i / WIDTH, unit * WIDTH + i % WIDTH), of_gates);
    if (i % WIDTH == WIDTH - 1u) {
      @unroll for (var j = 0u; j < ROWS * GATES; j++) {
        sum[j] = sum[min(j + GATES, ROWS * GATES - 1u)];
      }
    }
  }
}
