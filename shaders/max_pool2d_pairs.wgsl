// y[window] = the maximum of x in the window (NaN if it contains one), for adjacent 2x2 windows, rows of vec2.
// x [planes, H, W / 2] of vec2, y [planes, OH, OW], contiguous; no padding.
// One invocation computes one window. Appended: max_pool2d_pair.wgsl and pool2d.wgsl.
// Twin: max_pool2d in src/ops/pool2d/reference.rs.

@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn max_pool2d_pairs(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let at = upper_of(i);
  let upper = x[at];
  let lower = x[at + s.columns];
  let column = select(upper, lower, lower > upper);
  let largest = select(column.x, column.y, column.y > column.x);
  // The largest magnitude, as bits: NaN if any element is NaN.
  let bits = max(bitcast<vec2<u32>>(upper) & vec2(MAGNITUDE_BITS), bitcast<vec2<u32>>(lower) & vec2(MAGNITUDE_BITS));
  let magnitude = max(bits.x, bits.y);
  y[i] = epilogue(select(largest, bitcast<f32>(magnitude), magnitude > INFINITY_BITS), i);
}

