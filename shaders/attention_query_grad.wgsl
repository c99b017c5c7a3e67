// dq[i] = scale sum_j w[i, j] (dy[i] . v[j] - delta[i]) k[j], w = exp(s[i, j] - lse[i]), s = q k^T scale + mask.
// 1 q, 2 k, 3 v, 4 dy in rows of vec4; 5 stats: [batches, queries], lse and delta; 6 dq: [batches, queries, width].
// A workgroup computes TILE queries x 8 COLUMNS vec4 of dq, 32 keys at a time; 8 invocations share ROWS queries, and
// each holds 4 of the 32 scores per query. If the keys are split across launches, dq holds the sum before `first`.
// Reference: AttentionQueryGrad::reference in src/ops/attention/gradients.rs.

import package::attention_operands::{
  bias, COLUMNS, LANES, LEFT_OUT, p, ROWS, SHUFFLE, TILE, weights,
};
@if(SHUFFLE)
import package::attention_shuffle::{add_ADDED, dot_LEFT_RIGHT};
@else
import package::attention_tile::{add_ADDED, dot_LEFT_RIGHT};

const MASK_BINDING: u32 = 7u;

@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
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
  let tile = number / p.chunks % p.tiles * TILE;
  let b = number / p.chunks / p.tiles;
  if (b >= p.batches) { return; } // uniform in the workgroup
  let row = tile + lane / 8u * ROWS;
  let place = lane % 8u;

  var stat: array<vec2<f32>, ROWS>;
  var acc: array<vec4<f32>, ROWS * COLUMNS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let i = b * p.q.rows + min(row + r, p.q.rows - 1u);
    stat[r] = stats[i];
    if (p.first > 0u) {
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        acc[r * COLUMNS + c] = dq[i * p.q.width + min(chunk + place + c * 8u, p.q.width - 1u)];
      }
    }
  }
  let last = select(p.last, min(p.last, tile + TILE), p.causal != 0u);
  for (var j = p.first; j < last; j += 32u) {
    var s: array<vec4<f32>, ROWS>;
    var d: array<vec4<f32>, ROWS>;
    dot_q_k(&s, b, tile, j, lane);
    dot_dy_v(&d, b, tile, j, lane);
    let key = j + place * 4u + vec4(0u, 1u, 2u, 3u);
    @unroll for (var r = 0u; r < ROWS; r++) {
      let end = select(p.k.rows, min(p.k.rows, row + r + 1u), p.causal != 0u);
      let score = s[r] * p.scale + bias(b, vec4(row + r), key);
      let w = weights(select(score, vec4(LEFT_OUT), key >= vec4(end)), vec4(stat[r].x));
      s[r] = w * (d[r] - stat[r].y) * p.scale;
    }
    add_k(&acc, &s, b, j, chunk, lane);
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      if (row + r < p.q.rows && chunk + place + c * 8u < p.q.width) {
        dq[(b * p.q.rows + row + r) * p.q.width + chunk + place + c * 8u] = acc[r * COLUMNS + c];
      }
    }
  }
}
