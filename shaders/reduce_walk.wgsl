// Element access and combination for the reductions. V is T or, with VEC4, a vec4 of four neighbours in one row, or
// with ACROSS of one element in each of four rows.

import package::elements::{T, V, VEC4};

const KIND: u32 = 0u; // 0 sum, 1 max, 2 min, 3 product
const RUN: u32 = 64u; // elements combined sequentially
const FLAT: bool = false; // a single merged row axis and a single reduced axis: no divisions
const ACROSS: bool = false;

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

fn identity() -> T {
  @if(KIND == 0) return T(0);
  @elif(KIND == 3) return T(1);
  @else return bitcast<T>(d.row_sizes.w);
}

// Elements of x, after the prologue.
fn load(at: u32) -> V {
  @if(T == f32 && VEC4) return prologue4(x[at], 4u * at);
  @elif(T == f32) return prologue(x[at], at);
  @else return x[at];
}

// Stores the results of row i, or with ACROSS of the four rows from 4 i.
fn store(i: u32, v: V) {
  @if(VEC4 && ACROSS) {
    @unroll for (var k = 0u; k < 4u; k++) {
      store_element(4u * i + k, v[k]);
    }
  }
  @else store_element(i, joined(v));
}

fn store_element(i: u32, v: T) {
  @if(T == f32) y[i] = epilogue(scaled(v), i);
  @else y[i] = scaled(v);
}

// The combined elements of V, which lie in one row.
fn joined(v: V) -> T {
  @if(VEC4) {
    let h = combine(v, v.zwxy);
    return combine(h, h.yxwz).x;
  }
  @else return v;
}

// `most`, the extreme of a and b; NaN if either is.
fn extreme(a: V, b: V, most: V) -> V {
  @if(T != f32) return most;
  @elif(VEC4) return nan_or4(a, nan_or4(b, most));
  @else return nan_or(a, nan_or(b, most));
}

fn combine(a: V, b: V) -> V {
  @if(KIND == 0) return a + b;
  @elif(KIND == 1) return extreme(a, b, max(a, b));
  @elif(KIND == 2) return extreme(a, b, min(a, b));
  @else return a * b;
}

fn scaled(v: T) -> T {
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
