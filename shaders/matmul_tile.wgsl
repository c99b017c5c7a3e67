// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), by tiles in shared memory.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes 64 x 64 of y, 16 terms of the sum at a time; an invocation 8 rows x 2 vec4.
// Behind the edges the last rows and columns stand again and are not stored; terms behind k are 0.
// Twin: Matmul::reference in src/ops/matmul.rs.

// a[k, m / 4], and behind it b[k, n / 4], both 16 x 16; in the end half of the results.
var<workgroup> tile: array<vec4<f32>, 512>;

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
      tile[(inner + t) * 16u + outer] = left[t];
      tile[256u + (inner + t) * 16u + outer] = right[t];
    }
    workgroupBarrier();
    left = left_block(row, k + 16u + inner, last);
    right = right_block(column, k + 16u + inner, last);
    for (var t4 = 0u; t4 < 16u; t4 += 4u) {
      let at_a = t4 * 16u + y4;
      let at_b = t4 * 16u + x4 + 256u;
      for (var t = 0u; t < 4u; t++) { // unroll
        let a0 = tile[at_a + t * 16u];
        let a1 = tile[at_a + t * 16u + 8u];
        let b0 = tile[at_b + t * 16u];
        let b1 = tile[at_b + t * 16u + 8u];
        for (var r = 0u; r < 4u; r++) { // unroll
          sum[r * 2u] += a0[r] * b0;
          sum[r * 2u + 1u] += a0[r] * b1;
          sum[r * 2u + 8u] += a1[r] * b0;
          sum[r * 2u + 9u] += a1[r] * b1;
        }
      }
    }
  }
  // By way of workgroup memory, so that neighbours store neighbours, and the text stores, and
  // finishes, at one place; a number of rounds that the compiler knows would have it unroll the loop.
  // (Counting columns down: what was computed for loading would be kept in registers until here.)
  let column4 = 15u - outer;
  let end = select(0u, 32u, n + column4 * 4u < p.n);
  for (var half = 0u; half < 2u; half++) {
    workgroupBarrier();
    for (var r = 0u; r < 4u; r++) { // unroll
      for (var j = 0u; j < 2u; j++) { // unroll
        tile[(y4 * 4u + r) * 16u + x4 + j * 8u] = select(sum[r * 2u + j], sum[r * 2u + j + 8u], half == 1u);
      }
    }
    workgroupBarrier();
    for (var r = lane / 16u; r < end; r += 4u) {
      store(slice, m + half * 32u + r, n + column4 * 4u, tile[r * 16u + column4]);
    }
  }
}
