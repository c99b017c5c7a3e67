// Elementwise functions, one per row of src/ops/elementwise.rs and src/ops/generate.rs and per type, named NAME_TYPE.
// Kernels include only those they mention, with the helpers and constants these mention.
// Each computes one element. NaN and infinities behave as in IEEE 754 and PyTorch. WGSL lets compilers assume that
// there are none, so they are detected by their bits. Devices may flush subnormal operands to 0, and results below
// 2^-126 may become 0; log, pow, sqrt, rsqrt, sign and to_bool read subnormal numbers through their bits.
// Accurate to a few units in the last place on every driver (measured by tests/scalar.rs), unlike the built-ins: hence
// our own exp, log, sin, cos, tanh, erf and pow. Polynomials are minimax fits (Remez, weighted for relative error) of
// the functions named beside them. Drivers may contract a * b + c, and Metal may even reorder sums: values that must be
// exact are extracted from the bits or computed with integers, which neither affects.
// Reference: the closures in src/ops/elementwise.rs and src/ops/generate.rs.

const INFINITY_BITS: u32 = 0x7f800000u;
const MAGNITUDE_BITS: u32 = 0x7fffffffu;
const SMALLEST_NORMAL_BITS: u32 = 0x00800000u;
const SIGN_BIT: u32 = 0x80000000u;

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & MAGNITUDE_BITS) > INFINITY_BITS; }
// y, or NaN if x is.
fn nan_or(x: f32, y: f32) -> f32 { return select(y, x, is_nan(x)); }
// Whether neither is NaN.
fn ordered(a: f32, b: f32) -> bool {
  return max(bitcast<u32>(a) & MAGNITUDE_BITS, bitcast<u32>(b) & MAGNITUDE_BITS) <= INFINITY_BITS;
}
fn nan_or4(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
  return select(y, x, (bitcast<vec4<u32>>(x) & vec4(MAGNITUDE_BITS)) > vec4(INFINITY_BITS));
}
// Whether v replaces the running maximum: it is larger, or the first NaN.
fn exceeds(v: f32, largest: f32) -> bool { return (v > largest || is_nan(v)) && !is_nan(largest); }
// The number with these bits, or NaN if `invalid`.
fn nan_if(invalid: bool, bits: u32) -> f32 { return bitcast<f32>(select(bits, bits | 0x7fc00000u, invalid)); }

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
// Integer quotients and remainders. WGSL defines a / 0 as a, and the smallest i32 divided by -1 as itself; not all
// drivers do. Remainders come from quotients: SPIR-V leaves those of negative numbers to the driver.
fn div_trunc_i32(a: i32, b: i32) -> i32 { return a / select(b, 1, b == 0 || (b == -1 && a == -2147483648)); }
fn div_trunc_u32(a: u32, b: u32) -> u32 { return a / select(b, 1u, b == 0u); }
fn fmod_i32(a: i32, b: i32) -> i32 { return select(a - b * div_trunc_i32(a, b), 0, b == 0); }
fn fmod_u32(a: u32, b: u32) -> u32 { return select(a - b * div_trunc_u32(a, b), 0u, b == 0u); }
fn div_floor_i32(a: i32, b: i32) -> i32 {
  let rest = fmod_i32(a, b);
  return div_trunc_i32(a, b) - select(0, 1, rest != 0 && (rest < 0) != (b < 0));
}
fn div_floor_u32(a: u32, b: u32) -> u32 { return div_trunc_u32(a, b); }
fn remainder_i32(a: i32, b: i32) -> i32 {
  let rest = fmod_i32(a, b);
  return rest + select(0, b, rest != 0 && (rest < 0) != (b < 0));
}
fn remainder_u32(a: u32, b: u32) -> u32 { return fmod_u32(a, b); }
fn div_euclid_i32(a: i32, b: i32) -> i32 {
  return div_trunc_i32(a, b) - select(0, select(1, -1, b < 0), fmod_i32(a, b) < 0);
}
fn div_euclid_u32(a: u32, b: u32) -> u32 { return div_trunc_u32(a, b); }
fn rem_euclid_i32(a: i32, b: i32) -> i32 {
  let rest = fmod_i32(a, b);
  return rest + select(0, select(b, -b, b < 0), rest < 0);
}
fn rem_euclid_u32(a: u32, b: u32) -> u32 { return fmod_u32(a, b); }
fn minimum_f32(a: f32, b: f32) -> f32 { return nan_or(a, nan_or(b, min(a, b))); }
fn minimum_i32(a: i32, b: i32) -> i32 { return min(a, b); }
fn minimum_u32(a: u32, b: u32) -> u32 { return min(a, b); }
fn maximum_f32(a: f32, b: f32) -> f32 { return nan_or(a, nan_or(b, max(a, b))); }
fn maximum_i32(a: i32, b: i32) -> i32 { return max(a, b); }
fn maximum_u32(a: u32, b: u32) -> u32 { return max(a, b); }

fn lt_f32(a: f32, b: f32) -> bool { return a < b && ordered(a, b); }
fn lt_i32(a: i32, b: i32) -> bool { return a < b; }
fn lt_u32(a: u32, b: u32) -> bool { return a < b; }
fn le_f32(a: f32, b: f32) -> bool { return a <= b && ordered(a, b); }
fn le_i32(a: i32, b: i32) -> bool { return a <= b; }
fn le_u32(a: u32, b: u32) -> bool { return a <= b; }
fn gt_f32(a: f32, b: f32) -> bool { return a > b && ordered(a, b); }
fn gt_i32(a: i32, b: i32) -> bool { return a > b; }
fn gt_u32(a: u32, b: u32) -> bool { return a > b; }
fn ge_f32(a: f32, b: f32) -> bool { return a >= b && ordered(a, b); }
fn ge_i32(a: i32, b: i32) -> bool { return a >= b; }
fn ge_u32(a: u32, b: u32) -> bool { return a >= b; }
fn eq_f32(a: f32, b: f32) -> bool { return a == b && ordered(a, b); }
fn eq_i32(a: i32, b: i32) -> bool { return a == b; }
fn eq_u32(a: u32, b: u32) -> bool { return a == b; }
fn ne_f32(a: f32, b: f32) -> bool { return a != b || !ordered(a, b); }
fn ne_i32(a: i32, b: i32) -> bool { return a != b; }
fn ne_u32(a: u32, b: u32) -> bool { return a != b; }
// Bits of integers. A shift by 32 or more, or by a negative number, removes all bits; of a negative number to the
// right, the sign remains. WGSL itself takes the shift modulo 32.
fn bit_and_i32(a: i32, b: i32) -> i32 { return a & b; }
fn bit_and_u32(a: u32, b: u32) -> u32 { return a & b; }
fn bit_or_i32(a: i32, b: i32) -> i32 { return a | b; }
fn bit_or_u32(a: u32, b: u32) -> u32 { return a | b; }
fn bit_xor_i32(a: i32, b: i32) -> i32 { return a ^ b; }
fn bit_xor_u32(a: u32, b: u32) -> u32 { return a ^ b; }
fn bit_not_i32(a: i32) -> i32 { return ~a; }
fn bit_not_u32(a: u32) -> u32 { return ~a; }
fn shift_left_i32(a: i32, b: i32) -> i32 { return select(0, a << (u32(b) & 31u), u32(b) < 32u); }
fn shift_left_u32(a: u32, b: u32) -> u32 { return select(0u, a << (b & 31u), b < 32u); }
fn shift_right_i32(a: i32, b: i32) -> i32 { return a >> min(u32(b), 31u); }
fn shift_right_u32(a: u32, b: u32) -> u32 { return select(0u, a >> (b & 31u), b < 32u); }
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
fn sign_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let zero_or_nan = (bits & MAGNITUDE_BITS) - 1u >= INFINITY_BITS;
  return select(bitcast<f32>((bits & SIGN_BIT) | ONE_BITS), x, zero_or_nan);
}
fn floor_f32(x: f32) -> f32 { return floor(x); }
fn round_f32(x: f32) -> f32 { return round(x); }
fn trunc_f32(x: f32) -> f32 { return trunc(x); }
fn sqrt_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let small = bits < SMALLEST_NORMAL_BITS;
  let root = sqrt(select(x, 2.0 * f32(bits), small)); // of a subnormal number times 2^150
  let y = select(root, root * 0x1p-75, small);
  return nan_if(bits > INFINITY_BITS && bits != SIGN_BIT, bitcast<u32>(y));
}
fn rsqrt_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let small = bits - 1u < SMALLEST_NORMAL_BITS - 1u;
  let root = inverseSqrt(select(x, 2.0 * f32(bits), small));
  let y = select(root, root * 0x1p75, small);
  return nan_if(bits > INFINITY_BITS && bits != SIGN_BIT, bitcast<u32>(y));
}
fn square_f32(x: f32) -> f32 { return x * x; }
fn reciprocal_f32(x: f32) -> f32 { return 1.0 / x; }
fn softsign_f32(x: f32) -> f32 { return x / (1.0 + abs(x)); }
fn hardsigmoid_f32(x: f32) -> f32 { return nan_or(x, min(max(x + 3.0, 0.0), 6.0) / 6.0); }
// As i32 the bits of -0 to -infinity are the least; those of NaN are not among them.
fn relu_f32(x: f32) -> f32 { return select(x, 0.0, bitcast<i32>(x) <= -8388608); }
fn leaky_relu_f32(x: f32, slope: f32) -> f32 { return select(slope * x, x, x > 0.0); }
fn clamp_f32(x: f32, low: f32, high: f32) -> f32 { return nan_or(x, min(max(x, low), high)); }

// Powers of e. x = k ln 2 + r with |r| <= ln(2)/2, ln 2 in two parts of which the first has 9 bits, so that
// its product with k is exact (W. J. Cody and W. Waite, Software Manual for the Elementary Functions, 1980).
const LOG2_E: f32 = 1.442695;
const LN2: f32 = 0.6931472;
const LN2_HIGH: f32 = 0.693359375;
const LN2_LOW: f32 = -2.1219444e-4;

// 2^k for k from -126 to 127; 0 for -127.
fn power_of_two(k: i32) -> f32 { return bitcast<f32>((k + 127) << 23u); }

// r of `high + low`, from which the multiple k of ln 2 is subtracted. `f32(k)` equals n, but compilers do not know, so
// none merges the two parts of ln 2.
fn without_ln2(high: f32, low: f32, n: f32, k: i32) -> f32 {
  return ((high - n * LN2_HIGH) - f32(k) * LN2_LOW) + low;
}

// e^r - 1 for |r| <= ln(2)/2, to 2^-28.
fn expm1_near_0(r: f32) -> f32 {
  return r + r * r * (0.49999994 + r * (0.1666652 + r * (0.041668404 + r * (0.008368899 + r * 0.0013814239))));
}

fn exp_f32(x: f32) -> f32 {
  let y = clamp(x, -88.0, 89.0);
  let n = round(y * LOG2_E);
  let k = i32(n);
  let q = expm1_near_0(without_ln2(y, 0.0, n, k));
  let s = power_of_two(max(k - 1, -127)); // k may be 128
  return nan_or(x, ((1.0 + q) * s) * 2.0);
}

// e^(high + low) for high <= 0 and a small low.
fn exp_of_negative(high: f32, low: f32) -> f32 {
  let y = max(high, -88.0);
  let n = round(y * LOG2_E);
  let k = i32(n);
  return (1.0 + expm1_near_0(without_ln2(y, low, n, k))) * power_of_two(k);
}

// e^x - 1 for x <= 0.
fn expm1_of_negative(x: f32) -> f32 {
  let y = max(x, -88.0);
  let n = round(y * LOG2_E);
  let k = i32(n);
  let q = expm1_near_0(without_ln2(y, 0.0, n, k));
  let s = power_of_two(k);
  return select(s * q + (s - 1.0), q, k == 0);
}

fn sigmoid_f32(x: f32) -> f32 {
  let e = exp_of_negative(-abs(x), 0.0);
  return nan_or(x, select(e, 1.0, x >= 0.0) / (1.0 + e));
}
// (1 - e^-2a) / (1 + e^-2a) for a = |x|, which neither cancels at 0 nor overflows.
fn tanh_f32(x: f32) -> f32 {
  let e = expm1_of_negative(-2.0 * abs(x));
  let y = -e / (2.0 + e);
  return nan_or(x, select(y, -y, x < 0.0));
}
fn elu_f32(x: f32, alpha: f32) -> f32 {
  return nan_or(x, select(alpha * expm1_of_negative(min(x, 0.0)), x, x > 0.0));
}

// Logarithms: x = 2^k m with m in [sqrt(1/2), sqrt(2)), and a polynomial in m - 1, as in S. L. Moshier's Cephes.
const SQRT_HALF_BITS: u32 = 0x3f3504f3u;
const ONE_BITS: u32 = 0x3f800000u;

// The bits of m, and k, of a positive number's bits.
fn significand_and_exponent(bits: u32) -> vec2<i32> {
  let small = bits < SMALLEST_NORMAL_BITS;
  // A subnormal number is its bits times 2^-149.
  let normal = select(bits, bitcast<u32>(f32(bits)), small);
  let shifted = normal + (ONE_BITS - SQRT_HALF_BITS);
  return vec2(i32((shifted & 0x7fffffu) + SQRT_HALF_BITS), i32(shifted >> 23u) - select(127, 127 + 149, small));
}

// ln(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1], to 2^-30.
fn log1p_near_0(f: f32) -> f32 {
  let low = -0.16667996 + f * (0.14219543 + f * (-0.12405565 + f * (0.1188821 + f * (-0.11675833 + f * 0.067467555))));
  return f + f * f * (-0.5 + f * (0.33333313 + f * (-0.2500001 + f * (0.20002119 + f * low))));
}

fn log_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let parts = significand_and_exponent(bits);
  let y = f32(parts.y) * LN2 + log1p_near_0(bitcast<f32>(parts.x) - 1.0);
  // Minus infinity at 0, infinity and NaN as they are, NaN below 0.
  let zero = (bits & MAGNITUDE_BITS) == 0u;
  let ordinary = bits - 1u < INFINITY_BITS - 1u;
  return select(nan_if(bits > INFINITY_BITS && !zero, select(bits, INFINITY_BITS | SIGN_BIT, zero)), y, ordinary);
}

// ln x, but at least -100, also for negative numbers.
fn bounded_log(x: f32) -> f32 { return select(-100.0, max(log_f32(x), -100.0), bitcast<i32>(x) > 0); }

// -(t ln p + (1 - t) ln(1 - p)), each logarithm at least -100.
fn bce_f32(p: f32, t: f32) -> f32 {
  return nan_or(p, -(t * bounded_log(p) + (1.0 - t) * bounded_log(1.0 - p)));
}

// max(x, 0) + ln(1 + e), e = e^-|x| in [0, 1]; from sqrt(2) on ln(1 + e) is ln 2 + ln((1 + e) / 2).
fn softplus_f32(x: f32) -> f32 {
  let e = exp_of_negative(-abs(x), 0.0);
  let large = e > 0.41421356;
  let y = log1p_near_0(select(e, (e - 1.0) * 0.5, large));
  return nan_or(x, max(x, 0.0) + (select(0.0, LN2, large) + y));
}

// Sine and cosine: x = k pi/2 + r with |r| <= pi/4, pi/2 in three parts (8, 11 and 24 bits), each times a differently
// computed k (see without_ln2). Parts as in Cephes; their products are exact for |k| < 2^13.
const TWO_OVER_PI: f32 = 0.63661977;
const HALF_PI_HIGH: f32 = 1.5703125;
const HALF_PI_MIDDLE: f32 = 4.837512969970703e-4;
const HALF_PI_LOW_16TH: f32 = 4.7186188e-9;

// The sine of x + quarters * pi/2.
fn sine_from(x: f32, quarters: i32) -> f32 {
  let n = clamp(round(x * TWO_OVER_PI), -1e8, 1e8);
  let k = i32(n);
  let near = ((x - n * HALF_PI_HIGH) - f32(k) * HALF_PI_MIDDLE) - f32(k << 4u) * HALF_PI_LOW_16TH;
  let r = clamp(near, -0.8, 0.8);
  let z = r * r;
  let sine = r + r * z * (-0.16666654 + z * (0.008332151 + z * -1.951398e-4));
  let cosine = (1.0 - 0.5 * z) + z * z * (0.041666646 + z * (-0.0013887304 + z * 2.4431669e-5));
  let quadrant = k + quarters;
  let y = select(sine, cosine, (quadrant & 1) == 1);
  let bits = bitcast<u32>(x);
  return select(select(y, -y, (quadrant & 2) == 2), nan_if(true, bits), (bits & MAGNITUDE_BITS) >= INFINITY_BITS);
}
fn sin_f32(x: f32) -> f32 { return sine_from(x, 0); }
fn cos_f32(x: f32) -> f32 { return sine_from(x, 1); }

// The tangent: x = k pi/2 + r as for the sine, but with pi/2 in four parts (8, 11, 11 and 24 bits), because near a pole
// an error of r is a relative error of the result. Polynomials from here to atanh as in Cephes.
const HALF_PI_LOW_EXACT_16TH: f32 = 4.7184585e-9;
const HALF_PI_LOWEST_256TH: f32 = 1.0013063e-14;
fn tan_f32(x: f32) -> f32 {
  let n = clamp(round(x * TWO_OVER_PI), -8e6, 8e6);
  let k = i32(n);
  let near = ((x - n * HALF_PI_HIGH) - f32(k) * HALF_PI_MIDDLE) - f32(k << 4u) * HALF_PI_LOW_EXACT_16TH;
  let r = clamp(near - f32(k << 8u) * HALF_PI_LOWEST_256TH, -0.8, 0.8);
  let z = r * r;
  let core = 0.05341128 + z * (0.024430135 + z * (0.0031199223 + z * 0.009385402));
  let y = r + r * z * (0.33333156 + z * (0.133388 + z * core));
  let bits = bitcast<u32>(x);
  let special = (bits & MAGNITUDE_BITS) >= INFINITY_BITS;
  return select(select(y, -1.0 / y, (k & 1) == 1), nan_if(true, bits), special);
}

const HALF_PI: f32 = 1.5707964;
const HALF_PI_REST: f32 = -4.371139e-8;

// z P(z) where asin(s) = s + s z P(z) for z = s^2 <= 1/4.
fn asin_near_0(z: f32) -> f32 {
  return z * (0.16666752 + z * (0.074953005 + z * (0.04547003 + z * (0.02418131 + z * 0.0421632))));
}
// Beyond 1/2 from asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)).
fn asin_f32(x: f32) -> f32 {
  let a = abs(x);
  let far = a > 0.5;
  let z = select(a * a, (1.0 - a) * 0.5, far);
  let s = select(a, sqrt(max(z, 0.0)), far);
  let p = s + s * asin_near_0(z);
  let y = select(p, HALF_PI - (2.0 * p - HALF_PI_REST), far);
  return nan_if(a > 1.0 || is_nan(x), bitcast<u32>(select(y, -y, x < 0.0)));
}
fn acos_f32(x: f32) -> f32 {
  let a = abs(x);
  let far = a > 0.5;
  let z = select(a * a, (1.0 - a) * 0.5, far);
  let s = select(a, sqrt(max(z, 0.0)), far);
  let p = s + s * asin_near_0(z);
  let beyond = select(2.0 * p, 2.0 * HALF_PI - (2.0 * p - 2.0 * HALF_PI_REST), x < 0.0);
  let y = select(HALF_PI - (select(p, -p, x < 0.0) - HALF_PI_REST), beyond, far);
  return nan_if(a > 1.0 || is_nan(x), bitcast<u32>(y));
}
// Of (a - 1) / (a + 1) beyond tan(pi/8), and of -1 / a beyond tan(3 pi/8).
fn atan_f32(x: f32) -> f32 {
  let a = min(abs(x), 1e9);
  let far = a > 2.4142137;
  let middle = a > 0.41421357;
  let t = select(select(a, (a - 1.0) / (a + 1.0), middle), -1.0 / max(a, 1.0), far);
  let z = t * t;
  let p = t + t * z * (-0.3333295 + z * (0.19977711 + z * (-0.13877685 + z * 0.080537446)));
  let parts = select(select(0.0, 0.5, middle), 1.0, far);
  let y = parts * HALF_PI + (p + parts * HALF_PI_REST);
  return nan_or(x, select(y, -y, x < 0.0));
}

// e^a / 2 for a >= 0, which is finite up to 89.4.
fn half_exp(a: f32) -> f32 {
  let y = min(a, 90.0);
  let n = round(y * LOG2_E);
  let k = i32(n);
  return ((1.0 + expm1_near_0(without_ln2(y, 0.0, n, k))) * power_of_two(k - 2)) * 2.0;
}
fn sinh_f32(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  let small = a + a * z * (0.16666716 + z * (0.008330284 + z * 2.0372191e-4));
  let h = half_exp(a);
  let y = select(h - 0.25 / h, small, a < 1.0);
  return nan_or(x, select(y, -y, x < 0.0));
}
fn cosh_f32(x: f32) -> f32 {
  let h = half_exp(abs(x));
  return nan_or(x, h + 0.25 / h);
}
// ln(a + sqrt(a^2 + 1)), and ln(2 a) where 1 does not count.
fn asinh_f32(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  let small = a + a * z * (-0.16666288 + z * (0.07484759 + z * (-0.04269934 + z * 0.020122003)));
  let b = min(a, 1e4);
  let large = log_f32(select(b + sqrt(b * b + 1.0), a, a > 1e4)) + select(0.0, LN2, a > 1e4);
  let y = select(large, small, a < 0.5);
  return nan_or(x, select(y, -y, x < 0.0));
}
fn acosh_f32(x: f32) -> f32 {
  let z = clamp(x - 1.0, 0.0, 1e4);
  let core = 0.026454905 + z * (-0.0075272887 + z * 0.0017596881);
  let small = sqrt(z) * (1.4142135 + z * (-0.11784742 + z * core));
  let large = log_f32(select((z + 1.0) + sqrt(z * (z + 2.0)), x, x > 1e4)) + select(0.0, LN2, x > 1e4);
  return nan_if(x < 1.0 || is_nan(x), bitcast<u32>(select(large, small, z < 0.5)));
}
fn atanh_f32(x: f32) -> f32 {
  let a = abs(x);
  let z = a * a;
  let core = 0.19978216 + z * (0.14669143 + z * (0.08243703 + z * 0.18174078));
  let small = a + a * z * (0.3333373 + z * core);
  // The standard allows no constant expression that is infinite.
  let ratio = bitcast<f32>(select(bitcast<u32>((1.0 + a) / (1.0 - a)), INFINITY_BITS, a >= 1.0));
  let y = select(0.5 * log_f32(ratio), small, a < 0.5);
  return nan_if(a > 1.0 || is_nan(x), bitcast<u32>(select(y, -y, x < 0.0)));
}

// The error function: x + x P(x^2) up to 1, beyond it 1 - e^-(x + x P(x)), 1 from 3.93 on.
fn erf_f32(x: f32) -> f32 {
  let a = min(abs(x), 3.93);
  let z = a * a;
  let core = 0.112835854 + z * (-0.026853813 + z * (0.0051883277 + z * (-8.010194e-4 + z * 7.853864e-5)));
  let small = a + a * (0.12837917 + z * (-0.37612626 + z * core));
  let tail = 0.63583416 + a * (0.10511242 + a * (-0.022795923 + a * (0.003186098 + a * -2.1053232e-4)));
  let large = 1.0 - exp_of_negative(-(a + a * (0.12847929 + a * tail)), 0.0);
  let y = select(large, small, a < 1.0);
  return nan_or(x, select(y, -y, x < 0.0));
}

// The normal tail beyond a = |x| is e^(-a^2/2) R(a), R smooth: (a + 4) R(a) is a polynomial in
// (a - 4) / (a + 4) (M. M. Shepherd and J. G. Laframboise, Math. Comp. 36, 1981). The square is split, its
// first part exact, because an error in the exponent is a relative error of the tail.
fn normal_cdf_f32(x: f32) -> f32 {
  let a = min(abs(x), 14.0);
  let v = 1.0 / (a + 4.0);
  let u = (a - 4.0) * v;
  let core = -0.007529126 + u * (-0.003518476 + u * (0.0015754607 + u * (1.9315911e-4 + u * -1.2568953e-4)));
  let r = 0.75528514 + u * (-0.6078966 + u * (0.38713688 + u * (-0.18652284 + u * (0.060404506 + u * core))));
  let high = leading_bits(a);
  let tail = exp_of_negative(-0.5 * high * high, -0.5 * (a - high) * (a + high)) * (v * r);
  return nan_or(x, select(1.0 - tail, tail, x < 0.0));
}

// The leading 12 bits of the significand: the product of two such numbers is exact.
fn leading_bits(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }

// 2 / ln 2, its leading bits and the rest.
const TWO_OVER_LN2: f32 = 2.88539;
const TWO_OVER_LN2_HIGH: f32 = 2.884765625;
const TWO_OVER_LN2_LOW: f32 = 6.2445662e-4;

// |a|^b as 2^(b log2 |a|), where log2 needs more than 24 bits. It comes as k + high + low: |a| = 2^k m, and with
// s = (m - 1) / (m + 1), itself in two parts, log2 m = 2/ln 2 (s + s^3/3 + ...), as in fdlibm's pow (Sun, 1993).
fn pow_f32(a: f32, b: f32) -> f32 {
  let magnitude = bitcast<u32>(a) & MAGNITUDE_BITS;
  let parts = significand_and_exponent(magnitude);
  let k = f32(parts.y);
  let m = i32(bitcast<f32>(parts.x) * 16777216.0);
  // (m - 1) / (m + 1), both times 2^24 and exact; the quotient's second part comes from the remainder.
  let f = f32(m - 16777216);
  let d = m + 16777216;
  let inverse = 1.0 / f32(d);
  let s = f * inverse;
  let s_high = leading_bits(s);
  let s_low = ((f - s_high * f32(d & ~0x3fff)) - s_high * f32(d & 0x3fff)) * inverse;
  let z = s * s;
  let series = s * z * (0.3333341 + z * (0.19986802 + z * 0.14980654));
  let product = TWO_OVER_LN2_HIGH * s_high;
  let high = leading_bits(product);
  let low = (product - high) + (TWO_OVER_LN2_HIGH * s_low + (TWO_OVER_LN2_LOW * s + TWO_OVER_LN2 * series));
  // b (k + high + low): the two large products are exact, and only their fractions are added up.
  let y = clamp(b, -4e9, 4e9); // an even number if b is out of range
  let y_high = leading_bits(y);
  let y_low = y - y_high;
  let p = y_high * k;
  let q = y_high * high;
  let rest = (fract(p) + fract(q)) + (y_low * (k + high) + y * low);
  let n = round(rest);
  let r = rest - n;
  let whole = i32(clamp(floor(p) + floor(q) + n, -252.0, 252.0));
  let core = 0.055503264 + r * (0.009618002 + r * (0.0013400805 + r * 1.5476884e-4));
  let half = whole >> 1u;
  let power = ((1.0 + r * (0.6931472 + r * (0.2402265 + r * core))) * power_of_two(half)) * power_of_two(whole - half);
  // 0 and infinity have no significand.
  let special = magnitude - 1u >= INFINITY_BITS - 1u;
  let infinite = (magnitude != 0u) == (bitcast<i32>(b) > 0);
  let positive = select(bitcast<u32>(power), select(0u, INFINITY_BITS, infinite), special);
  // Negative base: negative if b is odd, NaN if b is not an integer.
  let negative = bitcast<u32>(a) & SIGN_BIT;
  let whole_b = floor(y) == y;
  let odd = whole_b && fract(y * 0.5) != 0.0;
  let invalid = !ordered(a, b) || (negative != 0u && !whole_b && !special);
  let one = (bitcast<u32>(b) & MAGNITUDE_BITS) == 0u || bitcast<u32>(a) == ONE_BITS;
  return select(nan_if(invalid, positive | select(0u, negative, odd)), 1.0, one);
}
fn powf_f32(x: f32, exponent: f32) -> f32 { return pow_f32(x, exponent); }

// Casts: to_TARGET_SOURCE. Floats convert to integers like Rust's `as`: towards zero, saturating, NaN to 0 (2^31 and
// 2^32 are out of range; the largest floats below them are 2147483520 and 4294967040).
fn to_i32_f32(x: f32) -> i32 {
  let y = select(i32(clamp(x, -2147483648.0, 2147483520.0)), 2147483647i, x >= 2147483648.0);
  return select(y, 0, is_nan(x));
}
fn to_u32_f32(x: f32) -> u32 {
  let y = select(u32(clamp(x, 0.0, 4294967040.0)), 4294967295u, x >= 4294967296.0);
  return select(y, 0u, is_nan(x));
}
fn to_bool_f32(x: f32) -> bool { return (bitcast<u32>(x) & MAGNITUDE_BITS) != 0u; }
fn to_f32_i32(x: i32) -> f32 { return f32(x); }
fn to_u32_i32(x: i32) -> u32 { return bitcast<u32>(x); }
fn to_bool_i32(x: i32) -> bool { return x != 0; }
fn to_f32_u32(x: u32) -> f32 { return f32(x); }
fn to_i32_u32(x: u32) -> i32 { return bitcast<i32>(x); }
fn to_bool_u32(x: u32) -> bool { return x != 0u; }
fn to_f32_bool(x: bool) -> f32 { return select(0.0, 1.0, x); }
fn to_i32_bool(x: bool) -> i32 { return select(0, 1, x); }
fn to_u32_bool(x: bool) -> u32 { return select(0u, 1u, x); }

// To narrow types. The result is a value of the type, in its wide type.
//
// Rounds to f16, ties to even. An f32 has 13 bits more, and below 2^-14, where the distance between neighbours stays
// 2^-24, one more for each lower exponent; adding half of the last bit carries into the exponent as it should.
fn to_f16_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x) & MAGNITUDE_BITS;
  let surplus = clamp(126u - min(bits >> 23u, 126u), 13u, 23u);
  let rounded = bits + ((1u << (surplus - 1u)) - 1u) + ((bits >> surplus) & 1u);
  var y = rounded & (0xffffffffu << surplus);
  if (bits < 0x33800000u) { y = select(0u, 0x33800000u, bits > 0x33000000u); } // below 2^-24: 0, or 2^-24 above 2^-25
  y = select(y, INFINITY_BITS, y > 0x477fe000u); // beyond 65504
  return bitcast<f32>(select(y, bits, bits > INFINITY_BITS) | (bitcast<u32>(x) & ~MAGNITUDE_BITS));
}
fn to_bf16_f32(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
  return bitcast<f32>(select(rounded, bits | 0x400000u, is_nan(x)));
}
// The value is one of the type already.
fn to_same_f32(x: f32) -> f32 { return x; }
fn to_i8_i32(x: i32) -> i32 { return (x << 24u) >> 24u; }
fn to_u8_u32(x: u32) -> u32 { return x & 0xffu; }

// Packs values of narrow types into words, and widens them again.
// Not by pack2x16float: its rounding is up to the driver, and SwiftShader makes NaN of infinities.
fn bits_f16(x: f32) -> u32 {
  let bits = bitcast<u32>(x) & MAGNITUDE_BITS;
  let normal = select((bits >> 13u) - 0x1c000u, u32(abs(x) * 16777216.0), bits < 0x38800000u);
  let special = select(0x7c00u, 0x7e00u, bits > INFINITY_BITS);
  return select(normal, special, bits >= INFINITY_BITS) | ((bitcast<u32>(x) >> 16u) & 0x8000u);
}
fn pack_f16(x: vec2<f32>) -> u32 { return bits_f16(x.x) | (bits_f16(x.y) << 16u); }
fn pack_bf16(x: vec2<f32>) -> u32 { return (bitcast<u32>(x.x) >> 16u) | (bitcast<u32>(x.y) & 0xffff0000u); }
fn pack_i8(x: vec4<i32>) -> u32 { return pack_u8(bitcast<vec4<u32>>(x)); }
fn pack_u8(x: vec4<u32>) -> u32 {
  let y = (x & vec4(0xffu)) << vec4(0u, 8u, 16u, 24u);
  return (y.x | y.y) | (y.z | y.w);
}
fn unpack_f16(word: u32) -> vec2<f32> { return unpack2x16float(word); }
fn unpack_bf16(word: u32) -> vec2<f32> { return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u)); }
fn unpack_i8(word: u32) -> vec4<i32> { return bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u); }
fn unpack_u8(word: u32) -> vec4<u32> { return (vec4(word) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu); }

// Element i of a buffer, given the word that holds it.
fn element_f16(word: u32, i: u32) -> f32 { return unpack_f16(word >> (16u * (i & 1u))).x; }
fn element_bf16(word: u32, i: u32) -> f32 { return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) != 0u)); }
fn element_i8(word: u32, i: u32) -> i32 { return bitcast<i32>(word << (24u - 8u * (i & 3u))) >> 24u; }
fn element_u8(word: u32, i: u32) -> u32 { return (word >> (8u * (i & 3u))) & 0xffu; }

// n / d and n % d for n below 2^31, with the result of `reciprocal` in src/shape.rs for d: dividing by a uniform value
// is slow on most devices.
fn quotient(n: u32, reciprocal: vec2<u32>) -> u32 {
  // The upper half of the product of 2 n and the multiplier, from halves of both.
  let n_low = (n << 1u) & 0xffffu;
  let n_high = n >> 15u;
  let low = reciprocal.x & 0xffffu;
  let high = reciprocal.x >> 16u;
  let middle = n_high * low + ((n_low * low) >> 16u);
  return (n_high * high + (middle >> 16u) + ((n_low * high + (middle & 0xffffu)) >> 16u)) >> reciprocal.y;
}
fn remainder(n: u32, d: u32, reciprocal: vec2<u32>) -> u32 {
  return n - quotient(n, reciprocal) * d;
}

// Values without inputs.
fn full_f32(x: f32) -> f32 { return x; }
fn full_i32(x: i32) -> i32 { return x; }
fn full_u32(x: u32) -> u32 { return x; }
fn full_bool(x: u32) -> bool { return x != 0u; }
fn iota_u32(i: u32, inner: u32, size: u32) -> u32 { return i / inner % size; }
fn iota_i32(i: u32, inner: u32, size: u32) -> i32 { return i32(i / inner % size); }
fn iota_f32(i: u32, inner: u32, size: u32) -> f32 { return f32(i / inner % size); }

// The finalizer of MurmurHash3 (A. Appleby, public domain).
fn hash_mix(x: u32) -> u32 {
  var h = x;
  h ^= h >> 16u;
  h *= 0x85ebca6bu;
  h ^= h >> 13u;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16u);
}
fn random_bits_u32(seed: u32, step: u32, stream: u32, index: u32) -> u32 {
  let key = hash_mix(hash_mix(hash_mix(seed ^ 0x9e3779b9u) + step) + stream);
  return hash_mix(hash_mix(index ^ key) + key);
}
