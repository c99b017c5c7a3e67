// The kernel of attention_key_grad.wgsl by cooperative matrices: dk[j] = scale sum_i w[i, j] (dy[i] . v[j] - delta[i])
// q[i], dv[j] = sum_i w[i, j] dy[i], w = exp(s[i, j] - lse[i]), s = q k^T scale + mask. Bindings as there.
// A workgroup computes TILE keys x PANELS TILE columns of dk and of dv, TILE queries at a time.
// Reference: AttentionGrad::reference in src/ops/attention/gradients.rs.

import package::attention_key_grad::{dkv, dy, k, q, shift_of, stats, v};
import package::attention_matrices::{
  add_ADDED, dot_LEFT_RIGHT, finish_RESULT, LANES, load_scores, MatrixC, own_column, own_row, own_start,
  place_of, QUADS, resume_RESULT, store_factors, SUMS, TILE,
};
import package::attention_operands::{p, score, weights};
import package::cooperative_matrices::{within_f16};

const MASK_BINDING: u32 = 7u;
// Whether a previous launch has processed the queries before `first`.
const CONTINUED: bool = false;

@compute @workgroup_size(LANES)
fn attention_key_grad_cooperative(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let place = place_of(group_number(group, groups));
  let chunk = place.chunk;
  let tile = place.tile;
  let b = place.b;
  let width = p.k.width + p.v.width;

  let key = tile + own_row(lane);
  let own = own_start(lane);
  var dk: array<MatrixC, SUMS>;
  var dv: array<MatrixC, SUMS>;
  @if(CONTINUED) {
    let begin = (b * p.k.rows + min(key, p.k.rows - 1u)) * width;
    resume_dkv(&dk, begin, p.k.width, chunk, lane, subgroup);
    resume_dkv(&dv, begin + p.k.width, p.v.width, chunk, lane, subgroup);
  }
  // With causal masking, queries before the tile attend to none of its keys.
  let first = select(p.first, max(p.first, tile), p.causal != 0u);
  let last = select(first, p.last, place.works);
  for (var j = first; j < last; j += TILE) {
    dot_k_q(b, tile, j, lane, subgroup);
    var w = array<vec4<f32>, QUADS>();
    @unroll for (var h = 0u; h < QUADS; h++) {
      let query = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
      let at = b * p.q.rows + min(query, vec4(p.q.rows - 1u));
      let lse = vec4(shift_of(at.x), shift_of(at.y), shift_of(at.z), shift_of(at.w));
      w[h] = weights(score(load_scores(own + own_column(lane, h)), b, query, vec4(key)) - lse);
    }
    // The block has queries beyond the last, or before a key.
    if (j + TILE > p.q.rows || (p.causal != 0u && j < tile + TILE - 1u)) {
      @unroll for (var h = 0u; h < QUADS; h++) {
        let query = j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u);
        let earlier = (vec4(key) > query) & vec4(p.causal != 0u);
        w[h] = select(w[h], vec4(0.0), (query >= vec4(p.q.rows)) | earlier);
      }
    }
    @unroll for (var h = 0u; h < QUADS; h++) {
      store_factors(lane, h, within_f16(w[h]));
    }
    add_dy(&dv, b, j, chunk, lane, subgroup);
    dot_v_dy(b, tile, j, lane, subgroup);
    @unroll for (var h = 0u; h < QUADS; h++) {
      let at = b * p.q.rows + min(j + own_column(lane, h) + vec4(0u, 1u, 2u, 3u), vec4(p.q.rows - 1u));
      let delta = vec4(stats[at.x].y, stats[at.y].y, stats[at.z].y, stats[at.w].y);
      store_factors(lane, h, within_f16(w[h] * (load_scores(own + own_column(lane, h)) - delta)));
    }
    add_q(&dk, b, j, chunk, lane, subgroup);
  }
  let rows = select(0u, p.k.rows - tile, place.works);
  let start = (b * p.k.rows + tile) * width;
  finish_dkv(&dk, p.factor, start, width, rows, p.k.width, chunk, lane, subgroup);
  finish_dkv(&dv, 1.0, start + p.k.width, width, rows, p.v.width, chunk, lane, subgroup);
}
