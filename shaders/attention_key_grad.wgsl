// dk[j] = scale sum_i w[i, j] (dy[i] . v[j] - delta[i]) q[i], dv[j] = sum_i w[i, j] dy[i], w = exp(s[i, j] - lse[i]).
// 1 q, 2 k, 3 v, 4 dy in rows of vec4; 5 stats: [batches, queries], lse and delta; 6 dkv: [batches, keys, dk and dv].
// A workgroup computes TILE keys x 8 COLUMNS vec4 of dk and of dv, BLOCK queries at a time; 8 invocations share ROWS
// keys, and each holds 4 SCORES of the scores per key. If the queries are split across launches, dkv holds the previous
// sum, without the scale. s = q k^T scale + mask.
// With STORES, also ds: w (dy . v - delta) of this launch's queries, in the order of stored_at.
// Reference: AttentionGrad::reference in src/ops/attention/gradients.rs.

import package::attention_operands::{
  BLOCK, COLUMNS, columns_at, LANES, MASK, p, ROWS, score, SCORES, shift, SHUFFLE, stored_at, TILE, weights,
};
@if(SHUFFLE)
import package::attention_shuffle::{add_ADDED, dot_LEFT_RIGHT, place_of, quad_of, recall, row_of};
@else
import package::attention_tile::{add_ADDED, dot_LEFT_RIGHT, place_of, quad_of, recall, row_of};

const STORES: bool = false;
const MASK_BINDING: u32 = 7u;
@if(MASK)
const SCORES_BINDING: u32 = 8u;
@else
const SCORES_BINDING: u32 = 7u;

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>;
@if(STORES)
@group(0) @binding(SCORES_BINDING) var<storage, read_write> ds: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn attention_key_grad(
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
  let width = p.k.width + p.v.width;

  var dk: array<vec4<f32>, ROWS * COLUMNS>;
  var dv: array<vec4<f32>, ROWS * COLUMNS>;
  if (p.first > 0u) {
    @unroll for (var r = 0u; r < ROWS; r++) {
      let at = (b * p.k.rows + min(tile + row_of(lane, r), p.k.rows - 1u)) * width;
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        dk[r * COLUMNS + c] = dkv[at + min(chunk + place + c * 8u, p.k.width - 1u)];
        dv[r * COLUMNS + c] = dkv[at + p.k.width + min(chunk + place + c * 8u, p.v.width - 1u)];
      }
    }
  }
  // With causal masking, queries before the tile attend to none of its keys.
  let first = select(p.first, max(p.first, tile / BLOCK * BLOCK), p.causal != 0u);
  for (var j = first; j < p.last; j += BLOCK) {
    var s = array<vec4<f32>, ROWS * SCORES>();
    dot_k_q(&s, b, tile, j, lane);
    @unroll for (var h = 0u; h < SCORES; h++) {
      let query = columns_at(j, place, h);
      let at = b * p.q.rows + min(query, vec4(p.q.rows - 1u));
      let lse = vec4(shift_of(at.x), shift_of(at.y), shift_of(at.z), shift_of(at.w));
      @unroll for (var r = 0u; r < ROWS; r++) {
        let x = score(s[r * SCORES + h], b, query, vec4(tile + row_of(lane, r)));
        s[r * SCORES + h] = weights(x - lse);
      }
    }
    // The block has queries beyond the last, or before a key.
    if (j + BLOCK > p.q.rows || (p.causal != 0u && j < tile + TILE - 1u)) {
      @unroll for (var h = 0u; h < SCORES; h++) {
        let query = columns_at(j, place, h);
        @unroll for (var r = 0u; r < ROWS; r++) {
          let earlier = (vec4(tile + row_of(lane, r)) > query) & vec4(p.causal != 0u);
          s[r * SCORES + h] = select(s[r * SCORES + h], vec4(0.0), (query >= vec4(p.q.rows)) | earlier);
        }
      }
    }
    add_dy(&dv, &s, b, j, chunk, lane);
    var d = array<vec4<f32>, ROWS * SCORES>();
    dot_v_dy(&d, b, tile, j, lane);
    recall(&s, lane);
    @unroll for (var h = 0u; h < SCORES; h++) {
      let at = b * p.q.rows + min(columns_at(j, place, h), vec4(p.q.rows - 1u));
      let delta = vec4(stats[at.x].y, stats[at.y].y, stats[at.z].y, stats[at.w].y);
      @unroll for (var r = 0u; r < ROWS; r++) {
        d[r * SCORES + h] = s[r * SCORES + h] * (d[r * SCORES + h] - delta);
      }
    }
    @if(STORES) if (chunk == 0u) {
      @unroll for (var h = 0u; h < SCORES; h++) {
        let queries = vec2((j - p.origin) / 32u + h, place);
        @unroll for (var g = 0u; g < ROWS / 4u; g++) {
          let at = stored_at(b, quad_of(tile, lane, g), queries);
          @unroll for (var r = 0u; r < 4u; r++) {
            ds[at + r * 64u] = d[(4u * g + r) * SCORES + h];
          }
        }
      }
    }
    add_q(&dk, &d, b, j, chunk, lane);
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = tile + row_of(lane, r);
    let at = (b * p.k.rows + row) * width;
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      let column = chunk + place + c * 8u;
      if (row < p.k.rows && column < p.k.width) {
        dkv[at + column] = dk[r * COLUMNS + c] * p.factor;
      }
      if (row < p.k.rows && column < p.v.width) {
        dkv[at + p.k.width + column] = dv[r * COLUMNS + c];
      }
    }
  }
}

// The lse of a query, in units of ln 2.
fn shift_of(query: u32) -> f32 { return shift(stats[query].x * LOG2_E); }
