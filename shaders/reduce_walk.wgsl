// Element access and combination for the reductions; appended to reduce.wgsl and reduce_rows.wgsl.
const KIND: u32 = 0u; // 0 sum, 1 max, 2 min, 3 product
const RUN: u32 = 64u; // elements combined sequentially
const FLAT: bool = false; // a single merged row axis and a single reduced axis: no divisions
alias T = f32;
alias V = T;

struct Dims {
  rows: u32,
  count: u32,
  parts: u32,
  chunk: u32,
  // Axes outermost first.
  row_sizes: vec4<u32>, // and the bits of a T: the factor of sums, or the identity of max and min
  row_strides: vec4<u32>, // and the offset of x
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
  if (KIND == 0u) {
    return T(0);
  }
  if (KIND == 3u) {
    return T(1);
  }
  return bitcast<T>(d.row_sizes.w);
}

// `most`, the extreme of a and b; NaN if either is.
fn extreme(a: V, b: V, most: V) -> V {
  return nan_or(a, nan_or(b, most));
}

fn combine(a: V, b: V) -> V {
  if (KIND == 0u) {
    return a + b;
  }
  if (KIND == 1u) {
    return extreme(a, b, max(a, b));
  }
  if (KIND == 3u) {
    return a * b;
  }
  return extreme(a, b, min(a, b));
}

fn scaled(v: V) -> V {
  if (KIND != 0u) {
    return v;
  }
  return v * bitcast<T>(d.row_sizes.w);
}

// The start of a row.
fn start_of(row: u32) -> u32 {
  if (FLAT) {
    return d.row_strides.w + row * d.row_strides.z;
  }
  let outer = row / d.row_sizes.z;
  return d.row_strides.w + row % d.row_sizes.z * d.row_strides.z
    + outer % d.row_sizes.y * d.row_strides.y + outer / d.row_sizes.y * d.row_strides.x;
}

// The position of element j in the row that starts at `start`.
fn element(start: u32, j: u32) -> u32 {
  if (FLAT) {
    return start + j * d.strides.z;
  }
  let line = j / d.sizes.z;
  return start + j % d.sizes.z * d.strides.z
    + line % d.sizes.y * d.strides.y + line / d.sizes.y * d.strides.x;
}
