// y[row] = the k among parts[:, row] with the largest (or smallest) x[row, k], the first one on ties.
// 1 x: [outer, size, inner] row-major, a row per (outer, inner); 2 parts: [parts, rows]; 3 y: [rows].
// A workgroup computes 64 elements of y, an invocation one.
// The second launch of argmax for long rows; parts are in ascending order of k.
// Twin: Argmax::reference in src/ops/argmax.rs.

const SMALLEST: bool = false; // argmin
alias T = f32;

struct Dims { rows: u32, size: u32, inner: u32, parts: u32, chunk: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> parts: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;

fn beats(v: T, largest: T) -> bool {
  if (SMALLEST) {
    return exceeds(-v, -largest);
  }
  return exceeds(v, largest);
}

@compute @workgroup_size(64)
fn argmax_parts(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let row = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (row >= d.rows) {
    return;
  }
  let start = row / d.inner * d.size * d.inner + row % d.inner;
  var best = parts[row];
  var largest = x[start + best * d.inner];
  for (var part = 1u; part < d.parts; part++) {
    let k = parts[part * d.rows + row];
    let v = x[start + k * d.inner];
    if (beats(v, largest)) {
      largest = v;
      best = k;
    }
  }
  y[row] = best;
}
