// Products and reductions of the attention kernels with tiles in workgroup memory.
// 64 invocations share 32 or 64 rows; 8 neighbours have the same 4 or 8 (ROWS). 12 or 16 KiB of workgroup memory.

import package::attention_operands::{COLUMNS, p, ROWS, rows_of};

// Quads of rows in each invocation.
const QUADS: u32 = ROWS / 4u;
// 4 x 4 blocks that an invocation loads for a dot product.
const LOADS: u32 = (QUADS + 2u) / 2u;

// In dot: [16 elements, 8 x 4 rows] of LEFT, QUADS times, then of RIGHT; in add: ADDED[32 rows, 8 COLUMNS].
var<workgroup> shared_rows: array<vec4<f32>, 512>;
// In add: w[32, 8 QUADS x 4 rows]; in rows_max and rows_sum: x[64, QUADS].
var<workgroup> shared_weights: array<vec4<f32>, 256u * QUADS>;

// s[r] += the dot products of row `row + lane / 8 * ROWS + r` of LEFT and 4 rows of RIGHT from `column + lane % 8 * 4`.
// 32 invocations load 32 rows in 4 x 4 blocks: first those of LEFT, then those of RIGHT.
@template(LEFT, RIGHT)
fn dot_LEFT_RIGHT(s: ptr<function, array<vec4<f32>, ROWS>>, b: u32, row: u32, column: u32, lane: u32) {
  let size = p.LEFT.width;
  let outer = lane % 8u;
  let inner = lane / 8u % 4u;
  var starts: array<vec4<u32>, LOADS>;
  @unroll for (var i = 0u; i < LOADS; i++) {
    let part = lane / 32u + i * 2u;
    if (part < QUADS) {
      starts[i] = rows_of(p.LEFT, b, row + (part * 8u + outer) * 4u) + inner;
    } else {
      starts[i] = rows_of(p.RIGHT, b, column + outer * 4u) + inner;
    }
  }
  for (var e = 0u; e < size; e += 4u) {
    var blocks: array<mat4x4<f32>, LOADS>;
    @unroll for (var i = 0u; i < LOADS; i++) {
      let part = lane / 32u + i * 2u;
      let at = starts[i] + e;
      blocks[i] = mat4x4<f32>();
      if (e + inner < size) {
        if (part < QUADS) {
          blocks[i] = transpose(mat4x4(LEFT[at.x], LEFT[at.y], LEFT[at.z], LEFT[at.w]));
        } else if (part == QUADS) {
          blocks[i] = transpose(mat4x4(RIGHT[at.x], RIGHT[at.y], RIGHT[at.z], RIGHT[at.w]));
        }
      }
    }
    workgroupBarrier();
    @unroll for (var i = 0u; i < LOADS; i++) {
      let part = lane / 32u + i * 2u;
      if (part <= QUADS) {
        @unroll for (var t = 0u; t < 4u; t++) {
          shared_rows[part * 128u + (inner * 4u + t) * 8u + outer] = blocks[i][t];
        }
      }
    }
    workgroupBarrier();
    // The bound is not constant, so compilers do not unroll the outer loop, which would exceed the registers.
    let end = min(16u, (size - e) * 4u);
    for (var t4 = 0u; t4 < end; t4 += 4u) {
      @unroll for (var t = 0u; t < 4u; t++) {
        let right = shared_rows[QUADS * 128u + (t4 + t) * 8u + outer];
        @unroll for (var g = 0u; g < QUADS; g++) {
          let quad = lane / 8u * QUADS + g;
          let left = shared_rows[quad / 8u * 128u + (t4 + t) * 8u + quad % 8u];
          @unroll for (var r = 0u; r < 4u; r++) {
            (*s)[g * 4u + r] += left[r] * right;
          }
        }
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
  @unroll for (var g = 0u; g < QUADS; g++) {
    @unroll for (var j = 0u; j < 4u; j++) {
      shared_weights[((lane % 8u * 4u + j) * 8u + lane / 8u) * QUADS + g] =
        vec4((*w)[g * 4u][j], (*w)[g * 4u + 1u][j], (*w)[g * 4u + 2u][j], (*w)[g * 4u + 3u][j]);
    }
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
      var x: array<vec4<f32>, COLUMNS>;
      @unroll for (var c = 0u; c < COLUMNS; c++) {
        x[c] = shared_rows[(i4 + i) * 8u * COLUMNS + lane % 8u + c * 8u];
      }
      @unroll for (var g = 0u; g < QUADS; g++) {
        let weight = shared_weights[((i4 + i) * 8u + lane / 8u) * QUADS + g];
        @unroll for (var r = 0u; r < 4u; r++) {
          @unroll for (var c = 0u; c < COLUMNS; c++) {
            (*acc)[(g * 4u + r) * COLUMNS + c] += weight[r] * x[c];
          }
        }
      }
    }
  }
}

// The maximum of x over 8 neighbours, for each row, in each of them. The barriers of dot separate this from `add`.
fn rows_max(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  share(x, lane);
  @unroll for (var g = 0u; g < QUADS; g++) {
    var all = shared_weights[lane * QUADS + g];
    @unroll for (var i = 0u; i < 8u; i++) {
      all = max(all, shared_weights[(lane / 8u * 8u + i) * QUADS + g]);
    }
    @unroll for (var r = 0u; r < 4u; r++) {
      (*x)[g * 4u + r] = all[r];
    }
  }
}

// The sum of x over 8 neighbours, for each row, in each of them.
fn rows_sum(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  workgroupBarrier(); // `add` has read
  share(x, lane);
  @unroll for (var g = 0u; g < QUADS; g++) {
    var all = vec4(0.0);
    @unroll for (var i = 0u; i < 8u; i++) {
      all += shared_weights[(lane / 8u * 8u + i) * QUADS + g];
    }
    @unroll for (var r = 0u; r < 4u; r++) {
      (*x)[g * 4u + r] = all[r];
    }
  }
}

fn share(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  @unroll for (var g = 0u; g < QUADS; g++) {
    shared_weights[lane * QUADS + g] = vec4((*x)[g * 4u], (*x)[g * 4u + 1u], (*x)[g * 4u + 2u], (*x)[g * 4u + 3u]);
  }
  workgroupBarrier();
}
