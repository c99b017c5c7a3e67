// dk[j] = scale sum_i w[i, j] (dy[i] . v[j] - delta[i]) q[i], dv[j] = sum_i w[i, j] dy[i], w = exp(s[i, j] - lse[i]).
// 1 q, 2 k, 3 v, 4 dy in rows of vec4; 5 stats: [batches, queries], lse and delta; 6 dkv: [batches, keys, dk and dv].
// A workgroup computes TILE keys x 8 COLUMNS vec4 of dk and of dv, 32 queries at a time; 8 invocations share ROWS keys,
// and each holds 4 of the 32 scores per key. If the queries are split across launches, dkv holds the previous sum.
// s = q k^T scale + mask. Reference: AttentionKeyGrad::reference in src/ops/attention/gradients.rs.

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
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>;

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
  let row = tile + lane / 8u * ROWS;
  let place = lane % 8u;
  let width = p.k.width + p.v.width;

  var dk: array<vec4<f32>, ROWS * COLUMNS>;
  var dv: array<vec4<f32>, ROWS * COLUMNS>;
  if (p.first > 0u) {
    @unroll for (var r = 0u; r < ROWS; r++) {
      let at = (b * p.k.rows + min(row + r, p.k.rows - 1u)) * width;
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        dk[r * COLUMNS + c] = dkv[at + min(chunk + place + c * 8u, p.k.width - 1u)];
        dv[r * COLUMNS + c] = dkv[at + p.k.width + min(chunk + place + c * 8u, p.v.width - 1u)];
      }
    }
  }
  // With causal masking, queries before the tile attend to none of its keys.
  let first = select(p.first, max(p.first, tile / 32u * 32u), p.causal != 0u);
  for (var j = first; j < p.last; j += 32u) {
    var s: array<vec4<f32>, ROWS>;
    var d: array<vec4<f32>, ROWS>;
    dot_k_q(&s, b, tile, j, lane);
    dot_v_dy(&d, b, tile, j, lane);
    let query = j + place * 4u + vec4(0u, 1u, 2u, 3u);
    let at = b * p.q.rows + min(query, vec4(p.q.rows - 1u));
    let stat = transpose(mat4x2(stats[at.x], stats[at.y], stats[at.z], stats[at.w]));
    @unroll for (var r = 0u; r < ROWS; r++) {
      let key = vec4(row + r);
      let out = (query >= vec4(p.q.rows)) | ((key > query) & vec4(p.causal != 0u));
      let score = s[r] * p.scale + bias(b, query, key);
      s[r] = weights(select(score, vec4(LEFT_OUT), out), stat[0]);
      d[r] = s[r] * (d[r] - stat[1]) * p.scale;
    }
    add_q(&dk, &d, b, j, chunk, lane);
    add_dy(&dv, &s, b, j, chunk, lane);
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    let at = (b * p.k.rows + row + r) * width;
    @unroll for (var c = 0u; c < COLUMNS; c++) {
      let column = chunk + place + c * 8u;
      if (row + r < p.k.rows && column < p.k.width) {
        dkv[at + column] = dk[r * COLUMNS + c];
      }
      if (row + r < p.k.rows && column < p.v.width) {
        dkv[at + p.k.width + column] = dv[r * COLUMNS + c];
      }
    }
  }
}
