// The elementwise functions: one WGSL function for each row of src/ops/elementwise.rs and each
// type, named NAME_TYPE. Generated kernels and epilogues call them; nothing else is generated.
// Inputs are finite. Where a driver's built-in is inaccurate or overflows, we bring our own.
// Twin: the closures in src/ops/elementwise.rs and src/ops/generate.rs.

fn add_f32(a: f32, b: f32) -> f32 { return a + b; }
fn add_i32(a: i32, b: i32) -> i32 { return a + b; }
fn add_u32(a: u32, b: u32) -> u32 { return a + b; }
fn sub_f32(a: f32, b: f32) -> f32 { return a - b; }
fn sub_i32(a: i32, b: i32) -> i32 { return a - b; }
fn sub_u32(a: u32, b: u32) -> u32 { return a - b; }
fn mul_f32(a: f32, b: f32) -> f32 { return a * b; }
fn mul_i32(a: i32, b: i32) -> i32 { return a * b; }
fn mul_u32(a: u32, b: u32) -> u32 { return a * b; }
fn div_f32(a: f32, b: f32) -> f32 { return a / b; }
fn minimum_f32(a: f32, b: f32) -> f32 { return min(a, b); }
fn minimum_i32(a: i32, b: i32) -> i32 { return min(a, b); }
fn minimum_u32(a: u32, b: u32) -> u32 { return min(a, b); }
fn maximum_f32(a: f32, b: f32) -> f32 { return max(a, b); }
fn maximum_i32(a: i32, b: i32) -> i32 { return max(a, b); }
fn maximum_u32(a: u32, b: u32) -> u32 { return max(a, b); }

fn lt_f32(a: f32, b: f32) -> bool { return a < b; }
fn lt_i32(a: i32, b: i32) -> bool { return a < b; }
fn lt_u32(a: u32, b: u32) -> bool { return a < b; }
fn le_f32(a: f32, b: f32) -> bool { return a <= b; }
fn le_i32(a: i32, b: i32) -> bool { return a <= b; }
fn le_u32(a: u32, b: u32) -> bool { return a <= b; }
fn gt_f32(a: f32, b: f32) -> bool { return a > b; }
fn gt_i32(a: i32, b: i32) -> bool { return a > b; }
fn gt_u32(a: u32, b: u32) -> bool { return a > b; }
fn ge_f32(a: f32, b: f32) -> bool { return a >= b; }
fn ge_i32(a: i32, b: i32) -> bool { return a >= b; }
fn ge_u32(a: u32, b: u32) -> bool { return a >= b; }
fn eq_f32(a: f32, b: f32) -> bool { return a == b; }
fn eq_i32(a: i32, b: i32) -> bool { return a == b; }
fn eq_u32(a: u32, b: u32) -> bool { return a == b; }
fn ne_f32(a: f32, b: f32) -> bool { return a != b; }
fn ne_i32(a: i32, b: i32) -> bool { return a != b; }
fn ne_u32(a: u32, b: u32) -> bool { return a != b; }
fn and_bool(a: bool, b: bool) -> bool { return a && b; }
fn or_bool(a: bool, b: bool) -> bool { return a || b; }
fn not_bool(a: bool) -> bool { return !a; }
fn select_f32(c: bool, a: f32, b: f32) -> f32 { return select(b, a, c); }
fn select_i32(c: bool, a: i32, b: i32) -> i32 { return select(b, a, c); }
fn select_u32(c: bool, a: u32, b: u32) -> u32 { return select(b, a, c); }
fn select_bool(c: bool, a: bool, b: bool) -> bool { return select(b, a, c); }

fn neg_f32(x: f32) -> f32 { return -x; }
fn neg_i32(x: i32) -> i32 { return -x; }
fn neg_u32(x: u32) -> u32 { return 0u - x; }
fn abs_f32(x: f32) -> f32 { return abs(x); }
fn abs_i32(x: i32) -> i32 { return abs(x); }
fn abs_u32(x: u32) -> u32 { return x; }
fn sign_f32(x: f32) -> f32 { return sign(x); }
fn floor_f32(x: f32) -> f32 { return floor(x); }
fn round_f32(x: f32) -> f32 { return round(x); }
fn exp_f32(x: f32) -> f32 { return exp(x); }
fn log_f32(x: f32) -> f32 { return log(x); }
fn sqrt_f32(x: f32) -> f32 { return sqrt(x); }
fn rsqrt_f32(x: f32) -> f32 { return inverseSqrt(x); }
fn square_f32(x: f32) -> f32 { return x * x; }
fn reciprocal_f32(x: f32) -> f32 { return 1.0 / x; }
fn sin_f32(x: f32) -> f32 { return sin(x); }
fn cos_f32(x: f32) -> f32 { return cos(x); }
fn pow_f32(a: f32, b: f32) -> f32 { return pow(a, b); }
fn powf_f32(x: f32, exponent: f32) -> f32 { return pow(x, exponent); }
fn tanh_f32(x: f32) -> f32 { return tanh(clamp(x, -10.0, 10.0)); }
fn sigmoid_f32(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}
fn softplus_f32(x: f32) -> f32 { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
fn relu_f32(x: f32) -> f32 { return max(x, 0.0); }
fn leaky_relu_f32(x: f32, slope: f32) -> f32 { return select(slope * x, x, x > 0.0); }
fn elu_f32(x: f32, alpha: f32) -> f32 { return select(alpha * (exp(min(x, 0.0)) - 1.0), x, x > 0.0); }
fn clamp_f32(x: f32, low: f32, high: f32) -> f32 { return min(max(x, low), high); }

// Values made from nothing.
fn full_f32(x: f32) -> f32 { return x; }
fn full_i32(x: i32) -> i32 { return x; }
fn full_u32(x: u32) -> u32 { return x; }
fn full_bool(x: u32) -> bool { return x != 0u; }
fn iota_u32(i: u32, inner: u32, size: u32) -> u32 { return i / inner % size; }
fn iota_i32(i: u32, inner: u32, size: u32) -> i32 { return i32(i / inner % size); }
fn iota_f32(i: u32, inner: u32, size: u32) -> f32 { return f32(i / inner % size); }

// The finalizer of MurmurHash3.
fn mix(x: u32) -> u32 {
  var h = x;
  h ^= h >> 16u;
  h *= 0x85ebca6bu;
  h ^= h >> 13u;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16u);
}
fn random_bits_u32(seed: u32, step: u32, stream: u32, index: u32) -> u32 {
  let key = mix(mix(mix(seed ^ 0x9e3779b9u) + step) + stream);
  return mix(mix(index ^ key) + key);
}
