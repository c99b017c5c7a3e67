// y[i] = sum_j w[i, j] v[j] / sum_j w[i, j], w = exp(s[i, j] - m[i]), s = q k^T scale + mask, m[i] the largest so far.
// 1 q, 2 k, 3 v in rows of vec4; 4 y: [batches, queries, width]; 5 lse: [batches, queries], m + log(sum w).
// A workgroup computes TILE queries x 8 COLUMNS vec4 of y, 32 keys at a time; 8 invocations share ROWS queries, and
// each holds 4 of the 32 scores per query. If the keys are split across launches, `before` is the lse before `first`.
// Twin: ScaledDotProduct::reference in src/ops/attention.rs. Appended: attention_shuffle or attention_tile.

const ROWS: u32 = 16u;
const COLUMNS: u32 = 2u;
const TILE: u32 = 16u;

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

fn before(i: u32) -> f32 { return LEFT_OUT; }

fn attention(number: u32, lane: u32) {
  let chunk = number % p.chunks * 8u * COLUMNS;
  let tile = number / p.chunks % p.tiles * TILE;
  let b = number / p.chunks / p.tiles;
  if (b >= p.batches) { return; } // uniform in the workgroup
  let row = tile + lane / 8u * ROWS;
  let place = lane % 8u;

  var top: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  var acc: array<vec4<f32>, ROWS * COLUMNS>;
  for (var r = 0u; r < ROWS; r++) { // unroll
    let i = b * p.q.rows + min(row + r, p.q.rows - 1u);
    top[r] = before(i);
    if (top[r] > LEAST_SCORE || is_nan(top[r])) {
      sum[r] = select(0.0, 1.0, place == 0u); // counted once: rows_sum adds the 8 invocations
      for (var c = 0u; c < COLUMNS; c++) { // unroll
        acc[r * COLUMNS + c] = y[i * p.v.width + min(chunk + place + c * 8u, p.v.width - 1u)];
      }
    }
  }
  let last = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  for (var j = p.first; j < last; j += 32u) {
    var s: array<vec4<f32>, ROWS>;
    dot_q_k(&s, b, tile, j, lane);
    var most: array<f32, ROWS>;
    let key = j + place * 4u + vec4(0u, 1u, 2u, 3u);
    for (var r = 0u; r < ROWS; r++) { // unroll
      let end = select(p.k.rows, min(p.k.rows, row + r + 1u), p.causal != 0u);
      let score = s[r] * p.scale + bias(b, vec4(row + r), key);
      s[r] = select(score, vec4(LEFT_OUT), key >= vec4(end));
      most[r] = max(max(s[r].x, s[r].y), max(s[r].z, s[r].w));
    }
    rows_max(&most, lane);
    for (var r = 0u; r < ROWS; r++) { // unroll
      let now = max(top[r], most[r]);
      let shrink = nan_or(top[r], exp_of_negative(top[r] - now, 0.0));
      top[r] = now;
      s[r] = weights(s[r], vec4(now));
      sum[r] = sum[r] * shrink + ((s[r].x + s[r].y) + (s[r].z + s[r].w));
      for (var c = 0u; c < COLUMNS; c++) { // unroll
        acc[r * COLUMNS + c] *= shrink;
      }
    }
    add_v(&acc, &s, b, j, chunk, lane);
  }
  rows_sum(&sum, lane);
  for (var r = 0u; r < ROWS; r++) { // unroll
    if (row + r < p.q.rows) {
      let i = b * p.q.rows + row + r;
      // The largest weight is 1, unless all keys are masked or one score is NaN.
      let some = sum[r] > 0.5 || is_nan(sum[r]);
      let total = nan_or(sum[r], max(sum[r], 0.5));
      for (var c = 0u; c < COLUMNS; c++) { // unroll
        if (chunk + place + c * 8u < p.v.width) {
          y[i * p.v.width + chunk + place + c * 8u] = select(vec4(0.0), acc[r * COLUMNS + c] / total, some);
        }
      }
      if (chunk + place == 0u) {
        lse[i] = select(LEFT_OUT, top[r] + log_f32(total), some);
      }
    }
  }
}
