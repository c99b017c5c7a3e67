// y[i] = x[i], or the sum of two elements of x. Measures the bandwidth of reading and writing.
// Bindings: 0 p; 1 x; 2 y, arrays of T. One invocation writes EACH elements, SIZE apart, so that
// neighbours write neighbours.
// Expected result: bench::peak::Memory::written.

alias T = vec4<f32>;
const EACH: u32 = 4u;
const SIZE: u32 = 64u;

struct Params { n: u32 } // elements of T

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

// Whether to add a second operand, n elements after the first.
const ADD: bool = false;

fn source(i: u32) -> T {
  @if(ADD) return x[i] + x[p.n + i];
  @else return x[i];
}

@compute @workgroup_size(SIZE)
fn peak_copy(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let linear = group_number(group, groups);
  let first = linear * SIZE * EACH + local.x;
  @unroll for (var k = 0u; k < EACH; k++) {
    let i = first + k * SIZE;
    if (i < p.n) {
      y[i] = source(i);
    }
  }
}
