// y = x with other strides: two axes P and Q, of which x has P innermost and y has Q innermost, and up to three others.
// 1 x: words at any strides; 2 y: words, contiguous.
// A workgroup stages a TILE x TILE tile of P and Q through workgroup memory, so that reads and writes are coalesced.
// Any type of 32 bits. Tiles of P are numbered first, then of Q, then the other axes.
// Reference: View::positions in src/shape.rs.

struct Params {
  size_p: u32,
  size_q: u32,
  x_offset: u32,
  x_stride_q: u32,
  y_stride_p: u32,
  tiles_p: u32,
  tiles_q: u32,
  others: u32, // product of the sizes of the other axes
  size_1: u32, // sizes of the last two of the others
  size_2: u32,
  x_stride_0: u32,
  x_stride_1: u32,
  x_stride_2: u32,
  y_stride_0: u32,
  y_stride_1: u32,
  y_stride_2: u32,
}

const LANES: u32 = 128u;
const TILE: u32 = 32u;
const ROWS: u32 = LANES / TILE; // at a time
const STRIDE: u32 = TILE + 1u; // avoids bank conflicts

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

var<workgroup> tile: array<u32, TILE * STRIDE>;

@compute @workgroup_size(LANES)
fn transpose(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups);
  let first_p = number % p.tiles_p * TILE;
  let first_q = number / p.tiles_p % p.tiles_q * TILE;
  let other = number / p.tiles_p / p.tiles_q;
  if (other >= p.others) { return; } // uniform in the workgroup
  let i2 = other % p.size_2;
  let i1 = other / p.size_2 % p.size_1;
  let i0 = other / p.size_2 / p.size_1;
  let x_start = p.x_offset + i0 * p.x_stride_0 + i1 * p.x_stride_1 + i2 * p.x_stride_2;
  let y_start = i0 * p.y_stride_0 + i1 * p.y_stride_1 + i2 * p.y_stride_2;
  let column = lane % TILE;
  let row = lane / TILE;
  @unroll for (var i = 0u; i < TILE / ROWS; i++) {
    let q = row + i * ROWS;
    if (first_q + q < p.size_q && first_p + column < p.size_p) {
      tile[q * STRIDE + column] = x[x_start + (first_q + q) * p.x_stride_q + first_p + column];
    }
  }
  workgroupBarrier();
  @unroll for (var i = 0u; i < TILE / ROWS; i++) {
    let own = row + i * ROWS;
    if (first_p + own < p.size_p && first_q + column < p.size_q) {
      y[y_start + (first_p + own) * p.y_stride_p + first_q + column] = tile[column * STRIDE + own];
    }
  }
}
