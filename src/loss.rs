//! Loss functions: from predictions and targets to a scalar.
//!
//! All except cross entropy over class indices are composed of elementwise ops and a reduction, which are fused.
//! Names and formulas match PyTorch. Losses of narrow floats are computed, and returned, in f32.

use std::panic::Location;

use crate::{DType, Graph, Value};

/// How the losses of elements (for cross entropy: of rows) are reduced to a scalar.
///
/// ```
/// use wgrad::{Device, Graph, Reduction, Session, Tensor};
/// let graph = Graph::new();
/// let [x, y] = [[1.0f32, 2.0], [3.0, 2.0]].map(|x| graph.constant(Tensor::new([2], x).unwrap()));
/// let losses = [Reduction::Mean, Reduction::Sum].map(|reduction| x.mse_loss(&y, reduction));
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &losses.each_ref())?;
/// let outputs = session.run(&program, &[])?;
/// assert_eq!((outputs[0].item()?, outputs[1].item()?), (2.0, 4.0));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// The mean.
    #[default]
    Mean,
    /// The sum.
    Sum,
}

/// Options of [`Value::cross_entropy_with`] and [`Value::nll_loss`].
///
/// ```
/// use wgrad::loss::ClassLoss;
/// use wgrad::{Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let logits = graph.constant(Tensor::new([2, 2], vec![0.0f32; 4])?);
/// let classes = graph.constant(Tensor::new([2], [1, -100])?);
/// let loss = logits.cross_entropy_with(&classes, &ClassLoss { ignore_index: Some(-100), ..ClassLoss::default() });
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&loss])?;
/// assert!((session.run(&program, &[])?[0].item()? - 2f64.ln()).abs() < 1e-9); // of the first row alone
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClassLoss {
    /// Mean or sum. With class weights, the mean divides by the sum of the weights of the targets.
    pub reduction: Reduction,
    /// Rows of this class are ignored; it may be outside the range of classes. If all rows are ignored, the mean and
    /// its gradients are 0.
    pub ignore_index: Option<i32>,
    /// Class weights, f32 `[C]`.
    pub weight: Option<Value>,
    /// The share `e` of the target that is spread uniformly over all classes: `(1 - e) onehot + e / C`
    /// (Szegedy et al., arXiv:1512.00567).
    pub label_smoothing: f64,
}

impl Graph {
    /// An L1 penalty, `strength * sum |p|` over the parameters whose names the function accepts, to add to a loss. It
    /// drives unimportant parameters to 0 (Tibshirani, *Regression shrinkage and selection via the lasso*, J. R.
    /// Statist. Soc. B 58, 1996).
    ///
    /// ```
    /// use wgrad::{Graph, Tensor};
    /// let graph = Graph::new();
    /// let w = graph.parameter("fc1.weight", Tensor::new([2], [1.0f32, -2.0])?);
    /// let loss = (&w - 1.0).square().mean_all() + graph.l1_penalty(1e-3, |name| name.ends_with(".weight"));
    /// assert!(loss.is_valid());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn l1_penalty(&self, strength: f64, of: impl Fn(&str) -> bool) -> Value {
        self.penalty("l1_penalty", strength, of, |p| p.abs())
    }

    /// An L2 penalty likewise, `strength * sum p^2` (Hoerl and Kennard, *Ridge regression*, Technometrics 12, 1970).
    /// Its gradient is `2 strength p`, the same as that of an optimiser's `weight_decay` of `2 strength`.
    #[track_caller]
    pub fn l2_penalty(&self, strength: f64, of: impl Fn(&str) -> bool) -> Value {
        self.penalty("l2_penalty", strength, of, |p| p.square())
    }

    #[track_caller]
    fn penalty(&self, op: &str, strength: f64, of: impl Fn(&str) -> bool, term: fn(&Value) -> Value) -> Value {
        if !(strength >= 0.0 && strength.is_finite()) {
            return self.error(op, &[], format!("strength must be finite and at least 0, not {strength:?}"));
        }
        let chosen = self.parameters().into_iter().filter(|(name, _)| of(name));
        let terms = chosen.map(|(_, parameter)| term(&parameter).sum_all());
        let sum = self.at(Location::caller(), || terms.reduce(|a, b| a + b));
        match sum {
            None => {
                let names: Vec<String> = self.parameters().into_iter().map(|(name, _)| name).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                self.error(op, &[], format!("no parameter has a matching name; declared so far: {names}"))
            }
            Some(sum) => sum * strength,
        }
    }
}

impl Value {
    /// Reduces losses to a scalar.
    #[track_caller]
    pub(crate) fn reduced(&self, reduction: Reduction) -> Value {
        match reduction {
            Reduction::Mean => self.mean_all(),
            Reduction::Sum => self.sum_all(),
        }
    }

    /// Predictions and targets in f32, the type of losses; otherwise the invalid value to return.
    #[track_caller]
    fn paired(&self, op: &str, target: &Value) -> Result<(Value, Value), Value> {
        self.graph().admit(op, &[self, target])?;
        if self.shape() != target.shape() || !self.dtype().is_float() || !target.dtype().is_float() {
            let why = "expected float predictions and targets of equal shapes; reshape() or broadcast_to() one";
            return Err(self.graph().error(op, &[self, target], why));
        }
        Ok((self.widen(), target.widen()))
    }

    /// Mean squared error: `(x - target)^2`, reduced.
    #[track_caller]
    pub fn mse_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("mse_loss", target) {
            Ok((x, target)) => (x - target).square().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// Mean absolute error: `|x - target|`, reduced.
    #[track_caller]
    pub fn l1_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("l1_loss", target) {
            Ok((x, target)) => (x - target).abs().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// With `d = |x - target|`: `d^2 / 2` below `delta`, else `delta (d - delta / 2)`, reduced
    /// (Huber, Ann. Math. Statist. 35, 1964).
    #[track_caller]
    pub fn huber_loss(&self, target: &Value, delta: f64, reduction: Reduction) -> Value {
        if !(delta > 0.0 && delta.is_finite()) {
            let why = format!("delta must be positive and finite, not {delta:?}");
            return self.graph().error("huber_loss", &[self, target], why);
        }
        match self.paired("huber_loss", target) {
            Ok((x, target)) => {
                // The part of d up to delta is squared, the rest is linear.
                let d = (x - target).abs();
                let near = d.minimum(&d.full_like(delta));
                (near.square() * 0.5 + (&d - &near) * delta).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// `huber_loss` with `delta = beta`, divided by `beta`; with `beta` 0 it is `l1_loss`.
    #[track_caller]
    pub fn smooth_l1_loss(&self, target: &Value, beta: f64, reduction: Reduction) -> Value {
        if !(beta >= 0.0 && beta.is_finite()) {
            let why = format!("beta must be finite and at least 0, not {beta:?}");
            return self.graph().error("smooth_l1_loss", &[self, target], why);
        }
        if beta == 0.0 {
            return self.l1_loss(target, reduction);
        }
        self.huber_loss(target, beta, reduction) * (1.0 / beta)
    }

    /// Binary cross entropy of probabilities: `-(t ln p + (1 - t) ln(1 - p))`, with logarithms clamped to at least
    /// -100, reduced. The denominator `p (1 - p)` of the gradient is clamped to at least 1e-12. For logits,
    /// [`Value::binary_cross_entropy_with_logits`] is more accurate.
    #[track_caller]
    pub fn binary_cross_entropy(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("binary_cross_entropy", target) {
            Ok((p, target)) => p.bce(&target).reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// Hinge loss of scores and targets (1 or -1): `max(0, 1 - t x)`, reduced (Cortes and Vapnik, *Support-vector
    /// networks*, 1995).
    #[track_caller]
    pub fn hinge_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("hinge_loss", target) {
            Ok((x, target)) => ((x * target).neg() + 1.0).relu().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// The cosine of the angle between two values along `axis`: `a . b / (max(|a|, e) max(|b|, e))` with `e = 1e-8`.
    #[track_caller]
    pub fn cosine_similarity(&self, other: &Value, axis: isize) -> Value {
        let (a, b) = match self.paired("cosine_similarity", other) {
            Ok(pair) => pair,
            Err(invalid) => return invalid,
        };
        if self.shape().axis(axis).is_none() {
            return self.graph().error("cosine_similarity", &[self, other], self.shape().no_axis(axis));
        }
        self.graph().at(Location::caller(), || a.cosine(&b, axis, 1e-8, Value::maximum))
    }

    /// The cosine, with `at_least` combining squared norms and `e^2` to avoid division by 0.
    fn cosine(&self, other: &Value, axis: isize, e: f64, at_least: fn(&Value, &Value) -> Value) -> Value {
        // Divides each by its largest magnitude first, so that no square overflows or underflows. The cosine does not
        // depend on this divisor, so it has no gradient.
        let scaled = |x: &Value| {
            let scale = if x.dim(axis) == 0 { x.sum(&[axis], true) } else { x.abs().max(&[axis], true) };
            let scale = scale.maximum(&scale.full_like(e)).stop_gradient();
            let x = x / &scale;
            let square = x.square().sum(&[axis], false);
            let least = (scale.full_like(e) / scale).square().reshape_to(&square);
            (x, at_least(&square, &least))
        };
        let ((a, aa), (b, bb)) = (scaled(self), scaled(other));
        (a * b).sum(&[axis], false) * (aa * bb).rsqrt()
    }

    /// For pairs of rows `[N, D]` and targets `[N]` of 1 (similar) or -1 (dissimilar): `1 - cos` for 1,
    /// `max(0, cos - margin)` for -1, reduced. Here the cosine is `a . b / sqrt((a . a + e) (b . b + e))` with
    /// `e = 1e-12`, as in PyTorch's loss.
    #[track_caller]
    pub fn cosine_embedding_loss(&self, other: &Value, target: &Value, margin: f64, reduction: Reduction) -> Value {
        let (a, b) = match self.paired("cosine_embedding_loss", other) {
            Ok(pair) => pair,
            Err(invalid) => return invalid,
        };
        if let Err(invalid) = self.graph().admit("cosine_embedding_loss", &[self, other, target]) {
            return invalid;
        }
        if self.shape().rank() != 2 || target.shape().to_vec() != [self.dim(0)] || !target.dtype().is_float() {
            let why = "expected rows [N, D] and float targets [N] of 1 or -1";
            return self.graph().error("cosine_embedding_loss", &[self, other, target], why);
        }
        if !margin.is_finite() {
            let why = format!("the margin must be finite, not {margin:?}");
            return self.graph().error("cosine_embedding_loss", &[self, other, target], why);
        }
        self.graph().at(Location::caller(), || {
            let cosine = a.cosine(&b, 1, 1e-6, |a, b| a + b);
            let target = target.widen();
            let alike = target.gt(&target.zeros_like());
            alike.where_(&(cosine.neg() + 1.0), &(cosine - margin).relu()).reduced(reduction)
        })
    }

    /// Binary cross entropy of logits and target probabilities, numerically stable:
    /// `max(x, 0) - x t + ln(1 + exp(-|x|))`, reduced.
    #[track_caller]
    pub fn binary_cross_entropy_with_logits(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("binary_cross_entropy_with_logits", target) {
            Ok((x, target)) => (x.softplus() - x * target).reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// The same with a weight `w` for the positive term, which broadcasts:
    /// `(1 - t) x + (1 + (w - 1) t) ln(1 + exp(-x))`, reduced.
    #[track_caller]
    pub fn binary_cross_entropy_with_pos_weight(
        &self,
        target: &Value,
        pos_weight: &Value,
        reduction: Reduction,
    ) -> Value {
        match self.paired("binary_cross_entropy_with_pos_weight", target) {
            Ok((x, target)) => {
                let weight = (pos_weight.widen() - 1.0) * &target + 1.0;
                ((target.neg() + 1.0) * &x + weight * x.neg().softplus()).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// Kullback-Leibler divergence of log-probabilities from target probabilities: `t (ln t - x)`, 0 for `t = 0`,
    /// reduced. PyTorch's `batchmean` is the sum divided by N.
    #[track_caller]
    pub fn kl_div(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("kl_div", target) {
            Ok((x, target)) => {
                let positive = target.gt(&target.zeros_like());
                let ln = positive.where_(&target, &target.ones_like()).log();
                (target * (ln - positive.where_(&x, &x.zeros_like()))).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// Cross entropy of logits `[N, C]` or `[N, C, d1, ...]` and class indices or probabilities (see
    /// [`Value::cross_entropy_losses`]), reduced over all axes except the class axis.
    ///
    /// ```
    /// use wgrad::{DType, Graph, Reduction};
    /// let graph = Graph::new();
    /// let logits = graph.input("logits", DType::F32, [32, 10]);
    /// let labels = graph.input("labels", DType::I32, [32]);
    /// let loss = logits.cross_entropy(&labels, Reduction::Mean);
    /// assert!(loss.is_valid() && loss.shape().rank() == 0);
    /// ```
    #[track_caller]
    pub fn cross_entropy(&self, target: &Value, reduction: Reduction) -> Value {
        self.cross_entropy_losses(target).reduced(reduction)
    }

    /// [`Value::cross_entropy`] with class weights, an ignored class or label smoothing, for logits `[N, C]` or
    /// `[N, C, d1, ...]` and class indices or probabilities. With probabilities, the mean divides by the number of
    /// rows, and no class can be ignored.
    #[track_caller]
    pub fn cross_entropy_with(&self, target: &Value, options: &ClassLoss) -> Value {
        if target.dtype().is_float() {
            return self.widen().soft_class_loss(&target.widen(), options);
        }
        let x = self.widen();
        let rows = |class: &Value| match options.label_smoothing {
            0.0 => x.cross_entropy_losses(class),
            share => x.log_softmax(1).smoothed(class, share, options.weight.as_ref()),
        };
        self.class_loss("cross_entropy", target, options, rows)
    }

    /// Negative log-likelihood of log-probabilities `[N, C]` or `[N, C, d1, ...]` and class indices `[N]` or
    /// `[N, d1, ...]`: `-x[class]`, weighted and reduced.
    #[track_caller]
    pub fn nll_loss(&self, target: &Value, options: &ClassLoss) -> Value {
        let x = self.widen();
        let rows = |class: &Value| match options.label_smoothing {
            0.0 => x.picked(class).neg(),
            share => x.smoothed(class, share, options.weight.as_ref()),
        };
        self.class_loss("nll_loss", target, options, rows)
    }

    /// Checks the options for predictions `[N, C, ...]`; otherwise the invalid value to return.
    #[track_caller]
    fn class_options(&self, op: &str, target: &Value, options: &ClassLoss) -> Result<(), Value> {
        let operands: Vec<&Value> = [self, target].into_iter().chain(&options.weight).collect();
        self.graph().admit(op, &operands)?;
        let fits = self.dtype().is_float()
            && self.shape().rank() >= 2
            && options.weight.iter().all(|w| w.dtype().is_float() && w.shape().to_vec() == [self.dim(1)])
            && (0.0..=1.0).contains(&options.label_smoothing);
        if !fits {
            let why = "expected floats [N, C] or [N, C, d1, ...], float weights [C], and label smoothing from 0 to 1";
            return Err(self.graph().error(op, &[self, target], why));
        }
        Ok(())
    }

    /// Weights and reduces the losses of rows; `rows` computes them from class indices in range, without the weight
    /// of the row's class.
    #[track_caller]
    fn class_loss(&self, op: &str, target: &Value, options: &ClassLoss, rows: impl Fn(&Value) -> Value) -> Value {
        if let Err(invalid) = self.class_options(op, target, options) {
            return invalid;
        }
        let expected: Vec<usize> = [&self.shape()[..1], &self.shape()[2..]].concat();
        if !matches!(target.dtype().wide(), DType::I32 | DType::U32) || target.shape().to_vec() != expected {
            let why = format!("expected class indices of shape {expected:?} as integers");
            return self.graph().error(op, &[self, target], why);
        }
        self.graph().at(Location::caller(), || {
            let ignored = options.ignore_index.map(|ignored| {
                let number = target.cast(DType::I32);
                number.eq(&number.full_like(f64::from(ignored)))
            });
            let counted = |x: &Value| ignored.as_ref().map_or(x.clone(), |i| i.where_(&x.zeros_like(), x));
            // Replaces the ignored class by class 0, which exists.
            let class = counted(&target.widen());
            let weight = options.weight.as_ref().map(|w| w.reshape(&[-1, 1]).embedding(&class).reshape_to(target));
            let rows = rows(&class);
            let weighted = match &weight {
                Some(weight) if options.label_smoothing == 0.0 => &rows * weight,
                _ => rows,
            };
            let losses = counted(&weighted);
            if options.reduction == Reduction::Sum || weight.is_none() && ignored.is_none() {
                return losses.reduced(options.reduction);
            }
            // If all rows are ignored, the mean and its gradients are 0.
            let divisor = counted(&weight.unwrap_or_else(|| losses.ones_like())).sum_all();
            let none = divisor.eq(&divisor.zeros_like());
            losses.sum_all() / none.where_(&divisor.ones_like(), &divisor)
        })
    }

    /// Selects elements along the class axis 1 by class index.
    fn picked(&self, class: &Value) -> Value {
        let column: Vec<isize> =
            (0..self.shape().rank()).map(|axis| if axis == 1 { 1 } else { self.dim(axis as isize) as isize }).collect();
        self.gather(1, &class.reshape(&column)).reshape_to(class)
    }

    /// The weighted losses of log-probabilities for one-hot targets with a `share` spread over all classes.
    fn smoothed(&self, class: &Value, share: f64, weight: Option<&Value>) -> Value {
        let weighted = match weight {
            Some(weight) => self.times_share(&weight.along_classes(self)),
            None => self.clone(),
        };
        let even = weighted.sum(&[1], false) * (share / self.dim(1).max(1) as f64);
        (weighted.picked(class) * (1.0 - share) + even).neg()
    }

    /// Cross entropy of logits and probabilities, with options.
    #[track_caller]
    fn soft_class_loss(&self, target: &Value, options: &ClassLoss) -> Value {
        if let Err(invalid) = self.class_options("cross_entropy", target, options) {
            return invalid;
        }
        if options.ignore_index.is_some() || target.shape() != self.shape() {
            let why = "expected probabilities of the logits' shape and no ignore_index, or class indices";
            return self.graph().error("cross_entropy", &[self, target], why);
        }
        self.graph().at(Location::caller(), || {
            let share = options.label_smoothing;
            let even = share / self.dim(1).max(1) as f64;
            let target = if share == 0.0 { target.clone() } else { target * (1.0 - share) + even };
            let target = options.weight.as_ref().map_or(target.clone(), |w| target * w.along_classes(self));
            self.log_softmax(1).times_share(&target).sum(&[1], false).neg().reduced(options.reduction)
        })
    }

    /// Broadcasts class weights `[C]` to the shape of predictions `[N, C, ...]`.
    fn along_classes(&self, predictions: &Value) -> Value {
        let mut column = vec![1; predictions.shape().rank() - 1];
        column[0] = -1;
        self.reshape(&column).broadcast_to(predictions.shape())
    }

    /// Reshapes to the shape of another value with equally many elements.
    fn reshape_to(&self, like: &Value) -> Value {
        self.reshape(&like.shape().iter().map(|&size| size as isize).collect::<Vec<_>>())
    }
}
