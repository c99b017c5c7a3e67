// y[o] = x[i] where o = start + i * step on every axis, else value. Bits move, whatever the dtype.
// 1 x: any strides, in V (one word, or four neighbours); 2 y: row-major, in V.
// A workgroup computes 64 elements of y, an invocation one.
// At most 8 axes, innermost first, two vec4 each: (start, size, step, size in x), (stride in x).
// Twin: Pad::reference in src/ops/pad.rs.

alias V = u32;

struct Dims {
  count: u32,
  rank: u32,
  offset: u32,
  value: u32,
  axes: array<vec4<u32>, 16>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

@compute @workgroup_size(64)
fn pad(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let o = (wid.y * grid.x + wid.x) * 64u + lid;
  if (o >= d.count) {
    return;
  }
  var rest = o;
  var at = d.offset;
  var inside = true;
  for (var axis = 0u; axis < d.rank; axis++) {
    let to = d.axes[2u * axis]; // start, size, step, size in x
    let index = rest % to.y;
    rest /= to.y;
    let i = (index - to.x) / to.z;
    // Below the start the difference wraps to a large number, which no index of x reaches.
    inside = inside && index >= to.x && i * to.z == index - to.x && i < to.w;
    at += i * d.axes[2u * axis + 1u].x;
  }
  var v = V(d.value);
  if (inside) {
    v = x[at];
  }
  y[o] = v;
}
