// dq[i] = scale sum_j w[i, j] (dy[i] . v[j] - delta[i]) k[j], w = exp(s[i, j] - lse[i]), s = q k^T scale + mask.
// 1 q, 2 k, 3 v, 4 dy in rows of vec4; 5 stats: [batches, queries], lse and delta; 6 dq: [batches, queries, width].
// A workgroup computes TILE queries x 8 COLUMNS vec4 of dq, BLOCK keys at a time; 8 invocations share ROWS queries, and
// each holds 4 SCORES of the scores per query. If the keys are split across launches, dq holds the sum before `first`,
// without the scale.
// With STORED, 5 is ds: w (dy . v - delta) of queries from `origin` on, in the order of stored_at.
// Reference: AttentionGrad::reference in src/ops/attention/gradients.rs.

import package::attention_operands::{
  BLOCK, COLUMNS, columns_at, LANES, p, ROWS, score, SCORES, shift, SHUFFLE, stored_at, TILE, weights,
};
@if(SHUFFLE)
import package::attention_shuffle::{add_ADDED, dot_LEFT_RIGHT, keep, place_of, quad_of, recall, row_of};
@else
import package::attention_tile::{add_ADDED, dot_LEFT_RIGHT, keep, place_of, quad_of, recall, row_of};

const STORED: bool = false;
const MASK_BINDING: u32 = 7u;

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
@if(STORED)
@group(0) @binding(5) var<storage, read> ds: array<vec4<f32>>;
@else
@group(0) @binding(5) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> dq: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn attention_query_grad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @if(SHUFFLE) @builtin(subgroup_invocation_id) lane: u32,
  @else @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let chunk = number % p.chunks * 8u * COLUMNS;
  let tile = p.origin + number / p.chunks % p.tiles * TILE;
  let b = number / p.chunks / p.tiles;
  if (b >= p.batches) { return; } // uniform in the workgroup
  let place = place_of(lane);

  var lse: array<f32, ROWS>; // in units of ln 2
  var delta: array<f32, ROWS>;
  var acc: array<vec4<f32>, ROWS * COLUMNS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let i = b * p.q.rows + min(tile + row_of(lane, r), p.q.rows - 1u);
    @if(!STORED) lse[r] = shift(stats[i].x * LOG2_E);
    @if(!STORED) delta[r] = stats[i].y;
    if (p.first > 0u) {
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        acc[r * COLUMNS + c] = dq[i * p.q.width + min(chunk + place + c * 8u, p.q.width - 1u)];
      }
    }
  }
  let last = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  for (var j = p.first; j < last; j += BLOCK) {
    // The weights, or the stored gradients of the scores.
    var s = array<vec4<f32>, ROWS * SCORES>();
    @if(STORED) @unroll for (var h = 0u; h < SCORES; h++) {
      let keys = vec2(j / 32u + h, place);
      @unroll for (var g = 0u; g < ROWS / 4u; g++) {
        let at = stored_at(b, keys, quad_of(tile - p.origin, lane, g));
        let x = transpose(mat4x4(ds[at], ds[at + 64u], ds[at + 128u], ds[at + 192u]));
        @unroll for (var r = 0u; r < 4u; r++) {
          s[(4u * g + r) * SCORES + h] = x[r];
        }
      }
    }
    @else {
      dot_q_k(&s, b, tile, j, lane);
      @unroll for (var r = 0u; r < ROWS; r++) {
        @unroll for (var h = 0u; h < SCORES; h++) {
          let x = score(s[r * SCORES + h], b, vec4(tile + row_of(lane, r)), columns_at(j, place, h));
          s[r * SCORES + h] = weights(x - lse[r]);
        }
      }
    }
    // The block has keys beyond the last, or beyond a query's own.
    if (j + BLOCK > p.k.rows || (p.causal != 0u && j + BLOCK > tile + 1u)) {
      @unroll for (var r = 0u; r < ROWS; r++) {
        let end = select(p.k.rows, min(p.k.rows, tile + row_of(lane, r) + 1u), p.causal != 0u);
        @unroll for (var h = 0u; h < SCORES; h++) {
          s[r * SCORES + h] = select(s[r * SCORES + h], vec4(0.0), columns_at(j, place, h) >= vec4(end));
        }
      }
    }
    @if(!STORED) {
      @unroll for (var h = 0u; h < SCORES; h++) {
        keep(&s, h, lane);
      }
      var d = array<vec4<f32>, ROWS * SCORES>();
      dot_dy_v(&d, b, tile, j, lane);
      recall(&s, lane);
      @unroll for (var r = 0u; r < ROWS; r++) {
        @unroll for (var h = 0u; h < SCORES; h++) {
          s[r * SCORES + h] *= d[r * SCORES + h] - delta[r];
        }
      }
    }
    add_k(&acc, &s, b, j, chunk, lane);
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = tile + row_of(lane, r);
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      if (row < p.q.rows && chunk + place + c * 8u < p.q.width) {
        dq[(b * p.q.rows + row) * p.q.width + chunk + place + c * 8u] = acc[r * COLUMNS + c] * p.factor;
      }
    }
  }
}
