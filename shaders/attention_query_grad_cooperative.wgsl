// The kernel of attention_query_grad.wgsl by cooperative matrices: dq[i] = scale sum_j w[i, j] (dy[i] . v[j] -
// delta[i]) k[j], w = exp(s[i, j] - lse[i]), s = q k^T scale + mask. Bindings as there.
// A workgroup computes TILE queries x PANELS TILE columns of dq, TILE keys at a time.
// Reference: AttentionGrad::reference in src/ops/attention/gradients.rs.

import package::attention_matrices::{
  add_ADDED, dot_LEFT_RIGHT, finish_RESULT, LANES, load_scores, MatrixC, own_column, own_row, own_start,
  place_of, QUADS, resume_RESULT, store_factors, SUMS, TILE,
};
import package::attention_operands::{p, score, shift, weights};
import package::attention_query_grad::{dq, dy, k, q, stats, v};
import package::cooperative_matrices::{within_f16};

const MASK_BINDING: u32 = 7u;
// Whether a previous launch has processed the keys before `first`.
const CONTINUED: bool = false;

@compute @workgroup_size(LANES)
fn attention_query_grad_cooperative(
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
  let i = b * p.q.rows + min(query, p.q.rows - 1u);
  let lse = shift(stats[i].x * LOG2_E); // in units of ln 2
  let delta = stats[i].y;
  var acc: array<MatrixC, SUMS>;
  @if(CONTINUED) resume_dq(&acc, i * p.q.width, p.q.width, chunk, lane, subgroup);
  let end = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  let last = select(p.first, end, place.works);
  for (var j = p.first; j < last; j += TILE) {
    dot_q_k(b, tile, j, lane, subgroup);
    var w = array<vec4<f32>, QUADS>();
    @unroll for (var h = 0u; h < QUADS; h++) {
      let key = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
      w[h] = weights(score(load_scores(own + own_column(lane, h)), b, vec4(query), key) - lse);
    }
    // The block has keys beyond the last, or beyond a query's own.
    if (j + TILE > p.k.rows || (p.causal != 0u && j + TILE > tile + 1u)) {
      let beyond = select(p.k.rows, min(p.k.rows, query + 1u), p.causal != 0u);
      @unroll for (var h = 0u; h < QUADS; h++) {
        let key = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
        w[h] = select(w[h], vec4(0.0), key >= vec4(beyond));
      }
    }
    dot_dy_v(b, tile, j, lane, subgroup);
    @unroll for (var h = 0u; h < QUADS; h++) {
      store_factors(lane, h, within_f16(w[h] * (load_scores(own + own_column(lane, h)) - delta)));
    }
    add_k(&acc, b, j, chunk, lane, subgroup);
  }
  let rows = select(0u, p.q.rows - tile, place.works);
  let start = (b * p.q.rows + tile) * p.q.width;
  finish_dq(&acc, p.factor, start, p.q.width, rows, p.q.width, chunk, lane, subgroup);
}
