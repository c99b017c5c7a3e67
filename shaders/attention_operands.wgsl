// The operands of the attention kernels, and their two forms: SHUFFLE for subgroups of 8, which exchange elements by
// shuffles, or tiles in workgroup memory.
// Row i of head b of q, k, v and dy starts at offset + batch offset + head offset + i * row and has `width` elements,
// all in vec4. Scores are q k^T scale + mask; a key with score LEFT_OUT is masked and has weight 0.

const SHUFFLE: bool = false;
const MASK: bool = false;
// Whether a workgroup without shuffles computes 64 rows, not 32: more registers, fewer reads per product.
const WIDE: bool = false;

// Invocations of a workgroup, rows of the result in a workgroup, and rows that 8 invocations share.
@if(SHUFFLE)
const LANES: u32 = 8u;
@else
const LANES: u32 = 64u;
@if(SHUFFLE)
const TILE: u32 = 16u;
@elif(WIDE)
const TILE: u32 = 64u;
@else
const TILE: u32 = 32u;
@if(SHUFFLE)
const ROWS: u32 = 16u;
@elif(WIDE)
const ROWS: u32 = 8u;
@else
const ROWS: u32 = 4u;
// vec4 of a row of the result in each invocation.
const COLUMNS: u32 = 2u; // or 1

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
const MIN_SCORE: f32 = -1e29;

// The starts of rows i .. i + 4; rows beyond the last repeat it.
fn rows_of(x: Operand, b: u32, i: u32) -> vec4<u32> {
  let row = min(vec4(i, i + 1u, i + 2u, i + 3u), vec4(x.rows - 1u));
  return x.offset + b / p.heads * x.batch + b % p.heads * x.head + row * x.row;
}

// The kernel declares MASK_BINDING.
@group(0) @binding(MASK_BINDING) var<storage, read> mask: array<f32>;

// The mask, added to the scores of these queries and keys; clamped so that minus infinity does not cause NaN.
fn bias(b: u32, query: vec4<u32>, key: vec4<u32>) -> vec4<f32> {
  @if(!MASK) return vec4(0.0);
  @else {
    let start = p.mask_offset + b / p.heads * p.mask_batch + b % p.heads * p.mask_head;
    let at = start + min(query, vec4(p.q.rows - 1u)) * p.mask_query + min(key, vec4(p.k.rows - 1u)) * p.mask_key;
    let added = vec4(mask[at.x], mask[at.y], mask[at.z], mask[at.w]);
    return nan_or4(added, max(added, vec4(LEFT_OUT)));
  }
}

// exp(score - lse); NaN if either is NaN, 0 if the key is masked.
fn weights(score: vec4<f32>, lse: vec4<f32>) -> vec4<f32> {
  let x = score - lse;
  let e = vec4(
    exp_of_negative(x.x, 0.0), exp_of_negative(x.y, 0.0), exp_of_negative(x.z, 0.0), exp_of_negative(x.w, 0.0),
  );
  return select(nan_or4(x, e), vec4(0.0), score <= vec4(MIN_SCORE));
}
