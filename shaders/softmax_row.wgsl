// The rows of the softmax kernels: [outer, size, inner] row-major, a row per (outer, inner). With VEC4 an element is a
// vec4 of four neighbours in one row, or with ACROSS of one element in each of four rows.

import package::elements::{V, VEC4};
import package::norm_lanes::{ACROSS, S};

const RUN: u32 = 64u; // elements that an invocation adds sequentially: errors grow with RUN and the number of runs

struct Dims { rows: u32, size: u32, inner: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;

fn start_of(row: u32) -> u32 {
  return row / d.inner * d.size * d.inner + row % d.inner;
}

// y, or NaN if x is: a driver's exp and log may turn NaN into a number.
fn keep_nan(x: V, y: V) -> V {
  @if(VEC4) return nan_or4(x, y);
  @else return nan_or(x, y);
}

fn exp_of(x: V) -> V {
  return keep_nan(x, exp(x));
}

// The largest of the elements of V that lie in one row.
fn lanes_max(v: V) -> S {
  @if(VEC4 && !ACROSS) return max(max(v.x, v.y), max(v.z, v.w));
  @else return v;
}
