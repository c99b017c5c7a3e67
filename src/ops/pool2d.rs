//! Max and average pooling over windows of the two spatial axes of data `[N, C, H, W]`, and the gradients.

mod cases;
mod kernels;
mod reference;

pub use cases::cases;

use super::conv2d::{Pair, windows};
use crate::op::{Attributes, Backward, Lowering, Nan, Op, Rounding, gamma};
use crate::{DType, Tensor, TensorType, Value};

/// Options of a pooling: the windows.
///
/// ```
/// use wgrad::ops::pool2d::Pool2d;
/// assert_eq!(Pool2d::new(2).stride, [2, 2]);
/// assert_eq!(Pool2d::new([3, 2]).stride(1).padding(1).kernel, [3, 2]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows, at least 1.
    pub stride: [usize; 2],
    /// Elements added on each side, at most half a window: minus infinity for the maximum, zero for the average.
    pub padding: [usize; 2],
    /// Whether an average divides by the window's size even where it covers padding (PyTorch's default), or only by the
    /// number of data elements it covers. Ignored by max pooling.
    pub count_include_pad: bool,
}

impl Pool2d {
    /// Adjacent windows: the stride is the kernel size. No padding.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        let kernel = kernel.into().0;
        Pool2d { kernel, stride: kernel, padding: [0, 0], count_include_pad: true }
    }

    /// Sets the stride.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Pool2d { stride: stride.into().0, ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Pool2d { padding: padding.into().0, ..self }
    }

    /// Sets whether padding counts in an average's divisor.
    pub fn count_include_pad(self, count: bool) -> Self {
        Pool2d { count_include_pad: count, ..self }
    }
}

impl From<usize> for Pool2d {
    fn from(kernel: usize) -> Self {
        Pool2d::new(kernel)
    }
}

impl From<[usize; 2]> for Pool2d {
    fn from(kernel: [usize; 2]) -> Self {
        Pool2d::new(kernel)
    }
}

/// Maximum elements per window: some drivers silently stop longer loops.
const MAX: usize = 16_000;

/// What is computed for each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PoolKind {
    /// `x` to `y`: the maximum.
    Max,
    /// `x`, `v` to `y`: the element of `v` at the position of the first maximum of `x`.
    MaxPick,
    /// `x`, `dy` to `dx`: each `dy` goes to the first maximum of its window.
    MaxGrad,
    /// `x` to `y`: the average.
    Avg,
    /// `dy` to `dx`, for data of this height and width.
    AvgGrad([usize; 2]),
}

/// A pooling or its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pooling {
    options: Pool2d,
    kind: PoolKind,
}

/// All sizes of a validated pooling; `planes` is `N * C`.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    planes: usize,
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    options: Pool2d,
}

impl Pooling {
    /// The number of windows along each axis, or an error message.
    fn windows(&self, size: [usize; 2]) -> Result<[usize; 2], String> {
        let Pool2d { kernel, stride, padding, .. } = self.options;
        let axis = |name: &str, i: usize| {
            if size[i] == 0 {
                return Err(format!("{name}: expected at least one element to pool"));
            }
            if padding[i] > kernel[i] / 2 {
                return Err(format!(
                    "{name}: the padding of {} must be at most half the kernel of {}, or windows would cover only \
                     padding; pad() the input instead",
                    padding[i], kernel[i]
                ));
            }
            windows(name, size[i], kernel[i], stride[i], padding[i], 1)
        };
        let windows = [axis("height", 0)?, axis("width", 1)?];
        let kernel = self.options.kernel;
        if kernel[0] * kernel[1] > MAX {
            return Err(format!(
                "windows hold at most {MAX} elements, not {}; use max() or mean() over the axes instead",
                kernel[0] * kernel[1]
            ));
        }
        Ok(windows)
    }

    /// All sizes, for types that [`Op::infer`] has accepted.
    fn sizes(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Sizes {
        let (x, y) = match self.kind {
            PoolKind::Max | PoolKind::Avg | PoolKind::MaxPick => (&inputs[0].shape, &outputs[0].shape),
            PoolKind::MaxGrad => (&inputs[0].shape, &inputs[1].shape),
            PoolKind::AvgGrad(_) => (&outputs[0].shape, &inputs[0].shape),
        };
        Sizes { planes: x[0] * x[1], h: x[2], w: x[3], oh: y[2], ow: y[3], options: self.options }
    }

    /// Maximum number of windows that contain one element.
    fn overlap(&self) -> usize {
        let Pool2d { kernel, stride, .. } = self.options;
        (0..2).map(|i| kernel[i].div_ceil(stride[i].max(1))).product()
    }
}

impl Op for Pooling {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "max_pool2d",
            PoolKind::MaxPick => "max_pool2d_pick",
            PoolKind::MaxGrad => "max_pool2d_grad",
            PoolKind::Avg => "avg_pool2d",
            PoolKind::AvgGrad(_) => "avg_pool2d_grad",
        }
    }

    fn attributes(&self) -> Attributes {
        let Pool2d { kernel, stride, padding, count_include_pad } = self.options;
        let mut attributes: Attributes = vec![
            ("kernel", kernel.into()),
            ("stride", stride.into()),
            ("padding", padding.into()),
            ("count_include_pad", count_include_pad.into()),
        ];
        if let PoolKind::AvgGrad(size) = self.kind {
            attributes.push(("size", size.into()));
        }
        attributes
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs.iter().any(|ty| ty.dtype != DType::F32 || ty.shape.rank() != 4) {
            return Err("expected f32 data [N, C, H, W]; cast() or reshape() it first".into());
        }
        let x = &inputs[0].shape;
        let size = if let PoolKind::AvgGrad(size) = self.kind { size } else { [x[2], x[3]] };
        let [oh, ow] = self.windows(size)?;
        let (large, small) = ([x[0], x[1], size[0], size[1]], [x[0], x[1], oh, ow]);
        let (expected, result) = match self.kind {
            PoolKind::Max | PoolKind::Avg => ([Some(large), None], small),
            PoolKind::MaxPick => ([Some(large), Some(large)], small),
            PoolKind::MaxGrad => ([Some(large), Some(small)], large),
            PoolKind::AvgGrad(_) => ([Some(small), None], large),
        };
        for (input, expected) in inputs.iter().zip(expected.into_iter().flatten()) {
            if *input.shape != expected {
                return Err(format!("expected shape {expected:?}, not {}", input.shape));
            }
        }
        Ok(vec![TensorType::new(DType::F32, result)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let with = |kind| Pooling { options: self.options, kind };
        let x = g.x(0);
        match self.kind {
            PoolKind::Max => vec![Some(x.op(with(PoolKind::MaxGrad), &[&g.dy()]))],
            PoolKind::MaxPick => vec![None, Some(x.op(with(PoolKind::MaxGrad), &[&g.dy()]))],
            PoolKind::MaxGrad => vec![None, Some(x.op(with(PoolKind::MaxPick), &[&g.dy()]))],
            PoolKind::Avg => vec![Some(g.dy().op(with(PoolKind::AvgGrad([x.dim(2), x.dim(3)])), &[]))],
            PoolKind::AvgGrad(_) => vec![Some(g.dy().op(with(PoolKind::Avg), &[]))],
        }
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let types: Vec<TensorType> = inputs.iter().map(|t| t.ty()).collect();
        let sizes = self.sizes(&types.iter().collect::<Vec<_>>(), outputs);
        let a = inputs[0].f64s();
        let b = inputs.get(1).map_or(a, |t| t.f64s());
        let result = match self.kind {
            PoolKind::Max | PoolKind::MaxPick => reference::max_pool2d(a, b, &sizes),
            PoolKind::MaxGrad => reference::max_pool2d_grad(a, b, &sizes),
            PoolKind::Avg => reference::avg_pool2d(a, &sizes),
            PoolKind::AvgGrad(_) => reference::avg_pool2d_grad(a, &sizes),
        };
        vec![Tensor::of(&outputs[0].shape, result)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        match (self.kind, self.overlap()) {
            (PoolKind::Max | PoolKind::MaxPick, _) | (PoolKind::MaxGrad, 0..=1) => Rounding::Exact,
            (PoolKind::MaxGrad, 2..=4) => Rounding::bound(sum_of_dy::<4>),
            (PoolKind::MaxGrad, 5..=16) => Rounding::bound(sum_of_dy::<16>),
            (PoolKind::MaxGrad, _) => Rounding::bound(sum_of_dy::<{ 1 << 30 }>),
            (PoolKind::Avg, _) => Rounding::Sum(self.options.kernel.iter().product()),
            (PoolKind::AvgGrad(_), overlap) => Rounding::Sum(overlap),
        }
    }

    /// `x` only determines positions.
    fn nan(&self, input: usize) -> Nan {
        if input == 0 && matches!(self.kind, PoolKind::MaxPick | PoolKind::MaxGrad) {
            Nan::Extreme
        } else {
            Nan::Spreads
        }
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// The error bound for sums of up to `TERMS` elements of `dy`. (`Rounding::Sum` does not apply: its evaluation on
/// absolute values of `x` would move the maxima.)
fn sum_of_dy<const TERMS: usize>(inputs: &[&Tensor], outputs: &[Tensor]) -> Vec<Vec<f64>> {
    let dy = inputs[1].to_f64();
    let windows = inputs[1].shape()[2] * inputs[1].shape()[3];
    let terms = TERMS.min(windows);
    let largest = dy.iter().fold(0.0, |m: f64, dy| m.max(dy.abs()));
    vec![vec![gamma(terms) * terms as f64 * largest; outputs[0].numel()]]
}

impl Value {
    /// The maximum of each window of data `[N, C, H, W]`: `[N, C, OH, OW]`, with `OH = (H + 2 padding - KH) / stride +
    /// 1`, rounded down, and `OW` likewise. `options` may be a number, the side of adjacent square windows, or a
    /// [`Pool2d`]. The gradient goes to the window's first maximum in row-major order; a NaN counts as the maximum. A
    /// [`relu`](Value::relu) directly before the pooling is moved after it, where it has fewer elements to compute; the
    /// results are the same.
    ///
    /// # Errors
    /// At compile time, when a window is larger than the padded input, a stride is 0, or the padding exceeds half a
    /// window.
    #[track_caller]
    pub fn max_pool2d(&self, options: impl Into<Pool2d>) -> Value {
        let options = options.into();
        // max(relu(x)) = relu(max(x)), including gradients, and there are fewer maxima.
        if let Some([x]) = self.made_by("relu").as_deref() {
            let y = x.max_pool2d(options).relu();
            self.graph().record_shortcut(self, &y, Pooling { options, kind: PoolKind::Max });
            return y;
        }
        self.op(Pooling { options, kind: PoolKind::Max }, &[])
    }

    /// The average of each window of data `[N, C, H, W]`. Sizes and errors are as for [`Value::max_pool2d`]; for the
    /// divisor see [`Pool2d::count_include_pad`].
    #[track_caller]
    pub fn avg_pool2d(&self, options: impl Into<Pool2d>) -> Value {
        self.op(Pooling { options: options.into(), kind: PoolKind::Avg }, &[])
    }

    /// The average over height and width: `[N, C, H, W]` to `[N, C, 1, 1]`.
    #[track_caller]
    pub fn global_avg_pool2d(&self) -> Value {
        if self.is_valid() && self.shape().rank() != 4 {
            return self.graph().error("global_avg_pool2d", &[self], "expected data [N, C, H, W]");
        }
        self.mean(&[2, 3], true)
    }
}
