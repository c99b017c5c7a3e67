// y[line, j] = sum over k <= j of x[line, k]; with `reverse`, over k >= j.
// 1 x: contiguous T [lines, size]; 2 y: as x.
// A workgroup processes a line, THREADS * HELD elements at a time: each invocation adds up HELD neighbours, then the
// sums of the invocations are added up in log2(THREADS) steps (Hillis and Steele, Data Parallel Algorithms, 1986).
// Surplus workgroups do nothing. Requires size <= 65,536: errors grow with the number of iterations.
// Reference: CumSum::reference in src/ops/cumsum.rs.

alias T = f32;
const THREADS: u32 = 256u; // or 128
const HELD: u32 = 4u;

struct Params { lines: u32, size: u32, reverse: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

// The sums of the invocations, read from one half and written to the other.
var<workgroup> sums: array<T, 2u * THREADS>;

// The position of element k in the order of the sums.
fn place(line: u32, k: u32) -> u32 {
  return line * p.size + select(k, p.size - 1u - k, p.reverse != 0u);
}

@compute @workgroup_size(THREADS)
fn cumsum_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let line = group_number(group, groups);
  if (line >= p.lines) { return; } // uniform in the workgroup
  var before = T(0);
  for (var first = 0u; first < p.size; first += THREADS * HELD) {
    let own = first + lane * HELD;
    var held = array<T, HELD>();
    var sum = T(0);
    @unroll for (var i = 0u; i < HELD; i++) {
      if (own + i < p.size) { sum += x[place(line, own + i)]; }
      held[i] = sum;
    }
    workgroupBarrier(); // the previous iteration has read
    sums[lane] = sum;
    var side = 0u;
    for (var by = 1u; by < THREADS; by *= 2u) {
      workgroupBarrier();
      var total = sums[side + lane];
      if (lane >= by) { total = sums[side + lane - by] + total; }
      side = THREADS - side;
      sums[side + lane] = total;
    }
    workgroupBarrier();
    var start = before;
    if (lane > 0u) { start += sums[side + lane - 1u]; }
    @unroll for (var i = 0u; i < HELD; i++) {
      if (own + i < p.size) { y[place(line, own + i)] = start + held[i]; }
    }
    before += sums[side + THREADS - 1u];
  }
}
