//! Values without inputs: constants and indices.

use crate::op::{Arg, Attributes, Backward, Bits, Case, Lowering, Op, Pointwise, Rounding};
use crate::{DType, Data, Graph, Shape, Tensor, TensorType, Value};

/// Fills a tensor with one number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Full {
    value: Bits,
    ty: TensorType,
}

impl Full {
    pub(crate) fn new(value: f64, ty: TensorType) -> Full {
        // Exact in a narrow type; `infer` refuses a number beyond its range.
        let rounded = ty.dtype.rounded(value);
        let value = if ty.dtype.is_narrow() && rounded.is_finite() { rounded } else { value };
        Full { value: Bits(value), ty }
    }

    /// The number as a pointwise argument, rounded to the type.
    pub(crate) fn arg(&self) -> Arg {
        match self.ty.dtype.wide() {
            DType::I32 => Arg::I32(self.value.0 as i32),
            DType::U32 => Arg::U32(self.value.0 as u32),
            DType::Bool => Arg::U32(u32::from(self.value.0 != 0.0)),
            _ => Arg::F32(self.value.0),
        }
    }
}

impl Op for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn attributes(&self) -> Attributes {
        vec![("value", self.value.0.into())]
    }

    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        self.ty.dtype.check(self.value.0)?;
        Ok(vec![self.ty.clone()])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        Vec::new()
    }

    fn reference(&self, _: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        vec![Tensor::of(&outputs[0].shape, outputs[0].dtype.filled(self.value.0, outputs[0].shape.numel()))]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        if self.ty.dtype.rounds(self.value.0) { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Pointwise(Pointwise { function: "full".into(), args: vec![self.arg()] })
    }

    fn fill_value(&self) -> Option<f64> {
        Some(self.value.0)
    }
}

/// The index along one axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Iota {
    ty: TensorType,
    axis: usize,
}

impl Iota {
    /// The stride and the size of the axis.
    fn steps(&self) -> (usize, usize) {
        (self.ty.shape[self.axis + 1..].iter().product(), self.ty.shape[self.axis])
    }
}

impl Op for Iota {
    fn name(&self) -> &'static str {
        "iota"
    }

    fn attributes(&self) -> Attributes {
        vec![("axis", self.axis.into())]
    }

    fn infer(&self, _: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if self.axis >= self.ty.shape.rank() || self.ty.dtype == DType::Bool {
            return Err(format!("expected numbers and an axis of the shape, not axis {} of {}", self.axis, self.ty));
        }
        Ok(vec![self.ty.clone()])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        Vec::new()
    }

    fn reference(&self, _: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let (inner, size) = self.steps();
        let count = (0..outputs[0].shape.numel()).map(|i| i / inner.max(1) % size.max(1));
        let data = match outputs[0].dtype {
            DType::F32 => Data::F64(count.map(|i| i as f64).collect()),
            DType::I32 => Data::I32(count.map(|i| i as i32).collect()),
            _ => Data::U32(count.map(|i| i as u32).collect()),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        // f32 represents whole numbers exactly up to 2^24.
        let rounds = self.ty.dtype == DType::F32 && self.steps().1 > 1 << 24;
        if rounds { Rounding::Ulps(0.5, 0.0) } else { Rounding::Exact }
    }

    fn lowering(&self) -> Lowering<'_> {
        let (inner, size) = self.steps();
        Lowering::Pointwise(Pointwise {
            function: "iota".into(),
            args: vec![Arg::Index, Arg::U32(inner as u32), Arg::U32(size as u32)],
        })
    }
}

impl Graph {
    /// A tensor filled with one number, which must be representable in the type: whole and in range for integers, 0
    /// or 1 for bool. For floats it is rounded.
    #[track_caller]
    pub fn full(&self, dtype: DType, shape: impl Into<Shape>, value: f64) -> Value {
        self.apply1(Full::new(value, TensorType::new(dtype, shape)), &[])
    }

    /// 0, 1, 2, ... along `axis`, repeated along the others, in any type but bool.
    #[track_caller]
    pub fn iota(&self, dtype: DType, shape: impl Into<Shape>, axis: isize) -> Value {
        let ty = TensorType::new(dtype.wide(), shape);
        let Some(axis) = ty.shape.axis(axis) else {
            return self.error("iota", &[], ty.shape.no_axis(axis));
        };
        self.apply1(Iota { ty, axis }, &[]).cast(dtype)
    }
}

impl Value {
    /// A tensor of this value's type and shape filled with one number.
    #[track_caller]
    pub fn full_like(&self, value: f64) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        self.graph().full(self.dtype(), self.shape(), value)
    }

    /// Zeros of this value's type and shape.
    #[track_caller]
    pub fn zeros_like(&self) -> Value {
        self.full_like(0.0)
    }

    /// Ones of this value's type and shape.
    #[track_caller]
    pub fn ones_like(&self) -> Value {
        self.full_like(1.0)
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("full", "added to", |x| {
            vec![
                &x[0] + x[0].full_like(2.5),
                x[0].graph().full(DType::I32, [3], -7.0),
                x[0].graph().full(DType::I32, [2], -2147483648.0),
            ]
        })
        .float("x", [3, 4])
        .forward_only(),
        Case::new("iota", "each axis and type", |x| {
            let graph = x[0].graph();
            vec![
                graph.iota(DType::U32, [2, 3, 4], 1),
                graph.iota(DType::I32, [5], 0),
                &x[0] + graph.iota(DType::F32, [2, 3], -1),
            ]
        })
        .float("x", [2, 3])
        .forward_only(),
    ]
}
