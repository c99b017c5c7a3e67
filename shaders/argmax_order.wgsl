// Rows [outer, size, inner] of the argmax kernels, and the order of their elements.

import package::elements::{T, V};

const SMALLEST: bool = false; // argmin

struct Dims { rows: u32, size: u32, inner: u32, parts: u32, chunk: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;

fn start_of(row: u32) -> u32 {
  return row / d.inner * d.size * d.inner + row % d.inner;
}

// Whether v replaces the running extreme.
fn beats(v: T, best: T) -> bool {
  @if(T == f32 && SMALLEST) return exceeds(-v, -best);
  @elif(T == f32) return exceeds(v, best);
  @elif(SMALLEST) return v < best;
  @else return v > best;
}
