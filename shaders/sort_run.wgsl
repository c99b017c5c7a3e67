// Where sorted runs of Argsort go: this text stands behind sort_blocks.wgsl and sort_merge.wgsl.
// Between launches they are pairs of a key's bits, whose order as u32 is the one wanted, and its number in the
// line: [lines, count]. The last launch writes the numbers alone.

// Elements that an invocation writes.
const RUN: u32 = 16u;
const LAST: bool = false;
alias V = vec2<u32>;

struct Dims {
  chunks: u32, // of RUN elements, of all lines
  row_chunks: u32, // of a line
  count: u32, // elements of a line
  run: u32, // of a sorted run that is read
  by_row_chunks: vec2<u32>, // how to divide by these numbers
  by_inner: vec2<u32>,
  inner: u32, // line = outer * inner + i
  pad0: u32,
  pad1: u32,
  pad2: u32,
  // Strides of outer, axis and inner, and where it begins.
  x: vec4<u32>,
  to: vec4<u32>, // y of the last launch, at 0
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

// A line's outer and inner number.
fn place_of(line: u32) -> vec2<u32> {
  let outer = quotient(line, d.by_inner);
  return vec2(outer, line - outer * d.inner);
}

// Where the element of a line with number 0 goes, and the stride of the others.
fn target_of(line: u32) -> vec2<u32> {
  if (LAST) {
    let place = place_of(line);
    return vec2(place.x * d.to.x + place.y * d.to.z, d.to.y);
  }
  return vec2(line * d.count, 1u);
}

fn put(at: u32, pair: vec2<u32>) {
  y[at] = pair;
}
