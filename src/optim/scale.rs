//! Dynamic loss scaling, for training with f16 activations.

use std::panic::Location;

use super::{Gradient, Optimizer, parameter_gradients};
use crate::ops::all_reduce::AllReduce;
use crate::{DType, Graph, Tensor, Value};

/// Multiplies the loss by a factor, so that small gradients do not underflow in f16, and divides the gradients by it
/// (Micikevicius et al., *Mixed Precision Training*, arXiv:1710.03740). As in PyTorch's `GradScaler`, a step whose
/// gradients are not all finite changes neither parameters nor optimiser state, and halves the scale; after 2,000 good
/// steps in a row it is doubled. All of this happens on the device; nothing is read back. Other assignments, such as
/// running statistics of batch norm, are made in every step.
///
/// The state is in the variables `loss_scale.scale`, `loss_scale.good_steps` and `loss_scale.skipped`, the number of
/// skipped steps; [`Session::get`](crate::Session::get) returns them. The bias corrections of Adam count skipped steps,
/// too: the host counts steps and does not know the outcome.
///
/// Updates wait for the check of all gradients, so they are launches of their own instead of epilogues of the kernels
/// that compute the gradients, and each gradient is read once more to check it.
///
/// ```
/// use wgrad::nn::Scope;
/// use wgrad::optim::{Adam, LossScale};
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0).mixed(DType::F16);
/// let x = nn.activation(&graph.input("x", DType::F32, [4, 2]));
/// let loss = nn.linear("fc", &x, 1).cast(DType::F32).square().mean_all();
/// LossScale::new().minimize(&graph, &Adam::new().lr(0.1), &loss);
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[&loss])?;
/// session.run(&step, &[("x", &Tensor::new([4, 2], [1.0f32; 8])?)])?;
/// assert_eq!(session.get("loss_scale.skipped")?.item()?, 0.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The first scale; default 65,536.
    pub initial: f64,
    /// The factor after `interval` good steps in a row; default 2.
    pub growth: f64,
    /// The factor after a skipped step; default 1/2.
    pub backoff: f64,
    /// The number of good steps after which the scale grows; default 2,000.
    pub interval: u32,
    /// Whether a step is skipped if the gradients of any rank of a job are not finite; default false.
    pub across_ranks: bool,
}

/// Gradients with respect to all parameters, divided by the scale, and whether they are all finite.
/// Example: [`LossScale::gradients`].
#[derive(Clone, Debug)]
pub struct Scaled {
    /// The gradients, in f32. If they are not finite, [`Scaled::apply`] changes nothing.
    pub gradients: Vec<Gradient>,
    /// Whether all gradients are finite: bool `[]`.
    pub finite: Value,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale::new()
    }
}

impl LossScale {
    /// PyTorch's defaults.
    pub fn new() -> LossScale {
        LossScale { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000, across_ranks: false }
    }

    /// Sets the first scale.
    pub fn initial(self, initial: f64) -> LossScale {
        LossScale { initial, ..self }
    }

    /// Sets the number of good steps after which the scale grows.
    pub fn interval(self, interval: u32) -> LossScale {
        LossScale { interval, ..self }
    }

    /// Skips a step if the gradients of any rank of a job are not finite, so that all ranks do the same; see
    /// [`AllReduce`].
    pub fn across_ranks(self) -> LossScale {
        LossScale { across_ranks: true, ..self }
    }

    /// [`Optimizer::minimize`] with a scaled loss. Returns the gradients, divided by the scale.
    #[track_caller]
    pub fn minimize(&self, graph: &Graph, optimizer: &dyn Optimizer, loss: &Value) -> Vec<Gradient> {
        let scaled = self.gradients(graph, loss);
        scaled.apply(graph, optimizer, &scaled.gradients);
        scaled.gradients
    }

    /// The gradients of a scalar loss, computed from the scaled loss and divided by the scale. Declares the state and
    /// updates the scale.
    #[track_caller]
    pub fn gradients(&self, graph: &Graph, loss: &Value) -> Scaled {
        let sound = |factor: f64| factor > 0.0 && (factor as f32).is_normal();
        let location = Location::caller();
        let invalid = |why: String| {
            let finite = graph.error_at(location, "loss_scale", &[loss], why);
            Scaled { gradients: Vec::new(), finite }
        };
        if ![self.initial, self.growth, self.backoff].into_iter().all(sound) || self.growth < 1.0 || self.backoff > 1.0
        {
            return invalid(format!("expected positive factors, growth at least 1, backoff at most 1, not {self:?}"));
        }
        if loss.is_valid() && loss.dtype() != DType::F32 {
            return invalid("the loss must be f32; cast() it".to_owned());
        }
        graph.at(location, || {
            let zero = || Tensor::scalar(0.0);
            let scale = graph.variable("loss_scale.scale", Tensor::scalar(self.initial));
            let good = graph.variable("loss_scale.good_steps", zero());
            let skipped = graph.variable("loss_scale.skipped", zero());
            let mut gradients = parameter_gradients(graph, &(loss * &scale));
            // A sum is finite only if all its terms are.
            let sums = gradients.iter().map(|gradient| gradient.value.widen().sum_all());
            let finite = sums.map(|sum| sum.abs().le(&sum.full_like(f64::from(f32::MAX)))).reduce(|a, b| a.and(&b));
            let Some(finite) = finite else { return Scaled { gradients, finite: graph.full(DType::Bool, [], 1.0) } };
            let finite = match self.across_ranks {
                true => {
                    let all = finite.cast(DType::F32).all_reduce(AllReduce::MEAN);
                    all.ge(&all.ones_like())
                }
                false => finite,
            };
            let inverse = scale.reciprocal();
            for gradient in &mut gradients {
                gradient.value = gradient.value.widen() * &inverse;
            }
            let count = finite.where_(&(&good + 1.0), &good.zeros_like());
            let grows = count.ge(&count.full_like(f64::from(self.interval)));
            let grown = grows.where_(&(&scale * self.growth), &scale);
            // A scale beyond f32 would make every step fail.
            let grown = grown.minimum(&grown.full_like(2f64.powi(126)));
            // A scale that is flushed to 0 would make parameters NaN.
            let reduced = (&scale * self.backoff).maximum(&scale.full_like(2f64.powi(-60)));
            graph.assign(&scale, &finite.where_(&grown, &reduced));
            graph.assign(&good, &grows.where_(&count.zeros_like(), &count));
            graph.assign(&skipped, &finite.where_(&skipped, &(&skipped + 1.0)));
            Scaled { gradients, finite }
        })
    }
}

impl Scaled {
    /// [`Optimizer::apply`] with these gradients, for example clipped ones, unless the scaled ones are not all finite:
    /// then parameters and optimiser state keep their values.
    #[track_caller]
    pub fn apply(&self, graph: &Graph, optimizer: &dyn Optimizer, gradients: &[Gradient]) {
        if !self.finite.is_valid() {
            return;
        }
        let first = graph.assignments();
        optimizer.apply(graph, gradients);
        graph.assign_if(&self.finite, first);
    }
}
