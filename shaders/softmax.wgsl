// y[k] = exp(x[k] - m) / s with m = max_j x[j], s = sum_j exp(x[j] - m); LOG: x[k] - m - log(s).
// 1 x, 2 y: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes 64 rows, an invocation one (or four, one per vec4 component).
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes_*) or in four rows.
// Twin: Softmax::reference in src/ops/softmax.rs.

const LOG: bool = false;
const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs
alias V = f32;

struct Dims { rows: u32, size: u32, inner: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

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

@compute @workgroup_size(64)
fn softmax(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let row = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (row >= d.rows) {
    return;
  }
  let start = row / d.inner * d.size * d.inner + row % d.inner;
  var m = x[start];
  for (var k = 1u; k < d.size; k++) {
    m = max(m, x[start + k * d.inner]);
  }
  m = lanes_max(m);
  var s = V(0.0);
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = V(0.0);
    for (; k < stop; k++) {
      let at = start + k * d.inner;
      let e = exp_of(x[at] - m);
      run += e;
      if (!LOG) {
        y[at] = e; // recomputing exp costs more than rereading y
      }
    }
    s += run;
  }
  s = lanes_sum(s);
  let shift = keep_nan(s, log(s));
  let scale = 1.0 / s;
  for (var k = 0u; k < d.size; k++) {
    let at = start + k * d.inner;
    if (LOG) {
      y[at] = (x[at] - m) - shift;
    } else {
      y[at] *= scale;
    }
  }
}
