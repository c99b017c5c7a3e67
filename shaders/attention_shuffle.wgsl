// Products and reductions of the attention kernels for subgroups of 8.
// A workgroup is a subgroup; its 8 lanes share 16 rows (ROWS) and exchange elements by shuffles.

import package::attention_operands::{COLUMNS, p, ROWS, rows_of, SCORES};

fn place_of(lane: u32) -> u32 { return lane; }

// Row r of an invocation, in the tile.
fn row_of(lane: u32, r: u32) -> u32 { return r; }

// The square of 32 rows, and the quad in it, of quad g of a lane's rows.
fn quad_of(tile: u32, lane: u32, g: u32) -> vec2<u32> { return vec2(tile / 32u, tile % 32u / 4u + g); }

// Tiles in workgroup memory put weights aside here; these stay in registers.
fn keep(w: ptr<function, array<vec4<f32>, ROWS * SCORES>>, part: u32, lane: u32) {}
fn recall(w: ptr<function, array<vec4<f32>, ROWS * SCORES>>, lane: u32) {}

// s[r] += the dot products of row `row + r` of LEFT and the 4 rows of RIGHT from `column + lane * 4`. The lanes hold
// 16 x 8 elements of LEFT, a 4 x 4 block each.
@template(LEFT, RIGHT)
fn dot_LEFT_RIGHT(s: ptr<function, array<vec4<f32>, ROWS * SCORES>>, b: u32, row: u32, column: u32, lane: u32) {
  let size = p.LEFT.width;
  let left_at = rows_of(p.LEFT, b, row + lane % 4u * 4u);
  let right_at = rows_of(p.RIGHT, b, column + lane * 4u);
  for (var e = 0u; e < size; e += 2u) {
    let part = e + lane / 4u;
    var left = mat4x4<f32>();
    if (part < size) {
      let at = left_at + part;
      left = transpose(mat4x4(LEFT[at.x], LEFT[at.y], LEFT[at.z], LEFT[at.w]));
    }
    @unroll for (var h = 0u; h < 2u; h++) {
      let at = right_at + min(e + h, size - 1u);
      let right = transpose(mat4x4(RIGHT[at.x], RIGHT[at.y], RIGHT[at.z], RIGHT[at.w]));
      @unroll for (var t = 0u; t < 4u; t++) {
        @unroll for (var r = 0u; r < ROWS; r++) {
          (*s)[r] += subgroupShuffle(left[t][r % 4u], h * 4u + r / 4u) * right[t];
        }
      }
    }
  }
}

// acc[r] += sum over i < 32 of w[r, i] * row `column + i` of ADDED, from its vec4 `chunk` on.
@template(ADDED)
fn add_ADDED(
  acc: ptr<function, array<vec4<f32>, ROWS * COLUMNS>>, w: ptr<function, array<vec4<f32>, ROWS * SCORES>>,
  b: u32, column: u32, chunk: u32, lane: u32,
) {
  let lanes = min(8u, (p.ADDED.rows - column + 3u) / 4u);
  for (var i = 0u; i < lanes; i++) {
    let at = rows_of(p.ADDED, b, column + i * 4u);
    @unroll for (var j = 0u; j < 4u; j++) {
      var x = array<vec4<f32>, COLUMNS>();
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        x[c] = ADDED[at[j] + min(chunk + lane + c * 8u, p.ADDED.width - 1u)];
      }
      @unroll for (var r = 0u; r < ROWS; r++) {
        let weight = subgroupShuffle((*w)[r][j], i);
        @unroll for (var c = 0u; c < COLUMNS; c++) {
          (*acc)[r * COLUMNS + c] += weight * x[c];
        }
      }
    }
  }
}

// The maximum of x over the 8 lanes, for each row, in every lane.
fn rows_max(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  @unroll for (var r = 0u; r < ROWS; r++) {
    let by4 = max((*x)[r], subgroupShuffle((*x)[r], lane ^ 4u));
    let by2 = max(by4, subgroupShuffle(by4, lane ^ 2u));
    (*x)[r] = max(by2, subgroupShuffle(by2, lane ^ 1u));
  }
}

// The sum of x over the 8 lanes, for each row, in every lane.
fn rows_sum(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  @unroll for (var r = 0u; r < ROWS; r++) {
    let by4 = (*x)[r] + subgroupShuffle((*x)[r], lane ^ 4u);
    let by2 = by4 + subgroupShuffle(by4, lane ^ 2u);
    (*x)[r] = by2 + subgroupShuffle(by2, lane ^ 1u);
  }
}
