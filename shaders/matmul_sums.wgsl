// Adds the sums of the invocations of a workgroup that share a TM x TN tile and split k. The kernel declares TM and TN.

import package::matmul_blocks::store;

// vec4 per tile.
const QUADS: u32 = TM * TN / 4u;

// The sums of each invocation, then partial sums over QUADS invocations.
var<workgroup> sums: array<vec4<f32>, 64u * QUADS>;

// Stores the tile at (m, n): the sum over invocations i of sums[i * QUADS + row * TN / 4 + column / 4].
fn store_sums(lane: u32, slice: u32, m: u32, n: u32) {
  workgroupBarrier();
  // Adds element q of QUADS invocations, starting at `begin`.
  let q = lane % QUADS;
  let begin = lane / QUADS * QUADS;
  var of_some = sums[begin * QUADS + q];
  for (var i = 1u; i < QUADS; i++) {
    of_some += sums[(begin + i) * QUADS + q];
  }
  workgroupBarrier();
  sums[lane] = of_some;
  workgroupBarrier();
  if (lane < QUADS) {
    var total = sums[lane];
    for (var i = lane + QUADS; i < 64u; i += QUADS) {
      total += sums[i];
    }
    store(slice, m + lane / (TN / 4u), n + lane % (TN / 4u) * 4u, total);
  }
}
