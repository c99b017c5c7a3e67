// y[o, j, i] = sum over k <= j of x[o, k, i]; with `reverse`, over k >= j.
// x, y: contiguous f32 [outer, size, inner]. Each invocation walks one line from `first` to
// `last`, going on from the element before in y; a workgroup takes 64 lines.
// Requires last - first <= 8192; longer lines take several launches, in order.
// CPU twin: CumSum in src/ops/cumsum.rs.

struct Params { lines: u32, size: u32, inner: u32, reverse: u32, first: u32, last: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn cumsum(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = ((group.z * groups.y + group.y) * groups.x + group.x) * 64u + lane;
  if (line >= p.lines) { return; }
  let start = line / p.inner * p.size * p.inner + line % p.inner;
  var sum = 0.0;
  for (var k = p.first; k < p.last; k++) {
    let j = select(k, p.size - 1u - k, p.reverse != 0u);
    let at = start + j * p.inner;
    if (k == p.first && k > 0u) {
      sum = y[select(at - p.inner, at + p.inner, p.reverse != 0u)];
    }
    sum += x[at];
    y[at] = sum;
  }
}
