// Products and reductions of the attention kernels with tiles in workgroup memory.
// 64 invocations share 32 rows; 8 neighbours have the same 4 (ROWS). 13 KiB of workgroup memory.

import package::attention_operands::{COLUMNS, p, ROWS, rows_of};

// In dot: LEFT[16 elements, 8 x 4 rows], then RIGHT likewise; in add: ADDED[32 rows, 8 COLUMNS].
var<workgroup> shared_rows: array<vec4<f32>, 512>;
// w[32, 8 x 4 rows]
var<workgroup> shared_weights: array<vec4<f32>, 256>;
var<workgroup> shared_parts: array<vec4<f32>, 64>;

// s[r] += the dot products of row `row + lane / 8 * 4 + r` of LEFT and 4 rows of RIGHT from `column + lane % 8 * 4`.
// Each invocation loads a 4 x 4 block: the first half from LEFT, the others from RIGHT.
@template(LEFT, RIGHT)
fn dot_LEFT_RIGHT(s: ptr<function, array<vec4<f32>, ROWS>>, b: u32, row: u32, column: u32, lane: u32) {
  let size = p.LEFT.width;
  let outer = lane % 8u;
  let inner = lane / 8u % 4u;
  let left_at = rows_of(p.LEFT, b, row + outer * 4u) + inner;
  let right_at = rows_of(p.RIGHT, b, column + outer * 4u) + inner;
  for (var e = 0u; e < size; e += 4u) {
    var block = mat4x4<f32>();
    if (e + inner < size) {
      if (lane < 32u) {
        let at = left_at + e;
        block = transpose(mat4x4(LEFT[at.x], LEFT[at.y], LEFT[at.z], LEFT[at.w]));
      } else {
        let at = right_at + e;
        block = transpose(mat4x4(RIGHT[at.x], RIGHT[at.y], RIGHT[at.z], RIGHT[at.w]));
      }
    }
    workgroupBarrier();
    @unroll for (var t = 0u; t < 4u; t++) {
      shared_rows[(lane / 8u * 4u + t) * 8u + outer] = block[t];
    }
    workgroupBarrier();
    @unroll for (var t = 0u; t < 16u; t++) {
      let left = shared_rows[t * 8u + lane / 8u];
      let right = shared_rows[t * 8u + 128u + outer];
      @unroll for (var r = 0u; r < ROWS; r++) {
        (*s)[r] += left[r] * right;
      }
    }
  }
}

// acc[r] += sum over i < 32 of w[r, i] * row `column + i` of ADDED, from its vec4 `chunk` on.
@template(ADDED)
fn add_ADDED(
  acc: ptr<function, array<vec4<f32>, ROWS * COLUMNS>>, w: ptr<function, array<vec4<f32>, ROWS>>,
  b: u32, column: u32, chunk: u32, lane: u32,
) {
  workgroupBarrier();
  @unroll for (var j = 0u; j < 4u; j++) {
    shared_weights[(lane % 8u * 4u + j) * 8u + lane / 8u] = vec4((*w)[0][j], (*w)[1][j], (*w)[2][j], (*w)[3][j]);
  }
  let nearest = min(chunk + lane % (8u * COLUMNS), p.ADDED.width - 1u);
  @unroll for (var i = 0u; i < COLUMNS; i++) {
    let at = rows_of(p.ADDED, b, column + (lane / (8u * COLUMNS) + i * (8u / COLUMNS)) * 4u) + nearest;
    @unroll for (var j = 0u; j < 4u; j++) {
      let to = (lane / (8u * COLUMNS) + i * (8u / COLUMNS)) * 4u + j;
      shared_rows[to * 8u * COLUMNS + lane % (8u * COLUMNS)] = ADDED[at[j]];
    }
  }
  workgroupBarrier();
  for (var i4 = 0u; i4 < 32u; i4 += 4u) {
    @unroll for (var i = 0u; i < 4u; i++) {
      let weight = shared_weights[(i4 + i) * 8u + lane / 8u];
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        let x = shared_rows[(i4 + i) * 8u * COLUMNS + lane % 8u + c * 8u];
        @unroll for (var r = 0u; r < ROWS; r++) {
          (*acc)[r * COLUMNS + c] += weight[r] * x;
        }
      }
    }
  }
}

// The maximum of x over 8 neighbours, for each row, in each of them.
fn rows_max(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  shared_parts[lane] = vec4((*x)[0], (*x)[1], (*x)[2], (*x)[3]);
  workgroupBarrier();
  var all = shared_parts[lane];
  @unroll for (var i = 0u; i < 8u; i++) {
    all = max(all, shared_parts[lane / 8u * 8u + i]);
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    (*x)[r] = all[r];
  }
}

// The sum of x over 8 neighbours, for each row, in each of them. Barriers since rows_max protect shared_parts.
fn rows_sum(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  shared_parts[lane] = vec4((*x)[0], (*x)[1], (*x)[2], (*x)[3]);
  workgroupBarrier();
  var all = vec4(0.0);
  @unroll for (var i = 0u; i < 8u; i++) {
    all += shared_parts[lane / 8u * 8u + i];
  }
  @unroll for (var r = 0u; r < ROWS; r++) {
    (*x)[r] = all[r];
  }
}
