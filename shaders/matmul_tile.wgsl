// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), by tiles in shared memory.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes 64 x 64 of y, 16 terms of the sum at a time; an invocation 8 rows x 2 vec4.
// Behind the edges the last rows and columns stand again and are not stored; terms behind k are 0.
// Twin: Matmul::reference in src/ops/matmul.rs.

// tile_a[k, m / 4] and tile_b[k, n / 4], both 16 x 16.
var<workgroup> tile_a: array<vec4<f32>, 256>;
var<workgroup> tile_b: array<vec4<f32>, 256>;

@compute @workgroup_size(64)
fn matmul_tile(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = (group.z * groups.y + group.y) * groups.x + group.x;
  let n = number % p.tiles_n * 64u;
  let m = number / p.tiles_n % p.tiles_m * 64u;
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // the whole workgroup does
  let batch = slice % p.batches;

  // Each invocation loads one block of 4 x 4 of each tile.
  let outer = lane % 16u;
  let inner = lane / 16u * 4u;
  let row = rows_of_a(batch, m + outer * 4u);
  let column = columns_of_b(batch, n + outer * 4u);
  // It sums rows y4 * 4 + 0..4 and 32 more, columns x4 * 4 + 0..4 and 32 more.
  let x4 = lane % 8u;
  let y4 = lane / 8u;
  var sum: array<vec4<f32>, 16>;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  // The next blocks are on their way while these are summed.
  var left = left_block(row, first + inner, last);
  var right = right_block(column, first + inner, last);
  for (var k = first; k < last; k += 16u) {
    workgroupBarrier();
    for (var t = 0u; t < 4u; t++) { // unroll
      tile_a[(inner + t) * 16u + outer] = left[t];
      tile_b[(inner + t) * 16u + outer] = right[t];
    }
    workgroupBarrier();
    left = left_block(row, k + 16u + inner, last);
    right = right_block(column, k + 16u + inner, last);
    for (var t = 0u; t < 16u; t++) {
      let b0 = tile_b[t * 16u + x4];
      let b1 = tile_b[t * 16u + x4 + 8u];
      let a0 = tile_a[t * 16u + y4];
      let a1 = tile_a[t * 16u + y4 + 8u];
      for (var r = 0u; r < 4u; r++) { // unroll
        sum[r * 2u] += a0[r] * b0;
        sum[r * 2u + 1u] += a0[r] * b1;
        sum[r * 2u + 8u] += a1[r] * b0;
        sum[r * 2u + 9u] += a1[r] * b1;
      }
    }
  }
  for (var r = 0u; r < 4u; r++) { // unroll
    for (var j = 0u; j < 2u; j++) { // unroll
      store(slice, m + y4 * 4u + r, n + x4 * 4u + j * 32u, sum[r * 2u + j]);
      store(slice, m + y4 * 4u + r + 32u, n + x4 * 4u + j * 32u, sum[r * 2u + j + 8u]);
    }
  }
}
