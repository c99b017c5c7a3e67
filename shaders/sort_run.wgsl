// Output of sorted runs of Argsort. Between launches, elements are
// pairs of a key, whose u32 order is the sort order, and the element's index in the line: [lines, count]. The last
// launch writes only the indices.

// Elements written per invocation.
const RUN: u32 = 16u;
const LAST: bool = false;

struct Dims {
  chunks: u32, // of RUN elements, in all lines
  row_chunks: u32, // per line
  count: u32, // elements per line
  run: u32, // length of the sorted runs that are read
  by_row_chunks: vec2<u32>, // reciprocals of these numbers
  by_inner: vec2<u32>,
  inner: u32, // line = outer * inner + i
  pad0: u32,
  pad1: u32,
  pad2: u32,
  // Strides of outer, axis and inner, and the offset.
  x: vec4<u32>,
  to: vec4<u32>, // y of the last launch, at 0
}

@group(0) @binding(0) var<uniform> d: Dims;
@if(LAST)
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@else
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;

// A line's outer and inner index.
fn place_of(line: u32) -> vec2<u32> {
  let outer = quotient(line, d.by_inner);
  return vec2(outer, line - outer * d.inner);
}

// The position of element 0 of a line in the output, and the stride of the line.
fn target_of(line: u32) -> vec2<u32> {
  if (LAST) {
    let place = place_of(line);
    return vec2(place.x * d.to.x + place.y * d.to.z, d.to.y);
  }
  return vec2(line * d.count, 1u);
}

fn put(at: u32, pair: vec2<u32>) {
  @if(LAST) y[at] = pair.y;
  @else y[at] = pair;
}
