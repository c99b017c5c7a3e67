// y[part, row] = sum, times a factor (or max, min, product) of the part-th chunk of x[row, :], for any strides of x.
// 1 x: any strides; 2 y: [parts, rows] row-major.
// A workgroup computes one element of y: each invocation a part of the chunk, then a tree.
// chunk * parts >= count.
// Twin: Reduce::reference in src/ops/reduce.rs.

const THREADS: u32 = 256u; // or 128
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
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

var<workgroup> tree: array<T, THREADS>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

fn store(i: u32, v: V) {
  y[i] = epilogue(v, i);
}

fn identity() -> T {
  return T(0);
}

fn combine(a: T, b: T) -> T {
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

@compute @workgroup_size(THREADS)
fn reduce_rows(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let inside = i < d.rows * d.parts;
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
  var acc = identity();
  if (inside) {
    let end = min((part + 1u) * d.chunk, d.count);
    for (var j = part * d.chunk + lid; j < end; j += THREADS) {
      var at = base;
      if (FLAT) {
        at += j * d.strides.z;
      } else {
        let line = j / d.sizes.z;
        at += j % d.sizes.z * d.strides.z
          + line % d.sizes.y * d.strides.y + line / d.sizes.y * d.strides.x;
      }
      acc = combine(acc, x[at]);
    }
  }
  tree[lid] = acc;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      tree[lid] = combine(tree[lid], tree[lid + half]);
    }
  }
  if (inside && lid == 0u) {
    store(i, scaled(tree[0]));
  }
}
