// y[n, o, i, j] = sum over u, v, q of packed[n, i, j, shifted by (u, v), q] . weight[u, v, 4 q.., o]
// packed [N, PH, PW, Q] of vec4 and weight [KH KW, 4 Q, COLUMNS] of vec4 from conv2d_pack and
// conv2d_pack_weight; y [N, O, OH, OW] contiguous.
// One workgroup computes 64 positions x 64 channels from tiles of depth 16 in workgroup memory
// (8 KiB), one invocation 8 positions x 8 channels.
// Behind it: conv2d_product.wgsl. KH KW Q under 64,000. Twin: conv2d in src/ops/conv2d/reference.rs.

@group(0) @binding(1) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

// Depth-major: x_tile[depth * 16 + position / 4], w_tile[depth * 16 + channel / 4].
var<workgroup> x_tile: array<vec4<f32>, 256>;
var<workgroup> w_tile: array<vec4<f32>, 256>;

@compute @workgroup_size(64)
fn conv2d_tile(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  // A surplus workgroup computes the last block again and stores nothing.
  let number = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let block = min(number, s.blocks - 1u);
  let first = block / s.column_blocks * 64u;
  let first_column = block % s.column_blocks * 16u;
  // Loading: this invocation's position, and its column of the weight tile.
  let mine = corner(first + lid);
  let load_column = min(first_column + lid % 16u, s.columns - 1u);
  // Computing: positions and columns of this invocation, in vec4.
  let rows = lid % 8u * 2u;
  let columns = lid / 8u * 2u;
  var sums: array<vec4<f32>, 16>;
  for (var i = 0u; i < 16u; i++) { // unroll
    sums[i] = vec4<f32>();
  }
  let depth = s.taps_y * s.taps_x * s.quads;
  var q = 0u;
  var v = 0u;
  var tap = 0u;
  for (var k = 0u; k < depth; k += 4u) {
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) { // unroll
      let inside = k + j < depth;
      let x = select(vec4<f32>(), packed[select(0u, mine + tap + v * s.tap_column + q, inside)], inside);
      for (var e = 0u; e < 4u; e++) { // unroll
        x_tile[j * 64u + e * 16u + lid / 4u][lid % 4u] = x[e];
      }
      // Weight rows behind the last meet zeros of x; they need only be readable and finite.
      let w_row = min(k * 4u + j * 4u + lid / 16u, depth * 4u - 1u);
      w_tile[j * 64u + lid] = weight[w_row * s.columns + load_column];
      q++;
      if (q == s.quads) {
        q = 0u;
        v++;
        if (v == s.taps_x) {
          v = 0u;
          tap += s.tap_row;
        }
      }
    }
    workgroupBarrier();
    for (var d = 0u; d < 16u; d++) { // unroll
      let x0 = x_tile[d * 16u + rows];
      let x1 = x_tile[d * 16u + rows + 1u];
      let w0 = w_tile[d * 16u + columns];
      let w1 = w_tile[d * 16u + columns + 1u];
      for (var e = 0u; e < 4u; e++) { // unroll
        sums[e * 2u] += x0[e] * w0;
        sums[e * 2u + 1u] += x0[e] * w1;
        sums[8u + e * 2u] += x1[e] * w0;
        sums[8u + e * 2u + 1u] += x1[e] * w1;
      }
    }
  }
  if (number < s.blocks) {
    let position = first + rows * 4u;
    let channel = (first_column + columns) * 4u;
    for (var half = 0u; half < 2u; half++) { // unroll
      for (var k = 0u; k < 4u; k++) { // unroll
        let left = vec4(
          sums[half * 8u][k], sums[half * 8u + 2u][k], sums[half * 8u + 4u][k], sums[half * 8u + 6u][k],
        );
        let right = vec4(
          sums[half * 8u + 1u][k], sums[half * 8u + 3u][k], sums[half * 8u + 5u][k], sums[half * 8u + 7u][k],
        );
        store(left, position + half * 4u, channel + k);
        store(right, position + half * 4u, channel + 4u + k);
      }
    }
  }
}

