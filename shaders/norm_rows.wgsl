// Layout of a row's elements in [outer, rows, inner] (a row spans outer and inner), and the row and part of each
// invocation; shared by norm_moments and norm_grad_sums. All counted in V, see norm_lanes.wgsl. Neighbouring
// invocations have neighbouring parts, each with every PARTS-th element, or, with COLUMNS, neighbouring rows. Requires
// size / parts <= 4096.

import package::norm_lanes::{S};

const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs
const COLUMNS: bool = false; // inner = 1
const WHOLE: bool = false; // outer = 1

struct Dims { rows: u32, inner: u32, size: u32, parts: u32, by_inner: vec2<u32>, width: f32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;

struct Part { row: u32, first: u32 }

fn part_of(id: u32) -> Part {
  if (COLUMNS) {
    return Part(id % d.rows, id / d.rows);
  }
  return Part(id / d.parts, id % d.parts);
}

fn position(row: u32, k: u32) -> u32 {
  if (COLUMNS) {
    return k * d.rows + row;
  }
  if (WHOLE) {
    return row * d.inner + k;
  }
  let o = quotient(k, d.by_inner);
  return (o * d.rows + row) * d.inner + k - o * d.inner;
}

// The end of the run that starts at k.
fn end_of_run(k: u32) -> u32 {
  return k + min(RUN * d.parts, d.size - k);
}

// The factor applied to differences, so that squares with mean `v` stay within the range of f32.
fn scale_of(v: S) -> S {
  return select(select(S(1.0), S(0x1p64), v < S(0x1p-100)), S(0x1p-76), v > S(0x1p100));
}

// Number of elements in the part that starts at `first`.
fn count(first: u32) -> f32 {
  return f32((d.size - first + d.parts - 1u) / d.parts) * d.width;
}
