// The keys of Argsort: their lines in x, and which of two goes before the other.
// Appended to sort_blocks.wgsl and sort_merge.wgsl by src/ops/sort.rs.

const DESCENDING: bool = false;
alias T = f32;

struct Dims {
  total: u32, // elements of all lines
  count: u32,
  inner: u32, // line = outer * inner + i
  run: u32,
  // Strides of outer, axis and inner, and where it begins.
  x: vec4<u32>,
  to: vec4<u32>, // y, at 0
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<T>;

fn before(a: T, b: T) -> bool {
  if (DESCENDING) {
    return a > b;
  }
  return a < b;
}
