// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] of vec4 and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack and
// conv2d_pack_weight; y [N, O, OH, OW] contiguous.
// One workgroup, a subgroup of 8, computes 64 positions x 32 channels: each lane a vec4 of channels
// of all 64 positions; each lane loads 8 positions, and constant shuffles show them to the others.
// No barrier. KH KW Q under 16,000. Twin: conv2d in src/ops/conv2d/reference.rs.

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

var<workgroup> results: array<vec4<f32>, 512>;

@compute @workgroup_size(8)
fn conv2d_shuffle(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let block = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  if (block >= s.blocks) { return; }
  let first = block / s.column_blocks * 64u;
  let column = block % s.column_blocks * 8u + lane;
  let safe_column = min(column, s.columns - 1u);
  var corners: array<u32, 8>;
  var sums: array<vec4<f32>, 64>;
  for (var j = 0u; j < 8u; j++) { // unroll
    corners[j] = corner(first + j * 8u + lane);
  }
  for (var i = 0u; i < 64u; i++) { // unroll
    sums[i] = vec4<f32>();
  }
  var w_at = safe_column;
  for (var u = 0u; u < s.taps_y; u++) {
    for (var v = 0u; v < s.taps_x; v++) {
      let tap = u * s.tap_row + v * s.tap_column;
      for (var q = tap; q < tap + s.quads; q++) {
        let w0 = weight[w_at];
        let w1 = weight[w_at + s.columns];
        let w2 = weight[w_at + 2u * s.columns];
        let w3 = weight[w_at + 3u * s.columns];
        w_at += 4u * s.columns;
        for (var j = 0u; j < 8u; j++) { // unroll
          let mine = packed[corners[j] + q];
          for (var l = 0u; l < 8u; l++) { // unroll
            let x = subgroupShuffle(mine, l);
            sums[j * 8u + l] += x.x * w0 + x.y * w1 + x.z * w2 + x.w * w3;
          }
        }
      }
    }
  }
  // Each lane's own, in workgroup memory: a private array that is indexed dynamically takes some
  // drivers' compilers seconds.
  for (var i = 0u; i < 64u; i++) { // unroll
    results[i * 8u + lane] = sums[i];
  }
  let last = min(64u, s.positions - first);
  for (var p = 0u; p < last; p += 4u) {
    let at = p * 8u + lane;
    let a = results[at];
    let b = results[at + 8u];
    let c = results[at + 16u];
    let d = results[at + 24u];
    for (var k = 0u; k < 4u; k++) { // unroll
      store(vec4(a[k], b[k], c[k], d[k]), first + p, column * 4u + k);
    }
  }
}

