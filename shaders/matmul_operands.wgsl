// The operands of the matmul kernels.
// Element (batch, m, k) of a is a[a_offset + batch offset + m * a_m + k * a_k]. The batch number is split into three
// axes with separate strides, 0 where broadcast. Likewise for b; y is contiguous.
// An operand is read by vec4 along k (A_ALONG_K) or along its other axis (A_ALONG_M, B_ALONG_N) where that axis is
// contiguous and its size, the other strides and the offset are multiples of 4; otherwise element by element. With
// Y_VEC4 n is a multiple of 4, and y is written by vec4.

alias T = f32;
// Kernels for cooperative matrices read operands that are stored as f16 without converting them.
alias ElementA = T;
alias ElementB = T;
const A_ALONG_K: bool = false;
const A_ALONG_M: bool = false;
const B_ALONG_K: bool = false;
const B_ALONG_N: bool = false;
const Y_VEC4: bool = false;
// If not 0, b is quantised: see quantized_weights.wgsl.
const B_BITS: u32 = 0u;

struct Params {
  batches: u32, m: u32, n: u32, k: u32,
  // The sum is split into parts of part_k terms; part s goes to y[s, batch, m, n].
  parts: u32, part_k: u32,
  tiles_m: u32, tiles_n: u32,
  a_offset: u32, a_m: u32, a_k: u32, a_size1: u32, a_size2: u32, a_batch0: u32, a_batch1: u32, a_batch2: u32,
  b_offset: u32, b_n: u32, b_k: u32, b_size1: u32, b_size2: u32, b_batch0: u32, b_batch1: u32, b_batch2: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@if(A_ALONG_K || A_ALONG_M)
@group(0) @binding(1) var<storage, read> a: array<vec4<ElementA>>;
@else
@group(0) @binding(1) var<storage, read> a: array<ElementA>;
@if(B_ALONG_K || B_ALONG_N)
@group(0) @binding(2) var<storage, read> b: array<vec4<ElementB>>;
@else
@group(0) @binding(2) var<storage, read> b: array<ElementB>;
@if(Y_VEC4)
@group(0) @binding(3) var<storage, read_write> y: array<vec4<T>>;
@else
@group(0) @binding(3) var<storage, read_write> y: array<T>;

// i .. i + 4, clamped to size - 1.
fn four(i: u32, size: u32) -> vec4<u32> {
  return min(vec4(i, i + 1u, i + 2u, i + 3u), vec4(size - 1u));
}

// The positions of a[m .. m + 4, 0], in elements of the binding.
fn rows_of_a(batch: u32, m: u32) -> vec4<u32> {
  let outer = batch / p.a_size2;
  let inner = batch % p.a_size2 * p.a_batch2;
  let start = p.a_offset + outer / p.a_size1 * p.a_batch0 + outer % p.a_size1 * p.a_batch1 + inner;
  let rows = start + four(m, p.m) * p.a_m;
  @if(A_ALONG_K || A_ALONG_M) return rows / 4u;
  @else return rows;
}

// The positions of b[0, n .. n + 4], in elements of the binding; of a quantised b, the columns.
@if(B_BITS > 0)
fn columns_of_b(batch: u32, n: u32) -> vec4<u32> { return four(n, p.n); }
@else
fn columns_of_b(batch: u32, n: u32) -> vec4<u32> {
  let outer = batch / p.b_size2;
  let inner = batch % p.b_size2 * p.b_batch2;
  let start = p.b_offset + outer / p.b_size1 * p.b_batch0 + outer % p.b_size1 * p.b_batch1 + inner;
  let columns = start + four(n, p.n) * p.b_n;
  @if(B_ALONG_K || B_ALONG_N) return columns / 4u;
  @else return columns;
}
