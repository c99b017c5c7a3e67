// From the means of a row's parts, weighted by their lengths, the row's; with VARIANCE the second line
// holds variances, to which the parts' distances from the common mean add (Chan, Golub and LeVeque, 1979).
// 1 parts: [parts, 2, rows]; 2 whole: [2, rows].
// A workgroup merges 64 rows, an invocation one. Part p has each PARTS-th element of `size` from p on.
// Requires parts <= 4096. Twin: the references in src/ops/norm.rs.

const VARIANCE: bool = true;

struct Dims { rows: u32, size: u32, parts: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> whole: array<f32>;

fn weight(p: u32) -> f32 {
  return f32((d.size - p + d.parts - 1u) / d.parts) / f32(d.size);
}

@compute @workgroup_size(64)
fn norm_merge(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let row = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (row >= d.rows) {
    return;
  }
  var a = 0.0;
  var b = 0.0;
  for (var p = 0u; p < d.parts; p++) {
    let at = 2u * p * d.rows + row;
    a += weight(p) * parts[at];
    b += weight(p) * parts[at + d.rows];
  }
  if (VARIANCE) {
    var rest = 0.0;
    for (var p = 0u; p < d.parts; p++) {
      let c = parts[2u * p * d.rows + row] - a;
      rest += weight(p) * c;
      b += weight(p) * c * c;
    }
    a += rest;
    b = max(b - rest * rest, 0.0);
  }
  whole[row] = a;
  whole[d.rows + row] = b;
}
