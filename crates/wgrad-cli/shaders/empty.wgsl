// y[0] = p.value. Almost no work, so that it measures the fixed cost of a dispatch.
// Bindings: 0 p; 1 y. One invocation writes one element.
// Expected result: the constant.

struct Params { value: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn peak_empty() {
  y[0] = p.value;
}
