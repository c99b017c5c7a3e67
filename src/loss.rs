//! Loss functions: from predictions and targets to a scalar.
//!
//! All but cross entropy over class numbers are composed of elementwise ops and a reduction, and
//! leave the rest to fusion. Names and formulas are PyTorch's.

use std::panic::Location;

use crate::{DType, Graph, Value};

/// How the losses of the elements (for cross entropy: of the rows) become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// What [`Value::cross_entropy_with`] and [`Value::nll_loss`] may be given.
#[derive(Clone, Debug, Default)]
pub struct ClassLoss {
    /// Mean or sum. With class weights the mean divides by the sum of the targets' weights.
    pub reduction: Reduction,
    /// Rows of this class count in neither sum; it need not be one of the classes.
    pub ignore_index: Option<i32>,
    /// A weight for each class, f32 `[C]`.
    pub weight: Option<Value>,
    /// The share `e` of the target spread evenly over all classes: `(1 - e) onehot + e / C`
    /// (Szegedy et al., arXiv:1512.00567).
    pub label_smoothing: f64,
}

impl Graph {
    /// The L1 penalty on the parameters whose name the function accepts, to be added to a loss:
    /// `strength * sum |p|`. It drives what contributes little to 0 (Tibshirani, *Regression shrinkage
    /// and selection via the lasso*, J. R. Statist. Soc. B 58, 1996).
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

    /// The L2 penalty likewise: `strength * sum p^2` (Hoerl and Kennard, *Ridge regression*,
    /// Technometrics 12, 1970). Its gradient is `2 strength p`, so that it does what an optimiser's
    /// `weight_decay` of `2 strength` does.
    #[track_caller]
    pub fn l2_penalty(&self, strength: f64, of: impl Fn(&str) -> bool) -> Value {
        self.penalty("l2_penalty", strength, of, |p| p.square())
    }

    #[track_caller]
    fn penalty(&self, op: &str, strength: f64, of: impl Fn(&str) -> bool, term: fn(&Value) -> Value) -> Value {
        let chosen = self.parameters().into_iter().filter(|(name, _)| of(name));
        let terms = chosen.map(|(_, parameter)| term(&parameter).sum_all());
        let sum = self.at(Location::caller(), || terms.reduce(|a, b| a + b));
        match sum {
            _ if !(strength >= 0.0 && strength.is_finite()) => {
                self.mistake(op, &[], format!("strength must be a number of at least 0, not {strength}"))
            }
            None => self.mistake(op, &[], "none of the parameters declared so far has such a name"),
            Some(sum) => sum * strength,
        }
    }
}

impl Value {
    /// The losses reduced to a scalar.
    #[track_caller]
    pub(crate) fn reduced(&self, reduction: Reduction) -> Value {
        match reduction {
            Reduction::Mean => self.mean_all(),
            Reduction::Sum => self.sum_all(),
        }
    }

    /// Whether a loss can be taken of these two; otherwise the invalid value to return.
    #[track_caller]
    fn paired(&self, op: &str, target: &Value) -> Result<(), Value> {
        self.graph().admit(op, &[self, target])?;
        if self.ty() != target.ty() || self.dtype() != DType::F32 {
            let why = "expected predictions and targets of one shape, both f32; reshape() or broadcast_to() one";
            return Err(self.graph().mistake(op, &[self, target], why));
        }
        Ok(())
    }

    /// Mean squared error: `(x - target)^2`, reduced.
    #[track_caller]
    pub fn mse_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("mse_loss", target) {
            Ok(()) => (self - target).square().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// Mean absolute error: `|x - target|`, reduced.
    #[track_caller]
    pub fn l1_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("l1_loss", target) {
            Ok(()) => (self - target).abs().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// With `d = |x - target|`: `d^2 / 2` below `delta`, else `delta (d - delta / 2)`, reduced
    /// (Huber, Ann. Math. Statist. 35, 1964).
    #[track_caller]
    pub fn huber_loss(&self, target: &Value, delta: f64, reduction: Reduction) -> Value {
        if !(delta > 0.0 && delta.is_finite()) {
            let why = format!("delta must be positive and finite, not {delta}");
            return self.graph().mistake("huber_loss", &[self, target], why);
        }
        match self.paired("huber_loss", target) {
            Ok(()) => {
                // The part of d up to delta is squared, the rest counts linearly.
                let d = (self - target).abs();
                let near = d.minimum(&d.full_like(delta));
                (near.square() * 0.5 + (&d - &near) * delta).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// `huber_loss` with `delta = beta`, divided by `beta`; with `beta` 0 it is `l1_loss`.
    #[track_caller]
    pub fn smooth_l1_loss(&self, target: &Value, beta: f64, reduction: Reduction) -> Value {
        if beta == 0.0 {
            return self.l1_loss(target, reduction);
        }
        self.huber_loss(target, beta, reduction) * (1.0 / beta)
    }

    /// Binary cross entropy of probabilities: `-(t ln p + (1 - t) ln(1 - p))`, each logarithm at least -100, reduced.
    /// The gradient's denominator `p (1 - p)` is at least 1e-12. With logits,
    /// [`Value::binary_cross_entropy_with_logits`] is more exact.
    #[track_caller]
    pub fn binary_cross_entropy(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("binary_cross_entropy", target) {
            Ok(()) => self.bce(target).reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// The hinge loss of scores and targets of 1 or -1: `max(0, 1 - t x)`, reduced (Cortes and Vapnik,
    /// *Support-vector networks*, 1995).
    #[track_caller]
    pub fn hinge_loss(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("hinge_loss", target) {
            Ok(()) => ((self * target).neg() + 1.0).relu().reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// The cosine of the angle between two values along `axis`: `a b / sqrt((a a + e) (b b + e))`, products summed,
    /// with `e = 1e-12`.
    #[track_caller]
    pub fn cosine_similarity(&self, other: &Value, axis: isize) -> Value {
        if let Err(invalid) = self.paired("cosine_similarity", other) {
            return invalid;
        }
        let dot = |a: &Value, b: &Value| (a * b).sum(&[axis], false);
        dot(self, other) * ((dot(self, self) + 1e-12) * (dot(other, other) + 1e-12)).rsqrt()
    }

    /// For rows `[N, D]` of two values and targets `[N]` of 1 (alike) or -1 (unlike): `1 - cos` for 1, and
    /// `max(0, cos - margin)` for -1, reduced. The cosine is [`Value::cosine_similarity`] along axis 1.
    #[track_caller]
    pub fn cosine_embedding_loss(&self, other: &Value, target: &Value, margin: f64, reduction: Reduction) -> Value {
        if let Err(invalid) = self.paired("cosine_embedding_loss", other) {
            return invalid;
        }
        if let Err(invalid) = self.graph().admit("cosine_embedding_loss", &[self, other, target]) {
            return invalid;
        }
        if self.shape().rank() != 2 || target.shape().to_vec() != [self.dim(0)] || target.dtype() != DType::F32 {
            let why = "expected rows [N, D] and targets [N] of 1 and -1, as f32";
            return self.graph().mistake("cosine_embedding_loss", &[self, other, target], why);
        }
        let cosine = self.cosine_similarity(other, 1);
        let alike = target.gt(&target.zeros_like());
        alike.where_(&(cosine.neg() + 1.0), &(cosine - margin).relu()).reduced(reduction)
    }

    /// Binary cross entropy of logits and probabilities, stable at both ends:
    /// `max(x, 0) - x t + ln(1 + exp(-|x|))`, reduced.
    #[track_caller]
    pub fn binary_cross_entropy_with_logits(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("binary_cross_entropy_with_logits", target) {
            Ok(()) => (self.softplus() - self * target).reduced(reduction),
            Err(invalid) => invalid,
        }
    }

    /// The same with the positive term multiplied by a weight, which broadcasts:
    /// `(1 - t) x + (1 + (w - 1) t) ln(1 + exp(-x))`, reduced.
    #[track_caller]
    pub fn binary_cross_entropy_with_pos_weight(
        &self,
        target: &Value,
        pos_weight: &Value,
        reduction: Reduction,
    ) -> Value {
        match self.paired("binary_cross_entropy_with_logits", target) {
            Ok(()) => {
                let weight = (pos_weight - 1.0) * target + 1.0;
                ((target.neg() + 1.0) * self + weight * self.neg().softplus()).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// Kullback-Leibler divergence of log-probabilities from target probabilities:
    /// `t (ln t - x)`, 0 where `t` is 0, reduced. PyTorch's `batchmean` is the sum divided by N.
    #[track_caller]
    pub fn kl_div(&self, target: &Value, reduction: Reduction) -> Value {
        match self.paired("kl_div", target) {
            Ok(()) => {
                let positive = target.gt(&target.zeros_like());
                let ln = positive.where_(target, &target.ones_like()).log();
                (target * (ln - self)).reduced(reduction)
            }
            Err(invalid) => invalid,
        }
    }

    /// Cross entropy of logits `[N, C]` or `[N, C, d1, ...]` and class numbers or probabilities (see
    /// [`Value::cross_entropy_losses`]), reduced: the mean or sum over all but the class axis.
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

    /// Cross entropy of logits `[N, C]` and class numbers `[N]` with class weights, an ignored
    /// class, or label smoothing. Without those [`Value::cross_entropy`] is faster.
    #[track_caller]
    pub fn cross_entropy_with(&self, target: &Value, options: &ClassLoss) -> Value {
        self.log_softmax(1).class_loss("cross_entropy", target, options)
    }

    /// Negative log-likelihood of log-probabilities `[N, C]` and class numbers `[N]`: `-x[class]`,
    /// weighted and reduced.
    #[track_caller]
    pub fn nll_loss(&self, target: &Value, options: &ClassLoss) -> Value {
        self.class_loss("nll_loss", target, options)
    }

    /// `-sum(share * x)` with the share of each class in each row: one-hot, smoothed, weighted.
    #[track_caller]
    fn class_loss(&self, op: &str, target: &Value, options: &ClassLoss) -> Value {
        let operands: Vec<&Value> = [self, target].into_iter().chain(&options.weight).collect();
        if let Err(invalid) = self.graph().admit(op, &operands) {
            return invalid;
        }
        let classes = self.dim(1);
        let fits = self.dtype() == DType::F32
            && self.shape().rank() == 2
            && matches!(target.dtype(), DType::I32 | DType::U32)
            && target.shape().to_vec() == [self.dim(0)]
            && options.weight.iter().all(|w| w.dtype() == DType::F32 && w.shape().to_vec() == [classes])
            && (0.0..=1.0).contains(&options.label_smoothing);
        if !fits {
            let why = "expected f32 [N, C], class numbers [N] as i32 or u32, weights [C] as f32, and label \
                       smoothing from 0 to 1";
            return self.graph().mistake(op, &[self, target], why);
        }
        let column = target.cast(DType::I32).reshape(&[self.dim(0) as isize, 1]);
        let number = self.graph().iota(DType::I32, self.shape(), 1);
        let (ones, zeros) = (self.ones_like(), self.zeros_like());
        let hit = number.eq(&column).where_(&ones, &zeros);
        let counted = match options.ignore_index {
            None => ones,
            Some(ignored) => column.eq(&column.full_like(f64::from(ignored))).where_(&zeros, &ones),
        };
        let weight = options.weight.as_ref().map_or_else(|| self.ones_like(), |w| w.broadcast_to(self.shape()));
        let even = options.label_smoothing / classes.max(1) as f64;
        let share = (&hit * (1.0 - options.label_smoothing) + even) * &weight * &counted;
        let sum = (share * self).sum_all().neg();
        match options.reduction {
            Reduction::Sum => sum,
            Reduction::Mean => sum / (hit * weight * counted).sum_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Device, Graph, Session, Tensor, Value, gradients};

    type Penalty = fn(&Graph, f64) -> Value;

    #[test]
    fn penalties_of_the_parameters_chosen() {
        let cases: [(Penalty, f64, [f64; 3]); 2] = [
            (|graph, strength| graph.l1_penalty(strength, |n| n.ends_with(".weight")), 0.5 * 10.0, [0.5, -0.5, 0.5]),
            (|graph, strength| graph.l2_penalty(strength, |n| n.ends_with(".weight")), 0.5 * 54.0, [1.0, -2.0, 7.0]),
        ];
        for (penalty, value, slopes) in cases {
            let graph = Graph::new();
            let first = graph.parameter("a.weight", Tensor::new([2], [1.0, -2.0]).unwrap());
            let second = graph.parameter("b.weight", Tensor::scalar(7.0));
            let bias = graph.parameter("b.bias", Tensor::scalar(100.0));
            let penalty = penalty(&graph, 0.5);
            let dy = gradients(&penalty, &[&first, &second, &bias]);
            let mut session = Session::new(Device::cpu());
            let program = session.compile(&graph, &[&penalty, &dy[0], &dy[1], &dy[2]]).unwrap();
            let outputs = session.run(&program, &[]).unwrap();
            let flat: Vec<f64> = outputs.iter().flat_map(Tensor::to_f64).collect();
            assert_eq!(flat, [value, slopes[0], slopes[1], slopes[2], 0.0]);
        }
    }

    #[test]
    fn penalties_of_nothing_are_mistakes() {
        let graph = Graph::new();
        graph.parameter("w", Tensor::scalar(1.0));
        graph.l1_penalty(1.0, |name| name == "v");
        graph.l2_penalty(-1.0, |_| true);
        graph.l2_penalty(f64::NAN, |_| true);
        let messages: Vec<String> = graph.mistakes().iter().map(ToString::to_string).collect();
        assert!(messages[0].contains("none of the parameters") && messages[0].contains("loss.rs"), "{messages:?}");
        assert!(messages.len() == 3 && messages[2].contains("at least 0, not NaN"), "{messages:?}");
    }
}
