//! Optimisers, as graph nodes: a step updates parameters and state on the device, in the same submission as the forward
//! and backward pass. Formulas, names and defaults match PyTorch.
//!
//! ```
//! use wgrad::optim::{Adam, Optimizer};
//! use wgrad::{Device, Graph, Session, Tensor};
//!
//! let graph = Graph::new();
//! let w = graph.parameter("w", Tensor::new([2], [1.0f32, -2.0])?);
//! let loss = w.square().sum_all();
//! Adam::new().lr(0.1).minimize(&graph, &loss);
//!
//! let mut session = Session::new(Device::cpu());
//! let program = session.compile(&graph, &[&loss])?;
//! let first = session.run(&program, &[])?[0].item()?;
//! let second = session.run(&program, &[("lr", &Tensor::scalar(0.05))])?[0].item()?;
//! assert!(second < first);
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! The learning rate is a scalar named `lr`, which can be fed at any step without recompiling. State is kept in
//! variables named after parameter and optimiser, such as `fc1.weight.adam.m`. Quantities that depend on the step
//! number count the updates of each parameter ([`Gradient::of_step`]).
//!
//! [`schedule`] has learning rate schedules. Gradients can be clipped ([`clip_norm`], [`clip_value`]), accumulated over
//! several batches ([`accumulate`]), and passed to different optimisers:
//!
//! ```
//! use wgrad::optim::{AdamW, Optimizer, parameter_gradients};
//! # let graph = wgrad::Graph::new();
//! # let w = graph.parameter("fc.weight", wgrad::Tensor::scalar(1.0));
//! # let b = graph.parameter("fc.bias", wgrad::Tensor::scalar(1.0));
//! # let loss = (w * b).square();
//! let gradients = parameter_gradients(&graph, &loss);
//! let (weights, others): (Vec<_>, Vec<_>) = gradients.into_iter().partition(|g| g.name.ends_with(".weight"));
//! AdamW::new().weight_decay(0.1).apply(&graph, &weights);
//! AdamW::new().weight_decay(0.0).lr_factor(0.5).apply(&graph, &others);
//! # assert!(graph.errors().is_empty());
//! ```
//!
//! A parameter in none of the groups is not updated, and its gradient is not computed. To freeze a whole part of a
//! model, use [`Scope::frozen`](crate::nn::Scope::frozen).
//!
//! A new optimiser is a struct with one method, [`Optimizer::rule`].

/// Defines a setter for each hyper-parameter.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $ty) -> Self {
            self.$name = $name;
            self
        }
    )*};
}

mod accumulate;
mod adam;
mod adaptive;
mod scale;
pub mod schedule;
mod sgd;
mod wrapped;

use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

pub use accumulate::{accumulate, accumulated};
pub use adam::{Adam, AdamW, NAdam};
pub use adaptive::{Adadelta, Adagrad, RmsProp};
pub use scale::{LossScale, Scaled};
pub use sgd::{Lion, Sgd};
pub use wrapped::{Averaged, LrFactor};

use crate::ops::all_reduce::AllReduce;
use crate::{DType, Graph, Tensor, Value, gradients};

/// A function of the step number, which starts at 1: see [`of_step`]. Example: [`Optimizer`].
pub type OfStep = Arc<dyn Fn(f64) -> f64 + Send + Sync>;

/// The name suffix of a parameter's moving average.
pub const EMA: &str = "ema";

/// A parameter and the gradient of the loss with respect to it. Example: [`Optimizer`].
#[derive(Clone, Debug)]
pub struct Gradient {
    /// The parameter's name.
    pub name: String,
    /// The parameter.
    pub parameter: Value,
    /// The gradient, with the type of the parameter, or f32 if that is narrow.
    pub value: Value,
}

impl Gradient {
    /// Declares optimiser state for this parameter: a variable `PARAMETER.NAME` of its wide type, initialised to zero.
    #[track_caller]
    pub fn state(&self, name: &str) -> Value {
        let zeros = Tensor::zeros(self.parameter.widen().ty());
        self.parameter.graph().variable(&format!("{}.{name}", self.name), zeros)
    }

    /// State that is an exponential moving average of `x`, `s <- decay s + (1 - decay) x`. Returns the new average.
    #[track_caller]
    pub fn average(&self, name: &str, decay: f64, x: &Value) -> Value {
        let state = self.state(name);
        // Starts from the term with the larger weight, so that the average of a constant converges to it exactly.
        let average = if decay < 0.5 { x + (&state - x) * decay } else { &state + (x - &state) * (1.0 - decay) };
        self.parameter.graph().assign(&state, &average);
        average
    }

    /// A scalar that depends on how often the optimiser `name` has updated this parameter: `function` of the step
    /// number. The session keeps the count in `PARAMETER.NAME.step`, like PyTorch's `state['step']`: it is saved with
    /// the variables and shared by all programs that update the parameter with this optimiser.
    #[track_caller]
    pub fn of_step(&self, name: &str, function: &OfStep) -> Value {
        let (counter, function) = (format!("{}.{name}.{STEP}", self.name), function.clone());
        self.parameter.graph().step_scalar(&counter, DType::F32, move |done| function(done as f64 + 1.0))
    }

    /// The gradient with PyTorch's weight decay, an L2 penalty: `g + decay * parameter`.
    #[track_caller]
    pub fn decayed(&self, decay: f64) -> Value {
        if decay == 0.0 { self.value.clone() } else { &self.value + &self.parameter * decay }
    }
}

/// The update of one parameter: maps its gradient to its new value. Example: [`Optimizer`].
pub type Rule = Box<dyn Fn(&Gradient) -> Value>;

/// An optimiser. Import the trait to call its methods.
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, parameter_gradients};
/// use wgrad::{Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let [a, b] = ["a", "b"].map(|name| graph.parameter(name, Tensor::scalar(1.0)));
/// let gradients = parameter_gradients(&graph, &(&a * &b).square());
/// let (of_a, of_b): (Vec<_>, Vec<_>) = gradients.into_iter().partition(|gradient| gradient.name == "a");
/// Sgd::new().lr(0.1).apply(&graph, &of_a);
/// Sgd::new().lr(0.2).apply(&graph, &of_b);
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert_eq!((session.get("a")?.item()?, session.get("b")?.item()?), (0.8, 0.6));
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Optimizer {
    /// The update of one parameter, as a function that adds nodes. Nodes shared by all parameters (the learning rate)
    /// are created here, once. The rule declares state with [`Gradient::state`] and updates it with
    /// [`Graph::assign`]; for quantities that depend on the step number, see [`Gradient::of_step`].
    fn rule(&self, graph: &Graph) -> Rule;

    /// Makes each run a training step: computes the gradients of a scalar `loss` with respect to all parameters
    /// declared so far, and assigns their new values. Returns the gradients.
    ///
    /// A parameter that the loss does not depend on has gradient zero, but weight decay and momentum still apply.
    #[track_caller]
    fn minimize(&self, graph: &Graph, loss: &Value) -> Vec<Gradient> {
        let gradients = parameter_gradients(graph, loss);
        self.apply(graph, &gradients);
        gradients
    }

    /// The same from given gradients, for example clipped ones ([`clip_norm`]) or those of some parameters.
    #[track_caller]
    fn apply(&self, graph: &Graph, gradients: &[Gradient]) {
        graph.at(Location::caller(), || {
            let rule = self.rule(graph);
            for gradient in gradients {
                if graph.admit("optimizer", &[&gradient.parameter, &gradient.value]).is_err() {
                    continue;
                }
                // Updates and state are in f32; a narrow parameter is rounded.
                let (parameter, value) = (gradient.parameter.widen(), gradient.value.widen());
                let updated = rule(&Gradient { name: gradient.name.clone(), parameter, value });
                graph.assign(&gradient.parameter, &updated.cast(gradient.parameter.dtype()));
            }
        });
    }

    /// The same optimiser with the learning rate multiplied by `factor`, whatever is fed as `lr`: for a group of
    /// parameters that should learn faster or slower.
    fn lr_factor(self, factor: f64) -> LrFactor<Self>
    where
        Self: Sized,
    {
        LrFactor { inner: self, factor }
    }

    /// The same optimiser, which also keeps an exponential moving average of the weights (Polyak and Juditsky,
    /// *Acceleration of stochastic approximation by averaging*, 1992), bias-corrected like Adam's:
    /// `a <- a + (1 - decay) / (1 - decay^t) (p - a)`, with the new `p`. State: `ema`.
    /// [`Scope::averaged`](crate::nn::Scope::averaged) builds a model with these weights.
    fn averaged(self, decay: f64) -> Averaged<Self>
    where
        Self: Sized,
    {
        Averaged { inner: self, decay }
    }
}

/// The gradients of a scalar `loss` with respect to all parameters declared so far, in declaration order.
#[track_caller]
pub fn parameter_gradients(graph: &Graph, loss: &Value) -> Vec<Gradient> {
    let parameters = graph.parameters();
    if graph.admit("minimize", &[loss]).is_err() {
        return Vec::new();
    }
    if parameters.is_empty() {
        let why = "the graph declares no parameters; use Graph::parameter";
        graph.error("minimize", &[loss], why);
        return Vec::new();
    }
    let wrt: Vec<&Value> = parameters.iter().map(|(_, parameter)| parameter).collect();
    let values = gradients(loss, &wrt);
    let pairs = parameters.iter().zip(values);
    pairs
        .map(|((name, parameter), value)| Gradient { name: name.clone(), parameter: parameter.clone(), value })
        .collect()
}

/// Combines the gradients of all ranks of a job; see [`AllReduce`].
///
/// ```
/// use wgrad::ops::all_reduce::AllReduce;
/// use wgrad::optim::{Optimizer, Sgd, all_reduce, parameter_gradients};
/// # let graph = wgrad::Graph::new();
/// # let w = graph.parameter("w", wgrad::Tensor::scalar(1.0));
/// # let loss = w.square();
/// let gradients = parameter_gradients(&graph, &loss);
/// Sgd::new().lr(0.1).apply(&graph, &all_reduce(&gradients, AllReduce::MEAN));
/// # assert!(graph.errors().is_empty());
/// ```
#[track_caller]
pub fn all_reduce(gradients: &[Gradient], how: AllReduce) -> Vec<Gradient> {
    let Some(first) = gradients.first() else { return Vec::new() };
    let combined = |g: &Gradient| Gradient { value: g.value.widen().all_reduce(how), ..g.clone() };
    first.parameter.graph().at(Location::caller(), || gradients.iter().map(combined).collect())
}

/// Scales all gradients by one factor so that their joint norm is at most `max_norm`:
/// `g * min(1, max_norm / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_` (Pascanu et al., *On the difficulty of
/// training recurrent neural networks*, ICML 2013). If any element is NaN, all gradients become NaN.
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, clip_norm, parameter_gradients};
/// # let graph = wgrad::Graph::new();
/// # let w = graph.parameter("w", wgrad::Tensor::scalar(1.0));
/// # let loss = w.square();
/// let gradients = parameter_gradients(&graph, &loss);
/// Sgd::new().lr(0.1).apply(&graph, &clip_norm(&gradients, 1.0));
/// # assert!(graph.errors().is_empty());
/// ```
#[track_caller]
pub fn clip_norm(gradients: &[Gradient], max_norm: f64) -> Vec<Gradient> {
    clip("clip_norm", "max_norm", max_norm, gradients, || {
        let sum = gradients.iter().map(|g| g.value.widen().square().sum_all()).reduce(|a, b| a + b);
        let norm = sum.map(|sum| sum.sqrt() + 1e-6);
        // A NaN norm is not below the limit, so it reaches all gradients.
        let factor = norm.map(|norm| {
            let limit = norm.full_like(max_norm);
            norm.le(&limit).where_(&norm.ones_like(), &(limit / &norm))
        });
        gradients.iter().zip(factor.iter().cycle()).map(|(g, factor)| g.value.widen() * factor).collect()
    })
}

/// Clamps each element of all gradients to `[-limit, limit]`, as PyTorch's `clip_grad_value_`.
#[track_caller]
pub fn clip_value(gradients: &[Gradient], limit: f64) -> Vec<Gradient> {
    clip("clip_value", "limit", limit, gradients, || gradients.iter().map(|g| g.value.clamp(-limit, limit)).collect())
}

/// The gradients with the values returned by `clipped`, if the limit is valid.
#[track_caller]
fn clip(
    op: &str,
    name: &str,
    limit: f64,
    gradients: &[Gradient],
    clipped: impl FnOnce() -> Vec<Value>,
) -> Vec<Gradient> {
    let Some(first) = gradients.first() else { return Vec::new() };
    let graph = first.parameter.graph();
    let operands: Vec<&Value> = gradients.iter().map(|g| &g.value).collect();
    let values = if let Err(invalid) = graph.admit(op, &operands) {
        vec![invalid; gradients.len()]
    } else if limit >= 0.0 && limit.is_finite() {
        graph.at(Location::caller(), clipped)
    } else {
        let why = format!("{name} must be finite and at least 0, not {limit}");
        vec![graph.error(op, &[], why); gradients.len()]
    };
    gradients.iter().zip(values).map(|(g, value)| Gradient { value, ..g.clone() }).collect()
}

/// The learning rate: a scalar `lr` of the graph, with a default if it is not fed.
fn learning_rate(graph: &Graph, default: f64) -> Value {
    graph.scalar("lr", default)
}

/// A function of the step number, for [`Gradient::of_step`]. It caches its last result, since most parameters are at
/// the same step.
pub fn of_step(function: impl Fn(f64) -> f64 + Send + Sync + 'static) -> OfStep {
    let last = Mutex::new((0.0, f64::NAN));
    Arc::new(move |step| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != step {
            *last = (step, function(step));
        }
        last.1
    })
}

/// The name suffix of a parameter's step count.
const STEP: &str = "step";

/// Reports hyper-parameters outside their range, at the caller's line.
#[track_caller]
fn check(graph: &Graph, optimizer: &str, not_negative: &[(&str, f64)], below_one: &[(&str, f64)]) {
    let location = std::panic::Location::caller();
    let complain = |name: &str, x: f64, range: &str| {
        graph.error_at(location, optimizer, &[], format!("{name} must be {range}, not {x}"));
    };
    for &(name, x) in not_negative {
        if !(x >= 0.0 && x.is_finite()) {
            complain(name, x, "finite and at least 0");
        }
    }
    for &(name, x) in below_one {
        if !(0.0..1.0).contains(&x) {
            complain(name, x, "in [0, 1)");
        }
    }
}
