// states[slot] = start: the initial state in the slot before the first step.
// 1 start: [B, H]; 2 states: [T + 1, B, H]; p.from_slot is the slot.
// An invocation copies one element, a workgroup 64.
// Surplus invocations do nothing.
// Reference: forward in src/ops/recurrent/reference.rs.

import package::recurrent_places::{p};

@group(0) @binding(1) var<storage, read> start: array<f32>;
@group(0) @binding(2) var<storage, read_write> states: array<f32>;

@compute @workgroup_size(64)
fn recurrent_start(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group_number(group, groups) * 64u + lane;
  let count = p.batch * p.hidden;
  if (i < count) {
    states[p.from_slot * count + i] = start[i];
  }
}
