// y[o] = x[i] if o = start + i * step on every axis, else value. Copies bits, whatever the dtype.
// 1 x: any strides, in V (one word, or four neighbours); 2 y: row-major, in V.
// An invocation computes `chunk` consecutive elements of a row of y (its innermost axis), a workgroup 64 chunks.
// At most 8 axes, innermost first, two vec4 each: (start, size, step, size in x), (stride in x).
// Reference: Pad::reference in src/ops/pad.rs.

const STEPS: bool = true; // whether some step is not 1
alias V = u32;

struct Dims {
  chunks: u32, // in y
  row_chunks: u32, // per row
  chunk: u32,
  rank: u32,
  offset: u32,
  value: u32,
  pad0: u32,
  pad1: u32,
  axes: array<vec4<u32>, 16>,
}

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<V>;
@group(0) @binding(2) var<storage, read_write> y: array<V>;

// The index in x of the element at `index` of y on this axis; at least the size in x if there is none.
fn source(axis: u32, index: u32) -> u32 {
  let to = d.axes[2u * axis]; // start, size, step, size in x
  if (!STEPS) {
    // Below the start, the difference wraps to a number larger than any index of x.
    return index - to.x;
  }
  let i = (index - to.x) / to.z;
  return select(0xffffffffu, i, index >= to.x && i * to.z == index - to.x);
}

@compute @workgroup_size(64)
fn pad(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group_number(group, groups) * 64u + lane;
  if (number >= d.chunks) {
    return;
  }
  let row = number / d.row_chunks;
  let first = (number - row * d.row_chunks) * d.chunk;
  var rest = row;
  var inside = true;
  var base = d.offset;
  for (var axis = 1u; axis < d.rank; axis++) {
    let outer = rest / d.axes[2u * axis].y;
    let i = source(axis, rest - outer * d.axes[2u * axis].y);
    inside = inside && i < d.axes[2u * axis].w;
    base += i * d.axes[2u * axis + 1u].x;
    rest = outer;
  }
  let size = d.axes[0].y;
  let end = select(0u, d.axes[0].w, inside);
  for (var o = first; o < min(first + d.chunk, size); o++) {
    let i = source(0u, o);
    var v = V(d.value);
    if (i < end) {
      v = x[base + i * d.axes[1].x];
    }
    y[row * size + o] = v;
  }
}
