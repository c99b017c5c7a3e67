//! Conversions between element types.

use std::any::Any;
use std::sync::Arc;

use crate::op::{Arg, Attributes, Backward, Case, Fill, Lowering, Nan, Op, Pointwise, Rounding, Strided};
use crate::shape::View;
use crate::{DType, Data, Tensor, TensorType, Value};

/// Converts between wide types, or from the wide type of a narrow one to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cast {
    to: DType,
    /// Whether the operand is known to have values of the type already.
    exact: bool,
}

/// Whether an op is a [`Cast`] to a narrow float type; and the same without rounding, for operands that have values of
/// the type already.
pub(crate) fn without_rounding(op: &dyn Op) -> Option<(DType, Arc<dyn Op>)> {
    let cast = (op as &dyn Any).downcast_ref::<Cast>().filter(|cast| cast.to.is_narrow() && !cast.exact)?;
    cast.to.is_float().then(|| (cast.to, Arc::new(Cast { exact: true, ..*cast }) as Arc<dyn Op>))
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn attributes(&self) -> Attributes {
        vec![("to", self.to.into()), ("exact", self.exact.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let from = inputs[0].dtype;
        if from.is_narrow() || (self.to.is_narrow() && from != self.to.wide()) {
            return Err(format!("a conversion of {from} to {} takes several steps", self.to));
        }
        Ok(vec![TensorType::new(self.to, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let floats = self.to.is_float() && g.x(0).dtype().is_float();
        vec![floats.then(|| g.dy().cast(g.x(0).dtype()))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let data = match (inputs[0].data(), self.to) {
            (Data::F64(v), to) if to.is_float() => Data::F64(v.iter().map(|&x| stored(to, x)).collect()),
            (_, DType::F32) => Data::F64(inputs[0].to_f64()),
            (_, to) => inputs[0].cast(to).to_reference().into_data(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let rounds = self.to == DType::F32 && matches!(inputs[0].dtype, DType::I32 | DType::U32);
        if rounds { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn nan(&self, _: usize) -> Nan {
        Nan::Casts
    }

    fn reads_subnormals(&self) -> bool {
        true
    }

    fn lowering(&self) -> Lowering<'_> {
        let function = match self.to {
            _ if self.exact => "to_same",
            DType::F32 => "to_f32",
            DType::F16 => "to_f16",
            DType::BF16 => "to_bf16",
            DType::I32 => "to_i32",
            DType::U32 => "to_u32",
            DType::I8 => "to_i8",
            DType::U8 => "to_u8",
            DType::Bool => "to_bool",
        };
        Lowering::Pointwise(Pointwise { function: function.into(), args: vec![Arg::Input(0)] })
    }
}

/// The value of a narrow float type that a float becomes. The reference keeps all digits of f32.
fn stored(to: DType, x: f64) -> f64 {
    if to.is_narrow() { to.rounded(x) } else { x }
}

/// Reads a narrow type as its wide type, or a narrow integer as f32; both are exact. It is a view: kernels widen what
/// they load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Widen {
    to: DType,
}

impl Op for Widen {
    fn name(&self) -> &'static str {
        "widen"
    }

    fn attributes(&self) -> Attributes {
        vec![("to", self.to.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let from = inputs[0].dtype;
        if !from.is_narrow() || (self.to != from.wide() && self.to != DType::F32) {
            return Err(format!("{from} is not a narrow type of {}", self.to));
        }
        Ok(vec![TensorType::new(self.to, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![g.x(0).dtype().is_float().then(|| g.dy().cast(g.x(0).dtype()))]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let data = match self.to {
            DType::F32 => Data::F64(inputs[0].to_f64()),
            _ => inputs[0].data().clone(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn reads_subnormals(&self) -> bool {
        true
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::View(self)
    }
}

impl Strided for Widen {
    fn view(&self, input: &View) -> Option<View> {
        Some(input.clone())
    }
}

impl Value {
    /// Converts to another element type. Floats are rounded to the nearest value of a narrower float type, of two
    /// equally near ones to the one whose last bit is 0, and to infinity beyond its range; integers by way of f32.
    /// Floats become integers by truncation towards zero, clamped to the range of the type, with 0 for NaN. Conversions
    /// between integers keep the lower bits. Numbers become `true` unless they are 0; NaN becomes `true`. Conversions
    /// from float to float pass gradients, rounded to the type of the operand.
    #[track_caller]
    pub fn cast(&self, to: DType) -> Value {
        let from = self.dtype();
        if from == to || !self.is_valid() {
            return self.clone();
        }
        if from.is_narrow() {
            return match to {
                DType::F32 => self.op(Widen { to }, &[]),
                _ => self.widen().cast(to),
            };
        }
        let wide = to.wide();
        if from == wide || !to.is_narrow() {
            return self.op(Cast { to, exact: false }, &[]);
        }
        let clamped = match to {
            DType::I8 if from.is_float() => self.clamp(-128.0, 127.0),
            DType::U8 if from.is_float() => self.clamp(0.0, 255.0),
            _ => self.clone(),
        };
        clamped.op(Cast { to: wide, exact: false }, &[]).op(Cast { to, exact: false }, &[])
    }

    /// Applies a composed op to the value in its wide type. If the value is a narrow float, rounds the result to its
    /// type, once.
    #[track_caller]
    pub(crate) fn widely(&self, op: impl FnOnce(&Value) -> Value) -> Value {
        let location = std::panic::Location::caller();
        self.graph().at(location, || {
            let y = op(&self.widen());
            if self.dtype().is_float() && y.dtype().is_float() { y.cast(self.dtype()) } else { y }
        })
    }

    /// The value in its wide type.
    #[track_caller]
    pub(crate) fn widen(&self) -> Value {
        let to = self.dtype().wide();
        if self.dtype().is_narrow() { self.op(Widen { to }, &[]) } else { self.clone() }
    }
}

/// Floats around the limits of the integer types.
const EDGES: &[f64] = &[
    0.0,
    -0.5,
    1.5,
    -2.7,
    100.0,
    -100.0,
    2147483520.0,
    2147483648.0,
    -2147483648.0,
    3e9,
    -3e9,
    4294967040.0,
    4294967296.0,
    1e30,
    -1e30,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-40,
];

/// Floats around the limits and halfway points of f16 and bf16.
const NARROW_EDGES: &[f64] = &[
    65504.0,
    65519.99,
    65520.0,
    -65520.0,
    // 1 and the next f16 and bf16: halfway, and just above and below.
    1.00048828125,
    1.0004884,
    1.0004882,
    1.00146484375,
    1.00390625,
    1.01171875,
    // 2^-14, the least normal f16; 2^-24, the least f16; half of it, and more than half.
    6.103515625e-5,
    6.1005353927612305e-5,
    5.960464477539063e-8,
    2.9802322387695312e-8,
    2.98023259404089e-8,
    -8.940696716308594e-8,
    1e-8,
    3.38e38,
    3.4e38,
    -3.4e38,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    1e-40,
];

/// Narrow types: sizes with one to four elements in the last group of four, stored, read through views, and computed
/// with.
fn narrow_cases() -> Vec<Case> {
    // Products that f32 rounds to 65520, which becomes infinite, and exact ones just below.
    const BELOW: &[f64] = &[255.96873474121094, 255.96875, 255.9687, -255.96873474121094];
    const LIMIT: &[f64] = &[255.96875; 4];
    let mut cases = vec![
        Case::new("cast", "products near the limit of f16", |x| {
            let product = &x[0] * &x[1];
            vec![product.cast(DType::F16), (product * 0.5 + 32760.0 - 32760.0 + 32760.0).cast(DType::F16)]
        })
        .input("x", TensorType::new(DType::F32, [7]), Fill::Special(BELOW, -1.0, 1.0))
        .input("y", TensorType::new(DType::F32, [7]), Fill::Special(LIMIT, -1.0, 1.0))
        .forward_only(),
    ];
    for dtype in [DType::F16, DType::BF16, DType::I8, DType::U8] {
        let wide = dtype.wide();
        let edges = if dtype.is_float() { Fill::Special(NARROW_EDGES, -3.0, 3.0) } else { Fill::Index(1000) };
        for n in [24, 25, 26, 27] {
            cases.push(
                Case::new("cast", format!("{n} {wide} to {dtype} and back"), move |x| {
                    let y = x[0].cast(dtype);
                    vec![y.clone(), y.cast(wide) + &x[0], y.reshape(&[1, -1]), y.cast(DType::Bool)]
                })
                .input("x", TensorType::new(wide, [n]), edges.clone())
                .forward_only(),
            );
        }
        let fill = if dtype.is_float() { edges } else { Fill::Index(200) };
        cases.push(
            Case::new("cast", format!("views of {dtype}"), move |x| {
                let (x, b) = (&x[0], &x[1]);
                vec![
                    x + b,
                    x.t(),
                    x.t().cast(wide),
                    x.slice(1, 1, 10, 1) * 2.0,
                    x.slice(1, 3, 10, 2),
                    b.reshape(&[1, 11]).broadcast_to(&[3, 11].into()),
                    x.slice(0, 2, 4, 1).reshape(&[-1]).cast(DType::F32),
                    x.slice(0, 4, 6, 1),
                ]
            })
            .input("x", TensorType::new(dtype, [6, 11]), fill.clone())
            .input("b", TensorType::new(dtype, [11]), fill)
            .forward_only(),
        );
    }
    cases
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // One, two and three elements after the last whole vec4.
    for (from, shape, fill) in [
        (DType::F32, [5, 5], Fill::Special(EDGES, -10.0, 10.0)),
        (DType::I32, [2, 11], Fill::Index(50)),
        (DType::U32, [1, 23], Fill::Index(1 << 31)),
        (DType::Bool, [3, 7], Fill::Coin),
    ] {
        cases.push(
            Case::new("cast", format!("{from} to each"), |x| {
                [DType::F32, DType::I32, DType::U32, DType::Bool]
                    .iter()
                    .map(|&to| x[0].cast(to).reshape(&[-1]))
                    .collect()
            })
            .input("x", TensorType::new(from, shape), fill)
            .forward_only(),
        );
    }
    let negative = |n: usize| {
        Case::new("cast", format!("{n} negative i32"), |x| {
            let x = &x[0] - 25.0;
            vec![x.cast(DType::Bool), x.cast(DType::F32), x.cast(DType::U32)]
        })
        .input("x", TensorType::new(DType::I32, [n]), Fill::Index(50))
        .forward_only()
    };
    cases.extend([37, 38, 39].map(negative));
    cases.extend(narrow_cases());
    cases
}
