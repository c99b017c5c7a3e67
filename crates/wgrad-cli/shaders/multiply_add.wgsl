// y[i] = sum over chains of a after p.rounds * UNROLL iterations of a = a * p.factor + p.step.
// Measures the multiply-add rate: CHAINS independent chains of T in registers, no memory traffic in the loop.
// Bindings: 0 p; 1 y, one float per invocation. One invocation computes one y.
// Preconditions: p.rounds below 16,000; with factor 1 and step 1 all values are integers below 2^24.
// Expected result: bench::peak::multiply_adds.

alias T = vec4<f32>;
const CHAINS: u32 = 4u;
const UNROLL: u32 = 4u;
const SIZE: u32 = 64u;

struct Params { rounds: u32, factor: f32, step: f32, n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

const FUSED: bool = true;

fn multiply_add(a: T, b: T, c: T) -> T {
  @if(FUSED) return fma(a, b, c);
  @else return a * b + c;
}

fn total(v: T) -> f32 {
  @if(T == f32) return v;
  @else return dot(v, T(1.0));
}

@compute @workgroup_size(SIZE)
fn peak_multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
  let factor = T(p.factor);
  let step = T(p.step);
  var a: array<T, CHAINS>;
  @unroll for (var c = 0u; c < CHAINS; c++) {
    a[c] = T(f32(id.x % 16u + c));
  }
  for (var r = 0u; r < p.rounds; r++) {
    @unroll for (var u = 0u; u < UNROLL; u++) {
      @unroll for (var c = 0u; c < CHAINS; c++) {
        a[c] = multiply_add(a[c], factor, step);
      }
    }
  }
  var sum = 0.0;
  @unroll for (var c = 0u; c < CHAINS; c++) {
    sum += total(a[c]);
  }
  if (id.x < p.n) {
    y[id.x] = sum;
  }
}
