// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), for subgroups of 8.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes 16 rows x 64 columns of y; an invocation 16 rows x 2 vec4. The 8 lanes hold
// 16 x 8 elements of a, one block of 4 x 4 each, and give them to each other by constant shuffles.
// One workgroup is one subgroup. Twin: Matmul::reference in src/ops/matmul.rs.

var<workgroup> results: array<vec4<f32>, 256>;

@compute @workgroup_size(8)
fn matmul_shuffle(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let number = (group.z * groups.y + group.y) * groups.x + group.x;
  let n = number % p.tiles_n * 64u + lane * 8u;
  let m = number / p.tiles_n % p.tiles_m * 16u;
  let slice = number / p.tiles_n / p.tiles_m;
  if (slice >= p.batches * p.parts) { return; } // the whole workgroup does
  let batch = slice % p.batches;

  let inner = lane / 4u * 4u;
  let row = rows_of_a(batch, m + lane % 4u * 4u);
  let column0 = columns_of_b(batch, n);
  let column1 = columns_of_b(batch, n + 4u);
  var sum: array<vec4<f32>, 32>;
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);
  for (var k = first; k < last; k += 8u) {
    let left = left_block(row, k + inner, last);
    for (var h = 0u; h < 2u; h++) { // unroll
      let right0 = right_block(column0, k + h * 4u, last);
      let right1 = right_block(column1, k + h * 4u, last);
      for (var t = 0u; t < 4u; t++) { // unroll
        for (var r = 0u; r < 16u; r++) { // unroll
          let x = subgroupShuffle(left[t][r % 4u], h * 4u + r / 4u);
          sum[r * 2u] += x * right0[t];
          sum[r * 2u + 1u] += x * right1[t];
        }
      }
    }
  }
  // By way of memory, each lane for itself, so that the text stores, and finishes, at one place; a
  // number of rows that the compiler knows would have it unroll the loop.
  for (var i = 0u; i < 32u; i++) { // unroll
    results[i * 8u + lane] = sum[i];
  }
  let rows = min(m + 16u, p.m) - min(m, p.m);
  for (var r = 0u; r < rows; r++) {
    store(slice, m + r, n, results[r * 16u + lane]);
    store(slice, m + r, n + 4u, results[r * 16u + 8u + lane]);
  }
}

