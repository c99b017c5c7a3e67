//! Conversions between element types.

use crate::op::{Arg, Backward, Case, Fill, Lowering, Nan, Op, Pointwise, Rounding};
use crate::{DType, Data, Tensor, TensorType, Value};

/// Converts the element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cast {
    to: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![TensorType::new(self.to, &inputs[0].shape)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        vec![(g.dy().dtype() == g.x(0).dtype()).then(|| g.dy())]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0];
        let data = match (x.data(), self.to) {
            (Data::I32(v), DType::U32) => Data::U32(v.iter().map(|&x| x as u32).collect()),
            (Data::U32(v), DType::I32) => Data::I32(v.iter().map(|&x| x as i32).collect()),
            // Like the kernel, Rust's `as` truncates towards zero, saturates and converts NaN to 0.
            (_, DType::I32) => Data::I32(x.to_f64().iter().map(|&x| x as i32).collect()),
            (_, DType::U32) => Data::U32(x.to_f64().iter().map(|&x| x as u32).collect()),
            (_, DType::Bool) => Data::Bool(x.to_f64().iter().map(|&x| x != 0.0).collect()),
            (_, DType::F32) => Data::F64(x.to_f64()),
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
            DType::F32 => "to_f32",
            DType::I32 => "to_i32",
            DType::U32 => "to_u32",
            DType::Bool => "to_bool",
        };
        Lowering::Pointwise(Pointwise { function: function.into(), args: vec![Arg::Input(0)] })
    }
}

impl Value {
    /// Converts to another element type. Floats become integers by truncation towards zero, clamped to the range of
    /// the type, with 0 for NaN. Conversions between integers keep the bits. Numbers become `true` unless they are 0;
    /// NaN becomes `true`. Only conversions from float to float pass gradients.
    #[track_caller]
    pub fn cast(&self, to: DType) -> Value {
        if self.dtype() == to {
            return self.clone();
        }
        self.op(Cast { to }, &[])
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
    cases
}
