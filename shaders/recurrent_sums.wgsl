// Sums of a recurrent step by tiles in workgroup memory: the sum over k of rows[row, k] * w[k, q, unit], for TILE_ROWS
// batch rows and TILE_UNITS units. q is the gate in the forward pass; the backward pass has one column per unit. The
// 64 PARTS invocations are 8 groups of 4 rows, 8 units and PARTS parts of the terms: with few of them, a multiprocessor
// waits for memory in each round. w and COLUMNS are those of the kernel; w is [K, COLUMNS, H]. Rows and units beyond the
// edges repeat the last ones; terms beyond k are 0.

import package::recurrent_places::{p};

const PARTS: u32 = 4u;
const LANES: u32 = 64u * PARTS;
const TILE_ROWS: u32 = 32u;
const TILE_UNITS: u32 = 8u;
// Terms at a time, in vec4: 4 for each part.
const TERMS4: u32 = 4u * PARTS;
// vec4 of both operands in the tile, and those that an invocation loads at a time.
const ROWS4: u32 = TILE_ROWS * TERMS4;
const COLUMNS4: u32 = COLUMNS * TILE_UNITS * TERMS4;
const ROW_LOADS: u32 = ROWS4 / LANES;
const COLUMN_LOADS: u32 = (COLUMNS4 + LANES - 1u) / LANES;

// Four terms of each row, [row, k / 4], and of each column, [k / 4, q, unit]. At the end, the sums of up to four columns,
// [part, row, unit], which take at least as much space.
var<workgroup> tile: array<vec4<f32>, PARTS * TILE_ROWS * TILE_UNITS>;

// Four terms of a column of w from k on, 0 from `terms` on.
fn column(k: u32, q: u32, unit: u32, terms: u32) -> vec4<f32> {
  var v: vec4<f32>;
  @unroll for (var t = 0u; t < 4u; t++) {
    if (k + t < terms) { v[t] = w[((k + t) * COLUMNS + q) * p.hidden + unit]; }
  }
  return v;
}

// Computes the sums for the tile of rows from first_row and units from first_unit. The terms of a batch row follow each
// other in BUFFER, and the rows too, the first at `start`. Every invocation of the workgroup must call it.
@template(BUFFER)
fn add_BUFFER(lane: u32, start: u32, first_row: u32, first_unit: u32, terms: u32) {
  let unit = lane % TILE_UNITS;
  let group = lane / TILE_UNITS % 8u;
  let part = lane / (TILE_UNITS * 8u);
  // Rows group + 8 r, and all columns of the unit.
  var sum: array<vec4<f32>, 4u>;
  var next_rows: array<vec4<f32>, ROW_LOADS>;
  var next_columns: array<vec4<f32>, COLUMN_LOADS>;
  for (var k = 0u; k < terms + TERMS4 * 4u; k += TERMS4 * 4u) {
    // Stores the terms that the previous iteration loaded, and loads the next ones before summing. The first iteration
    // has nothing to sum.
    workgroupBarrier();
    @unroll for (var i = 0u; i < ROW_LOADS; i++) {
      let at = lane + i * LANES;
      tile[at] = next_rows[i];
      let row = min(first_row + at / TERMS4, p.batch - 1u);
      let first = k + at % TERMS4 * 4u;
      next_rows[i] = vec4(0.0);
      @unroll for (var t = 0u; t < 4u; t++) {
        if (first + t < terms) { next_rows[i][t] = BUFFER[start + row * terms + first + t]; }
      }
    }
    @unroll for (var i = 0u; i < COLUMN_LOADS; i++) {
      let at = lane + i * LANES;
      if (at < COLUMNS4) {
        tile[ROWS4 + at] = next_columns[i];
        let column_unit = min(first_unit + at % TILE_UNITS, p.hidden - 1u);
        let first = k + at / (TILE_UNITS * COLUMNS) * 4u;
        next_columns[i] = column(first, at / TILE_UNITS % COLUMNS, column_unit, terms);
      }
    }
    workgroupBarrier();
    let end = select(0u, 4u, k > 0u);
    for (var i = 0u; i < end; i++) {
      let k4 = part * 4u + i;
      var v = array<vec4<f32>, 4>();
      @unroll for (var r = 0u; r < 4u; r++) {
        v[r] = tile[(group + r * 8u) * TERMS4 + k4];
      }
      @unroll for (var q = 0u; q < COLUMNS; q++) {
        let weights = tile[ROWS4 + (k4 * COLUMNS + q) * TILE_UNITS + unit];
        @unroll for (var r = 0u; r < 4u; r++) {
          @unroll for (var t = 0u; t < 4u; t++) {
            sum[r][q] += v[r][t] * weights[t];
          }
        }
      }
    }
  }
  workgroupBarrier();
  @unroll for (var r = 0u; r < 4u; r++) {
    tile[(part * TILE_ROWS + group + r * 8u) * TILE_UNITS + unit] = sum[r];
  }
  workgroupBarrier();
}

// Element `number` of the sums, [row, unit], after add; one component for each column.
fn sum_of(number: u32) -> vec4<f32> {
  var sum = vec4(0.0);
  @unroll for (var part = 0u; part < PARTS; part++) {
    sum += tile[part * TILE_ROWS * TILE_UNITS + number];
  }
  return sum;
}
