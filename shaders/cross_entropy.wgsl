// losses[n] = log(s) - (x[n, labels[n]] - m), with m = max_k x[n, k] and s = sum_k exp(x[n, k] - m); or, with
// `gradient` 1, dx[n, k] = (exp(x[n, k] - m) / s - (1 where k = labels[n])) dy[n].
// 1 x: logits [N, C]; 2 labels: [N], i32 or u32 bits; 3 dy: [N], not read for losses; 4 y: losses [N] or dx [N, C].
// A workgroup computes 64 rows, an invocation one.
// An out-of-range class is never used as an index: the row gets NaN and the status becomes 1. Requires C >= 1.
// References: CrossEntropy::reference and CrossEntropyGrad::reference in src/ops/cross_entropy.rs.

const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs

struct Dims { rows: u32, size: u32, nan: u32, gradient: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> status: array<atomic<u32>, 4>;

// Some drivers return a number for exp(NaN).
fn exp_of(x: f32) -> f32 { return nan_or(x, exp(x)); }

@compute @workgroup_size(64)
fn cross_entropy(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group_number(group, groups) * 64u + lane;
  if (row >= d.rows) {
    return;
  }
  let start = row * d.size;
  var m = x[start];
  for (var k = 1u; k < d.size; k++) {
    m = max(m, x[start + k]);
  }
  var s = 0.0;
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = 0.0;
    for (; k < stop; k++) {
      run += exp_of(x[start + k] - m);
    }
    s += run;
  }
  let label = labels[row];
  let valid = label < d.size;
  if (!valid) {
    atomicStore(&status[0], 1u);
  }
  if (d.gradient == 0u) {
    let loss = nan_or(s, log(s)) - (x[start + min(label, d.size - 1u)] - m);
    y[row] = select(bitcast<f32>(d.nan), loss, valid);
    return;
  }
  let scale = select(bitcast<f32>(d.nan), dy[row], valid);
  for (var k = 0u; k < d.size; k++) {
    let hit = select(0.0, 1.0, k == label);
    y[start + k] = (exp_of(x[start + k] - m) / s - hit) * scale;
  }
}
