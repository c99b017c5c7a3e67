// The windows of a pooling.
// Window (oy, ox) of a plane covers rows oy SY .. + KH and columns ox SX .. + KW of the padded plane.

struct Pool {
  // Each invocation has one element of planes of rows x columns; reciprocals of these sizes.
  by_columns: vec2<u32>, by_rows: vec2<u32>,
  count: u32, columns: u32, rows: u32, h: u32, w: u32, oh: u32, ow: u32, py: u32, px: u32, include: u32,
}
@group(0) @binding(0) var<uniform> s: Pool;

const KH: u32 = 2u;
const KW: u32 = 2u;
const SY: u32 = 2u;
const SX: u32 = 2u;
// Whether there is any padding.
const PADDED: bool = true;
// Whether to unroll loops over a window.
const UNROLL: bool = true;

// Column, row and plane of element i.
fn place_of(i: u32) -> vec3<u32> {
  let row = quotient(i, s.by_columns);
  let plane = quotient(row, s.by_rows);
  return vec3(i - row * s.columns, row - plane * s.rows, plane);
}

// The position of row 0, column 0 of a padded plane; wrapping below 0 is undone by later additions.
fn origin(plane: u32) -> u32 {
  return (plane * s.h - s.py) * s.w - s.px;
}

// Whether an element of a padded plane is not padding.
fn inside(y: u32, x: u32) -> bool {
  return !PADDED || (y >= s.py && y < s.h + s.py && x >= s.px && x < s.w + s.px);
}
