// Products and reductions of the attention kernels with tiles in workgroup memory.
// 64 invocations share 32 or 64 rows; 8 of them have the same 4 or 8 (ROWS). 12 to 25 KiB of workgroup memory.

import package::attention_operands::{BLOCK, COLUMNS, p, QUADS, ROWS, rows_of, SCORES};

// 4 x 4 blocks that an invocation loads for 16 elements of both operands of a dot product.
const LOADS: u32 = (QUADS + SCORES + 1u) / 2u;
// Rows at a time in add, and quads of these that an invocation loads.
@if(COLUMNS == 4)
const ADDED_ROWS: u32 = 16u;
@else
const ADDED_ROWS: u32 = 32u;
const ADDED_QUADS: u32 = ADDED_ROWS * COLUMNS / 32u;

// In dot, two vec4 of padding follow each four elements, so that 8 neighbours, which load 16 elements of two quads of
// rows, store in different banks of workgroup memory.
const ELEMENTS_LEFT: u32 = 32u * QUADS + 2u;
const ELEMENTS_RIGHT: u32 = 32u * SCORES + 2u;
// Start of RIGHT.
const START: u32 = 4u * ELEMENTS_LEFT;
@if(QUADS + SCORES == 4)
const SHARED: u32 = 528u;
@else
const SHARED: u32 = 512u;

// In dot: [16 elements, 8 QUADS x 4 rows] of LEFT, then of RIGHT with 8 SCORES x 4 rows; in add:
// ADDED[ADDED_ROWS, 8 COLUMNS].
var<workgroup> shared_rows: array<vec4<f32>, SHARED>;
// The number of scores of each row whose weights are in workgroup memory at a time: 32, or all if `recall` loads them.
const RECALLED: bool = false;
@if(RECALLED)
const KEPT: u32 = BLOCK;
@else
const KEPT: u32 = 32u;
// w[KEPT, 8 QUADS x 4 rows], see weights_at; in rows_max and rows_sum: x[64, QUADS].
var<workgroup> shared_weights: array<vec4<f32>, KEPT * 8u * QUADS>;

// An NVIDIA multiprocessor takes 2 cycles, not 4, to read 32 vec4 from workgroup memory if neighbours at distance 1, or
// all those at distance 2, read the same. So bit 0 of the invocation's number belongs to the group and bit 1 to the
// place in the group.
fn group_of(lane: u32) -> u32 { return (lane & 1u) | ((lane >> 3u) & 6u); }
fn place_of(lane: u32) -> u32 { return lane / 2u % 8u; }

// Row r of an invocation, in the tile.
fn row_of(lane: u32, r: u32) -> u32 { return (r / 4u * 8u + group_of(lane)) * 4u + r % 4u; }

// The square of 32 rows, and the quad in it, of quad g of an invocation's rows.
fn quad_of(tile: u32, lane: u32, g: u32) -> vec2<u32> { return vec2(tile / 32u + g, group_of(lane)); }

// s[r] += the dot products of row `row + row_of(lane, r)` of LEFT and rows columns_at(column, place, h) of RIGHT.
@template(LEFT, RIGHT)
fn dot_LEFT_RIGHT(s: ptr<function, array<vec4<f32>, ROWS * SCORES>>, b: u32, row: u32, column: u32, lane: u32) {
  let size = p.LEFT.width;
  let group = group_of(lane);
  let place = place_of(lane);
  // 32 invocations load 32 rows in 4 x 4 blocks: first those of LEFT, then those of RIGHT. Four neighbours load 16
  // elements of the same rows.
  let inner = lane % 4u;
  let outer = lane / 4u % 8u;
  var starts: array<vec4<u32>, LOADS>;
  @unroll for (var i = 0u; i < LOADS; i++) {
    let part = lane / 32u % 2u + i * 2u;
    if (part < QUADS) {
      starts[i] = rows_of(p.LEFT, b, row + (part * 8u + outer) * 4u) + inner;
    } else {
      starts[i] = rows_of(p.RIGHT, b, column + ((part - QUADS) * 8u + outer) * 4u) + inner;
    }
  }
  var blocks: array<mat4x4<f32>, LOADS>;
  for (var e = 0u; ; e += 4u) {
    // Loads blocks while it multiplies the previous ones.
    if (e + inner < size) {
      @unroll for (var i = 0u; i < LOADS; i++) {
        let part = lane / 32u % 2u + i * 2u;
        let at = starts[i] + e;
        if (part < QUADS) {
          blocks[i] = transpose(mat4x4(LEFT[at.x], LEFT[at.y], LEFT[at.z], LEFT[at.w]));
        } else if (part < QUADS + SCORES) {
          blocks[i] = transpose(mat4x4(RIGHT[at.x], RIGHT[at.y], RIGHT[at.z], RIGHT[at.w]));
        }
      }
    }
    // The number of quads of elements is not constant, so compilers do not unroll the outer loop, which would exceed
    // the registers.
    let quads = select(0u, min(4u, size + 4u - e), e > 0u);
    for (var quad = 0u; quad < quads; quad++) {
      @unroll for (var t = 0u; t < 4u; t++) {
        var right = array<vec4<f32>, SCORES>();
        @unroll for (var h = 0u; h < SCORES; h++) {
          right[h] = shared_rows[START + quad * ELEMENTS_RIGHT + (t * SCORES + h) * 8u + place];
        }
        @unroll for (var g = 0u; g < QUADS; g++) {
          let left = shared_rows[quad * ELEMENTS_LEFT + (t * QUADS + g) * 8u + group];
          @unroll for (var r = 0u; r < 4u; r++) {
            @unroll for (var h = 0u; h < SCORES; h++) {
              (*s)[(g * 4u + r) * SCORES + h] += left[r] * right[h];
            }
          }
        }
      }
    }
    if (e >= size) { break; }
    workgroupBarrier();
    @unroll for (var i = 0u; i < LOADS; i++) {
      let part = lane / 32u % 2u + i * 2u;
      @unroll for (var t = 0u; t < 4u; t++) {
        if (part < QUADS) {
          shared_rows[inner * ELEMENTS_LEFT + (t * QUADS + part) * 8u + outer] = blocks[i][t];
        } else if (part < QUADS + SCORES) {
          shared_rows[START + inner * ELEMENTS_RIGHT + (t * SCORES + part - QUADS) * 8u + outer] = blocks[i][t];
        }
      }
    }
    workgroupBarrier();
  }
}

// The place of the weights of a quad of the kept scores, for `group` of the rows of the result; the next score is
// 8 QUADS further. The exclusive or spreads the stores of neighbours over the banks of the memory. (The remainder does
// not change the number. It shows NVIDIA's compiler that adding a constant cannot overflow: the load can then add it.)
fn weights_at(quad: u32, group: u32) -> u32 {
  return (quad * 32u * QUADS + (group ^ (quad % 4u * 2u))) % (KEPT * 8u * QUADS);
}

// Stores the weights of 32 scores in workgroup memory, vec4 `part` of each invocation, for `add` or `recall`. The barriers
// of dot and add separate this from earlier reads.
fn keep(w: ptr<function, array<vec4<f32>, ROWS * SCORES>>, part: u32, lane: u32) {
  @unroll for (var h = 0u; h < SCORES; h++) {
    if (h == part) {
      let at = weights_at(h * 8u % (KEPT / 4u) + place_of(lane), group_of(lane));
      @unroll for (var j = 0u; j < 4u; j++) {
        @unroll for (var g = 0u; g < QUADS; g++) {
          let r = g * 4u * SCORES + h;
          shared_weights[at + (j * QUADS + g) * 8u] =
            vec4((*w)[r][j], (*w)[r + SCORES][j], (*w)[r + 2u * SCORES][j], (*w)[r + 3u * SCORES][j]);
        }
      }
    }
  }
}

// Loads the weights that the invocation has stored, so that they need no registers between. Requires that all are kept.
fn recall(w: ptr<function, array<vec4<f32>, ROWS * SCORES>>, lane: u32) {
  @unroll for (var h = 0u; h < SCORES; h++) {
    let at = weights_at(h * 8u + place_of(lane), group_of(lane));
    @unroll for (var j = 0u; j < 4u; j++) {
      @unroll for (var g = 0u; g < QUADS; g++) {
        let x = shared_weights[at + (j * QUADS + g) * 8u];
        @unroll for (var r = 0u; r < 4u; r++) {
          (*w)[(g * 4u + r) * SCORES + h][j] = x[r];
        }
      }
    }
  }
}

// acc[r] += sum over i < BLOCK of w[r, i] * row `column + i` of ADDED, from its vec4 `chunk` on.
@template(ADDED)
fn add_ADDED(
  acc: ptr<function, array<vec4<f32>, ROWS * COLUMNS>>, w: ptr<function, array<vec4<f32>, ROWS * SCORES>>,
  b: u32, column: u32, chunk: u32, lane: u32,
) {
  let group = group_of(lane);
  let place = place_of(lane);
  let own = lane % (8u * COLUMNS);
  let nearest = min(chunk + own, p.ADDED.width - 1u);
  var rows: array<vec4<f32>, 8>;
  for (var first = 0u; ; first += ADDED_ROWS) {
    // Loads rows while it multiplies the previous ones.
    if (first < BLOCK) {
      @unroll for (var i = 0u; i < ADDED_QUADS; i++) {
        let quad = lane / (8u * COLUMNS) + i * (8u / COLUMNS);
        let at = rows_of(p.ADDED, b, column + first + quad * 4u) + nearest;
        @unroll for (var j = 0u; j < 4u; j++) {
          rows[i * 4u + j] = ADDED[at[j]];
        }
      }
    }
    let quads = select(0u, ADDED_ROWS / 4u, first > 0u);
    for (var quad = 0u; quad < quads; quad++) {
      let weights = weights_at((first - ADDED_ROWS) / 4u % (KEPT / 4u) + quad, group);
      @unroll for (var i = 0u; i < 4u; i++) {
        var x = array<vec4<f32>, COLUMNS>();
        @unroll for (var c = 0u; c < COLUMNS; c++) {
          x[c] = shared_rows[quad * 32u * COLUMNS + (i * COLUMNS + c) * 8u + place];
        }
        @unroll for (var g = 0u; g < QUADS; g++) {
          let weight = shared_weights[weights + (i * QUADS + g) * 8u];
          @unroll for (var r = 0u; r < 4u; r++) {
            @unroll for (var c = 0u; c < COLUMNS; c++) {
              (*acc)[(g * 4u + r) * COLUMNS + c] += weight[r] * x[c];
            }
          }
        }
      }
    }
    if (first == BLOCK) { break; }
    workgroupBarrier();
    if (first % 32u == 0u) { keep(w, first / 32u, lane); }
    @unroll for (var i = 0u; i < ADDED_QUADS; i++) {
      let quad = lane / (8u * COLUMNS) + i * (8u / COLUMNS);
      @unroll for (var j = 0u; j < 4u; j++) {
        shared_rows[(quad * 4u + j) * 8u * COLUMNS + own] = rows[i * 4u + j];
      }
    }
    workgroupBarrier();
  }
}

// The maximum of x over the 8 invocations of a group, for each row, in each of them. The barriers of dot separate this
// from `add`.
fn rows_max(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  share(x, lane);
  @unroll for (var g = 0u; g < QUADS; g++) {
    var all = shared_weights[group_of(lane) * 8u * QUADS + g];
    @unroll for (var i = 0u; i < 8u; i++) {
      all = max(all, shared_weights[(group_of(lane) * 8u + i) * QUADS + g]);
    }
    @unroll for (var r = 0u; r < 4u; r++) {
      (*x)[g * 4u + r] = all[r];
    }
  }
}

// The sum of x over the 8 invocations of a group, for each row, in each of them.
fn rows_sum(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  workgroupBarrier(); // `add` has read
  share(x, lane);
  @unroll for (var g = 0u; g < QUADS; g++) {
    var all = vec4(0.0);
    @unroll for (var i = 0u; i < 8u; i++) {
      all += shared_weights[(group_of(lane) * 8u + i) * QUADS + g];
    }
    @unroll for (var r = 0u; r < 4u; r++) {
      (*x)[g * 4u + r] = all[r];
    }
  }
}

fn share(x: ptr<function, array<f32, ROWS>>, lane: u32) {
  @unroll for (var g = 0u; g < QUADS; g++) {
    shared_weights[(group_of(lane) * 8u + place_of(lane)) * QUADS + g] =
      vec4((*x)[g * 4u], (*x)[g * 4u + 1u], (*x)[g * 4u + 2u], (*x)[g * 4u + 3u]);
  }
  workgroupBarrier();
}
