

// The operands of the attention kernels; appended to them.
// Row i of head b of q, k, v and dy starts at offset + batch offset + head offset + i * row and has `width` elements,
// all in vec4. Scores are q k^T scale + mask; a key with score LEFT_OUT is masked and has weight 0.
struct Operand { offset: u32, batch: u32, head: u32, row: u32, rows: u32, width: u32, pad0: u32, pad1: u32 }
struct Params {
  // Heads in the whole batch and per example; row tiles and column chunks of the result.
  batches: u32, heads: u32, tiles: u32, chunks: u32,
  // The loop runs over keys (or queries) first .. last; `first` is a multiple of 32.
  first: u32, last: u32, causal: u32, scale: f32,
  mask_offset: u32, mask_batch: u32, mask_head: u32, mask_query: u32,
  mask_key: u32, pad0: u32, pad1: u32, pad2: u32,
  q: Operand, k: Operand, v: Operand, dy: Operand,
}
@group(0) @binding(0) var<uniform> p: Params;

const LEFT_OUT: f32 = -1e30;
// Scores up to this are masked.
const LEAST_SCORE: f32 = -1e29;

// The starts of rows i .. i + 4; rows beyond the last repeat it.
fn rows_of(x: Operand, b: u32, i: u32) -> vec4<u32> {
  let row = min(vec4(i, i + 1u, i + 2u, i + 3u), vec4(x.rows - 1u));
  return x.offset + b / p.heads * x.batch + b % p.heads * x.head + row * x.row;
}

// The mask, added to the scores of these queries and keys.
fn bias(b: u32, query: vec4<u32>, key: vec4<u32>) -> vec4<f32> { return vec4(0.0); }

// exp(score - lse); NaN if either is NaN, 0 if the key is masked.
fn weights(score: vec4<f32>, lse: vec4<f32>) -> vec4<f32> {
  let x = score - lse;
  let e = vec4(
    exp_of_negative(x.x, 0.0), exp_of_negative(x.y, 0.0), exp_of_negative(x.z, 0.0), exp_of_negative(x.w, 0.0),
  );
  return select(nan_or4(x, e), vec4(0.0), score <= vec4(LEAST_SCORE));
}
