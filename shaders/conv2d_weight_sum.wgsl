// dweight[o, c, t] = sum over k of partial[k, t / fold, c, t % fold, o], in order of k.
// dweight [O, C / groups, KH KW] contiguous; partial has the strides of the uniform, in elements.
// One invocation adds one element's `splits` partial sums (under 16,000).
// Twin: the second half of conv2d_weight_grad in src/ops/conv2d/reference.rs.

struct Sum {
  count: u32, splits: u32, channels: u32, taps: u32, fold: u32,
  split_stride: u32, o_stride: u32, c_stride: u32, u_stride: u32, v_stride: u32,
}
@group(0) @binding(0) var<uniform> s: Sum;
@group(0) @binding(1) var<storage, read> partial_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn conv2d_weight_sum(
  @builtin(workgroup_id) wid: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) lid: u32,
) {
  let i = ((wid.z * grid.y + wid.y) * grid.x + wid.x) * 64u + lid;
  if (i >= s.count) { return; }
  let t = i % s.taps;
  let oc = i / s.taps;
  let o = oc / s.channels;
  let c = oc % s.channels;
  var at = o * s.o_stride + c * s.c_stride + t / s.fold * s.u_stride + t % s.fold * s.v_stride;
  var sum = 0.0;
  for (var k = 0u; k < s.splits; k++) {
    sum += partial_sums[at];
    at += s.split_stride;
  }
  dweight[i] = epilogue(sum, i);
}
