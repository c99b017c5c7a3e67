// Sums of a recurrent step by tiles in workgroup memory: sums[row, unit, q] = sum over k of rows[row, k] * w[k, q,
// unit] for TILE_ROWS batch rows and TILE_UNITS units. q is the gate in the forward pass; the backward pass has one
// column per unit. The LANES invocations divide into 8 x 8 x 2: 8 groups of 4 rows, 8 units, and the two halves of the
// terms. w and COLUMNS are those of the kernel; w is [K, COLUMNS, H]. Rows and units beyond the edges repeat the last
// ones; terms beyond k are 0.

import package::recurrent_places::{p};

const LANES: u32 = 128u;
const TILE_ROWS: u32 = 32u;
const TILE_UNITS: u32 = 8u;
// Terms at a time, in vec4.
const TERMS4: u32 = 8u;
// vec4 from row to row; odd, so that the rows that a subgroup reads lie in different banks.
const STRIDE: u32 = TERMS4 + 1u;
// vec4 of both operands that an invocation loads at a time.
const ROW_LOADS: u32 = TILE_ROWS * TERMS4 / LANES;
const COLUMN_LOADS: u32 = (COLUMNS * TILE_UNITS * TERMS4 + LANES - 1u) / LANES;

// Four terms of each row, [row, k / 4].
var<workgroup> rows: array<vec4<f32>, TILE_ROWS * STRIDE>;
// Four terms of each column, [k / 4, q, unit].
var<workgroup> columns: array<vec4<f32>, TERMS4 * COLUMNS * TILE_UNITS>;
var<workgroup> sums: array<f32, TILE_ROWS * TILE_UNITS * COLUMNS>;

// Four terms of a column of w from k on, 0 from `terms` on.
fn column(k: u32, q: u32, unit: u32, terms: u32) -> vec4<f32> {
  var v: vec4<f32>;
  @unroll for (var t = 0u; t < 4u; t++) {
    if (k + t < terms) { v[t] = w[((k + t) * COLUMNS + q) * p.hidden + unit]; }
  }
  return v;
}

// Computes `sums` for the tile of rows from first_row and units from first_unit. The terms of a batch row follow each
// other in BUFFER, and the rows too, the first at `start`. Every invocation of the workgroup must call it.
@template(BUFFER)
fn sum_BUFFER(lane: u32, start: u32, first_row: u32, first_unit: u32, terms: u32) {
  let unit = lane % TILE_UNITS;
  let group = lane / TILE_UNITS % 8u;
  let half = lane / (TILE_UNITS * 8u);
  // Rows group + 8 r, and all columns of the unit.
  var sum: array<f32, 4u * COLUMNS>;
  var next_rows: array<vec4<f32>, ROW_LOADS>;
  var next_columns: array<vec4<f32>, COLUMN_LOADS>;
  for (var k = 0u; k < terms + TERMS4 * 4u; k += TERMS4 * 4u) {
    // Stores the terms that the previous iteration loaded, and loads the next ones before summing. The first iteration
    // has nothing to sum.
    workgroupBarrier();
    @unroll for (var i = 0u; i < ROW_LOADS; i++) {
      let at = lane + i * LANES;
      rows[at / TERMS4 * STRIDE + at % TERMS4] = next_rows[i];
      let row = min(first_row + at / TERMS4, p.batch - 1u);
      let first = k + at % TERMS4 * 4u;
      next_rows[i] = vec4(0.0);
      @unroll for (var t = 0u; t < 4u; t++) {
        if (first + t < terms) { next_rows[i][t] = BUFFER[start + row * terms + first + t]; }
      }
    }
    @unroll for (var i = 0u; i < COLUMN_LOADS; i++) {
      let at = lane + i * LANES;
      if (at < COLUMNS * TILE_UNITS * TERMS4) {
        columns[at] = next_columns[i];
        let column_unit = min(first_unit + at % TILE_UNITS, p.hidden - 1u);
        let first = k + at / (TILE_UNITS * COLUMNS) * 4u;
        next_columns[i] = column(first, at / TILE_UNITS % COLUMNS, column_unit, terms);
      }
    }
    workgroupBarrier();
    let own = half * (TERMS4 / 2u);
    let end = select(own, own + TERMS4 / 2u, k > 0u);
    for (var k4 = own; k4 < end; k4++) {
      var v: array<vec4<f32>, 4>;
      @unroll for (var r = 0u; r < 4u; r++) {
        v[r] = rows[(group + r * 8u) * STRIDE + k4];
      }
      @unroll for (var q = 0u; q < COLUMNS; q++) {
        let weights = columns[(k4 * COLUMNS + q) * TILE_UNITS + unit];
        @unroll for (var r = 0u; r < 4u; r++) {
          @unroll for (var t = 0u; t < 4u; t++) {
            sum[r * COLUMNS + q] += v[r][t] * weights[t];
          }
        }
      }
    }
  }
  // Adds the two halves.
  @unroll for (var r = 0u; r < 4u; r++) {
    @unroll for (var q = 0u; q < COLUMNS; q++) {
      let at = ((group + r * 8u) * TILE_UNITS + unit) * COLUMNS + q;
      if (half == 1u) { sums[at] = sum[r * COLUMNS + q]; }
    }
  }
  workgroupBarrier();
  @unroll for (var r = 0u; r < 4u; r++) {
    @unroll for (var q = 0u; q < COLUMNS; q++) {
      let at = ((group + r * 8u) * TILE_UNITS + unit) * COLUMNS + q;
      if (half == 0u) { sums[at] += sum[r * COLUMNS + q]; }
    }
  }
  workgroupBarrier();
}
