// y[i] = sum of the EACH elements of x that invocation i reads. Measures the bandwidth of reading.
// Bindings: 0 p; 1 x, an array of T; 2 y, one float per invocation. Elements are SIZE apart, so that
// neighbours read neighbours.
// Expected result: bench::peak::read_sums.

alias T = vec4<f32>;
const EACH: u32 = 16u;
const SIZE: u32 = 64u;

struct Params { n: u32 } // elements of T

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn total(v: T) -> f32 {
  @if(T == f32) return v;
  @else return dot(v, T(1.0));
}

@compute @workgroup_size(SIZE)
fn peak_read(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let linear = group_number(group, groups);
  let first = linear * SIZE * EACH + local.x;
  var sum = T(0.0);
  @unroll for (var k = 0u; k < EACH; k++) {
    let i = first + k * SIZE;
    if (i < p.n) {
      sum += x[i];
    }
  }
  y[linear * SIZE + local.x] = total(sum);
}
