//! Elementwise ops. A new one needs two edits: a function in `shaders/scalar.wgsl` named `NAME_f32`
//! (or `_i32`, `_u32`, `_bool`), and a row in the table below.
//!
//! Operands broadcast as in NumPy. NaN and infinities follow IEEE 754 and PyTorch; each op documents its gradient at
//! kinks.

mod cases;
mod operators;
mod row;

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

pub use self::cases::cases;
use self::row::{Elementwise, Row, divided, remaining};
use crate::op::{Backward, Nan};
use crate::{DType, Value};

impl Value {
    /// Applies a row of the table to the operands, broadcast to their common shape.
    #[track_caller]
    fn elementwise(&self, row: &'static Row, others: &[&Value], attributes: &[f64]) -> Value {
        let operands: Vec<&Value> = std::iter::once(self).chain(others.iter().copied()).collect();
        if let Err(invalid) = self.graph().admit(row.name, &operands) {
            return invalid;
        }
        let shape = operands.iter().skip(1).try_fold(self.shape().clone(), |shape, v| shape.broadcast(v.shape()));
        let Some(shape) = shape else {
            return self.graph().error(
                row.name,
                &operands,
                "the shapes do not broadcast: aligned at the last axis, sizes must be equal or 1",
            );
        };
        if let Some(bad) = attributes.iter().find(|&&a| !a.is_finite() || DType::F32.check(a).is_err()) {
            let why = format!("expected a finite f32, not {bad:?}");
            return self.graph().error(row.name, &operands, why);
        }
        let location = std::panic::Location::caller();
        let operands: Vec<Value> =
            self.graph().at(location, || operands.iter().map(|v| v.broadcast_to(&shape)).collect());
        let op = Elementwise { row, attributes: attributes.to_vec() };
        self.graph().apply1(op, &operands.iter().collect::<Vec<_>>())
    }

    /// An operation with a number. For narrow floats it is in f32, and the result is rounded.
    #[track_caller]
    fn with_number(&self, number: f64, operation: fn(&Value, &Value) -> Value) -> Value {
        self.widely(|x| operation(x, &x.full_like(number)))
    }

    /// `a` where `self` (bool) is true, else `b`; all three broadcast. The gradient goes to the selected branch.
    #[track_caller]
    pub fn where_(&self, a: &Value, b: &Value) -> Value {
        self.elementwise(&rows::select, &[a, b], &[])
    }

    /// Sigmoid linear unit, also called swish: `x * sigmoid(x)`. Gradient `s (1 + x (1 - s))` with
    /// `s = sigmoid(x)`, 1/2 at 0 (Elfwing, Uchibe and Doya, arXiv:1702.03118).
    #[track_caller]
    pub fn silu(&self) -> Value {
        self.widely(|x| x * x.sigmoid())
    }

    /// Gaussian error linear unit, exact form: `x * Phi(x)`, where `Phi` is the normal distribution function. Gradient
    /// `Phi(x) + x phi(x)`, 1/2 at 0 (Hendrycks and Gimpel, arXiv:1606.08415).
    #[track_caller]
    pub fn gelu(&self) -> Value {
        self.widely(|x| x * x.normal_cdf())
    }

    /// Gaussian error linear unit, tanh form:
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`. Gradient 1/2 at 0, exactly 0 and 1 in the far tails.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Value {
        self.widely(|x| {
            let inner = (x + x.square() * x * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        })
    }

    /// Scaled exponential linear unit: `1.0507 x` for `x > 0`, else `1.7581 (exp(x) - 1)`, which preserves the mean
    /// and variance of activations; the slope at 0 is 1.7581 (Klambauer et al., arXiv:1706.02515).
    #[track_caller]
    pub fn selu(&self) -> Value {
        // The fixed point with mean 0 and variance 1; see the paper.
        const ALPHA: f64 = 1.673_263_242_354_377_2;
        const SCALE: f64 = 1.050_700_987_355_480_5;
        self.widely(|x| x.elu(ALPHA) * SCALE)
    }

    /// `x tanh(ln(1 + exp(x)))`: smooth, and bounded below (Misra, arXiv:1908.08681).
    #[track_caller]
    pub fn mish(&self) -> Value {
        self.widely(|x| x * x.softplus().tanh())
    }

    /// `x hardsigmoid(x)`: a piecewise approximation of [`Value::silu`]. The slope is `x / 3 + 1/2` between -3 and 3,
    /// 0 at -3 and 1 at 3 (Howard et al., arXiv:1905.02244).
    #[track_caller]
    pub fn hardswish(&self) -> Value {
        self.widely(|x| x * x.hardsigmoid())
    }

    /// `x` for `x > 0`, else `weight x` with a learned `weight`: `[C]`, one element per index along axis 1 (axis 0 of
    /// a vector), or `[1]` for all. The slope at 0 is `weight` (He et al., arXiv:1502.01852).
    #[track_caller]
    pub fn prelu(&self, weight: &Value) -> Value {
        if let Err(invalid) = self.graph().admit("prelu", &[self, weight]) {
            return invalid;
        }
        let rank = self.shape().rank();
        let channels = self.shape().get(1.min(rank.saturating_sub(1))).copied().unwrap_or(1);
        if weight.shape().rank() != 1 || (weight.dim(0) != 1 && weight.dim(0) != channels) {
            let why = format!("expected a weight of shape [1] or [{channels}]");
            return self.graph().error("prelu", &[self, weight], why);
        }
        let mut sizes = vec![1; rank];
        if let Some(size) = sizes.get_mut(1.min(rank.saturating_sub(1))) {
            *size = weight.dim(0) as isize;
        }
        self.gt(&self.zeros_like()).where_(self, &(self * weight.reshape(&sizes)))
    }

    /// The two halves of an axis of even size.
    #[track_caller]
    fn halves(&self, op: &str, axis: isize) -> Result<[Value; 2], Value> {
        let size = self.dim(axis);
        if self.axes_of(op, &[axis])?.is_empty() || !size.is_multiple_of(2) {
            let why = format!("axis {axis} must have an even size, because it is split in half");
            return Err(self.graph().error(op, &[self], why));
        }
        Ok([self.slice(axis, 0, size / 2, 1), self.slice(axis, size / 2, size, 1)])
    }

    /// Gated linear unit: `a sigmoid(b)`, where `a` and `b` are the halves of `axis` (Dauphin et al.,
    /// arXiv:1612.08083).
    #[track_caller]
    pub fn glu(&self, axis: isize) -> Value {
        match self.halves("glu", axis) {
            Ok([a, b]) => a.widely(|a| a * b.widen().sigmoid()),
            Err(invalid) => invalid,
        }
    }

    /// `silu(a) b`, where `a` and `b` are the halves of `axis`: the gate of many transformers (Shazeer,
    /// arXiv:2002.05202).
    #[track_caller]
    pub fn swiglu(&self, axis: isize) -> Value {
        match self.halves("swiglu", axis) {
            Ok([a, b]) => a.widely(|a| a.silu() * b),
            Err(invalid) => invalid,
        }
    }

    /// `min(max(x, low), high)`, NaN for NaN. A bound may be infinite; other bounds of integers must be whole numbers.
    /// The gradient is `dy` for `low <= x <= high` and 0 outside.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Value {
        if low.is_nan() || high.is_nan() || low > high {
            return self.graph().error(
                "clamp",
                &[self],
                format!("the bounds must be ordered, not {low:?} and {high:?}"),
            );
        }
        if matches!(self.dtype().wide(), DType::I32 | DType::U32) {
            let number = self.widen();
            let at_least = if low == f64::NEG_INFINITY { number } else { number.maximum(&number.full_like(low)) };
            return if high == f64::INFINITY { at_least } else { at_least.minimum(&at_least.full_like(high)) };
        }
        self.elementwise(&rows::clamp, &[], &[low, high])
    }

    /// `x` for `x > 0`, else `slope * x`; the slope at 0 is `slope`.
    #[track_caller]
    pub fn leaky_relu(&self, slope: f64) -> Value {
        self.elementwise(&rows::leaky_relu, &[], &[slope])
    }

    /// `x` for `x > 0`, else `alpha * (exp(x) - 1)`; the slope at 0 is `alpha`
    /// (Clevert, Unterthiner and Hochreiter, arXiv:1511.07289).
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Value {
        self.elementwise(&rows::elu, &[], &[alpha])
    }

    /// Elementwise binary cross entropy of this probability and a target.
    #[track_caller]
    pub(crate) fn bce(&self, target: &Value) -> Value {
        self.elementwise(&rows::bce, &[target], &[])
    }

    /// `x` to a constant power; 1 for exponent 0. A negative base requires a whole exponent; otherwise the result is
    /// NaN, as in IEEE `pow`. Gradient `exponent * x^(exponent - 1)`, 0 for exponent 0.
    ///
    /// The exponents -1, -1/2, 0, 1/2, 1, 2 and 3 use cheaper ops: reciprocal, rsqrt, a constant, sqrt, the value
    /// itself, square and a product.
    #[track_caller]
    pub fn powf(&self, exponent: f64) -> Value {
        if !self.is_valid() || !self.dtype().is_float() {
            return self.elementwise(&rows::powf, &[], &[exponent]);
        }
        match exponent {
            -1.0 => self.reciprocal(),
            -0.5 => self.rsqrt(),
            0.0 => self.ones_like(),
            0.5 => self.sqrt(),
            1.0 => self.clone(),
            2.0 => self.square(),
            3.0 => self.square() * self,
            _ => self.elementwise(&rows::powf, &[], &[exponent]),
        }
    }
}

/// Defines the table and, for rows not marked `manual`, the methods of [`Value`].
macro_rules! rows {
    ($($(#[$doc:meta])* $method:ident $name:ident = $row:expr;)*) => {
        #[allow(non_upper_case_globals)]
        pub(crate) mod rows {
            use super::*;
            $(pub(crate) static $name: Row = $row.named(stringify!($name));)*
            pub(super) static ALL: &[&Row] = &[$(&$name),*];
        }
        $(rows!(@$method $(#[$doc])* $name);)*
    };
    (@manual $name:ident) => {};
    (@unary $(#[$doc:meta])* $name:ident) => {
        impl Value {
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self) -> Value {
                self.elementwise(&rows::$name, &[], &[])
            }
        }
    };
    (@binary $(#[$doc:meta])* $name:ident) => {
        impl Value {
            $(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: &Value) -> Value {
                self.elementwise(&rows::$name, &[other], &[])
            }
        }
    };
}

const SMALL: &[f64] = &[0.0, 1.0, -1.0, 0.5, -0.5];
const WIDE: &[f64] = &[0.0, 1.0, -1.0, 100.0, -100.0, 1e-3, -1e-3, 20.0, -20.0];
const UNIT: &[f64] = &[0.0, 1.0, -1.0, 0.5, -0.5, 1e-3, -1e-3, 0.99, 1.5, -1.5];
const POSITIVE: &[f64] = &[1.0, 0.5, 2.0, 1e-3, 100.0];
/// Includes subnormal numbers and negative powers of two, whose bit patterns are edge cases of a logarithm.
const ROOTS: &[f64] = &[1.0, 0.5, 2.0, 1e-3, 100.0, 1e-40, 1e-45, 1.1754942e-38, -1.0, -2.0, -0.3, -1e-40];

// Error bounds in ulps; one rounding is half an ulp. Built-ins have the bounds of the WGSL specification (section
// 15.7.4): 2.5 for a division, 2 for inverseSqrt, and the sum of both for sqrt. Our own functions have the largest
// error that tests/ops/scalar.rs finds on lavapipe, llvmpipe and SwiftShader ("measured"; "emulated": in f32 on the
// host), plus at least half an ulp for contractions by other drivers and, because these three divide correctly, plus
// 2.5 for a division that affects the result.
rows! {
    /// `a + b`. Integers wrap. Gradients `dy` and `dy`.
    binary add = Row::numbers(2, |x| x[0] + x[1], |x| x[0].wrapping_add(x[1]))
        .ulps(1.0)
        .cases(-2.0, 2.0, SMALL)
        .gradient(|g, _| vec![Some(g.dy()), Some(g.dy())]);
    /// `a - b`. Integers wrap. Gradients `dy` and `-dy`.
    binary sub = Row::numbers(2, |x| x[0] - x[1], |x| x[0].wrapping_sub(x[1]))
        .ulps(1.0)
        .cases(-2.0, 2.0, SMALL)
        .gradient(|g, _| vec![Some(g.dy()), g.when(1, || g.dy().neg())]);
    /// `a * b`. Integers wrap. Gradients `dy b` and `dy a`.
    binary mul = Row::numbers(2, |x| x[0] * x[1], |x| x[0].wrapping_mul(x[1]))
        .ulps(1.0)
        .identity(1.0)
        .cases(-2.0, 2.0, SMALL)
        .gradient(|g, _| vec![g.when(0, || g.dy() * g.x(1)), g.when(1, || g.dy() * g.x(0))]);
    /// `a / b`, for floats: division by 0 gives infinity, and `0 / 0` gives NaN. For integers see
    /// [`Value::div_trunc`] and [`Value::div_floor`]. Gradients `dy / b` and `-dy y / b`.
    binary div = Row::floats(2, |x, _| x[0] / x[1])
        .ulps(2.5)
        .cases(0.5, 3.0, POSITIVE)
        .gradient(|g, _| vec![g.when(0, || g.dy() / g.x(1)), g.when(1, || (g.dy() * g.y() / g.x(1)).neg())]);
    /// Integer quotient, rounded towards zero: `torch.div` with `rounding_mode="trunc"`. A divisor of 0 gives `a`, and
    /// the smallest i32 divided by -1 wraps to itself, as in WGSL.
    binary div_trunc = Row::integers(2, |x| divided(x, i64::wrapping_div));
    /// Integer quotient, rounded down: `torch.div` with `rounding_mode="floor"`. Division by 0, and of the smallest
    /// i32 by -1, as for [`Value::div_trunc`].
    binary div_floor = Row::integers(2, |x| divided(x, |a, b| a.div_euclid(b) - i64::from(b < 0 && a % b != 0)));
    /// Integer quotient whose remainder is non-negative. Division by 0, and of the smallest i32 by -1, as for
    /// [`Value::div_trunc`].
    binary div_euclid = Row::integers(2, |x| divided(x, i64::div_euclid));
    /// `a - b div_trunc(a, b)` of integers, with the sign of `a`: `torch.fmod`. A divisor of 0 gives 0.
    binary fmod = Row::integers(2, |x| remaining(x, |a, b| a % b));
    /// `a - b div_floor(a, b)` of integers, with the sign of `b`: `torch.remainder`, Python's `%`, and the operator
    /// `%` of [`Value`]. A divisor of 0 gives 0.
    binary remainder = Row::integers(2, |x| remaining(x, |a, b| (a % b + b) % b));
    /// `a - b div_euclid(a, b)` of integers, which is non-negative. A divisor of 0 gives 0.
    binary rem_euclid = Row::integers(2, |x| remaining(x, i64::rem_euclid));
    /// The bits that are set in both integers.
    binary bit_and = Row::integers(2, |x| x[0] & x[1]);
    /// The bits that are set in at least one of two integers.
    binary bit_or = Row::integers(2, |x| x[0] | x[1]);
    /// The bits in which two integers differ.
    binary bit_xor = Row::integers(2, |x| x[0] ^ x[1]);
    /// The bits that are not set, of 32.
    unary bit_not = Row::integers(1, |x| !x[0]);
    /// `a 2^b`, the lower 32 bits. A shift by 32 or more, or by a negative number, gives 0.
    binary shift_left = Row::integers(2, |x| if (0..32).contains(&x[1]) { x[0] << x[1] } else { 0 });
    /// `a / 2^b`, rounded down: signed integers keep their sign. A shift by 32 or more, or by a negative number, gives
    /// 0, of negative numbers -1.
    binary shift_right = Row::integers(2, |x| x[0] >> if (0..32).contains(&x[1]) { x[1] } else { 32 });
    /// The smaller value, NaN if either is NaN. Equal operands get half the gradient each.
    binary minimum = Row::numbers(2, |x| extreme(x[0], x[1], f64::min), |x| x[0].min(x[1]))
        .selects()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| share_between(g, |a, b| a.lt(b)));
    /// The larger value, NaN if either is NaN. Equal operands get half the gradient each.
    binary maximum = Row::numbers(2, |x| extreme(x[0], x[1], f64::max), |x| x[0].max(x[1]))
        .selects()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| share_between(g, |a, b| a.gt(b)));
    /// `a` to the power `b`, as IEEE `pow`: 1 for `b = 0`; a negative `a` requires a whole `b`, otherwise the result
    /// is NaN. Gradients `dy b a^(b-1)`, 0 for `b = 0`, and `dy y ln a`, 0 for `a <= 0`. For a constant exponent see
    /// [`Value::powf`].
    binary pow = Row::floats(2, |x, _| x[0].powf(x[1]))
        .reads_subnormals()
        .ulps(4.0) // measured 2.6; its division is corrected by the remainder
        .cases(0.3, 2.5, &[1.0, 2.0, 0.5])
        .gradient(|g, _| {
            let (a, b, zero) = (g.x(0), g.x(1), g.y().zeros_like());
            let to_base = || b.ne(&zero).where_(&(b * a.pow(&(b - 1.0))), &zero) * g.dy();
            let to_exponent = || g.dy() * g.y() * a.gt(&zero).where_(a, &a.ones_like()).log();
            vec![g.when(0, to_base), g.when(1, to_exponent)]
        });
    manual powf = Row::floats(1, |x, a| x[0].powf(a[0]))
        .reads_subnormals()
        .ulps(4.0) // as pow
        .cases(0.2, 2.5, POSITIVE)
        .gradient(|g, a| vec![Some(g.dy() * (g.x(0).powf(a[0] - 1.0) * a[0]))]);

    /// Whether `a < b`.
    binary lt = Row::compare(|a, b| a < b).cases(-1.0, 1.0, SMALL);
    /// Whether `a <= b`.
    binary le = Row::compare(|a, b| a <= b).cases(-1.0, 1.0, SMALL);
    /// Whether `a > b`.
    binary gt = Row::compare(|a, b| a > b).cases(-1.0, 1.0, SMALL);
    /// Whether `a >= b`.
    binary ge = Row::compare(|a, b| a >= b).cases(-1.0, 1.0, SMALL);
    /// Whether `a == b`.
    binary eq = Row::compare(|a, b| a == b).cases(-1.0, 1.0, SMALL);
    /// Whether `a != b`.
    binary ne = Row::compare(|a, b| a != b).nan(Nan::Compares(true)).cases(-1.0, 1.0, SMALL);
    /// Logical and.
    binary and = Row::logic(2, |a, b| a && b);
    /// Logical or.
    binary or = Row::logic(2, |a, b| a || b);
    /// Logical not.
    unary not = Row::logic(1, |a, _| !a);
    manual select = Row::select().selects().cases(-1.0, 1.0, &[]).gradient(|g, _| {
        let zero = || g.y().zeros_like();
        vec![None, g.when(1, || g.x(0).where_(&g.dy(), &zero())), g.when(2, || g.x(0).where_(&zero(), &g.dy()))]
    });

    /// `-x`. Integers wrap.
    unary neg = Row::numbers(1, |x| -x[0], |x| x[0].wrapping_neg())
        .selects()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy().neg())]);
    /// `|x|`. The gradient at 0 is 0.
    unary abs = Row::numbers(1, |x| x[0].abs(), |x| x[0].wrapping_abs())
        .selects()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0).sign())]);
    /// -1, 0 or 1; NaN for NaN. The gradient is 0.
    unary sign = Row::floats(1, |x, _| if x[0] == 0.0 { 0.0 } else { x[0].signum() })
        .reads_subnormals()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| vec![Some(g.y().zeros_like())]);
    /// The largest whole number that is at most `x`. The gradient is 0.
    unary floor = Row::floats(1, |x, _| x[0].floor())
        .cases(-5.0, 5.0, WIDE)
        .gradient(|g, _| vec![Some(g.y().zeros_like())]);
    /// The nearest whole number, halves to even. The gradient is 0.
    unary round = Row::floats(1, |x, _| x[0].round_ties_even())
        .cases(-5.0, 5.0, &[0.5, 1.5, -0.5, -1.5, 2.5, 0.0])
        .gradient(|g, _| vec![Some(g.y().zeros_like())]);
    /// The whole number between `x` and 0 that is nearest to `x`. The gradient is 0.
    unary trunc = Row::floats(1, |x, _| x[0].trunc())
        .cases(-5.0, 5.0, WIDE)
        .gradient(|g, _| vec![Some(g.y().zeros_like())]);
    /// `e^x`; infinite for `x` above 88.7, and 0 for results below 2e-38. Gradient `dy y`.
    unary exp = Row::floats(1, |x, _| x[0].exp())
        .ulps(2.0) // measured 1.0
        .absolute(2e-38) // small results are flushed
        .cases(-10.0, 10.0, &[0.0, 1.0, -1.0, 88.0, -80.0, 100.0, -100.0, 1e4, -1e4])
        .gradient(|g, _| vec![Some(g.dy() * g.y())]);
    /// Natural logarithm, also of subnormal numbers; minus infinity at 0, NaN below. Gradient `dy / x`.
    unary log = Row::floats(1, |x, _| x[0].ln())
        .reads_subnormals()
        .ulps(2.0) // measured 1.1
        .cases(0.01, 10.0, ROOTS)
        .gradient(|g, _| vec![Some(g.dy() / g.x(0))]);
    /// The square root, for `x >= 0`. The gradient `dy / 2y` is infinite at 0.
    unary sqrt = Row::floats(1, |x, _| x[0].sqrt())
        .reads_subnormals()
        .ulps(4.5)
        .cases(0.01, 10.0, ROOTS)
        .gradient(|g, _| vec![Some(g.dy() * 0.5 / g.y())]);
    /// `1 / sqrt(x)`, for `x > 0`. Gradient `-dy y / 2x`.
    unary rsqrt = Row::floats(1, |x, _| 1.0 / x[0].sqrt())
        .reads_subnormals()
        .ulps(2.0)
        .cases(0.01, 10.0, ROOTS)
        .gradient(|g, _| vec![Some(g.dy() * -0.5 * g.y() / g.x(0))]);
    /// `x * x`. Gradient `2 dy x`.
    unary square = Row::floats(1, |x, _| x[0] * x[0])
        .ulps(1.0)
        .cases(-3.0, 3.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0) * 2.0)]);
    /// `1 / x`, for `x` other than 0. Gradient `-dy y^2`.
    unary reciprocal = Row::floats(1, |x, _| 1.0 / x[0])
        .ulps(2.5)
        .cases(0.1, 10.0, POSITIVE)
        .gradient(|g, _| vec![Some((g.dy() * g.y().square()).neg())]);
    /// Sine, in radians. WGSL specifies the accuracy of its `sin` only on [-pi, pi]; this one reduces the range first
    /// and is accurate to 2 ulp plus 1e-9 for `|x|` up to 1e4. Gradient `dy cos(x)`.
    unary sin = Row::floats(1, |x, _| x[0].sin())
        .ulps(2.0) // measured 1.5
        .absolute(1e-9) // near zeros: the truncation of pi/2 in the range reduction
        .cases(-10.0, 10.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0).cos())]);
    /// Cosine, in radians; accuracy as for [`Value::sin`]. Gradient `-dy sin(x)`.
    unary cos = Row::floats(1, |x, _| x[0].cos())
        .ulps(2.0) // measured 1.5
        .absolute(1e-9) // as for sin
        .cases(-10.0, 10.0, WIDE)
        .gradient(|g, _| vec![Some((g.dy() * g.x(0).sin()).neg())]);
    /// The tangent, in radians, for `|x|` up to 1e4. Gradient `dy (1 + y^2)`.
    unary tan = Row::floats(1, |x, _| x[0].tan())
        .ulps(7.0) // emulated 3.4
        .cases(-1.4, 1.4, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * (g.y().square() + 1.0))]);
    /// The arc sine in radians, from -pi/2 to pi/2; NaN beyond 1. Gradient `dy / sqrt(1 - x^2)`, infinite at 1 and -1.
    unary asin = Row::floats(1, |x, _| x[0].asin())
        .ulps(7.0) // emulated 2.3; its square root counts twice
        .cases(-0.95, 0.95, UNIT)
        .gradient(|g, _| vec![Some(g.dy() * slope_of_arc_sine(g.x(0)))]);
    /// The arc cosine in radians, from 0 to pi; NaN beyond 1. Gradient `-dy / sqrt(1 - x^2)`, infinite at 1 and -1.
    unary acos = Row::floats(1, |x, _| x[0].acos())
        .ulps(7.0) // as asin
        .cases(-0.95, 0.95, UNIT)
        .gradient(|g, _| vec![Some((g.dy() * slope_of_arc_sine(g.x(0))).neg())]);
    /// The arc tangent in radians, from -pi/2 to pi/2. Gradient `dy / (1 + x^2)`.
    unary atan = Row::floats(1, |x, _| x[0].atan())
        .ulps(5.0) // emulated 2.2
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() / (g.x(0).square() + 1.0))]);
    /// The hyperbolic sine; infinite for `|x|` above 89.4. Gradient `dy cosh(x)`.
    unary sinh = Row::floats(1, |x, _| x[0].sinh())
        .ulps(3.0) // emulated 1.5
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0).cosh())]);
    /// The hyperbolic cosine; infinite for `|x|` above 89.4. Gradient `dy sinh(x)`.
    unary cosh = Row::floats(1, |x, _| x[0].cosh())
        .ulps(3.0) // emulated 1.5
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0).sinh())]);
    /// The inverse of [`Value::sinh`]: `ln(x + sqrt(x^2 + 1))`. Gradient `dy / sqrt(x^2 + 1)`.
    unary asinh = Row::floats(1, |x, _| x[0].abs().asinh().copysign(x[0]))
        .ulps(9.0) // emulated 2.9; its square root counts 2.5 times
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| {
            // Without overflow: 1 / m sqrt((x/m)^2 + (1/m)^2) with m = max(|x|, 1).
            let m = g.x(0).abs().maximum(&g.x(0).ones_like());
            vec![Some(g.dy() * ((g.x(0) / &m).square() + m.reciprocal().square()).rsqrt() / m)]
        });
    /// The inverse of [`Value::cosh`], for `x >= 1`, NaN below: `ln(x + sqrt(x^2 - 1))`. Gradient
    /// `dy / sqrt(x^2 - 1)`, infinite at 1.
    unary acosh = Row::floats(1, |x, _| x[0].acosh())
        .ulps(9.0) // as asinh
        .cases(1.05, 6.0, &[1.0, 1.5, 1.0000001, 2.0, 100.0, 1e4, 2e4, 1e30, 0.5, -2.0])
        .gradient(|g, _| vec![Some(g.dy() * (g.x(0) - 1.0).rsqrt() * (g.x(0) + 1.0).rsqrt())]);
    /// The inverse of [`Value::tanh`]: `ln((1 + x) / (1 - x)) / 2`; infinite at 1 and -1, NaN beyond. Gradient
    /// `dy / (1 - x^2)`.
    unary atanh = Row::floats(1, |x, _| x[0].abs().atanh().copysign(x[0]))
        .ulps(6.0) // emulated 2.9
        .cases(-0.95, 0.95, UNIT)
        .gradient(|g, _| vec![Some(g.dy() / ((g.x(0).neg() + 1.0) * (g.x(0) + 1.0)))]);
    /// The error function, `2/sqrt(pi) * integral from 0 to x of exp(-t^2)`. Gradient
    /// `dy 2/sqrt(pi) exp(-x^2)`.
    unary erf = Row::floats(1, |x, _| libm::erf(x[0]))
        .ulps(2.0) // measured 1.1
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * (g.x(0).square().neg().exp() * FRAC_2_SQRT_PI))]);
    /// The normal distribution function `Phi(x) = erfc(-x / sqrt 2) / 2`, accurate in the tail too. Gradient
    /// `dy exp(-x^2 / 2) / sqrt(2 pi)`.
    unary normal_cdf = Row::floats(1, |x, _| 0.5 * libm::erfc(-x[0] * FRAC_1_SQRT_2))
        .ulps(12.0) // measured 5.8, at 0; the division there counts twice
        .cases(-5.0, 5.0, WIDE)
        .gradient(|g, _| {
            let density = (g.x(0).square() * -0.5).exp() * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            vec![Some(g.dy() * density)]
        });
    /// The hyperbolic tangent; exactly +-1 in the far tails, never NaN. Gradient `dy (1 - y^2)`.
    unary tanh = Row::floats(1, |x, _| x[0].tanh())
        .ulps(6.0) // measured 2.5
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * (g.y().square().neg() + 1.0))]);
    /// `1 / (1 + exp(-x))`, without overflow at either end. Gradient `dy y (1 - y)`.
    unary sigmoid = Row::floats(1, |x, _| {
            let e = (-x[0].abs()).exp();
            if x[0] >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
        })
        .ulps(6.0) // measured 2.3
        .cases(-8.0, 8.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.y() * (g.y().neg() + 1.0))]);
    /// `ln(1 + exp(x))`, stable: `max(x, 0) + ln(1 + exp(-|x|))`. Gradient `dy sigmoid(x)`.
    unary softplus = Row::floats(1, |x, _| extreme(x[0], 0.0, f64::max) + (-x[0].abs()).exp().ln_1p())
        .ulps(2.5) // measured 1.6
        .cases(-8.0, 8.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() * g.x(0).sigmoid())]);
    /// `x / (1 + |x|)`: between -1 and 1, with slower tails than tanh. Gradient `dy / (1 + |x|)^2`, which is `dy` at 0.
    unary softsign = Row::floats(1, |x, _| x[0] / (1.0 + x[0].abs()))
        .ulps(4.0) // 2.5 for the division, 1 for the sum
        .cases(-4.0, 4.0, WIDE)
        .gradient(|g, _| vec![Some(g.dy() / (g.x(0).abs() + 1.0).square())]);
    /// `min(max(x + 3, 0), 6) / 6`: a piecewise linear sigmoid. Gradient `dy / 6` between -3 and 3, else 0.
    unary hardsigmoid = Row::floats(1, |x, _| (x[0] + 3.0).clamp(0.0, 6.0) / 6.0)
        .ulps(4.0) // 2.5 for the division, 1 for the sum
        .cases(-4.0, 4.0, &[0.0, 3.0, -3.0, 1.0, -1.0, 100.0, -100.0])
        .gradient(|g, _| {
            let inside = g.x(0).abs().lt(&g.y().full_like(3.0));
            vec![Some(inside.where_(&(g.dy() / 6.0), &g.y().zeros_like()))]
        });
    /// `max(x, 0)`, NaN for NaN. The gradient at 0 is 0.
    unary relu = Row::floats(1, |x, _| extreme(x[0], 0.0, f64::max))
        .selects()
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, _| {
            let zero = g.y().zeros_like();
            vec![Some(g.y().le(&zero).where_(&zero, &g.dy()))]
        });
    manual leaky_relu = Row::floats(1, |x, a| if x[0] > 0.0 { x[0] } else { a[0] * x[0] })
        .ulps(2.0) // the rounded slope, and the product
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, a| vec![Some(g.x(0).gt(&g.y().zeros_like()).where_(&g.dy(), &(g.dy() * a[0])))]);
    manual elu = Row::floats(1, |x, a| if x[0] > 0.0 { x[0] } else { a[0] * x[0].exp_m1() })
        .ulps(2.5) // measured 1.5
        .cases(-3.0, 3.0, WIDE)
        .gradient(|g, a| {
            let positive = g.x(0).gt(&g.y().zeros_like());
            vec![Some(positive.where_(&g.dy(), &(g.dy() * (g.y() + a[0]))))]
        });
    manual bce = Row::floats(2, |x, _| {
            let bounded = |x: f64| if x > 0.0 { x.ln().max(-100.0) } else { x.clamp(-100.0, -100.0) }; // NaN stays
            -(x[1] * bounded(x[0]) + (1.0 - x[1]) * bounded(1.0 - x[0]))
        })
        .ulps(5.0) // 2 per logarithm, plus a product and a sum
        .absolute(1.2e-7) // the rounding of 1 - p
        .cases(0.05, 0.95, &[])
        .gradient(|g, _| {
            let (p, t) = (g.x(0), g.x(1));
            let variance = (p * (p.neg() + 1.0)).maximum(&p.full_like(1e-12));
            let ln = |x: &Value| x.maximum(&x.full_like(1e-37)).log();
            vec![
                g.when(0, || g.dy() * (p - t) / variance),
                g.when(1, || g.dy() * (ln(&(p.neg() + 1.0)) - ln(p))),
            ]
        });
    manual clamp = Row::floats(1, |x, a| x[0].clamp(a[0], a[1]))
        .ulps(1.0) // the rounded bounds
        .cases(-2.0, 2.0, WIDE)
        .gradient(|g, a| {
            let inside = g.x(0).ge(&g.x(0).full_like(a[0])).and(&g.x(0).le(&g.x(0).full_like(a[1])));
            vec![Some(inside.where_(&g.dy(), &g.y().zeros_like()))]
        });
}

/// `1 / sqrt(1 - x^2)`.
fn slope_of_arc_sine(x: &Value) -> Value {
    ((x.neg() + 1.0) * (x + 1.0)).rsqrt()
}

/// The smaller or larger value, NaN if either is NaN.
fn extreme(a: f64, b: f64, of: fn(f64, f64) -> f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { of(a, b) }
}

/// The gradient of minimum and maximum: goes to the selected operand, half to each if both are equal.
fn share_between(g: &Backward<'_>, wins: fn(&Value, &Value) -> Value) -> Vec<Option<Value>> {
    let part = |a: &Value, b: &Value| {
        let tie = a.eq(b).where_(&(g.dy() * 0.5), &g.y().zeros_like());
        wins(a, b).where_(&g.dy(), &tie)
    };
    vec![g.when(0, || part(g.x(0), g.x(1))), g.when(1, || part(g.x(1), g.x(0)))]
}
