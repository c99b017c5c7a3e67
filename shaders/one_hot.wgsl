// y[n, c] = epilogue(1 if index[n] = c, else 0).
// 1 index: [N], i32 or u32 bits; 2 y: [N, C] row-major.
// An invocation computes `chunk` consecutive elements of y, a workgroup 64 chunks.
// A row whose index is out of range becomes NaN and sets the status to 1.
// Reference: OneHot::reference in src/ops/one_hot.rs.

struct Dims { count: u32, classes: u32, chunk: u32, nan: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn one_hot(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = (group_number(group, groups) * 64u + lane) * d.chunk;
  let end = min(first + d.chunk, d.count);
  for (var i = first; i < end; i++) {
    let row = i / d.classes;
    let hit = index[row];
    var v = select(0.0, 1.0, i - row * d.classes == hit);
    if (hit >= d.classes) {
      v = bitcast<f32>(d.nan);
      atomicStore(&status[0], 1u);
    }
    y[i] = epilogue(v, i);
  }
}
