// The operands of the attention kernels, and their two forms: SHUFFLE for subgroups of 8, which exchange elements by
// shuffles, or tiles in workgroup memory.
// Row i of head b of q, k, v and dy starts at offset + batch offset + head offset + i * row and has `width` elements,
// all in vec4. Scores are q k^T scale + mask, in units of ln 2 (so that weights are powers of 2); a key with score
// LEFT_OUT is masked and has weight 0.

const SHUFFLE: bool = false;
const MASK: bool = false;
// Quads of rows in each invocation of a tile in workgroup memory: more of them take more registers, but fewer reads per
// product.
const QUADS: u32 = 1u; // or 2

// Invocations of a workgroup, rows of the result in a workgroup, and rows that 8 invocations share.
@if(SHUFFLE)
const LANES: u32 = 8u;
@else
const LANES: u32 = 64u;
@if(SHUFFLE)
const TILE: u32 = 16u;
@else
const TILE: u32 = 32u * QUADS;
@if(SHUFFLE)
const ROWS: u32 = 16u;
@else
const ROWS: u32 = 4u * QUADS;
// vec4 of scores of a row in each invocation; 8 invocations hold BLOCK scores of a row.
const SCORES: u32 = 1u; // or 2
const BLOCK: u32 = 32u * SCORES;
// vec4 of a row of the result in each invocation.
const COLUMNS: u32 = 2u; // or 1, or 4

struct Operand { offset: u32, batch: u32, head: u32, row: u32, rows: u32, width: u32, pad0: u32, pad1: u32 }
struct Params {
  // Heads in the whole batch and per example; row tiles and column chunks of the result.
  batches: u32, heads: u32, tiles: u32, chunks: u32,
  // The loop runs over keys (or queries) first .. last; `first` is a multiple of BLOCK. `scale` includes 1 / ln 2.
  first: u32, last: u32, causal: u32, scale: f32,
  mask_offset: u32, mask_batch: u32, mask_head: u32, mask_query: u32,
  // The gradients of q and k are multiplied by `factor`: the scale, but 1 if a later launch adds to them.
  // Gradients of scores are stored for queries from `origin` on; see stored_at.
  mask_key: u32, factor: f32, origin: u32, squares: u32,
  q: Operand, k: Operand, v: Operand, dy: Operand,
}
@group(0) @binding(0) var<uniform> p: Params;

const LEFT_OUT: f32 = -1e30;
// Scores up to this, -1e29 in units of ln 2, are masked.
const MIN_SCORE: f32 = -1.442695e29;

// The starts of rows i .. i + 4; rows beyond the last repeat it.
fn rows_of(x: Operand, b: u32, i: u32) -> vec4<u32> {
  let row = min(vec4(i, i + 1u, i + 2u, i + 3u), vec4(x.rows - 1u));
  return x.offset + b / p.heads * x.batch + b % p.heads * x.head + row * x.row;
}

// The keys, or queries, of the scores in vec4 h of the invocation at `place`.
fn columns_at(j: u32, place: u32, h: u32) -> vec4<u32> {
  return j + h * 32u + place * 4u + vec4(0u, 1u, 2u, 3u);
}

// The index of the stored gradients of scores of a quad of queries, for the first of a quad of keys; each next key is
// 64 further. Scores are divided into squares of 32 keys by 32 queries; `keys` and `queries` are the number of the
// square and that of the quad in it. Layout: [batches, squares along keys, squares along queries, 4 keys of a quad,
// 8 quads of keys, 8 quads of queries].
fn stored_at(b: u32, keys: vec2<u32>, queries: vec2<u32>) -> u32 {
  let rows = (p.k.rows + 63u) / 64u * 2u;
  return ((b * rows + keys.x) * p.squares + queries.x) * 256u + keys.y * 8u + queries.y;
}

// The kernel declares MASK_BINDING.
@group(0) @binding(MASK_BINDING) var<storage, read> mask: array<f32>;

// `product` scaled, plus the mask of these queries and keys; clamped so that minus infinity does not cause NaN.
fn score(product: vec4<f32>, b: u32, query: vec4<u32>, key: vec4<u32>) -> vec4<f32> {
  @if(!MASK) return product * p.scale;
  @else {
    let start = p.mask_offset + b / p.heads * p.mask_batch + b % p.heads * p.mask_head;
    let at = start + min(query, vec4(p.q.rows - 1u)) * p.mask_query + min(key, vec4(p.k.rows - 1u)) * p.mask_key;
    let added = vec4(mask[at.x], mask[at.y], mask[at.z], mask[at.w]);
    let sum = product * p.scale + nan_or4(added, max(added, vec4(LEFT_OUT))) * LOG2_E;
    return select(sum, vec4(LEFT_OUT), sum <= vec4(MIN_SCORE));
  }
}

// The number that is subtracted from scores with this maximum or log-sum-exp: large enough that masked keys get
// weight 0, also if all are masked.
fn shift(x: f32) -> f32 { return nan_or(x, max(x, MIN_SCORE)); }

// 2^x for x <= 0, or slightly above; 0 for x < -126, NaN for NaN. The polynomial is a minimax fit of 2^r, to 2^-23.4.
fn weight(x: f32) -> f32 {
  let n = round(x);
  let r = x - n;
  let y = 1.0 + r * (0.693147 + r * (0.24022242 + r * (0.055507336 + r * (0.009671513 + r * 0.0013264727))));
  // n + 127 is the sum's last bits; as an exponent it is 2^n.
  let power = bitcast<f32>(bitcast<u32>(n + 12583039.0) << 23u); // 1.5 * 2^23 + 127
  return select(y * power, 0.0, x < -126.0);
}

fn weights(x: vec4<f32>) -> vec4<f32> { return vec4(weight(x.x), weight(x.y), weight(x.z), weight(x.w)); }
