//! Elementwise ops. A new one is two edits: a function in `shaders/scalar.wgsl` named
//! `NAME_f32` (or `_i32`, `_u32`), and a row in the table below.
//!
//! Operands broadcast as in NumPy. Floats that are neither NaN nor infinite are expected; what a
//! function gives at its kinks is said in its line.

use crate::op::{Arg, Backward, Case, Fill, Lowering, Op, Pointwise, Rounding};
use crate::{DType, Data, Shape, Tensor, TensorType, Value};

/// A row of the table: everything there is to know about an elementwise function but its WGSL.
pub(crate) struct Row {
    name: &'static str,
    signature: Signature,
    reference: Reference,
    gradient: fn(&Backward<'_>, &[f64]) -> Vec<Option<Value>>,
    /// Units in the last place by which the device may be off; [`EXACT`] for none.
    ulps: f64,
    /// Absolute error allowed besides, where results cancel.
    absolute: f64,
    /// Where its cases draw inputs, and special values to begin with.
    domain: (f64, f64),
    special: &'static [f64],
}

const EXACT: f64 = 0.0;

#[derive(Clone, Copy, PartialEq)]
enum Signature {
    /// Floats to float.
    Float(usize),
    /// Numbers of one type to that type.
    Number(usize),
    /// Two numbers of one type to bool.
    Compare,
    /// Bools to bool.
    Logic(usize),
    /// Bool and two values of one type to that type.
    Select,
}

enum Reference {
    /// Floats and attributes to float.
    Float(fn(&[f64], &[f64]) -> f64),
    /// The same for floats and for integers (in 64 bits; the result wraps to its type).
    Number(fn(&[f64]) -> f64, fn(&[i64]) -> i64),
    /// Two numbers to bool: every 32-bit integer is an exact f64.
    Compare(fn(f64, f64) -> bool),
    Logic(fn(&[bool]) -> bool),
    Select,
}

/// An elementwise op: a row and its attributes.
struct Elementwise {
    row: &'static Row,
    attributes: Vec<f64>,
}

impl std::fmt::Debug for Elementwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.row.name, self.attributes)
    }
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        self.row.name
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let dtype = |i: usize| inputs[i].dtype;
        let last = inputs.len() - 1;
        let (fits, wanted, result) = match self.row.signature {
            Signature::Float(_) => {
                ((0..=last).all(|i| dtype(i) == DType::F32), "f32 operands; cast() the others", DType::F32)
            }
            Signature::Number(_) => (
                (0..=last).all(|i| dtype(i) == dtype(0) && dtype(i) != DType::Bool),
                "numbers of one type; cast() one side",
                dtype(0),
            ),
            Signature::Compare => (
                dtype(0) == dtype(last) && dtype(0) != DType::Bool,
                "two numbers of one type; cast() one side",
                DType::Bool,
            ),
            Signature::Logic(_) => {
                ((0..=last).all(|i| dtype(i) == DType::Bool), "bool operands; compare first", DType::Bool)
            }
            Signature::Select => (
                dtype(0) == DType::Bool && dtype(1) == dtype(2),
                "a bool condition and two branches of one type",
                dtype(last),
            ),
        };
        if !fits {
            return Err(format!("expected {wanted}"));
        }
        Ok(vec![TensorType::new(result, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        (self.row.gradient)(g, &self.attributes)
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, self.evaluate(inputs, outputs[0].dtype))]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let exact = self.row.ulps == EXACT && self.row.absolute == 0.0;
        if exact || inputs.iter().any(|ty| matches!(ty.dtype, DType::I32 | DType::U32)) {
            Rounding::Exact
        } else {
            Rounding::Ulps(self.row.ulps, self.row.absolute)
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Pointwise(Pointwise {
            function: self.row.name.to_owned(),
            args: (0..self.row.arity()).map(Arg::Input).chain(self.attributes.iter().map(|&a| Arg::F32(a))).collect(),
        })
    }
}

impl Row {
    fn arity(&self) -> usize {
        match self.signature {
            Signature::Float(n) | Signature::Number(n) | Signature::Logic(n) => n,
            Signature::Compare => 2,
            Signature::Select => 3,
        }
    }
}

impl Elementwise {
    fn evaluate(&self, inputs: &[&Tensor], dtype: DType) -> Data {
        let n = inputs[0].numel();
        match &self.row.reference {
            Reference::Float(f) => map_floats(inputs, |x| f(x, &self.attributes)),
            Reference::Number(float, int) => match dtype {
                DType::F32 => map_floats(inputs, |x| float(x)),
                DType::I32 => Data::I32(map_integers(inputs, n, int).map(|x| x as i32).collect()),
                _ => Data::U32(map_integers(inputs, n, int).map(|x| x as u32).collect()),
            },
            Reference::Compare(compare) => {
                let (a, b) = (inputs[0].to_f64(), inputs[1].to_f64());
                Data::Bool(a.iter().zip(&b).map(|(&a, &b)| compare(a, b)).collect())
            }
            Reference::Logic(f) => {
                let columns: Vec<&[bool]> = inputs.iter().map(|t| bools(t)).collect();
                Data::Bool((0..n).map(|i| f(&columns.iter().map(|c| c[i]).collect::<Vec<_>>())).collect())
            }
            Reference::Select => {
                let condition = bools(inputs[0]);
                fn pick<T: Copy>(condition: &[bool], a: &[T], b: &[T]) -> Vec<T> {
                    condition.iter().zip(a.iter().zip(b)).map(|(&c, (&a, &b))| if c { a } else { b }).collect()
                }
                match (inputs[1].data(), inputs[2].data()) {
                    (Data::F64(a), Data::F64(b)) => pick(condition, a, b).into(),
                    (Data::I32(a), Data::I32(b)) => pick(condition, a, b).into(),
                    (Data::U32(a), Data::U32(b)) => pick(condition, a, b).into(),
                    (Data::Bool(a), Data::Bool(b)) => pick(condition, a, b).into(),
                    _ => Tensor::zeros(&TensorType::new(dtype, inputs[0].shape())).into_data(),
                }
            }
        }
    }
}

fn bools(tensor: &Tensor) -> &[bool] {
    match tensor.data() {
        Data::Bool(v) => v,
        _ => &[],
    }
}

fn map_floats(inputs: &[&Tensor], f: impl Fn(&[f64]) -> f64 + Sync) -> Data {
    use rayon::prelude::*;
    const CHUNK: usize = 1 << 14;
    let n = inputs[0].numel();
    let columns: Vec<&[f64]> = inputs.iter().map(|t| t.f64s()).collect();
    let mut out = vec![0.0; n];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let mut x = [0.0; 3];
        for (i, y) in out.iter_mut().enumerate() {
            for (x, column) in x.iter_mut().zip(&columns) {
                *x = column[chunk * CHUNK + i];
            }
            *y = f(&x[..columns.len()]);
        }
    });
    Data::F64(out)
}

fn map_integers<'a>(inputs: &'a [&Tensor], n: usize, f: &'a fn(&[i64]) -> i64) -> impl Iterator<Item = i64> + 'a {
    let at = |t: &Tensor, i: usize| match t.data() {
        Data::I32(v) => i64::from(v[i]),
        Data::U32(v) => i64::from(v[i]),
        _ => 0,
    };
    (0..n).map(move |i| {
        let mut x = [0; 3];
        for (x, t) in x.iter_mut().zip(inputs) {
            *x = at(t, i);
        }
        f(&x[..inputs.len()])
    })
}

impl Value {
    /// Applies a row to operands, broadcast to their common shape.
    #[track_caller]
    fn elementwise(&self, row: &'static Row, others: &[&Value], attributes: &[f64]) -> Value {
        let operands: Vec<&Value> = std::iter::once(self).chain(others.iter().copied()).collect();
        if operands.iter().any(|v| !v.is_valid()) {
            return operands.iter().find(|v| !v.is_valid()).map_or_else(|| self.clone(), |v| (*v).clone());
        }
        let shape = operands.iter().skip(1).try_fold(self.shape().clone(), |shape, v| shape.broadcast(v.shape()));
        let Some(shape) = shape else {
            return self.graph().mistake(
                row.name,
                &operands,
                "the shapes do not broadcast: aligned at the last axis, sizes must be equal or 1",
            );
        };
        let operands: Vec<Value> = operands.iter().map(|v| v.broadcast_to(&shape)).collect();
        let op = Elementwise { row, attributes: attributes.to_vec() };
        self.graph().apply1(op, &operands.iter().collect::<Vec<_>>())
    }

    /// `a` where `self` (a bool) is true, else `b`; the three broadcast. The gradient goes to the
    /// branch taken.
    #[track_caller]
    pub fn where_(&self, a: &Value, b: &Value) -> Value {
        self.elementwise(&rows::select, &[a, b], &[])
    }

    /// `x * sigmoid(x)` (also called swish).
    #[track_caller]
    pub fn silu(&self) -> Value {
        self * self.sigmoid()
    }

    /// Gaussian error linear unit, exact form: `x * Phi(x)`, with `Phi` the normal distribution
    /// function (Hendrycks and Gimpel, arXiv:1606.08415).
    #[track_caller]
    pub fn gelu(&self) -> Value {
        self * self.normal_cdf()
    }

    /// Gaussian error linear unit, tanh form:
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Value {
        let inner = (self + self.square() * self * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
        self * 0.5 * (inner.tanh() + 1.0)
    }

    /// `min(max(x, low), high)`. The gradient is `dy` inside, bounds included, and 0 outside.
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Value {
        if low.is_nan() || high.is_nan() || low > high {
            return self.graph().mistake("clamp", &[self], format!("the bounds must be ordered, not {low} and {high}"));
        }
        self.elementwise(&rows::clamp, &[], &[low, high])
    }

    /// `x` for `x > 0`, else `slope * x`; the slope at 0 is `slope`.
    #[track_caller]
    pub fn leaky_relu(&self, slope: f64) -> Value {
        self.elementwise(&rows::leaky_relu, &[], &[slope])
    }

    /// `x` for `x > 0`, else `alpha * (exp(x) - 1)`; the slope at 0 is `alpha`.
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Value {
        self.elementwise(&rows::elu, &[], &[alpha])
    }

    /// `x` to a fixed power. Negative bases are defined for whole exponents; otherwise the result
    /// is NaN, as in IEEE `pow`. Gradient `exponent * x^(exponent - 1)`.
    #[track_caller]
    pub fn powf(&self, exponent: f64) -> Value {
        self.elementwise(&rows::powf, &[], &[exponent])
    }
}

/// Writes the table and, for each row without attributes, the method of [`Value`].
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident = $signature:expr, $reference:expr, ulps $ulps:expr, abs $absolute:expr,
        on $domain:expr, $special:expr, $method:ident; $gradient:expr;)*) => {
        #[allow(non_upper_case_globals)]
        pub(crate) mod rows {
            use super::*;
            use super::Reference as R;
            use super::Signature as S;
            $(pub(crate) static $name: Row = Row {
                name: stringify!($name),
                signature: $signature,
                reference: $reference,
                gradient: $gradient,
                ulps: $ulps,
                absolute: $absolute,
                domain: $domain,
                special: $special,
            };)*
            pub(super) static ALL: &[&Row] = &[$(&$name),*];
        }
        $(rows!(@$method $(#[$doc])* $name);)*
    };
    (@manual $name:ident) => {
    };
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

const UNIT_SPECIAL: &[f64] = &[0.0, 1.0, -1.0, 0.5, -0.5];
const WIDE: &[f64] = &[0.0, 1.0, -1.0, 100.0, -100.0, 1e-3, -1e-3, 20.0, -20.0];
const POSITIVE: &[f64] = &[1.0, 0.5, 2.0, 1e-3, 100.0];

fn none(_: &Backward<'_>, _: &[f64]) -> Vec<Option<Value>> {
    vec![None; 3]
}

fn power(x: f64, y: f64) -> f64 {
    x.powf(y)
}

// Name = signature, reference, bound in ulps, absolute bound, domain of cases, special inputs,
// method; gradient.
rows! {
    /// `a + b`. Integers wrap.
    add = S::Number(2), R::Number(|x| x[0] + x[1], |x| x[0].wrapping_add(x[1])), ulps 1.0, abs 0.0,
        on (-2.0, 2.0), UNIT_SPECIAL, binary;
        |g, _| vec![Some(g.dy()), Some(g.dy())];
    /// `a - b`. Integers wrap.
    sub = S::Number(2), R::Number(|x| x[0] - x[1], |x| x[0].wrapping_sub(x[1])), ulps 1.0, abs 0.0,
        on (-2.0, 2.0), UNIT_SPECIAL, binary;
        |g, _| vec![Some(g.dy()), g.when(1, || g.dy().neg())];
    /// `a * b`. Integers wrap.
    mul = S::Number(2), R::Number(|x| x[0] * x[1], |x| x[0].wrapping_mul(x[1])), ulps 1.0, abs 0.0,
        on (-2.0, 2.0), UNIT_SPECIAL, binary;
        |g, _| vec![g.when(0, || g.dy() * g.x(1)), g.when(1, || g.dy() * g.x(0))];
    /// `a / b`, floats. A divisor of 0 gives no defined value.
    div = S::Float(2), R::Float(|x, _| x[0] / x[1]), ulps 2.5, abs 0.0,
        on (0.5, 3.0), POSITIVE, binary;
        |g, _| vec![g.when(0, || g.dy() / g.x(1)), g.when(1, || (g.dy() * g.y() / g.x(1)).neg())];
    /// The smaller one. Where both are equal each gets half the gradient.
    minimum = S::Number(2), R::Number(|x| x[0].min(x[1]), |x| x[0].min(x[1])), ulps EXACT, abs 0.0,
        on (-2.0, 2.0), WIDE, binary;
        |g, _| share_between(g, |a, b| a.lt(b));
    /// The larger one. Where both are equal each gets half the gradient.
    maximum = S::Number(2), R::Number(|x| x[0].max(x[1]), |x| x[0].max(x[1])), ulps EXACT, abs 0.0,
        on (-2.0, 2.0), WIDE, binary;
        |g, _| share_between(g, |a, b| a.gt(b));
    /// `a` to the power `b`, for `a > 0` (and 0 for `a = 0`, `b > 0`). Gradient `b a^(b-1)` and `y ln a`, the
    /// latter 0 at `a = 0`. For a fixed exponent see [`Value::powf`].
    pow = S::Float(2), R::Float(|x, _| power(x[0], x[1])), ulps 24.0, abs 0.0,
        on (0.3, 2.5), &[1.0, 2.0, 0.5], binary;
        |g, _| vec![
            g.when(0, || g.dy() * g.x(1) * g.x(0).pow(&(g.x(1) - 1.0))),
            g.when(1, || {
                let positive = g.x(0).gt(&g.x(0).full_like(0.0));
                let ln = positive.where_(g.x(0), &g.x(0).full_like(1.0)).log();
                g.dy() * g.y() * ln
            }),
        ];
    powf = S::Float(1), R::Float(|x, a| power(x[0], a[0])), ulps 24.0, abs 0.0,
        on (0.2, 2.5), POSITIVE, manual;
        |g, a| vec![Some(g.dy() * (g.x(0).powf(a[0] - 1.0) * a[0]))];

    /// Whether `a < b`.
    lt = S::Compare, R::Compare(|a, b| a < b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether `a <= b`.
    le = S::Compare, R::Compare(|a, b| a <= b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether `a > b`.
    gt = S::Compare, R::Compare(|a, b| a > b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether `a >= b`.
    ge = S::Compare, R::Compare(|a, b| a >= b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether `a = b`.
    eq = S::Compare, R::Compare(|a, b| a == b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether `a` and `b` differ.
    ne = S::Compare, R::Compare(|a, b| a != b), ulps EXACT, abs 0.0, on (-1.0, 1.0), UNIT_SPECIAL, binary; none;
    /// Whether both are true.
    and = S::Logic(2), R::Logic(|x| x[0] && x[1]), ulps EXACT, abs 0.0, on (0.0, 1.0), &[], binary; none;
    /// Whether one is true.
    or = S::Logic(2), R::Logic(|x| x[0] || x[1]), ulps EXACT, abs 0.0, on (0.0, 1.0), &[], binary; none;
    /// Whether it is false.
    not = S::Logic(1), R::Logic(|x| !x[0]), ulps EXACT, abs 0.0, on (0.0, 1.0), &[], unary; none;
    select = S::Select, R::Select, ulps EXACT, abs 0.0, on (-1.0, 1.0), &[], manual;
        |g, _| {
            let zero = || g.y().zeros_like();
            vec![
                None,
                g.when(1, || g.x(0).where_(&g.dy(), &zero())),
                g.when(2, || g.x(0).where_(&zero(), &g.dy())),
            ]
        };

    /// `-x`.
    neg = S::Number(1), R::Number(|x| -x[0], |x| x[0].wrapping_neg()), ulps EXACT, abs 0.0,
        on (-2.0, 2.0), WIDE, unary;
        |g, _| vec![Some(g.dy().neg())];
    /// `|x|`. The gradient at 0 is 0.
    abs = S::Number(1), R::Number(|x| x[0].abs(), |x| x[0].wrapping_abs()), ulps EXACT, abs 0.0,
        on (-2.0, 2.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * g.x(0).sign())];
    /// -1, 0 or 1. The gradient is 0.
    sign = S::Float(1), R::Float(|x, _| if x[0] == 0.0 { 0.0 } else { x[0].signum() }), ulps EXACT, abs 0.0,
        on (-2.0, 2.0), WIDE, unary;
        |g, _| vec![Some(g.y().zeros_like())];
    /// The largest whole number not above `x`. The gradient is 0.
    floor = S::Float(1), R::Float(|x, _| x[0].floor()), ulps EXACT, abs 0.0, on (-5.0, 5.0), WIDE, unary;
        |g, _| vec![Some(g.y().zeros_like())];
    /// The nearest whole number, halves to even. The gradient is 0.
    round = S::Float(1), R::Float(|x, _| x[0].round_ties_even()), ulps EXACT, abs 0.0,
        on (-5.0, 5.0), &[0.5, 1.5, -0.5, -1.5, 2.5, 0.0], unary;
        |g, _| vec![Some(g.y().zeros_like())];
    /// `e^x`; overflows beyond 88.7.
    exp = S::Float(1), R::Float(|x, _| x[0].exp()), ulps 4.0, abs 0.0,
        on (-10.0, 10.0), &[0.0, 1.0, -1.0, 80.0, -80.0], unary;
        |g, _| vec![Some(g.dy() * g.y())];
    /// The natural logarithm, for `x > 0`.
    log = S::Float(1), R::Float(|x, _| x[0].ln()), ulps 4.0, abs 4e-7, on (0.01, 10.0), POSITIVE, unary;
        |g, _| vec![Some(g.dy() / g.x(0))];
    /// The square root, for `x >= 0`. The gradient at 0 is infinite, on the device too.
    sqrt = S::Float(1), R::Float(|x, _| x[0].sqrt()), ulps 3.0, abs 0.0, on (0.01, 10.0), POSITIVE, unary;
        |g, _| vec![Some(g.dy() * 0.5 / g.y())];
    /// `1 / sqrt(x)`, for `x > 0`.
    rsqrt = S::Float(1), R::Float(|x, _| 1.0 / x[0].sqrt()), ulps 4.0, abs 0.0, on (0.01, 10.0), POSITIVE, unary;
        |g, _| vec![Some(g.dy() * -0.5 * g.y() / g.x(0))];
    /// `x * x`.
    square = S::Float(1), R::Float(|x, _| x[0] * x[0]), ulps 1.0, abs 0.0, on (-3.0, 3.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * g.x(0) * 2.0)];
    /// `1 / x`, for `x` other than 0.
    reciprocal = S::Float(1), R::Float(|x, _| 1.0 / x[0]), ulps 2.5, abs 0.0, on (0.1, 10.0), POSITIVE, unary;
        |g, _| vec![Some((g.dy() * g.y().square()).neg())];
    /// The sine, of radians. WGSL promises its own only on [-pi, pi]; this one reduces the range
    /// first and keeps a few units of the last place for `|x|` up to about 1e4.
    sin = S::Float(1), R::Float(|x, _| x[0].sin()), ulps 4.0, abs 2e-7, on (-10.0, 10.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * g.x(0).cos())];
    /// The cosine, of radians; its range is as for [`Value::sin`].
    cos = S::Float(1), R::Float(|x, _| x[0].cos()), ulps 4.0, abs 2e-7, on (-10.0, 10.0), WIDE, unary;
        |g, _| vec![Some((g.dy() * g.x(0).sin()).neg())];
    /// The error function, `2/sqrt(pi) * integral from 0 to x of exp(-t^2)`.
    erf = S::Float(1), R::Float(|x, _| libm::erf(x[0])), ulps 8.0, abs 0.0, on (-4.0, 4.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * (g.x(0).square().neg().exp() * std::f64::consts::FRAC_2_SQRT_PI))];
    /// The normal distribution function `Phi(x) = erfc(-x / sqrt 2) / 2`, with its tail.
    normal_cdf = S::Float(1), R::Float(|x, _| 0.5 * libm::erfc(-x[0] * std::f64::consts::FRAC_1_SQRT_2)),
        ulps 32.0, abs 0.0, on (-5.0, 5.0), WIDE, unary;
        |g, _| {
            let density = (g.x(0).square() * -0.5).exp() * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
            vec![Some(g.dy() * density)]
        };
    /// The hyperbolic tangent; exactly +-1 in the far tails, never NaN.
    tanh = S::Float(1), R::Float(|x, _| x[0].tanh()), ulps 8.0, abs 0.0, on (-4.0, 4.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * (g.y().square().neg() + 1.0))];
    /// `1 / (1 + exp(-x))`, without overflow at either end.
    sigmoid = S::Float(1), R::Float(|x, _| {
            let e = (-x[0].abs()).exp();
            if x[0] >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
        }), ulps 8.0, abs 0.0, on (-8.0, 8.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * g.y() * (g.y().neg() + 1.0))];
    /// `ln(1 + exp(x))`, stable: `max(x, 0) + ln(1 + exp(-|x|))`. Gradient `sigmoid(x)`.
    softplus = S::Float(1), R::Float(|x, _| x[0].max(0.0) + (-x[0].abs()).exp().ln_1p()), ulps 8.0, abs 0.0,
        on (-8.0, 8.0), WIDE, unary;
        |g, _| vec![Some(g.dy() * g.x(0).sigmoid())];
    /// `max(x, 0)`. The gradient at 0 is 0.
    relu = S::Float(1), R::Float(|x, _| x[0].max(0.0)), ulps EXACT, abs 0.0, on (-2.0, 2.0), WIDE, unary;
        |g, _| vec![Some(g.y().gt(&g.y().zeros_like()).where_(&g.dy(), &g.y().zeros_like()))];
    leaky_relu = S::Float(1), R::Float(|x, a| if x[0] > 0.0 { x[0] } else { a[0] * x[0] }), ulps 2.0, abs 0.0,
        on (-2.0, 2.0), WIDE, manual;
        |g, a| {
            let positive = g.x(0).gt(&g.y().zeros_like());
            vec![Some(positive.where_(&g.dy(), &(g.dy() * a[0])))]
        };
    elu = S::Float(1), R::Float(|x, a| if x[0] > 0.0 { x[0] } else { a[0] * x[0].exp_m1() }), ulps 8.0, abs 0.0,
        on (-3.0, 3.0), WIDE, manual;
        |g, a| {
            let positive = g.x(0).gt(&g.y().zeros_like());
            vec![Some(positive.where_(&g.dy(), &(g.dy() * (g.y() + a[0]))))]
        };
    clamp = S::Float(1), R::Float(|x, a| x[0].max(a[0]).min(a[1])), ulps 1.0, abs 0.0, on (-2.0, 2.0), WIDE, manual;
        |g, a| {
            let inside = g.x(0).ge(&g.x(0).full_like(a[0])).and(&g.x(0).le(&g.x(0).full_like(a[1])));
            vec![Some(inside.where_(&g.dy(), &g.y().zeros_like()))]
        };
}

/// The gradient of minimum and maximum: to the winner, halved where both are equal.
fn share_between(g: &Backward<'_>, wins: fn(&Value, &Value) -> Value) -> Vec<Option<Value>> {
    let part = |a: &Value, b: &Value| {
        let tie = a.eq(b).where_(&(g.dy() * 0.5), &g.y().zeros_like());
        wins(a, b).where_(&g.dy(), &tie)
    };
    vec![g.when(0, || part(g.x(0), g.x(1))), g.when(1, || part(g.x(1), g.x(0)))]
}

macro_rules! operators {
    ($($trait:ident $method:ident),*) => {$(
        operators!(@ $trait $method, &Value, &Value);
        operators!(@ $trait $method, Value, &Value);
        operators!(@ $trait $method, &Value, Value);
        operators!(@ $trait $method, Value, Value);
        operators!(@number $trait $method, &Value);
        operators!(@number $trait $method, Value);
    )*};
    (@ $trait:ident $method:ident, $left:ty, $right:ty) => {
        impl std::ops::$trait<$right> for $left {
            type Output = Value;
            #[track_caller]
            fn $method(self, other: $right) -> Value {
                Value::$method(&self, &other)
            }
        }
    };
    (@number $trait:ident $method:ident, $left:ty) => {
        impl std::ops::$trait<f64> for $left {
            type Output = Value;
            /// With a number, rounded to the value's type.
            #[track_caller]
            fn $method(self, other: f64) -> Value {
                Value::$method(&self, &self.full_like(other))
            }
        }
    };
}
operators!(Add add, Sub sub, Mul mul, Div div);

impl std::ops::Neg for &Value {
    type Output = Value;
    #[track_caller]
    fn neg(self) -> Value {
        Value::neg(self)
    }
}

impl std::ops::Neg for Value {
    type Output = Value;
    #[track_caller]
    fn neg(self) -> Value {
        Value::neg(&self)
    }
}

/// Cases of every row: a flat one with special values, and for two operands a broadcast one.
pub fn cases() -> Vec<Case> {
    rows::ALL.iter().flat_map(|row| row_cases(row)).chain(composed_cases()).collect()
}

fn row_cases(row: &'static Row) -> Vec<Case> {
    let attributes: &'static [f64] = match row.name {
        "leaky_relu" => &[0.01],
        "elu" => &[1.5],
        "clamp" => &[-0.53, 0.77],
        "powf" => &[-1.5],
        _ => &[],
    };
    let build = move |x: &[Value]| {
        let others: Vec<&Value> = x[1..].iter().collect();
        vec![x[0].elementwise(row, &others, attributes)]
    };
    let (low, high) = row.domain;
    let special = Fill::Special(row.special, low, high);
    let plain = Fill::Uniform(low, high);
    let arity = row.arity();
    let dtypes: &[DType] = match row.signature {
        Signature::Float(_) => &[DType::F32],
        Signature::Number(_) | Signature::Compare => &[DType::F32, DType::I32, DType::U32],
        Signature::Logic(_) => &[DType::Bool],
        Signature::Select => &[DType::F32, DType::I32, DType::U32, DType::Bool],
    };
    let mut cases = Vec::new();
    for &dtype in dtypes {
        let fill = |kinks: bool| match dtype {
            DType::F32 if kinks => special.clone(),
            DType::F32 => plain.clone(),
            DType::Bool => Fill::Coin,
            _ => Fill::Index(1000),
        };
        let selects = row.signature == Signature::Select;
        let operand = |case: Case, i: usize, shape: Shape, kinks: bool| {
            let name = ["a", "b", "c"][i];
            if selects && i == 0 {
                return case.input(name, TensorType::new(DType::Bool, shape), Fill::Coin);
            }
            case.input(name, TensorType::new(dtype, shape), fill(kinks))
        };
        let differentiable = dtype == DType::F32 && !matches!(row.signature, Signature::Compare | Signature::Logic(_));
        let finish = |case: Case| if differentiable { case } else { case.forward_only() };
        let flat = (0..arity).fold(Case::new(row.name, format!("{dtype} values"), build), |case, i| {
            operand(case, i, [37].into(), false)
        });
        cases.push(finish(flat));
        if !row.special.is_empty() && dtype == DType::F32 {
            // At kinks and saturation the derivative is a matter of convention: finite differences
            // know nothing of it, so only the values are compared.
            let kinks = (0..arity)
                .fold(Case::new(row.name, "special values", build), |case, i| operand(case, i, [33].into(), true));
            cases.push(kinks.forward_only());
        }
        if arity > 1 {
            let shapes: [Shape; 3] = [[3, 1, 5].into(), [4, 1].into(), [5].into()];
            let broadcast = (0..arity).fold(Case::new(row.name, format!("{dtype} broadcast"), build), |case, i| {
                operand(case, i, shapes[i].clone(), false)
            });
            cases.push(finish(broadcast));
        }
    }
    cases
}

fn composed_cases() -> Vec<Case> {
    let float = |case: Case| case.float("x", [5, 7]);
    vec![
        float(Case::new("gelu", "chain", |x| vec![x[0].gelu()])),
        float(Case::new("gelu_tanh", "chain", |x| vec![x[0].gelu_tanh()])),
        float(Case::new("silu", "chain", |x| vec![x[0].silu()])),
        float(Case::new("relu", "empty, and more than a workgroup", |x| vec![x[0].relu()])).float("unused", [0]),
        Case::new("add", "zero-size", |x| vec![&x[0] + &x[1]]).float("a", [0, 3]).float("b", [3]),
        Case::new("mul", "permuted and sliced operands", |x| {
            vec![x[0].permute(&[1, 0]) * x[1].slice(0, 1, 9, 2) + 1.0]
        })
        .float("a", [6, 4])
        .float("b", [9, 6]),
        Case::new("add", "large, two outputs of one chain", |x| {
            let y = (&x[0] + &x[1]).relu();
            vec![y.square(), y]
        })
        .float("a", [70_001])
        .float("b", [1])
        .forward_only(),
    ]
}
