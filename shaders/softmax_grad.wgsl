// dx[k] = y[k] (dy[k] - s) with s = sum_j y[j] dy[j]; LOG: dx[k] = dy[k] - exp(y[k]) s, s = sum_j dy[j].
// 1 y, 2 dy, 3 dx: [outer, size, inner] row-major, a row per (outer, inner), in V.
// A workgroup computes 64 rows, an invocation one (or four, one per vec4 component).
// V is f32, or vec4<f32> of four neighbours in one row (reduced by lanes_sum) or in four rows.
// Twin: SoftmaxGrad::reference in src/ops/softmax.rs.

const LOG: bool = false;
const RUN: u32 = 64u; // elements added sequentially: errors grow with RUN and the number of runs
alias V = f32;

struct Dims { rows: u32, size: u32, inner: u32, pad0: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> y: array<V>;
@group(0) @binding(2) var<storage, read> dy: array<V>;
@group(0) @binding(3) var<storage, read_write> dx: array<V>;

// y, or NaN if x is: a driver's exp and log may turn NaN into a number.
fn keep_nan(x: V, y: V) -> V {
  return nan_or(x, y);
}

fn exp_of(x: V) -> V {
  return keep_nan(x, exp(x));
}

fn lanes_sum(v: V) -> V {
  return v;
}

@compute @workgroup_size(64)
fn softmax_grad(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let row = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (row >= d.rows) {
    return;
  }
  let start = row / d.inner * d.size * d.inner + row % d.inner;
  var s = V(0.0);
  for (var k = 0u; k < d.size;) {
    let stop = min(k + RUN, d.size);
    var run = V(0.0);
    for (; k < stop; k++) {
      let at = start + k * d.inner;
      if (LOG) {
        run += dy[at];
      } else {
        run += y[at] * dy[at];
      }
    }
    s += run;
  }
  s = lanes_sum(s);
  for (var k = 0u; k < d.size; k++) {
    let at = start + k * d.inner;
    if (LOG) {
      dx[at] = dy[at] - exp_of(y[at]) * s;
    } else {
      dx[at] = y[at] * (dy[at] - s);
    }
  }
}
