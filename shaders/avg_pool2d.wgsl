// y[window] = sum of x over the window / divisor
// x [planes, H, W], y [planes, OH, OW], contiguous; padding counts as zero, and in the divisor if `include` is 1.
// One invocation computes one window. Appended: pool2d.wgsl.
// Requires padding of at most half a window, so that every window covers an element, and KH KW under 16,000.
// Twin: avg_pool2d in src/ops/pool2d/reference.rs.

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn avg_pool2d(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let window = place_of(i);
  let plane = origin(window.z);
  let top = window.y * SY;
  let left = window.x * SX;
  var sum = 0.0;
  var elements = 0u;
  for (var u = 0u; u < KH; u++) { // unroll
    for (var v = 0u; v < KW; v++) { // unroll
      if (inside(top + u, left + v)) {
        sum += x[plane + (top + u) * s.w + left + v];
        elements++;
      }
    }
  }
  let divisor = select(elements, KH * KW, s.include == 1u);
  y[i] = epilogue(sum / f32(divisor), i);
}

