// losses[n] = log(sum_k exp(x[n, k] - m)) - (x[n, labels[n]] - m) with m = max_k x[n, k].
// 1 x: logits [N, C]; 2 labels: [N], i32 or u32 bits; 3 losses: [N].
// A workgroup computes 64 rows, an invocation one.
// A class out of range is never read through: the row gets NaN and the status 1. C >= 1.
// Twin: CrossEntropy::reference in src/ops/cross_entropy.rs.

struct Dims { rows: u32, size: u32, nan: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn cross_entropy(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let row = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (row >= d.rows) {
    return;
  }
  let start = row * d.size;
  var m = x[start];
  for (var k = 1u; k < d.size; k++) {
    m = max(m, x[start + k]);
  }
  var s = 0.0;
  for (var k = 0u; k < d.size; k++) {
    s += exp(x[start + k] - m);
  }
  let label = labels[row];
  if (label < d.size) {
    losses[row] = log(s) - (x[start + label] - m);
  } else {
    losses[row] = bitcast<f32>(d.nan);
    atomicStore(&status[0], 1u);
  }
}
