// m = mean of x over a part of a row, v = mean of (x - m)^2; without CENTERED m = 0.
// 1 x: [outer, rows, inner] in V; 2 moments: [parts, 2, rows] in S, m and v. See norm_rows.wgsl.
// A workgroup computes 64 parts, an invocation one.
// Preconditions: those of norm_rows.wgsl.
// Twin: Normalize::reference in src/ops/norm.rs.

const CENTERED: bool = true;

@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> moments: array<S>;

@compute @workgroup_size(64)
fn norm_moments(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let id = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (id >= d.rows * d.parts) {
    return;
  }
  let part = part_of(id);
  let n = count(part.first);
  var mean = S(0.0);
  if (CENTERED) {
    var sum = V(0.0);
    for (var k = part.first; k < d.size; k += d.parts) {
      sum += x[position(part.row, k)];
    }
    mean = lanes(sum) / n;
  }
  // What the rounded mean leaves is small: its own mean mends the mean and the variance.
  var rest = V(0.0);
  var squares = V(0.0);
  for (var k = part.first; k < d.size; k += d.parts) {
    let c = x[position(part.row, k)] - V(mean);
    rest += c;
    squares += c * c;
  }
  var v = lanes(squares) / n;
  if (CENTERED) {
    let more = lanes(rest) / n;
    mean += more;
    v = max(v - more * more, S(0.0));
  }
  let at = 2u * part.first * d.rows + part.row;
  moments[at] = mean;
  moments[at + d.rows] = v;
}
