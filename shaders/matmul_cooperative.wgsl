// y[batch, m, n] = epilogue(sum over k of a[batch, m, k] * b[batch, k, n]), by cooperative matrices: operands are
// rounded to f16, sums are in f32.
// Bindings: 0 Params, 1 a, 2 b, 3 y, as in matmul_operands.wgsl.
// A workgroup computes a TILE_M x TILE_N tile of y, TERMS terms of the sum at a time, from tiles of both operands in
// workgroup memory. A subgroup computes BLOCKS_M x BLOCKS_N matrices of SIDE x SIDE; SUBGROUPS_N subgroups are side by
// side. If subgroups may be smaller than the host assumed (SURPLUS), those that are left only load and store. Rows and
// columns beyond the edges repeat the last ones and are not stored; terms beyond k are 0.
// Reference: Matmul::reference in src/ops/matmul.rs.

enable f16;
enable wgpu_cooperative_matrix;

import package::matmul_blocks::{left_terms, right_terms, store};
import package::matmul_operands::{columns_of_b, p, rows_of_a};

const SIDE: u32 = 16u;
const TILE_M: u32 = 128u;
const TILE_N: u32 = 128u;
const TERMS: u32 = 32u;
const BLOCKS_M: u32 = 4u;
const BLOCKS_N: u32 = 2u;
const SUBGROUPS_N: u32 = 4u;
const LANES: u32 = 256u;
const SURPLUS: bool = false;
// Whether an operand is known to be within the range of f16.
const A_IS_F16: bool = false;
const B_IS_F16: bool = false;
const SUBGROUPS: u32 = TILE_M * TILE_N / (BLOCKS_M * BLOCKS_N * SIDE * SIDE);
const BLOCKS: u32 = BLOCKS_M * BLOCKS_N;
// 4 x 4 blocks of each operand that an invocation loads.
const EACH_A: u32 = TILE_M * TERMS / (16u * LANES);
const EACH_B: u32 = TILE_N * TERMS / (16u * LANES);
// Rows between them.
const BETWEEN: u32 = LANES * 16u / TERMS;
// In workgroup memory the terms of an operand are contiguous, as AMD's matrix units load them. Rows are padded, which
// spreads them over the banks; cooperative matrices must be aligned to 16 bytes.
const STRIDE: u32 = TERMS + 8u;

@if(SIDE == 8)
alias MatrixA = coop_mat8x8<f16, A>;
@else
alias MatrixA = coop_mat16x16<f16, A>;
@if(SIDE == 8)
alias MatrixB = coop_mat8x8<f16, B>;
@else
alias MatrixB = coop_mat16x16<f16, B>;
@if(SIDE == 8)
alias MatrixC = coop_mat8x8<f32, C>;
@else
alias MatrixC = coop_mat16x16<f32, C>;

// Metal loads and stores cooperative matrices through pointers to numbers.
var<workgroup> tile_a: array<f16, TILE_M * STRIDE>; // [m, k]
var<workgroup> tile_b: array<f16, TILE_N * STRIDE>; // [n, k]
// One matrix of each subgroup.
var<workgroup> results: array<f32, SUBGROUPS * SIDE * SIDE>;

// The bits of 65504, the largest f16.
const LARGEST_F16: u32 = 0x477fe000u;

// The largest magnitude in a vector, as bits. NaN exceeds infinity.
fn magnitudes(v: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(v) & vec4(0x7fffffffu); }

// Finite numbers beyond the range of f16 become its ends.
fn within_f16(v: vec4<f32>) -> vec4<f32> {
  let finite = magnitudes(v) < vec4(0x7f800000u);
  return select(v, clamp(v, vec4(-65504.0), vec4(65504.0)), finite);
}

// A block of an operand, rounded to f16.
fn rounded(block: mat4x4<f32>, in_range: bool) -> mat4x4<f16> {
  var terms = block;
  if (!in_range) {
    // Few blocks have such numbers.
    let largest =
      max(max(magnitudes(block[0]), magnitudes(block[1])), max(magnitudes(block[2]), magnitudes(block[3])));
    if (any(largest > vec4(LARGEST_F16))) {
      terms = mat4x4(within_f16(block[0]), within_f16(block[1]), within_f16(block[2]), within_f16(block[3]));
    }
  }
  return mat4x4(vec4<f16>(terms[0]), vec4<f16>(terms[1]), vec4<f16>(terms[2]), vec4<f16>(terms[3]));
}

// Zeros if k is beyond the last term.
fn block_of_a(at: vec4<u32>, k: u32, last: u32) -> mat4x4<f16> {
  if (k >= last) { return mat4x4<f16>(); }
  return rounded(left_terms(at, k, last), A_IS_F16);
}

fn block_of_b(at: vec4<u32>, k: u32, last: u32) -> mat4x4<f16> {
  if (k >= last) { return mat4x4<f16>(); }
  return rounded(right_terms(at, k, last), B_IS_F16);
}

@compute @workgroup_size(LANES)
fn matmul_cooperative(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let number = group_number(group, groups);
  let n = number % p.tiles_n * TILE_N;
  let m = number / p.tiles_n % p.tiles_m * TILE_M;
  let slice = number / p.tiles_n / p.tiles_m;
  let batch = slice % p.batches;
  // Surplus workgroups have no terms, and store nothing. They do not return here: naga takes the result of a function
  // for non-uniform, and would refuse cooperative matrices behind the condition.
  let first = slice / p.batches * p.part_k;
  let last = min(p.k, first + p.part_k);

  // Each invocation loads blocks at distances of LANES. Neighbours load neighbouring terms: 64 bytes, at least, of what
  // is contiguous.
  let ahead = lane % (TERMS / 4u) * 4u;
  let outer = lane / (TERMS / 4u) * 4u;
  let to = outer * STRIDE + ahead;
  var rows: array<vec4<u32>, EACH_A>;
  @unroll for (var e = 0u; e < EACH_A; e++) {
    rows[e] = rows_of_a(batch, m + outer + e * BETWEEN);
  }
  var columns: array<vec4<u32>, EACH_B>;
  @unroll for (var e = 0u; e < EACH_B; e++) {
    columns[e] = columns_of_b(batch, n + outer + e * BETWEEN);
  }
  let row = subgroup / SUBGROUPS_N * (BLOCKS_M * SIDE);
  let column = subgroup % SUBGROUPS_N * (BLOCKS_N * SIDE);
  var sum: array<MatrixC, BLOCKS>; // [block of rows * BLOCKS_N + block of columns]
  var left: array<MatrixA, BLOCKS_M>; // declared here: inside the loop it would be zeroed each time
  // The next blocks are loaded while the current ones are multiplied.
  var blocks_a: array<mat4x4<f16>, EACH_A>;
  @unroll for (var e = 0u; e < EACH_A; e++) {
    blocks_a[e] = block_of_a(rows[e], first + ahead, last);
  }
  var blocks_b: array<mat4x4<f16>, EACH_B>;
  @unroll for (var e = 0u; e < EACH_B; e++) {
    blocks_b[e] = block_of_b(columns[e], first + ahead, last);
  }
  for (var k = first; k < last; k += TERMS) {
    workgroupBarrier();
    @unroll for (var e = 0u; e < EACH_A; e++) {
      @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var t = 0u; t < 4u; t++) {
          tile_a[to + (e * BETWEEN + i) * STRIDE + t] = blocks_a[e][t][i];
        }
      }
    }
    @unroll for (var e = 0u; e < EACH_B; e++) {
      @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var t = 0u; t < 4u; t++) {
          tile_b[to + (e * BETWEEN + i) * STRIDE + t] = blocks_b[e][t][i];
        }
      }
    }
    workgroupBarrier();
    @unroll for (var e = 0u; e < EACH_A; e++) {
      blocks_a[e] = block_of_a(rows[e], k + TERMS + ahead, last);
    }
    @unroll for (var e = 0u; e < EACH_B; e++) {
      blocks_b[e] = block_of_b(columns[e], k + TERMS + ahead, last);
    }
    // A loop of one round: naga takes an `if` for non-uniform, and cooperative matrices must not be used in one.
    for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
      @unroll for (var t = 0u; t < TERMS / SIDE; t++) {
        @unroll for (var i = 0u; i < BLOCKS_M; i++) {
          left[i] = coopLoadT<MatrixA>(&tile_a[(row + i * SIDE) * STRIDE + t * SIDE], STRIDE);
        }
        @unroll for (var j = 0u; j < BLOCKS_N; j++) {
          let right = coopLoad<MatrixB>(&tile_b[(column + j * SIDE) * STRIDE + t * SIDE], STRIDE);
          @unroll for (var i = 0u; i < BLOCKS_M; i++) {
            sum[i * BLOCKS_N + j] = coopMultiplyAdd(left[i], right, sum[i * BLOCKS_N + j]);
          }
        }
      }
    }
  }
  // Results are staged through workgroup memory, one matrix of each subgroup at a time, so that the store and epilogue
  // code occurs once.
  for (var done = 0u; done < BLOCKS; done++) {
    workgroupBarrier();
    for (var works = !SURPLUS || subgroup < SUBGROUPS; works; works = false) {
      let to = subgroup * (SIDE * SIDE);
      let next = sum[0];
      coopStoreT(next, &results[to], SIDE);
      // Moves the others forward.
      @unroll for (var i = 0u; i < BLOCKS; i++) {
        sum[i] = sum[min(i + 1u, BLOCKS - 1u)];
      }
    }
    workgroupBarrier();
    let elements = select(0u, SUBGROUPS * SIDE * SIDE / 4u, slice < p.batches * p.parts);
    for (var e = lane; e < elements; e += LANES) {
      let matrix = e / (SIDE * SIDE / 4u);
      let at_m = (matrix / SUBGROUPS_N * BLOCKS_M + done / BLOCKS_N) * SIDE + e / (SIDE / 4u) % SIDE;
      let at_n = (matrix % SUBGROUPS_N * BLOCKS_N + done % BLOCKS_N) * SIDE + e % (SIDE / 4u) * 4u;
      let v = vec4(results[e * 4u], results[e * 4u + 1u], results[e * 4u + 2u], results[e * 4u + 3u]);
      store(slice, m + at_m, n + at_n, v);
    }
  }
}
