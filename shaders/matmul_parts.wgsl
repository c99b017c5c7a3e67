// y[i] = epilogue(sum over s of part[s, i]): the parts of a product whose sum over k was cut.
// Bindings: 0 Params, 1 part [parts, count], 2 y [count].
// One invocation computes one element; 64 of them are a workgroup.
// Surplus invocations do nothing.
// Twin: Matmul::reference in src/ops/matmul.rs.

struct Params { count: u32, parts: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 { return v; }

@compute @workgroup_size(64)
fn matmul_parts(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = ((group.z * groups.y + group.y) * groups.x + group.x) * 64u + lane;
  if (i >= p.count) { return; }
  var sum = 0.0;
  for (var s = 0u; s < p.parts; s++) {
    sum += part[s * p.count + i];
  }
  y[i] = epilogue(sum, i);
}
