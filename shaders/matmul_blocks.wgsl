// Loading 4 x 4 blocks of f32 operands, and storing results.

import package::matmul_operands::{
  a, A_ALONG_K, A_ALONG_M, b, B_ALONG_K, B_ALONG_N, B_BITS, ElementA, ElementB, four, p, y, Y_VEC4,
};
import package::quantized_weights::quantized_terms;

// Whether all blocks along k are whole: k is a multiple of 4. Parts start at whole blocks.
const WHOLE_BLOCKS: bool = false;

// Column j: a[m .. m + 4, k + j], for rows at these positions.
fn load_a(at: vec4<u32>, k: u32) -> mat4x4<ElementA> {
  @if(A_ALONG_K) {
    let i = at + k / 4u;
    return transpose(mat4x4(a[i.x], a[i.y], a[i.z], a[i.w]));
  }
  @elif(A_ALONG_M) {
    let i = at.x + four(k, p.k) * (p.a_k / 4u);
    return mat4x4(a[i.x], a[i.y], a[i.z], a[i.w]);
  }
  @else {
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
}

// Column j: b[k + j, n .. n + 4], for columns at these positions.
fn load_b(at: vec4<u32>, k: u32) -> mat4x4<ElementB> {
  @if(B_BITS > 0) {
    return quantized_terms(at, k);
  }
  @elif(B_ALONG_K) {
    let i = at + k / 4u;
    return transpose(mat4x4(b[i.x], b[i.y], b[i.z], b[i.w]));
  }
  @elif(B_ALONG_N) {
    let i = at.x + four(k, p.k) * (p.b_k / 4u);
    return mat4x4(b[i.x], b[i.y], b[i.z], b[i.w]);
  }
  @else {
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
}

// A block at k < last with zeros for terms from `last` on.
@template(ELEMENT)
fn without_terms_ELEMENT(block: mat4x4<ELEMENT>, k: u32, last: u32) -> mat4x4<ELEMENT> {
  if (k + 4u <= last) {
    return block;
  }
  let zero = vec4<ELEMENT>();
  return mat4x4(
    block[0], select(zero, block[1], k + 1u < last), select(zero, block[2], k + 2u < last), zero,
  );
}

// a[m, k .. k + 4] for the row at this position, with zeros for terms from `last` on; a is not read by vec4 along m.
fn left_row(at: u32, k: u32, last: u32) -> vec4<f32> {
  if (k >= last) {
    return vec4(0.0);
  }
  @if(A_ALONG_K) return a[at + k / 4u];
  @else {
    let i = at + four(k, p.k) * p.a_k;
    return select(vec4(0.0), vec4(a[i.x], a[i.y], a[i.z], a[i.w]), vec4(k, k + 1u, k + 2u, k + 3u) < vec4(last));
  }
}

// The block of a at k < last, with zeros for terms from `last` on.
fn left_terms(at: vec4<u32>, k: u32, last: u32) -> mat4x4<ElementA> {
  let block = load_a(at, k);
  @if(WHOLE_BLOCKS) return block;
  @else return without_terms_ElementA(block, k, last);
}

// The block of b at k < last, likewise.
fn right_terms(at: vec4<u32>, k: u32, last: u32) -> mat4x4<ElementB> {
  let block = load_b(at, k);
  @if(WHOLE_BLOCKS) return block;
  @else return without_terms_ElementB(block, k, last);
}

// The block of a at any k.
fn left_block(at: vec4<u32>, k: u32, last: u32) -> mat4x4<ElementA> {
  if (k >= last) {
    return mat4x4<ElementA>();
  }
  return left_terms(at, k, last);
}

// The block of b at any k, likewise.
fn right_block(at: vec4<u32>, k: u32, last: u32) -> mat4x4<ElementB> {
  if (k >= last) {
    return mat4x4<ElementB>();
  }
  return right_terms(at, k, last);
}

// Writes v to y[slice, m, n .. n + 4] within bounds; slice numbers parts and batches.
fn store(slice: u32, m: u32, n: u32, v: vec4<f32>) {
  @if(Y_VEC4) {
    if (m < p.m && n < p.n) {
      let i = (slice * p.m + m) * p.n + n;
      y[i / 4u] = epilogue4(v, i);
    }
  }
  @else {
    if (m < p.m) {
      let i = (slice * p.m + m) * p.n + n;
      if (n < p.n) { y[i] = epilogue(v.x, i); }
      if (n + 1u < p.n) { y[i + 1u] = epilogue(v.y, i + 1u); }
      if (n + 2u < p.n) { y[i + 2u] = epilogue(v.z, i + 2u); }
      if (n + 3u < p.n) { y[i + 3u] = epilogue(v.w, i + 3u); }
    }
  }
}
