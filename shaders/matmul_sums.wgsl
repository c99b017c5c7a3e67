// Adds the sums of the invocations of a workgroup that share a tile and split k. The kernel declares TM and TN.
// A tile consists of ACROSS_M x ACROSS_N blocks of TM x TN elements, numbered by rows. Invocation i works on block i %
// (ACROSS_M * ACROSS_N).

import package::matmul_blocks::store;

const LANES: u32 = 64u;
const ACROSS_M: u32 = 1u;
const ACROSS_N: u32 = 1u;

// vec4 per block, and how many of them are added at the same time: a power of two.
const QUADS: u32 = TM * TN / 4u;
const AT_ONCE: u32 = QUADS;
// vec4 of all blocks that are added at the same time: at most LANES.
const RESULTS: u32 = ACROSS_M * ACROSS_N * AT_ONCE;

// The sums of each invocation, then partial sums over AT_ONCE invocations of a block.
var<workgroup> sums: array<vec4<f32>, LANES * AT_ONCE>;

// Stores the tile at (m, n). An invocation has the sum of its terms in sum[row * TN / 4 + column / 4].
fn store_sums(sum: array<vec4<f32>, QUADS>, lane: u32, slice: u32, m: u32, n: u32) {
  @unroll for (var round = 0u; round < QUADS / AT_ONCE; round++) {
    workgroupBarrier();
    @unroll for (var q = 0u; q < AT_ONCE; q++) {
      sums[lane * AT_ONCE + q] = sum[round * AT_ONCE + q];
    }
    store_results(lane, slice, m, n, round * AT_ONCE);
  }
}

// Adds and stores vec4 `first` .. first + AT_ONCE of each block.
fn store_results(lane: u32, slice: u32, m: u32, n: u32, first: u32) {
  workgroupBarrier();
  // Adds one result of AT_ONCE invocations of its block, from number `begin` on.
  let result = lane % RESULTS;
  let begin = lane / RESULTS * AT_ONCE;
  var of_some = sums[begin * RESULTS + result];
  for (var i = 1u; i < AT_ONCE; i++) {
    of_some += sums[(begin + i) * RESULTS + result];
  }
  workgroupBarrier();
  sums[lane] = of_some;
  workgroupBarrier();
  if (lane < RESULTS) {
    var total = sums[lane];
    for (var i = lane + RESULTS; i < LANES; i += RESULTS) {
      total += sums[i];
    }
    let block = lane / AT_ONCE;
    let quad = first + lane % AT_ONCE;
    let row = block / ACROSS_N * TM + quad / (TN / 4u);
    let column = block % ACROSS_N * TN + quad % (TN / 4u) * 4u;
    store(slice, m + row, n + column, total);
  }
}
