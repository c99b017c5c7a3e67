// y[o, j, i] = epilogue(sum over k of weight(j, k) * x[o, k, i]): resizes an axis of n_in elements to n_out.
// With TRANSPOSED the gradient of that: y[o, k, i] = epilogue(sum over j of weight(j, k) * x[o, j, i]).
// 1 x: f32 [outer, axis, inner], any strides; 2 y: row-major.
// Output j is at the source position (j step + start) / unit, clamped to the axis. These are integers, so weights are
// rounded once. Each invocation computes one element of y; a workgroup computes 64.
// Reference: Interpolate::reference in src/ops/interpolate.rs.

const TRANSPOSED: bool = false;
const NEAREST: bool = false;

struct Dims {
  x: vec4<u32>,        // strides of outer, axis and inner; offset
  by_inner: vec2<u32>, // reciprocals for quotient()
  by_size: vec2<u32>,
  by_unit: vec2<u32>,
  count: u32,   // elements of y
  size: u32,    // of y along the axis
  inner: u32,
  n_in: i32,
  n_out: i32,
  unit: i32,
  step: i32,
  start: i32,
  pad0: u32,
  pad1: u32,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// The source position of output j, in 1/unit.
fn position(j: i32) -> i32 { return clamp(j * d.step + d.start, 0, (d.n_in - 1) * d.unit); }

// The source element at a position or before it.
fn element(at: i32) -> i32 { return i32(quotient(u32(at), d.by_unit)); }

// The weight of source element k in the output whose position is `at`.
fn weight(at: i32, k: i32) -> f32 {
  let low = element(at);
  let rest = at - low * d.unit;
  if (NEAREST) { return select(0.0, 1.0, k == low); }
  if (k == low) { return f32(d.unit - rest) / f32(d.unit); }
  return select(0.0, f32(rest) / f32(d.unit), k == low + 1);
}

// The outputs that may read source element k: all j with a position in (k - 1, k + 1), and some more of weight 0.
fn readers(k: i32) -> vec2<i32> {
  let step = max(d.step, 1);
  // Clamped positions need no special case: before clamping, all are in (-1, n_in).
  let ends = (vec2(k - 1, k + 1) * d.unit - d.start) / step;
  return clamp(ends, vec2(0), vec2(d.n_out - 1));
}

@compute @workgroup_size(64)
fn interpolate(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let n = group_number(group, groups) * 64u + lane;
  if (n >= d.count) { return; }
  let row = quotient(n, d.by_inner);
  let o = quotient(row, d.by_size);
  let own = i32(row - o * d.size);
  let line = d.x.w + o * d.x.x + (n - row * d.inner) * d.x.z;
  let at = position(own);
  var terms = vec2(element(at), min(element(at) + 1, d.n_in - 1));
  if (TRANSPOSED) { terms = readers(own); }
  var sum = 0.0;
  for (var other = terms.x; other <= terms.y; other++) {
    let w = weight(select(at, position(other), TRANSPOSED), select(other, own, TRANSPOSED));
    // Skips elements of weight 0, even if they are NaN or infinite.
    if (w != 0.0) { sum += w * x[line + u32(other) * d.x.y]; }
  }
  y[n] = epilogue(sum, n);
}
