// y[part, row] = sum, times a factor (or max, min, product) of the part-th chunk of x[row, :], for any strides of x.
// 1 x: in V, any strides; 2 y: [parts, rows] row-major, in T (four rows to a V of columns).
// A workgroup computes 64 elements of y, an invocation one (or four): a running sum over its chunk.
// chunk * parts >= count. V is T, or vec4<T> where four neighbours lie in a row or in four rows.
// Twin: Reduce::reference in src/ops/reduce.rs.

const KIND: u32 = 0u; // 0 sum, 1 max, 2 min, 3 product
const FLAT: bool = false; // one merged axis of rows, one of elements: no divisions
alias T = f32;
alias V = T;

struct Dims {
  rows: u32,
  count: u32,
  parts: u32,
  chunk: u32,
  // Axes outermost first.
  row_sizes: vec4<u32>, // and the bits of what sums are multiplied with, a T
  row_strides: vec4<u32>, // and where x begins
  sizes: vec4<u32>,
  strides: vec4<u32>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

fn store(i: u32, v: V) {
  y[i] = epilogue(v, i);
}

fn identity() -> T {
  return T(0);
}

fn combine(a: V, b: V) -> V {
  if (KIND == 0u) {
    return a + b;
  }
  if (KIND == 1u) {
    return max(a, b);
  }
  if (KIND == 3u) {
    return a * b;
  }
  return min(a, b);
}

fn scaled(v: V) -> V {
  if (KIND != 0u) {
    return v;
  }
  return v * bitcast<T>(d.row_sizes.w);
}

@compute @workgroup_size(64)
fn reduce(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= d.rows * d.parts) {
    return;
  }
  // Neighbours work on neighbouring rows.
  let part = i / d.rows;
  let row = i - part * d.rows;
  var base = d.row_strides.w;
  if (FLAT) {
    base += row * d.row_strides.z;
  } else {
    let outer = row / d.row_sizes.z;
    base += row % d.row_sizes.z * d.row_strides.z
      + outer % d.row_sizes.y * d.row_strides.y + outer / d.row_sizes.y * d.row_strides.x;
  }
  var acc = V(identity());
  var j = part * d.chunk;
  let end = min(j + d.chunk, d.count);
  // Runs along the innermost axis: the position is worked out once for each.
  while (j < end) {
    var run = end - j;
    var at = base + j * d.strides.z;
    if (!FLAT) {
      let line = j / d.sizes.z;
      let inner = j % d.sizes.z;
      run = min(run, d.sizes.z - inner);
      at = base + inner * d.strides.z
        + line % d.sizes.y * d.strides.y + line / d.sizes.y * d.strides.x;
    }
    for (var k = 0u; k < run; k++) {
      acc = combine(acc, x[at]);
      at += d.strides.z;
    }
    j += run;
  }
  store(i, scaled(acc));
}
