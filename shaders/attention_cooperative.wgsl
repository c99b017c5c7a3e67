// The kernel of attention.wgsl by cooperative matrices: y[i] = sum_j w[i, j] v[j] / sum_j w[i, j], w = exp(s[i, j] -
// m[i]), s = q k^T scale + mask, and lse = m + log(sum w). Bindings as there.
// A workgroup computes TILE queries x PANELS TILE columns of y, TILE keys at a time. s and m are in units of ln 2.
// m[i] follows the largest score only if that is LEEWAY higher. Then y is scaled in workgroup memory; otherwise it
// stays in the matrices. Weights are up to 2^LEEWAY, within the range of f16.
// Reference: ScaledDotProduct::reference in src/ops/attention.rs.

import package::attention::{before, CONTINUED, k, lse, q, v, y};
import package::attention_matrices::{
  add_ADDED, dot_LEFT_RIGHT, finish_RESULT, LANES, load_panel, load_scores, MatrixC, own_column, own_row, own_start,
  PANELS, place_of, QUADS, resume_RESULT, scores, store_factors, store_panel, store_scores, SUMS, TILE,
};
import package::attention_operands::{LEFT_OUT, MIN_SCORE, p, score, shift, weight, weights};

const MASK_BINDING: u32 = 6u;
const LEEWAY: f32 = 8.0;

// The number of the last block of keys, from 1, in which some m has changed. There are four of them, so that the other
// variables stay aligned.
var<workgroup> scaled: array<atomic<u32>, 4>;

@compute @workgroup_size(LANES)
fn attention_cooperative(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let place = place_of(group_number(group, groups));
  let chunk = place.chunk;
  let tile = place.tile;
  let b = place.b;
  let query = tile + own_row(lane);
  let own = own_start(lane);
  if (lane == 0u) {
    atomicStore(&scaled[0], 0u); // the barriers of dot separate this from its uses
  }
  let own_query = b * p.q.rows + min(query, p.q.rows - 1u);
  let previous = before(own_query) * LOG2_E;
  var top = shift(previous);
  // Of half a row: its two invocations add theirs at the end.
  var sum = select(0.0, 1.0, lane % 2u == 0u && (previous > MIN_SCORE || is_nan(previous)));
  var acc: array<MatrixC, SUMS>;
  @if(CONTINUED) resume_y(&acc, own_query * p.v.width, p.v.width, chunk, lane, subgroup);
  let end = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  let last = select(p.first, end, place.works);
  for (var j = p.first; j < last; j += TILE) {
    dot_q_k(b, tile, j, lane, subgroup);
    var s = array<vec4<f32>, QUADS>();
    @unroll for (var h = 0u; h < QUADS; h++) {
      let key = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
      s[h] = score(load_scores(own + own_column(lane, h)), b, vec4(query), key);
    }
    // The block has keys beyond the last, or beyond a query's own.
    if (j + TILE > p.k.rows || (p.causal != 0u && j + TILE > tile + 1u)) {
      let beyond = select(p.k.rows, min(p.k.rows, query + 1u), p.causal != 0u);
      @unroll for (var h = 0u; h < QUADS; h++) {
        let key = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
        s[h] = select(s[h], vec4(LEFT_OUT), key >= vec4(beyond));
      }
    }
    var largest = s[0];
    @unroll for (var h = 0u; h < QUADS; h++) {
      largest = max(largest, s[h]);
    }
    scores[own + TILE + lane % 2u] = max(max(largest.x, largest.y), max(largest.z, largest.w));
    workgroupBarrier();
    let most = max(scores[own + TILE], scores[own + TILE + 1u]);
    let now = select(top, most, most > top + LEEWAY);
    let shrink = weight(top - now);
    if (now > top && top > MIN_SCORE) {
      atomicMax(&scaled[0], j / TILE + 1u);
    }
    top = now;
    sum *= shrink;
    @unroll for (var h = 0u; h < QUADS; h++) {
      let w = weights(s[h] - now);
      sum += (w.x + w.y) + (w.z + w.w);
      store_factors(lane, h, w);
    }
    workgroupBarrier();
    // A loop of at most one round, as in `multiply`.
    for (var scales = atomicLoad(&scaled[0]) == j / TILE + 1u; scales; scales = false) {
      @unroll for (var panel = 0u; panel < PANELS; panel++) {
        store_panel(&acc, panel, subgroup);
        workgroupBarrier();
        @unroll for (var h = 0u; h < QUADS; h++) {
          let at = own + own_column(lane, h);
          store_scores(at, load_scores(at) * shrink);
        }
        workgroupBarrier();
        load_panel(&acc, panel, subgroup);
        workgroupBarrier();
      }
    }
    add_v(&acc, b, j, chunk, lane, subgroup);
  }
  scores[own + TILE + lane % 2u] = sum;
  workgroupBarrier();
  let total = scores[own + TILE] + scores[own + TILE + 1u];
  // The largest weight is at least 1, unless all keys are masked or one score is NaN.
  let some = total > 0.5 || is_nan(total);
  let most = nan_or(total, max(total, 0.5));
  let rows = select(0u, p.q.rows - tile, place.works);
  let start = (b * p.q.rows + tile) * p.v.width;
  finish_y(&acc, select(0.0, 1.0 / most, some), start, p.v.width, rows, p.v.width, chunk, lane, subgroup);
  if (place.works && query < p.q.rows && chunk == 0u && lane % 2u == 0u) {
    lse[own_query] = select(LEFT_OUT, top * LN2 + log_f32(most), some);
  }
}
