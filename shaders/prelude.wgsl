// Declarations that every kernel sees without an import.

// The number of this workgroup. The host folds a grid that exceeds the limit of one dimension into two or three, which
// may have more workgroups than the kernel needs.
fn group_number(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return (group.z * groups.y + group.y) * groups.x + group.x;
}

// The prologue slot: the element that the kernel processes in place of v, element i of its first input. The plan
// replaces this function by the pointwise ops that it fuses into the kernel.
fn prologue(v: f32, i: u32) -> f32 { return v; }

// The same for the four consecutive elements from i, a multiple of 4.
fn prologue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }

// The epilogue slot: the element that is stored at i in place of v. The plan replaces this function by the pointwise
// ops that it fuses into the kernel.
fn epilogue(v: f32, i: u32) -> f32 { return v; }

// The same for the four consecutive elements from i, a multiple of 4.
fn epilogue4(v: vec4<f32>, i: u32) -> vec4<f32> { return v; }
