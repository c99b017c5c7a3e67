// One backward step: dh[b, j] = dhs[to, b, j] + sum over k of ds[later, b, k] * w[k, j], then the cell's gradient.
// 1 dhs: [T + 1, B, H]; 2 w: [GATES H, H]; 3 ds: gradient of the sums, [T, B, GATES, H]; from 4 on, bindings of the
// cell (recurrent_CELL_grad.wgsl).
// An invocation computes WIDTH units for ROWS batch rows; a workgroup is THREADS of these, along the units first. V is
// f32, or vec4<f32> if H is a multiple of 4. ds of step p.later is complete, that of p.step is written. Requires H <=
// 4000.
// Twin: backward in src/ops/recurrent/reference.rs.

const ROWS: u32 = 8u;
const THREADS: u32 = 32u;
const WIDTH: u32 = 1u;
alias V = f32;

@group(0) @binding(1) var<storage, read> dhs: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<V>;
@group(0) @binding(3) var<storage, read_write> ds: array<V>;

fn part(v: V, i: u32) -> f32 { return v; }
fn sum_grad(i: u32) -> f32 { return ds[i]; }
fn set_sum_grad(i: u32, v: f32) { ds[i] = v; }

@compute @workgroup_size(THREADS)
fn recurrent_grad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = ((group.z * groups.y + group.y) * groups.x + group.x) * THREADS + lane;
  let units = p.hidden / WIDTH;
  let unit = number % units;
  let row = number / units * ROWS;
  if (row >= p.batch) { return; }
  let rows = min(ROWS, p.batch - row);
  // Rows beyond the last repeat the last.
  var later: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { // unroll
    later[r] = (p.later * p.batch + row + min(r, rows - 1u)) * p.terms;
  }
  var sum: array<V, ROWS>;
  for (var k = 0u; k < p.terms; k++) {
    var d: array<V, ROWS>;
    for (var r = 0u; r < ROWS; r++) { // unroll
      d[r] = ds[later[r] + k];
    }
    for (var t = 0u; t < WIDTH; t++) { // unroll
      let weight = w[(k * WIDTH + t) * units + unit];
      for (var r = 0u; r < ROWS; r++) { // unroll
        sum[r] += part(d[r], t) * weight;
      }
    }
  }
  // Sums are staged through memory so that the cell's code occurs once; the rows shift up as the first is stored.
  for (var r = 0u; r < rows; r++) {
    for (var t = 0u; t < WIDTH; t++) { // unroll
      set_sum_grad(in_step(At(p.step, p.from_slot, p.to_slot, row + r, unit * WIDTH + t), GATES), part(sum[0], t));
    }
    for (var i = 0u; i < ROWS; i++) { // unroll
      sum[i] = sum[min(i + 1u, ROWS - 1u)];
    }
  }
  for (var i = 0u; i < rows * WIDTH; i++) {
    let at = At(p.step, p.from_slot, p.to_slot, row + i / WIDTH, unit * WIDTH + i % WIDTH);
    cell_grad(at, sum_grad(in_step(at, GATES)) + dhs[in_slot(at.to_slot, at)], p.terms > 0u);
  }
}
