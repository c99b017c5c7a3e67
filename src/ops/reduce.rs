//! Reductions over any axes: sum, mean, max, min; argmax.

use crate::op::{Args, Backward, Case, Kernel, Lowered, Lowering, Op, Rounding, Variant};
use crate::shape::View;
use crate::{DType, Tensor, TensorType, Value};

/// What is kept of the elements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Max,
    Min,
}

/// A reduction over `axes` (sorted, distinct).
#[derive(Debug, Clone)]
struct Reduce {
    kind: Kind,
    axes: Vec<usize>,
    keepdim: bool,
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Max => "max",
            Kind::Min => "min",
        }
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = inputs[0];
        if x.dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        let empty = self.axes.iter().any(|&axis| x.shape[axis] == 0);
        if empty && self.kind != Kind::Sum {
            return Err("an empty axis has no extreme element".into());
        }
        Ok(vec![TensorType::new(x.dtype, x.shape.reduced(&self.axes, self.keepdim))])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let x = g.x(0);
        let kept = x.shape().reduced(&self.axes, true);
        let sizes: Vec<isize> = kept.iter().map(|&s| s as isize).collect();
        let dy = g.dy().reshape(&sizes).broadcast_to(x.shape());
        vec![Some(match self.kind {
            Kind::Sum => dy,
            // Equal extremes share the gradient evenly.
            _ => {
                let hit = x.eq(&g.y().reshape(&sizes).broadcast_to(x.shape()));
                let hit = hit.where_(&x.ones_like(), &x.zeros_like());
                let axes: Vec<isize> = self.axes.iter().map(|&a| a as isize).collect();
                let count = hit.sum(&axes, true).broadcast_to(x.shape());
                dy * hit / count
            }
        })]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let x = inputs[0];
        let kept = x.shape().reduced(&self.axes, true);
        let kept_strides = kept.strides();
        let strides: Vec<usize> =
            (0..kept.rank()).map(|axis| if self.axes.contains(&axis) { 0 } else { kept_strides[axis] }).collect();
        let target = View { shape: x.shape().clone(), strides, offset: 0 };
        fn fold<T: Copy>(x: &[T], target: &View, n: usize, start: T, step: impl Fn(T, T) -> T) -> Vec<T> {
            let mut out = vec![start; n];
            for (i, &x) in x.iter().enumerate() {
                let at = target.position(i);
                out[at] = step(out[at], x);
            }
            out
        }
        let n = outputs[0].shape.numel();
        use crate::Data;
        let data: Data = match (x.data(), self.kind) {
            (Data::F64(v), Kind::Sum) => fold(v, &target, n, 0.0, |a, b| a + b).into(),
            (Data::F64(v), Kind::Max) => fold(v, &target, n, f64::NEG_INFINITY, f64::max).into(),
            (Data::F64(v), Kind::Min) => fold(v, &target, n, f64::INFINITY, f64::min).into(),
            (Data::I32(v), Kind::Sum) => fold(v, &target, n, 0, i32::wrapping_add).into(),
            (Data::I32(v), Kind::Max) => fold(v, &target, n, i32::MIN, |a, b| a.max(b)).into(),
            (Data::I32(v), Kind::Min) => fold(v, &target, n, i32::MAX, |a, b| a.min(b)).into(),
            (Data::U32(v), Kind::Sum) => fold(v, &target, n, 0, u32::wrapping_add).into(),
            (Data::U32(v), Kind::Max) => fold(v, &target, n, u32::MIN, |a, b| a.max(b)).into(),
            (Data::U32(v), Kind::Min) => fold(v, &target, n, u32::MAX, |a, b| a.min(b)).into(),
            _ => Tensor::zeros(&outputs[0]).into_data(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        match self.kind {
            Kind::Sum if inputs[0].dtype == DType::F32 => {
                Rounding::Sum(self.axes.iter().map(|&axis| inputs[0].shape[axis]).product())
            }
            _ => Rounding::Exact,
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Kernel for Reduce {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[Variant::plain("rows")];
        VARIANTS
    }

    fn lower(&self, _variant: &Variant, _args: &Args<'_>) -> Result<Lowered, String> {
        Err("not written yet".into())
    }
}

impl Value {
    #[track_caller]
    fn reduce(&self, kind: Kind, axes: &[isize], keepdim: bool) -> Value {
        let found: Option<Vec<usize>> = axes.iter().map(|&axis| self.shape().axis(axis)).collect();
        let Some(mut axes) = found else {
            if !self.is_valid() {
                return self.clone();
            }
            let why = format!("axes {axes:?} are not all axes of {}", self.shape());
            return self.graph().mistake("reduce", &[self], why);
        };
        axes.sort_unstable();
        axes.dedup();
        if axes.is_empty() {
            return self.clone();
        }
        self.op(Reduce { kind, axes, keepdim }, &[])
    }

    /// The sum over `axes`, which may count from the end. With `keepdim` they stay, with size 1.
    #[track_caller]
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Sum, axes, keepdim)
    }

    /// The sum of all elements, shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Value {
        let axes: Vec<isize> = (0..self.shape().rank() as isize).collect();
        self.sum(&axes, false)
    }

    /// The mean over `axes`, floats.
    #[track_caller]
    pub fn mean(&self, axes: &[isize], keepdim: bool) -> Value {
        let count: usize = axes.iter().map(|&axis| self.dim(axis)).product();
        if count == 0 && self.is_valid() {
            return self.graph().mistake("mean", &[self], "the mean of no elements is undefined");
        }
        self.sum(axes, keepdim) * (1.0 / count as f64)
    }

    /// The mean of all elements, shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Value {
        let axes: Vec<isize> = (0..self.shape().rank() as isize).collect();
        self.mean(&axes, false)
    }

    /// The largest over `axes`. Equal largest ones share the gradient evenly.
    #[track_caller]
    pub fn max(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Max, axes, keepdim)
    }

    /// The smallest over `axes`. Equal smallest ones share the gradient evenly.
    #[track_caller]
    pub fn min(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(Kind::Min, axes, keepdim)
    }
}

/// The cases of this family.
pub fn cases() -> Vec<Case> {
    vec![Case::new("sum", "last", |x| vec![x[0].sum(&[-1], false)]).float("x", [3, 5])]
}
