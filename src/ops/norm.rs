//! Normalisation: `(x - mean) / std`. Layer, group, instance, batch and RMS norm differ only in which elements share a
//! mean. All are one op on data viewed as `[outer, rows, inner]`, with statistics per row over outer and inner; scale
//! and shift are fused after it.
//!
//! The variance is computed from the differences from the mean, never as `E[x^2] - E[x]^2`. The mean of these
//! differences, which is pure rounding error, corrects both mean and variance (Chan, Golub and LeVeque, *Algorithms for
//! Computing the Sample Variance*, The American Statistician 37, 1983, formula 1.7).

mod cases;
mod kernels;
mod moments;

pub use cases::cases;
use moments::Moments;

use crate::op::{Attributes, Backward, Bits, F32_UNIT_ROUNDOFF, Lowering, Op, Rounding, gamma_of_runs};
use crate::{DType, Shape, Tensor, TensorType, Value};

/// Maximum elements per row: 4096 parts of 4096 elements each.
const MAX_ROW: usize = 1 << 24;

/// What distinguishes norms apart from the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct NormKind {
    /// Whether the mean is subtracted; if not, the mean square replaces the variance.
    centered: bool,
    /// Added to the variance.
    eps: Bits,
}

/// For `x` `[outer, rows, inner]`: `y = (x - mean) / sqrt(var + eps)` of the same shape, and `[2, rows]`: mean (0 if
/// not subtracted) and biased variance of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Normalize(NormKind);

/// The gradient of [`Normalize`] through `y`, from `y`, the statistics and `dy`: `dx = (dy - mean(dy) - y mean(y dy)) /
/// sqrt(var + eps)`, means over rows, without `mean(dy)` if the mean is not subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct NormalizeGrad(NormKind);

/// The sizes `[outer, rows, inner]`.
fn sizes(shape: &Shape) -> [usize; 3] {
    [shape[0], shape[1], shape[2]]
}

/// The type of the statistics, or an error message.
fn check(x: &TensorType) -> Result<TensorType, String> {
    if x.dtype != DType::F32 || x.shape.rank() != 3 {
        return Err("expected f32 data [outer, rows, inner]; cast() it first".into());
    }
    let [outer, rows, inner] = sizes(&x.shape);
    match outer * inner {
        0 => Err("expected at least one element to normalise over".into()),
        n if n > MAX_ROW => Err(format!("expected at most {MAX_ROW} elements that share a mean, not {n}")),
        _ => Ok(TensorType::new(DType::F32, [2, rows])),
    }
}

/// Checks the number that is added to a variance.
fn check_eps(eps: f64) -> Result<(), String> {
    if eps as f32 >= f32::MIN_POSITIVE && eps <= 1e30 {
        return Ok(());
    }
    Err(format!("expected a small positive number for eps, such as 1e-5, not {eps:?}"))
}

/// The elements of each row, in order.
fn rows_of<'a>(x: &'a [f64], shape: &Shape) -> impl Iterator<Item = Vec<f64>> + 'a {
    let [outer, rows, inner] = sizes(shape);
    let start = move |o: usize, row: usize| (o * rows + row) * inner;
    (0..rows).map(move |row| (0..outer).flat_map(|o| x[start(o, row)..][..inner].to_vec()).collect())
}

/// The inverse of [`rows_of`].
fn from_rows(rows_of: impl Iterator<Item = Vec<f64>>, shape: &Shape) -> Vec<f64> {
    let [outer, rows, inner] = sizes(shape);
    let mut y = vec![0.0; shape.numel()];
    for (row, values) in rows_of.enumerate() {
        for o in 0..outer {
            y[(o * rows + row) * inner..][..inner].copy_from_slice(&values[o * inner..][..inner]);
        }
    }
    y
}

fn mean(of: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = of.len() as f64;
    of.sum::<f64>() / n
}

impl NormKind {
    /// Mean and variance of a row.
    fn moments(&self, x: &[f64]) -> [f64; 2] {
        let center = if self.centered { mean(x.iter().copied()) } else { 0.0 };
        [center, mean(x.iter().map(|x| (x - center).powi(2)))]
    }

    /// Error bounds for a device's mean, variance and normalised elements of a row.
    fn errors(&self, x: &[f64]) -> ([f64; 2], Vec<f64>) {
        let [center, var] = self.moments(x);
        let [mean_off, var_off] = if self.centered {
            let [mean_off, var_off] = moment_errors(x, [center, var]);
            [mean_off, var_off + FLOOR]
        } else {
            [0.0, (gamma_of_runs(x.len()) + 16.0 * F32_UNIT_ROUNDOFF) * var + FLOOR]
        };
        let (r, most) = ((var + self.eps.0).sqrt().recip(), ((var - var_off).max(0.0) + self.eps.0).sqrt().recip());
        let off = x.iter().map(|x| {
            let c = (x - center).abs();
            c * (most - r + 8.0 * F32_UNIT_ROUNDOFF * most) + (mean_off + FLOOR) * most
        });
        ([mean_off, var_off], off.collect())
    }
}

/// Error bounds for a device's mean and variance of a row. The mean that is subtracted has the error of any sum. The
/// mean of the differences corrects it, and its square corrects the variance, both up to the rounding of sums of
/// differences. Finally the mean is rounded.
fn moment_errors(x: &[f64], [center, var]: [f64; 2]) -> [f64; 2] {
    let g = gamma_of_runs(x.len()) + 16.0 * F32_UNIT_ROUNDOFF;
    let first = g * mean(x.iter().map(|x| x.abs()));
    [2.0 * F32_UNIT_ROUNDOFF * center.abs() + g * (var.sqrt() + first) + FLOOR, g * (var.sqrt() + 2.0 * first).powi(2)]
}

/// The error of a device that flushes subnormal numbers to 0.
const FLOOR: f64 = 2.0 * f32::MIN_POSITIVE as f64;

impl Op for Normalize {
    fn name(&self) -> &'static str {
        if self.0.centered { "normalize" } else { "rms_normalize" }
    }

    fn attributes(&self) -> Attributes {
        vec![("eps", self.0.eps.0.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let stats = check(inputs[0])?;
        check_eps(self.0.eps.0)?;
        Ok(vec![inputs[0].clone(), stats])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (x, y, stats) = (g.x(0), &g.outputs[0], &g.outputs[1]);
        let through_y = g.dys[0].as_ref().map(|dy| y.op(NormalizeGrad(self.0), &[stats, dy]));
        // The mean is sum(x) / n, the variance sum((x - mean)^2) / n.
        let through_stats = g.dys[1].as_ref().map(|d| {
            let n = (x.dim(0) * x.dim(2)) as f64;
            let of_var = (x - per_row(stats, 0)) * (per_row(d, 1) * (2.0 / n));
            if self.0.centered { of_var + per_row(d, 0) * (1.0 / n) } else { of_var }
        });
        vec![match (through_y, through_stats) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        }]
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let (x, shape) = (inputs[0].f64s(), inputs[0].shape());
        let moments: Vec<[f64; 2]> = rows_of(x, shape).map(|x| self.0.moments(&x)).collect();
        let rows = rows_of(x, shape).zip(&moments).map(|(x, [center, var])| {
            let r = (var + self.0.eps.0).sqrt().recip();
            x.iter().map(|x| (x - center) * r).collect()
        });
        let stats: Vec<f64> = (0..2).flat_map(|i| moments.iter().map(move |m| m[i])).collect();
        vec![Tensor::of(shape, from_rows(rows, shape)), Tensor::of(&outputs[1].shape, stats)]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let kind = self.0;
        Rounding::bound(move |inputs, _| {
            let (x, shape) = (inputs[0].to_f64(), inputs[0].shape());
            let errors: Vec<_> = rows_of(&x, shape).map(|x| kind.errors(&x)).collect();
            let stats = (0..2).flat_map(|i| errors.iter().map(move |e| e.0[i])).collect();
            vec![from_rows(errors.iter().map(|e| e.1.clone()), shape), stats]
        })
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

impl Op for NormalizeGrad {
    fn name(&self) -> &'static str {
        if self.0.centered { "normalize_grad" } else { "rms_normalize_grad" }
    }

    fn attributes(&self) -> Attributes {
        vec![("eps", self.0.eps.0.into())]
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let stats = check(inputs[0])?;
        if *inputs[1] != stats || inputs[2] != inputs[0] {
            return Err(format!("expected y, statistics {stats}, and dy of y's type"));
        }
        Ok(vec![inputs[0].clone()])
    }

    /// With `r = 1 / sqrt(var + eps)` and `g` the incoming gradient; `dx` is linear and symmetric in `dy`.
    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let (y, stats, dy, g_in) = (g.x(0), g.x(1), g.x(2), g.dy());
        let square = || (per_row(stats, 1) + self.0.eps.0).reciprocal();
        let mean = |v: Value| v.mean(&[0, 2], true);
        vec![
            g.when(0, || (&g_in * mean(y * dy) + dy * mean(&g_in * y)).neg() * square().sqrt()),
            g.when(1, || {
                let var = ((&g_in * g.y()).sum(&[0, 2], true) * square() * -0.5).reshape(&[1, -1]);
                var.zeros_like().concat(&[&var], 0)
            }),
            g.when(2, || y.op(*self, &[stats, &g_in])),
        ]
    }

    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        let shape = inputs[0].shape();
        let vars = &inputs[1].f64s()[shape[1]..];
        let rows = rows_of(inputs[0].f64s(), shape).zip(rows_of(inputs[2].f64s(), shape)).zip(vars);
        let dx = rows.map(|((y, dy), var)| {
            let r = (var + self.0.eps.0).sqrt().recip();
            let a = if self.0.centered { mean(dy.iter().copied()) } else { 0.0 };
            let b = mean(y.iter().zip(&dy).map(|(y, dy)| y * dy));
            y.iter().zip(&dy).map(|(y, dy)| (dy - a - y * b) * r).collect()
        });
        vec![Tensor::of(shape, from_rows(dx, shape))]
    }

    /// The errors of the two means and of the differences.
    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        let kind = self.0;
        Rounding::bound(move |inputs, _| {
            let (y, dy, shape) = (inputs[0].to_f64(), inputs[2].to_f64(), inputs[0].shape());
            let vars = &inputs[1].to_f64()[shape[1]..];
            let off = rows_of(&y, shape).zip(rows_of(&dy, shape)).zip(vars).map(|((y, dy), var)| {
                let r = (var + kind.eps.0).sqrt().recip();
                let g = gamma_of_runs(y.len()) + 16.0 * F32_UNIT_ROUNDOFF;
                let a = mean(dy.iter().map(|dy| dy.abs()));
                let b = mean(y.iter().zip(&dy).map(|(y, dy)| (y * dy).abs()));
                let off = |(y, dy): (&f64, &f64)| {
                    let y = y.abs();
                    r * ((g + 8.0 * F32_UNIT_ROUNDOFF) * (a + y * b)
                        + 8.0 * F32_UNIT_ROUNDOFF * dy.abs()
                        + FLOOR * (1.0 + y))
                        + FLOOR
                };
                y.iter().zip(&dy).map(off).collect()
            });
            vec![from_rows(off, shape)]
        })
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// One line of `[2, rows]`, shaped to broadcast with `[outer, rows, inner]`.
fn per_row(stats: &Value, line: usize) -> Value {
    stats.slice(0, line, line + 1, 1).reshape(&[1, -1, 1])
}

/// The result of [`Value::batch_norm_training`]. Example: [`Value::batch_norm_training`].
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// The normalised data.
    pub y: Value,
    /// The mean of each channel, `[C]`.
    pub mean: Value,
    /// The biased variance of each channel, `[C]`.
    pub var: Value,
    /// Elements per channel.
    count: usize,
}

impl BatchNorm {
    /// The updated running mean and variance `[C]`: `(1 - momentum) old + momentum new`, with the unbiased variance.
    /// `momentum` must be in [0, 1].
    #[track_caller]
    pub fn running(&self, mean: &Value, var: &Value, momentum: f64) -> (Value, Value) {
        if !(0.0..=1.0).contains(&momentum) {
            let why = format!("the momentum must be in [0, 1], not {momentum:?}");
            let wrong = mean.graph().error("batch_norm", &[mean, var], why);
            return (wrong.clone(), wrong);
        }
        let new_mean = mean * (1.0 - momentum) + &self.mean * momentum;
        (new_mean, var * (1.0 - momentum) + &self.var * (momentum * self.correction()))
    }

    /// The cumulative averages `[C]` of batch means and unbiased variances, updated from the averages over the `count`
    /// batches before this one.
    #[track_caller]
    pub fn average(&self, mean: &Value, var: &Value, count: &Value) -> (Value, Value) {
        let share = (count + 1.0).cast(DType::F32).reciprocal();
        let unbiased = &self.var * self.correction();
        (mean + (&self.mean - mean) * &share, var + (unbiased - var) * &share)
    }

    /// The factor that makes the variance unbiased.
    fn correction(&self) -> f64 {
        self.count as f64 / self.count.saturating_sub(1).max(1) as f64
    }
}

impl Value {
    /// Mean and variance (or, with `root`, standard deviation) over `axes`, each in the reduced shape.
    #[track_caller]
    fn moments(&self, axes: &[usize], root: bool, keepdim: bool) -> [Value; 2] {
        let shape = self.shape();
        let reduced = |&axis: &usize| axes.contains(&axis);
        let kept: Vec<usize> = (0..shape.rank()).filter(|axis| !reduced(axis)).collect();
        let sizes = |axes: &[usize]| axes.iter().map(|&axis| shape[axis]).product::<usize>() as isize;
        // If the kept axes are contiguous, the reduced axes before them become outer and those after them inner;
        // otherwise the kept axes are permuted to the front.
        let first = kept.first().map_or(0, |&axis| axis);
        let apart = kept.iter().zip(first..).any(|(&axis, place)| axis != place);
        let x = if apart {
            let order: Vec<isize> = kept.iter().chain(axes).map(|&axis| axis as isize).collect();
            self.permute(&order).reshape(&[1, sizes(&kept), sizes(axes)])
        } else {
            let (before, behind): (Vec<usize>, Vec<usize>) = axes.iter().partition(|&&axis| axis < first);
            self.reshape(&[sizes(&before), sizes(&kept), sizes(&behind)])
        };
        let stats = x.op(Moments { root }, &[]);
        let left: Vec<isize> = shape.reduced(axes, keepdim).iter().map(|&size| size as isize).collect();
        [0, 1].map(|line| stats.slice(0, line, line + 1, 1).reshape(&left))
    }

    /// The variance over `axes`: `sum((x - mean)^2) / (n - correction)`, with `n` the number of elements. `correction`
    /// 0 gives the biased variance, 1 applies Bessel's correction. As accurate for data with a large mean as for a mean
    /// of 0.
    #[track_caller]
    pub fn var(&self, axes: &[isize], correction: usize, keepdim: bool) -> Value {
        self.spread(false, axes, correction, keepdim)
    }

    /// The standard deviation over `axes`: the square root of [`Value::var`], but also correct where the variance
    /// overflows or underflows f32. Where it is 0, so is its gradient.
    #[track_caller]
    pub fn std(&self, axes: &[isize], correction: usize, keepdim: bool) -> Value {
        self.spread(true, axes, correction, keepdim)
    }

    #[track_caller]
    fn spread(&self, root: bool, axes: &[isize], correction: usize, keepdim: bool) -> Value {
        let op = Moments { root }.name();
        let found = match self.axes_of(op, axes) {
            Ok(found) => found,
            Err(invalid) => return invalid,
        };
        if !self.dtype().is_float() {
            return self.graph().error(op, &[self], "expected floats; cast() first");
        }
        let count: usize = found.iter().map(|&axis| self.shape()[axis]).product();
        if count <= correction {
            let why = format!("expected more than {correction} elements per variance, not {count}");
            return self.graph().error(op, &[self], why);
        }
        self.widely(|x| {
            let [_, spread] = x.moments(&found, root, keepdim);
            let factor = count as f64 / (count - correction) as f64;
            if correction == 0 { spread } else { spread * if root { factor.sqrt() } else { factor } }
        })
    }

    /// This value viewed as `[outer, rows, inner]`, normalised over outer and inner, in its original shape; and the
    /// statistics `[2, rows]`.
    #[track_caller]
    fn normalized(&self, [outer, rows, inner]: [usize; 3], kind: NormKind) -> [Value; 2] {
        let x = self.reshape(&[outer, rows, inner].map(|size| size as isize));
        let mut outputs = self.graph().apply(Normalize(kind), &[&x]);
        let stats = outputs.swap_remove(1);
        let sizes: Vec<isize> = self.shape().iter().map(|&size| size as isize).collect();
        [outputs.swap_remove(0).reshape(&sizes), stats]
    }

    /// `self * weight + bias`, where present: both must be of `shape`, and are reshaped to `sizes` for broadcasting.
    #[track_caller]
    fn scaled(&self, op: &str, shape: &[usize], sizes: &[isize], by: [Option<&Value>; 2]) -> Value {
        let mut y = self.clone();
        for (number, value) in by.into_iter().enumerate() {
            let Some(value) = value else { continue };
            if y.is_valid() && value.is_valid() && **value.shape() != *shape {
                let what = ["weight", "bias"][number];
                return self.graph().error(op, &[self, value], format!("expected a {what} of shape {shape:?}"));
            }
            let value = value.reshape(sizes);
            y = if number == 0 { y * value } else { y + value };
        }
        y
    }

    /// Layer and RMS norm: over the last axes.
    #[track_caller]
    fn last_axes_norm(&self, op: &str, shape: &[usize], by: [Option<&Value>; 2], kind: NormKind) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        if shape.is_empty() || !self.shape().ends_with(shape) {
            let why = format!("expected data whose last axes are {shape:?}, not {}", self.shape());
            return self.graph().error(op, &[self], why);
        }
        if !self.dtype().is_float() {
            return self.graph().error(op, &[self], "expected floats; cast() first");
        }
        if let Err(why) = check_eps(kind.eps.0) {
            return self.graph().error(op, &[self], why);
        }
        let size: usize = shape.iter().product();
        let rows: usize = self.shape()[..self.shape().rank() - shape.len()].iter().product();
        let sizes: Vec<isize> = shape.iter().map(|&size| size as isize).collect();
        let [y, _] = self.normalized([1, rows, size], kind);
        y.scaled(op, shape, &sizes, by)
    }

    /// Layer normalisation over the last axes, whose sizes are `normalized_shape`: `y = (x - mean) / sqrt(var + eps) *
    /// weight + bias`, with mean and biased variance over these axes, and optional `weight` and `bias` of shape
    /// `normalized_shape` (Ba, Kiros and Hinton, *Layer Normalization*, arXiv:1607.06450). f32 only; most models use an
    /// `eps` of 1e-5.
    ///
    /// # Errors
    /// At compile time, when the last axes do not have these sizes, hold no or more than 2^24 elements, or `eps` is not
    /// positive.
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [2, 2]);
    /// let y = x.layer_norm(&[2], None, None, 1e-5);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&y])?;
    /// let y = session.run(&program, &[("x", &Tensor::new([2, 2], vec![3.0f32, 5.0, -1.0, -9.0])?)])?;
    /// assert!(y[0].to_f32().iter().zip([-1.0, 1.0, 1.0, -1.0]).all(|(y, sign)| (y - sign).abs() < 1e-5));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn layer_norm(
        &self,
        normalized_shape: &[usize],
        weight: Option<&Value>,
        bias: Option<&Value>,
        eps: f64,
    ) -> Value {
        self.last_axes_norm("layer_norm", normalized_shape, [weight, bias], NormKind { centered: true, eps: Bits(eps) })
    }

    /// RMS normalisation: `y = x / sqrt(mean(x^2) + eps) * weight` over the last axes, as for [`Value::layer_norm`]
    /// (Zhang and Sennrich, *Root Mean Square Layer Normalization*, NeurIPS 2019).
    #[track_caller]
    pub fn rms_norm(&self, normalized_shape: &[usize], weight: Option<&Value>, eps: f64) -> Value {
        self.last_axes_norm("rms_norm", normalized_shape, [weight, None], NormKind { centered: false, eps: Bits(eps) })
    }

    /// Group normalisation of data `[N, C, ...]`: the channels are divided into `num_groups` groups, with mean and
    /// biased variance over the channels of a group and all following axes. Then scale and shift by `weight` and `bias`
    /// `[C]`, if given (Wu and He, *Group Normalization*, ECCV 2018).
    ///
    /// # Errors
    /// At compile time, when `num_groups` does not divide the channels; otherwise as for [`Value::layer_norm`].
    #[track_caller]
    pub fn group_norm(&self, num_groups: usize, weight: Option<&Value>, bias: Option<&Value>, eps: f64) -> Value {
        let Some([n, c, inner]) = self.channels() else {
            return self.without_channels("group_norm");
        };
        if num_groups == 0 || !c.is_multiple_of(num_groups) {
            let why = format!("expected a number of groups that divides C = {c}, not {num_groups}");
            return self.graph().error("group_norm", &[self], why);
        }
        let [y, _] =
            self.normalized([1, n * num_groups, c / num_groups * inner], NormKind { centered: true, eps: Bits(eps) });
        y.scaled("group_norm", &[c], &self.channel_sizes(), [weight, bias])
    }

    /// Instance normalisation of data `[N, C, ...]`: each channel of each example separately, which is
    /// [`Value::group_norm`] with one group per channel (Ulyanov, Vedaldi and Lempitsky, arXiv:1607.08022).
    #[track_caller]
    pub fn instance_norm(&self, weight: Option<&Value>, bias: Option<&Value>, eps: f64) -> Value {
        match self.channels() {
            Some([_, c, inner]) if self.shape().rank() > 2 && inner != 1 => self.group_norm(c, weight, bias, eps),
            Some(_) => {
                let why = "expected data [N, C, ...] with more than one element in each channel of an example";
                self.graph().error("instance_norm", &[self], why)
            }
            None => self.without_channels("instance_norm"),
        }
    }

    /// Batch normalisation of data `[N, C, ...]` in training: mean and biased variance of each channel over the batch
    /// and the axes after the channels. Then scale and shift by `weight` and `bias` `[C]`, if given (Ioffe and Szegedy,
    /// ICML 2015). For running statistics see [`BatchNorm2d`](crate::nn::BatchNorm2d).
    ///
    /// ```
    /// use wgrad::{DType, Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// let norm = graph.input("x", DType::F32, [3, 1]).batch_norm_training(None, None, 1e-9);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&norm.mean, &norm.var, &norm.y])?;
    /// let outputs = session.run(&program, &[("x", &Tensor::new([3, 1], [1.0f32, 2.0, 3.0])?)])?;
    /// assert_eq!(outputs[0].to_f64(), [2.0]);
    /// assert!((outputs[1].item()? - 2.0 / 3.0).abs() < 1e-12);
    /// assert!((outputs[2].to_f64()[2] - 1.5f64.sqrt()).abs() < 1e-6); // (3 - 2) / sqrt(2 / 3)
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// At compile time, when a channel has fewer than two elements; otherwise as for [`Value::layer_norm`].
    #[track_caller]
    pub fn batch_norm_training(&self, weight: Option<&Value>, bias: Option<&Value>, eps: f64) -> BatchNorm {
        let wrong = match self.channels() {
            Some([n, _, inner]) if n * inner > 1 => None,
            Some(_) => Some(self.graph().error(
                "batch_norm",
                &[self],
                "expected more than one element in each channel: the variance of one is 0",
            )),
            None => Some(self.without_channels("batch_norm")),
        };
        if let Some(wrong) = wrong {
            return BatchNorm { y: wrong.clone(), mean: wrong.clone(), var: wrong, count: 0 };
        }
        let [n, c, inner] = self.channels().unwrap_or_default();
        let [y, stats] = self.normalized([n, c, inner], NormKind { centered: true, eps: Bits(eps) });
        let line = |line: usize| stats.slice(0, line, line + 1, 1).reshape(&[-1]);
        let y = y.scaled("batch_norm", &[c], &self.channel_sizes(), [weight, bias]);
        BatchNorm { y, mean: line(0), var: line(1), count: n * inner }
    }

    /// Batch normalisation in evaluation: `(x - mean) / sqrt(var + eps) * weight + bias`, with a mean and variance
    /// `[C]` for the channels of data `[N, C, ...]`, and optional `weight` and `bias`.
    #[track_caller]
    pub fn batch_norm(
        &self,
        mean: &Value,
        var: &Value,
        weight: Option<&Value>,
        bias: Option<&Value>,
        eps: f64,
    ) -> Value {
        let Some([_, c, _]) = self.channels() else { return self.without_channels("batch_norm") };
        if let Err(why) = check_eps(eps) {
            return self.graph().error("batch_norm", &[self], why);
        }
        for (what, value) in [("mean", mean), ("variance", var)] {
            if value.is_valid() && **value.shape() != [c] {
                let why = format!("expected a {what} of shape [{c}]");
                return self.graph().error("batch_norm", &[self, value], why);
            }
        }
        let sizes = self.channel_sizes();
        let y = (self - mean.reshape(&sizes)) * (var + eps).rsqrt().reshape(&sizes);
        y.scaled("batch_norm", &[c], &sizes, [weight, bias])
    }

    /// Batch size, channels, and elements per channel of data `[N, C, ...]`.
    fn channels(&self) -> Option<[usize; 3]> {
        let shape = self.shape();
        (self.is_valid() && shape.rank() >= 2).then(|| [shape[0], shape[1], shape[2..].iter().product()])
    }

    #[track_caller]
    fn without_channels(&self, op: &str) -> Value {
        if self.is_valid() { self.graph().error(op, &[self], "expected data [N, C, ...]") } else { self.clone() }
    }

    /// The sizes that broadcast `[C]` against data `[N, C, ...]`: `[C, 1, ...]`.
    fn channel_sizes(&self) -> Vec<isize> {
        let mut sizes = vec![1; self.shape().rank().saturating_sub(1)];
        sizes.iter_mut().take(1).for_each(|size| *size = -1);
        sizes
    }
}
