// What both kernels for cross entropy bind, and what they do at the end of a row.
// 1 x: logits [N, C]; 2 labels: [N], i32 or u32 bits; 3 dy: [N], not read for losses, or with BOTH losses: [N];
// 4 y: losses [N] or dx [N, C], or with BOTH dx.

const BOTH: bool = false; // losses and gradient

// `gradient` is 0 for losses and 1 for the gradient; or with BOTH, the bits of dy, which is the same for all rows.
struct Dims { rows: u32, size: u32, nan: u32, gradient: u32 }

@group(0) @binding(0) var<uniform> d: Dims;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@if(BOTH)
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@else
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> status: array<atomic<u32>, 4>;

// Some drivers return a number for exp(NaN).
fn exp_of(x: f32) -> f32 { return nan_or(x, exp(x)); }

// Stores the loss of a row with largest logit m and sum s.
fn store_loss(row: u32, start: u32, label: u32, m: f32, s: f32) {
  let loss = nan_or(s, log(s)) - (x[start + min(label, d.size - 1u)] - m);
  let stored = select(bitcast<f32>(d.nan), loss, label < d.size);
  @if(BOTH) losses[row] = stored;
  @else y[row] = stored;
}

// What multiplies the gradient of a row.
fn scale_of(row: u32, valid: bool) -> f32 {
  @if(BOTH) return select(bitcast<f32>(d.nan), bitcast<f32>(d.gradient), valid);
  @else return select(bitcast<f32>(d.nan), dy[row], valid);
}
