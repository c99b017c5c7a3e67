// variable[i] = source[i] for i < n; writes nothing if the status says that the step has failed.
// Commits a step whose indices are computed on the device; see Commit in src/plan.rs.

struct Dims { n: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> variable: array<u32>;
@group(0) @binding(3) var<storage, read_write> status: array<atomic<u32>, 4>;

@compute @workgroup_size(64)
fn commit(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  if (i < d.n && atomicLoad(&status[0]) == 0u) {
    variable[i] = source[i];
  }
}
