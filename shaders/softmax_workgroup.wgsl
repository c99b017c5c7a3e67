// y[k] = exp(x[k] - m) / s with m = max_j x[j], s = sum_j exp(x[j] - m); LOG: x[k] - m - log(s).
// 1 x, 2 y: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes one row (or four, one per vec4 component), an invocation every THREADS-th element. HELD of them
// stay in registers; the rest of longer rows is read again.
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes_*) or in four rows.
// Twin: Softmax::reference in src/ops/softmax.rs.

const THREADS: u32 = 256u; // or 128
const HELD: u32 = 4u;
const RUN: u32 = 64u; // elements that an invocation adds sequentially
const LOG: bool = false;
alias V = f32;

struct Dims { rows: u32, size: u32, inner: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

var<workgroup> tree: array<V, THREADS>;

// y, or NaN if x is: a driver's exp and log may turn NaN into a number.
fn keep_nan(x: V, y: V) -> V {
  return nan_or(x, y);
}

fn exp_of(x: V) -> V {
  return keep_nan(x, exp(x));
}

fn lanes_max(v: V) -> V {
  return v;
}

fn lanes_sum(v: V) -> V {
  return v;
}

fn tree_max(lid: u32, v: V) -> V {
  tree[lid] = v;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      tree[lid] = max(tree[lid], tree[lid + half]);
    }
  }
  workgroupBarrier();
  let joined = tree[0];
  workgroupBarrier(); // before the tree is overwritten
  return joined;
}

fn tree_sum(lid: u32, v: V) -> V {
  tree[lid] = v;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lid < half) {
      tree[lid] += tree[lid + half];
    }
  }
  workgroupBarrier();
  return tree[0];
}

@compute @workgroup_size(THREADS)
fn softmax_workgroup(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  // Surplus workgroups recompute the last row without storing it.
  let number = (wid.z * grid.y + wid.y) * grid.x + wid.x;
  let row = min(number, d.rows - 1u);
  let end = select(0u, d.size, number < d.rows);
  let start = row / d.inner * d.size * d.inner + row % d.inner;
  var held: array<V, HELD>;
  var m = x[start];
  for (var h = 0u; h < HELD; h++) { // unroll
    if (lid + h * THREADS < end) {
      held[h] = x[start + (lid + h * THREADS) * d.inner];
      m = max(m, held[h]);
    }
  }
  for (var k = lid + HELD * THREADS; k < end; k += THREADS) {
    m = max(m, x[start + k * d.inner]);
  }
  m = lanes_max(tree_max(lid, m));
  var s = V(0.0);
  for (var h = 0u; h < HELD; h++) { // unroll
    if (lid + h * THREADS < end) {
      held[h] -= m;
      let e = exp_of(held[h]);
      s += e;
      if (!LOG) {
        held[h] = e;
      }
    }
  }
  for (var k = lid + HELD * THREADS; k < end;) {
    let stop = min(k + RUN * THREADS, end);
    var run = V(0.0);
    for (; k < stop; k += THREADS) {
      run += exp_of(x[start + k * d.inner] - m);
    }
    s += run;
  }
  s = lanes_sum(tree_sum(lid, s));
  let shift = keep_nan(s, log(s));
  let scale = 1.0 / s;
  for (var h = 0u; h < HELD; h++) { // unroll
    if (lid + h * THREADS < end) {
      y[start + (lid + h * THREADS) * d.inner] = select(held[h] * scale, held[h] - shift, LOG);
    }
  }
  for (var k = lid + HELD * THREADS; k < end; k += THREADS) {
    let at = start + k * d.inner;
    if (LOG) {
      y[at] = (x[at] - m) - shift;
    } else {
      y[at] = exp_of(x[at] - m) * scale;
    }
  }
}
