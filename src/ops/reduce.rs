//! Reductions over any axes: sum, product, mean, max, min and logsumexp.

mod cases;
mod kernels;
mod rows;

pub use cases::cases;
use kernels::walkable;
pub(crate) use kernels::{MAX_CHUNK, adds_together, cost_of_rows, parts, sum_of_parts, sum_of_views};
pub(crate) use rows::{
    ALONE, MAX_THREADS, MIN_THREADS, RowShader, SHORT_ROWS, TREE, barriers_per_row, threads_per_row, together_on,
};

use crate::op::{Attributes, Backward, Lowering, Op, Rounding};
use crate::parallel;
use crate::shape::View;
use crate::{DType, Data, Shape, Tensor, TensorType, Value};

/// The operation of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}

/// A reduction over `axes` (sorted, distinct).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reduce {
    kind: ReduceKind,
    axes: Vec<usize>,
    keepdim: bool,
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "sum",
            ReduceKind::Mean => "mean",
            ReduceKind::Max => "max",
            ReduceKind::Min => "min",
            ReduceKind::Prod => "prod",
        }
    }

    fn attributes(&self) -> Attributes {
        vec![("axes", self.axes[..].into()), ("keepdim", self.keepdim.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let x = inputs[0];
        if x.dtype == DType::Bool {
            return Err("expected numbers; cast() the bools".into());
        }
        let empty = self.axes.iter().any(|&axis| x.shape[axis] == 0);
        if empty && matches!(self.kind, ReduceKind::Max | ReduceKind::Min) {
            return Err("an empty axis has no extreme element; expected a size of at least 1".into());
        }
        Ok(vec![TensorType::new(x.dtype, x.shape.reduced(&self.axes, self.keepdim))])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let x = g.x(0);
        let kept = x.shape().reduced(&self.axes, true);
        let sizes: Vec<isize> = kept.iter().map(|&s| s as isize).collect();
        let dy = g.dy().reshape(&sizes).broadcast_to(x.shape());
        vec![Some(match self.kind {
            ReduceKind::Sum => dy,
            ReduceKind::Mean => dy * (1.0 / self.count(x.shape()) as f64),
            ReduceKind::Prod => dy * self.product_of_the_others(x),
            // Ties share the gradient evenly.
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
        let (kept, reduced) = split_view(&View::contiguous(x.shape()), &self.axes);
        let (starts, offsets) = (kept.positions(), reduced.positions());
        fn fold<T: Copy + Send + Sync>(
            (starts, offsets): (&[usize], &[usize]),
            x: &[T],
            empty: T,
            step: impl Fn(T, T) -> T + Sync,
        ) -> Vec<T> {
            parallel::map(starts.len(), &|i| offsets.iter().fold(empty, |acc, offset| step(acc, x[starts[i] + offset])))
        }
        let at = (&starts[..], &offsets[..]);
        let data: Data = match (x.data(), self.kind) {
            (Data::F64(v), ReduceKind::Sum) => fold(at, v, 0.0, |a, b| a + b).into(),
            (Data::F64(v), ReduceKind::Mean) => {
                let mut sums = fold(at, v, 0.0, |a, b| a + b);
                sums.iter_mut().for_each(|sum| *sum /= offsets.len() as f64);
                sums.into()
            }
            (Data::F64(v), ReduceKind::Max) => {
                fold(at, v, f64::NEG_INFINITY, |a, b| if exceeds(b, a) { b } else { a }).into()
            }
            (Data::F64(v), ReduceKind::Min) => {
                fold(at, v, f64::INFINITY, |a, b| if exceeds(-b, -a) { b } else { a }).into()
            }
            (Data::F64(v), ReduceKind::Prod) => fold(at, v, 1.0, |a, b| a * b).into(),
            (Data::I32(v), ReduceKind::Prod) => fold(at, v, 1, i32::wrapping_mul).into(),
            (Data::U32(v), ReduceKind::Prod) => fold(at, v, 1, u32::wrapping_mul).into(),
            (Data::I32(v), ReduceKind::Sum) => fold(at, v, 0, i32::wrapping_add).into(),
            (Data::I32(v), ReduceKind::Max) => fold(at, v, i32::MIN, |a, b| a.max(b)).into(),
            (Data::I32(v), ReduceKind::Min) => fold(at, v, i32::MAX, |a, b| a.min(b)).into(),
            (Data::U32(v), ReduceKind::Sum) => fold(at, v, 0, u32::wrapping_add).into(),
            (Data::U32(v), ReduceKind::Max) => fold(at, v, u32::MIN, |a, b| a.max(b)).into(),
            (Data::U32(v), ReduceKind::Min) => fold(at, v, u32::MAX, |a, b| a.min(b)).into(),
            _ => Tensor::zeros(&outputs[0]).into_data(),
        };
        vec![Tensor::of(&outputs[0].shape, data)]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let count = self.count(&inputs[0].shape);
        match self.kind {
            ReduceKind::Sum if inputs[0].dtype == DType::F32 => Rounding::Runs(count),
            // One rounding for the factor and one for the product.
            ReduceKind::Mean => Rounding::Runs(count + 2),
            // Half an ulp per factor, twice as much where the mantissa is small; subnormal results are flushed to 0.
            ReduceKind::Prod if inputs[0].dtype == DType::F32 => Rounding::Ulps(count as f64, 1.2e-38),
            _ => Rounding::Exact,
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// Splits a view into the kept axes (with the offset) and the reduced axes.
fn split_view(view: &View, axes: &[usize]) -> (View, View) {
    let part = |reduced: bool| {
        let of = || (0..view.shape.rank()).filter(move |axis| axes.contains(axis) == reduced);
        View {
            shape: of().map(|axis| view.shape[axis]).collect::<Shape>(),
            strides: of().map(|axis| view.strides[axis]).collect(),
            offset: if reduced { 0 } else { view.offset },
        }
    };
    (part(false), part(true))
}

/// For each element of `[rows, n]`, the product of the other elements of its row, computed recursively: its partner
/// times the products of the other pairs. Free of divisions, so that it and its gradients are correct where factors are
/// 0.
fn product_of_others(x: &Value) -> Value {
    let (rows, n) = (x.dim(0) as isize, x.dim(1));
    if n <= 1 {
        return x.ones_like();
    }
    let half = n.div_ceil(2) as isize;
    let pairs = x.pad(&[(0, 0), (0, n % 2)], 1.0).reshape(&[rows, half, 2]);
    let [first, second] = [0, 1].map(|i| pairs.slice(2, i, i + 1, 1).reshape(&[rows, half]));
    let other_pairs = product_of_others(&(first * second)).reshape(&[rows, half, 1]);
    (pairs.flip(&[2]) * other_pairs).reshape(&[rows, 2 * half]).slice(1, 0, n, 1)
}

impl Reduce {
    /// Number of elements reduced to one.
    fn count(&self, shape: &Shape) -> usize {
        self.axes.iter().map(|&axis| shape[axis]).product()
    }

    /// For each element, the product of the others it is multiplied with.
    fn product_of_the_others(&self, x: &Value) -> Value {
        let mut order: Vec<usize> = (0..x.shape().rank()).filter(|axis| !self.axes.contains(axis)).collect();
        order.extend(&self.axes);
        let back = (0..order.len()).map(|axis| order.iter().position(|&a| a == axis).unwrap_or(axis) as isize);
        let moved = x.permute(&order.iter().map(|&axis| axis as isize).collect::<Vec<_>>());
        let count = self.count(x.shape());
        let rows: usize = moved.shape()[..order.len() - self.axes.len()].iter().product();
        let sizes: Vec<isize> = moved.shape().iter().map(|&size| size as isize).collect();
        let others = product_of_others(&moved.reshape(&[rows as isize, count as isize]));
        others.reshape(&sizes).permute(&back.collect::<Vec<_>>())
    }
}

/// Whether `v` replaces the running maximum: it is larger, or the first NaN.
pub(crate) fn exceeds(v: f64, largest: f64) -> bool {
    (v > largest || v.is_nan()) && !largest.is_nan()
}

/// The shape as `[outer, size, inner]`: elements before, along and after an axis.
pub(crate) fn outer_size_inner(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

impl Value {
    /// The axes as sorted non-negative numbers; a graph error if one does not exist or is repeated.
    #[track_caller]
    pub(crate) fn axes_of(&self, op: &str, axes: &[isize]) -> Result<Vec<usize>, Value> {
        if !self.is_valid() {
            return Err(self.clone());
        }
        let found: Result<Vec<usize>, isize> = axes.iter().map(|&axis| self.shape().axis(axis).ok_or(axis)).collect();
        let mut axes = match found {
            Ok(axes) => axes,
            Err(axis) => return Err(self.graph().error(op, &[self], self.shape().no_axis(axis))),
        };
        axes.sort_unstable();
        if let Some(twice) = axes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.graph().error(op, &[self], format!("axis {} is repeated; name each axis once", twice[0])));
        }
        Ok(axes)
    }

    #[track_caller]
    fn reduce(&self, kind: ReduceKind, axes: &[isize], keepdim: bool) -> Value {
        let op = Reduce { kind, axes: Vec::new(), keepdim };
        let axes = match self.axes_of(op.name(), axes) {
            Err(invalid) => return invalid,
            Ok(axes) if axes.is_empty() => return self.clone(),
            Ok(axes) => axes,
        };
        if walkable(self.shape(), &axes) {
            return self.op(Reduce { axes, ..op }, &[]);
        }
        // Moves the reduced axes to the end, where they merge into one.
        let kept: Vec<usize> = (0..self.shape().rank()).filter(|axis| !axes.contains(axis)).collect();
        let order: Vec<isize> = kept.iter().chain(&axes).map(|&axis| axis as isize).collect();
        let last = (kept.len()..order.len()).collect();
        let y = self.permute(&order).op(Reduce { axes: last, keepdim: false, ..op }, &[]);
        let sizes: Vec<isize> = self.shape().reduced(&axes, keepdim).iter().map(|&size| size as isize).collect();
        if y.is_valid() { y.reshape(&sizes) } else { y }
    }

    fn every_axis(&self) -> Vec<isize> {
        (0..self.shape().rank() as isize).collect()
    }

    /// The sum over `axes`, which may count from the end; over no axes, the value itself. With `keepdim` they are kept
    /// with size 1. An empty sum is 0; integers wrap.
    ///
    /// ```
    /// use wgrad::{DType, Graph};
    /// let x = Graph::new().input("x", DType::F32, [2, 3, 4]);
    /// assert_eq!(x.sum(&[0, -1], false).shape().to_vec(), [3]);
    /// assert_eq!(x.sum(&[0, -1], true).shape().to_vec(), [1, 3, 1]);
    /// ```
    #[track_caller]
    pub fn sum(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(ReduceKind::Sum, axes, keepdim)
    }

    /// The sum of all elements, shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Value {
        self.sum(&self.every_axis(), false)
    }

    /// The mean over `axes` (floats); axes as for [`Value::sum`].
    #[track_caller]
    pub fn mean(&self, axes: &[isize], keepdim: bool) -> Value {
        let found = match self.axes_of("mean", axes) {
            Ok(found) => found,
            Err(invalid) => return invalid,
        };
        if !self.dtype().is_float() {
            return self.graph().error("mean", &[self], "expected floats; cast() first");
        }
        let count: usize = found.iter().map(|&axis| self.shape()[axis]).product();
        if count == 0 {
            return self.graph().error("mean", &[self], "the mean of no elements is undefined");
        }
        self.reduce(ReduceKind::Mean, axes, keepdim)
    }

    /// The mean of all elements, shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Value {
        self.mean(&self.every_axis(), false)
    }

    /// The product over `axes`. An empty product is 1; integers wrap. First and second derivatives are correct where
    /// factors are 0. If partial products leave the range of f32, the result is undefined.
    #[track_caller]
    pub fn prod(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(ReduceKind::Prod, axes, keepdim)
    }

    /// The maximum over `axes`. Ties share the gradient evenly.
    #[track_caller]
    pub fn max(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(ReduceKind::Max, axes, keepdim)
    }

    /// The minimum over `axes`. Ties share the gradient evenly.
    #[track_caller]
    pub fn min(&self, axes: &[isize], keepdim: bool) -> Value {
        self.reduce(ReduceKind::Min, axes, keepdim)
    }

    /// `ln(sum(exp(x)))` over `axes`, without overflow: the maximum is subtracted first. If all elements are minus
    /// infinity, so is the result, and no gradient flows; if one is plus infinity, so is the result.
    #[track_caller]
    pub fn logsumexp(&self, axes: &[isize], keepdim: bool) -> Value {
        if let Err(invalid) = self.axes_of("logsumexp", axes) {
            return invalid;
        }
        self.widely(|x| {
            let top = x.max(axes, true).stop_gradient();
            // Infinity minus infinity would be NaN.
            let infinite = top.abs().gt(&top.full_like(f64::from(f32::MAX)));
            let shift = infinite.where_(&top.zeros_like(), &top);
            let sum = (x - shift).exp().sum(axes, keepdim);
            let sizes: Vec<isize> = sum.shape().iter().map(|&size| size as isize).collect();
            // The sum is at least 1, the maximum's term, unless all terms are 0.
            let none = sum.lt(&sum.full_like(0.5));
            none.where_(&sum.ones_like(), &sum).log() + top.reshape(&sizes)
        })
    }
}
