// y[k] = epilogue((x[k] - m) r), r = 1 / sqrt(v + eps), with m and v the row's mean and biased variance; without
// CENTERED m = 0, and v is the mean square. 1 x, 2 y: [rows, size] in V; 3 stats: [2, rows], m and v.
// A workgroup computes one row, an invocation every THREADS-th element. HELD of them stay in registers; the rest of
// longer rows is read again. V is f32, or vec4<f32> of four neighbours (reduced by `lanes`).
// Twin: Normalize::reference in src/ops/norm.rs.

const THREADS: u32 = 256u; // or 128
const HELD: u32 = 4u;
const RUN: u32 = 64u; // elements that an invocation adds sequentially
const CENTERED: bool = true;
alias V = f32;

struct Dims { rows: u32, size: u32, n: f32, eps: f32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;
@group(0) @binding(3) var<storage, read_write> stats: array<f32>;

var<workgroup> tree: array<vec2<f32>, THREADS>;

fn lanes(v: V) -> f32 {
  return v;
}

fn epilogue(v: f32, i: u32) -> f32 { return v; }

fn store(i: u32, v: V) {
  y[i] = epilogue(v, i);
}

fn total(lid: u32, v: vec2<f32>) -> vec2<f32> {
  tree[lid] = v;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      tree[lid] += tree[lid + half];
    }
  }
  workgroupBarrier();
  let joined = tree[0];
  workgroupBarrier(); // before the tree is overwritten
  return joined;
}

@compute @workgroup_size(THREADS)
fn norm_workgroup(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  // Surplus workgroups do nothing, but reach every barrier.
  let row = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let end = select(0u, d.size, row < d.rows);
  let start = row * d.size;
  var held: array<V, HELD>;
  var sum = V(0.0);
  for (var h = 0u; h < HELD; h++) { // unroll
    held[h] = V(0.0);
    if (lid + h * THREADS < end) {
      held[h] = x[start + lid + h * THREADS];
    }
    sum += held[h];
  }
  var mean = 0.0;
  if (CENTERED) {
    for (var k = lid + HELD * THREADS; k < end;) {
      let stop = min(k + RUN * THREADS, end);
      var run = V(0.0);
      for (; k < stop; k += THREADS) {
        run += x[start + k];
      }
      sum += run;
    }
    mean = total(lid, vec2<f32>(lanes(sum), 0.0)).x / d.n;
  }
  // The residual mean (rounding error of the mean) corrects both the mean and the variance.
  var rest = V(0.0);
  var squares = V(0.0);
  for (var h = 0u; h < HELD; h++) { // unroll
    if (lid + h * THREADS < end) {
      let c = held[h] - V(mean);
      rest += c;
      squares += c * c;
    }
  }
  for (var k = lid + HELD * THREADS; k < end;) {
    let stop = min(k + RUN * THREADS, end);
    var run = V(0.0);
    var run_squares = V(0.0);
    for (; k < stop; k += THREADS) {
      let c = x[start + k] - V(mean);
      run += c;
      run_squares += c * c;
    }
    rest += run;
    squares += run_squares;
  }
  let moments = total(lid, vec2<f32>(lanes(rest), lanes(squares))) / d.n;
  var v = moments.y;
  if (CENTERED) {
    mean += moments.x;
    v = max(v - moments.x * moments.x, 0.0);
  }
  if (lid < 2u && row < d.rows) {
    stats[lid * d.rows + row] = select(mean, v, lid == 1u);
  }
  let r = inverseSqrt(v + d.eps);
  for (var h = 0u; h < HELD; h++) { // unroll
    if (lid + h * THREADS < end) {
      store(start + lid + h * THREADS, (held[h] - V(mean)) * r);
    }
  }
  for (var k = lid + HELD * THREADS; k < end; k += THREADS) {
    store(start + k, (x[start + k] - V(mean)) * r);
  }
}
