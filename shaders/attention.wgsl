// y[i] = sum_j w[i, j] v[j] / sum_j w[i, j], w = exp(s[i, j] - m[i]), s = q k^T scale + mask, m[i] the largest so far.
// 1 q, 2 k, 3 v in rows of vec4; 4 y: [batches, queries, width]; 5 lse: [batches, queries], m + log(sum w).
// A workgroup computes TILE queries x 8 COLUMNS vec4 of y, BLOCK keys at a time; 8 invocations share ROWS queries, and
// each holds 4 SCORES of the scores per query. If the keys are split across launches, `before` is the lse before
// `first`. s and m are in units of ln 2.
// Reference: ScaledDotProduct::reference in src/ops/attention.rs.

import package::attention_operands::{
  BLOCK, COLUMNS, columns_at, LANES, LEFT_OUT, MASK, MIN_SCORE, p, ROWS, score, SCORES, shift, SHUFFLE, TILE, weight,
  weights,
};
@if(SHUFFLE)
import package::attention_shuffle::{add_ADDED, dot_LEFT_RIGHT, place_of, row_of, rows_max, rows_sum};
@else
import package::attention_tile::{add_ADDED, dot_LEFT_RIGHT, place_of, row_of, rows_max, rows_sum};

const MASK_BINDING: u32 = 6u;
@if(MASK)
const PREVIOUS_BINDING: u32 = 7u;
@else
const PREVIOUS_BINDING: u32 = 6u;
// Whether a previous launch has processed the keys before `first`.
const CONTINUED: bool = false;

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

@if(CONTINUED)
@group(0) @binding(PREVIOUS_BINDING) var<storage, read> lse_before: array<f32>;

fn before(i: u32) -> f32 {
  @if(CONTINUED) return lse_before[i];
  @else return LEFT_OUT;
}

@compute @workgroup_size(LANES)
fn attention(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SHUFFLE) @builtin(subgroup_invocation_id) lane: u32,
  @else @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let chunk = number % p.chunks * 8u * COLUMNS;
  let tile = number / p.chunks % p.tiles * TILE;
  let b = number / p.chunks / p.tiles;
  if (b >= p.batches) { return; } // uniform in the workgroup
  let place = place_of(lane);

  var top: array<f32, ROWS>;
  var sum: array<f32, ROWS>;
  var acc: array<vec4<f32>, ROWS * COLUMNS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let i = b * p.q.rows + min(tile + row_of(lane, r), p.q.rows - 1u);
    let previous = before(i) * LOG2_E;
    top[r] = shift(previous);
    if (previous > MIN_SCORE || is_nan(previous)) {
      sum[r] = select(0.0, 1.0, place == 0u); // counted once: rows_sum adds the 8 invocations
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        acc[r * COLUMNS + c] = y[i * p.v.width + min(chunk + place + c * 8u, p.v.width - 1u)];
      }
    }
  }
  let last = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  for (var j = p.first; j < last; j += BLOCK) {
    var s = array<vec4<f32>, ROWS * SCORES>();
    dot_q_k(&s, b, tile, j, lane);
    @unroll for (var r = 0u; r < ROWS; r++) {
      @unroll for (var h = 0u; h < SCORES; h++) {
        s[r * SCORES + h] = score(s[r * SCORES + h], b, vec4(tile + row_of(lane, r)), columns_at(j, place, h));
      }
    }
    // The block has keys beyond the last, or beyond a query's own.
    if (j + BLOCK > p.k.rows || (p.causal != 0u && j + BLOCK > tile + 1u)) {
      @unroll for (var r = 0u; r < ROWS; r++) {
        let end = select(p.k.rows, min(p.k.rows, tile + row_of(lane, r) + 1u), p.causal != 0u);
        @unroll for (var h = 0u; h < SCORES; h++) {
          s[r * SCORES + h] = select(s[r * SCORES + h], vec4(LEFT_OUT), columns_at(j, place, h) >= vec4(end));
        }
      }
    }
    var most = array<f32, ROWS>();
    @unroll for (var r = 0u; r < ROWS; r++) {
      var largest = s[r * SCORES];
      @unroll for (var h = 0u; h < SCORES; h++) {
        largest = max(largest, s[r * SCORES + h]);
      }
      most[r] = max(max(largest.x, largest.y), max(largest.z, largest.w));
    }
    rows_max(&most, lane);
    @unroll for (var r = 0u; r < ROWS; r++) {
      let now = max(top[r], most[r]);
      let shrink = weight(top[r] - now);
      top[r] = now;
      sum[r] *= shrink;
      @unroll for (var h = 0u; h < SCORES; h++) {
        let w = weights(s[r * SCORES + h] - now);
        s[r * SCORES + h] = w;
        sum[r] += (w.x + w.y) + (w.z + w.w);
      }
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        acc[r * COLUMNS + c] *= shrink;
      }
    }
    add_v(&acc, &s, b, j, chunk, lane);
  }
  rows_sum(&sum, lane);
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = tile + row_of(lane, r);
    if (row < p.q.rows) {
      let i = b * p.q.rows + row;
      // The largest weight is 1, unless all keys are masked or one score is NaN.
      let some = sum[r] > 0.5 || is_nan(sum[r]);
      let total = nan_or(sum[r], max(sum[r], 0.5));
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        if (chunk + place + c * 8u < p.v.width) {
          y[i * p.v.width + chunk + place + c * 8u] = select(vec4(0.0), acc[r * COLUMNS + c] / total, some);
        }
      }
      if (chunk + place == 0u) {
        lse[i] = select(LEFT_OUT, top[r] * LN2 + log_f32(total), some);
      }
    }
  }
}
