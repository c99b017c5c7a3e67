
// The operands of the matmul kernels: this text stands behind theirs.
// Element (batch, m, k) of a is a[a_offset + batch part + m * a_m + k * a_k], where the batch number
// is cut into three axes of own strides, 0 where it is broadcast; the same for b; y is contiguous.
// Operands are read in blocks of 4 x 4: element by element as here, or by vec4 along the axis that
// is contiguous, where sizes, strides and offset are multiples of 4 (see src/ops/matmul.rs).
struct Params {
  batches: u32, m: u32, n: u32, k: u32,
  // The sum is cut into parts of part_k terms; part s goes to y[s, batch, m, n].
  parts: u32, part_k: u32,
  tiles_m: u32, tiles_n: u32,
  a_offset: u32, a_m: u32, a_k: u32, a_size1: u32, a_size2: u32, a_batch0: u32, a_batch1: u32, a_batch2: u32,
  b_offset: u32, b_n: u32, b_k: u32, b_size1: u32, b_size2: u32, b_batch0: u32, b_batch1: u32, b_batch2: u32,
}
alias A = f32;
alias B = f32;
alias Y = f32;
// Numbers in an A and in a B.
const WIDTH_A: u32 = 1u;
const WIDTH_B: u32 = 1u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<A>;
@group(0) @binding(2) var<storage, read> b: array<B>;
@group(0) @binding(3) var<storage, read_write> y: array<Y>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

// i .. i + 4; behind size the last number again.
fn four(i: u32, size: u32) -> vec4<u32> {
  return min(vec4(i, i + 1u, i + 2u, i + 3u), vec4(size - 1u));
}

// The positions of a[m .. m + 4, 0], counted in A.
fn rows_of_a(batch: u32, m: u32) -> vec4<u32> {
  let outer = batch / p.a_size2;
  let inner = batch % p.a_size2 * p.a_batch2;
  let start = p.a_offset + outer / p.a_size1 * p.a_batch0 + outer % p.a_size1 * p.a_batch1 + inner;
  return (start + four(m, p.m) * p.a_m) / WIDTH_A;
}

// The positions of b[0, n .. n + 4], counted in B.
fn columns_of_b(batch: u32, n: u32) -> vec4<u32> {
  let outer = batch / p.b_size2;
  let inner = batch % p.b_size2 * p.b_batch2;
  let start = p.b_offset + outer / p.b_size1 * p.b_batch0 + outer % p.b_size1 * p.b_batch1 + inner;
  return (start + four(n, p.n) * p.b_n) / WIDTH_B;
}

// Column j: a[m .. m + 4, k + j], for rows at these positions.
fn load_a(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let step = four(k, p.k) * p.a_k;
  let i0 = at + step.x;
  let i1 = at + step.y;
  let i2 = at + step.z;
  let i3 = at + step.w;
  return mat4x4(
    a[i0.x], a[i0.y], a[i0.z], a[i0.w], a[i1.x], a[i1.y], a[i1.z], a[i1.w],
    a[i2.x], a[i2.y], a[i2.z], a[i2.w], a[i3.x], a[i3.y], a[i3.z], a[i3.w],
  );
}

// Column j: b[k + j, n .. n + 4], for columns at these positions.
fn load_b(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let step = four(k, p.k) * p.b_k;
  let i0 = at + step.x;
  let i1 = at + step.y;
  let i2 = at + step.z;
  let i3 = at + step.w;
  return mat4x4(
    b[i0.x], b[i0.y], b[i0.z], b[i0.w], b[i1.x], b[i1.y], b[i1.z], b[i1.w],
    b[i2.x], b[i2.y], b[i2.z], b[i2.w], b[i3.x], b[i3.y], b[i3.z], b[i3.w],
  );
}

// The block of a at k, which is less than `last`, with zeros for terms from `last` on.
fn left_terms(at: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  let block = load_a(at, k);
  if (k + 4u <= last) {
    return block;
  }
  let zero = vec4(0.0);
  return mat4x4(
    block[0], select(zero, block[1], k + 1u < last), select(zero, block[2], k + 2u < last), zero,
  );
}

// The same for any k.
fn left_block(at: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) {
    return mat4x4<f32>();
  }
  return left_terms(at, k, last);
}

// The block of b at k. Terms from `last` on may hold anything finite that b holds.
fn right_block(at: vec4<u32>, k: u32, last: u32) -> mat4x4<f32> {
  if (k >= last) {
    return mat4x4<f32>();
  }
  return load_b(at, k);
}

// Writes v to y[slice, m, n .. n + 4], as far as that lies inside; slice counts parts and batches.
fn store(slice: u32, m: u32, n: u32, v: vec4<f32>) {
  if (m < p.m) {
    let i = (slice * p.m + m) * p.n + n;
    if (n < p.n) { y[i] = epilogue(v.x, i); }
    if (n + 1u < p.n) { y[i + 1u] = epilogue(v.y, i + 1u); }
    if (n + 2u < p.n) { y[i + 2u] = epilogue(v.z, i + 2u); }
    if (n + 3u < p.n) { y[i + 3u] = epilogue(v.w, i + 3u); }
  }
}
