//! Optimisers, as graph nodes: a step updates parameters and state on the device, in the same
//! submission as forward and backward. Formulas, names and defaults are PyTorch's.
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
//! The learning rate is a scalar named `lr`, fed at any step without recompiling. State lives in
//! variables named after parameter and optimiser, such as `fc1.weight.adam.m`. What depends on
//! the step's number counts with [`STEP`], which starts at 0 and is saved with the variables.
//!
//! Learning rates that change with the step are in [`schedule`]. Gradients may be clipped
//! ([`clip_norm`], [`clip_value`]), summed over several batches ([`accumulate`]), and given to
//! different optimisers:
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
//! # assert!(graph.mistakes().is_empty());
//! ```
//!
//! A parameter that is in none of the groups stays as it is, and its gradient is not computed. A
//! whole part of a model is frozen by [`Scope::frozen`](crate::nn::Scope::frozen).
//!
//! A further optimiser is one struct with one method, [`Optimizer::rule`].

/// A method for each hyper-parameter.
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
pub mod schedule;
mod sgd;
mod wrapped;

use std::panic::Location;

pub use accumulate::{accumulate, accumulated};
pub use adam::{Adam, AdamW, NAdam};
pub use adaptive::{Adadelta, Adagrad, RmsProp};
pub use sgd::{Lion, Sgd};
pub use wrapped::{Averaged, LrFactor};

use crate::{DType, Graph, Tensor, Value, gradients};

/// The counter of steps: how often the session has run programs that train with it.
pub const STEP: &str = "optimizer.step";

/// The name of a parameter's moving average, behind its own and a dot.
pub const EMA: &str = "ema";

/// A parameter and the gradient of the loss with respect to it.
#[derive(Clone, Debug)]
pub struct Gradient {
    /// The parameter's name.
    pub name: String,
    /// The parameter.
    pub parameter: Value,
    /// The gradient; of the parameter's type.
    pub value: Value,
}

impl Gradient {
    /// Declares state of the optimiser for this parameter: a variable `PARAMETER.NAME` of its
    /// type, which starts at zero.
    #[track_caller]
    pub fn state(&self, name: &str) -> Value {
        let zeros = Tensor::zeros(self.parameter.ty());
        self.parameter.graph().variable(&format!("{}.{name}", self.name), zeros)
    }

    /// State that follows `x` as an exponential moving average, `s <- decay s + (1 - decay) x`.
    /// Gives the new average.
    #[track_caller]
    pub fn average(&self, name: &str, decay: f64, x: &Value) -> Value {
        let state = self.state(name);
        let average = &state * decay + x * (1.0 - decay);
        self.parameter.graph().assign(&state, &average);
        average
    }

    /// The gradient with PyTorch's weight decay, an L2 penalty: `g + decay * parameter`.
    #[track_caller]
    pub fn decayed(&self, decay: f64) -> Value {
        if decay == 0.0 { self.value.clone() } else { &self.value + &self.parameter * decay }
    }
}

/// How one parameter is updated: from its gradient to its new value.
pub type Rule = Box<dyn Fn(&Gradient) -> Value>;

/// A way to minimise a loss. Import the trait to call its methods.
pub trait Optimizer {
    /// The update of one parameter, as a function that pushes nodes. What all parameters share
    /// (learning rate, bias corrections) is made here, once; state is declared by the rule, with
    /// [`Gradient::state`], and assigned with [`Graph::assign`].
    fn rule(&self, graph: &Graph) -> Rule;

    /// Each run becomes a training step: computes the gradients of a scalar `loss` with respect
    /// to all parameters declared so far, and assigns their new values. Gives the gradients.
    ///
    /// A parameter on which the loss does not depend has a gradient of zero: weight decay and
    /// remaining momentum still move it.
    #[track_caller]
    fn minimize(&self, graph: &Graph, loss: &Value) -> Vec<Gradient> {
        let gradients = parameter_gradients(graph, loss);
        self.apply(graph, &gradients);
        gradients
    }

    /// The same with gradients at hand: clipped ([`clip_norm`]), or of some parameters alone.
    #[track_caller]
    fn apply(&self, graph: &Graph, gradients: &[Gradient]) {
        graph.at(Location::caller(), || {
            let rule = self.rule(graph);
            for gradient in gradients {
                if graph.admit("optimizer", &[&gradient.parameter, &gradient.value]).is_err() {
                    continue;
                }
                graph.assign(&gradient.parameter, &rule(gradient));
            }
        });
    }

    /// The same optimiser with `factor` times the learning rate, for a group of parameters that
    /// learns faster or slower than the others, whatever is fed as `lr`.
    fn lr_factor(self, factor: f64) -> LrFactor<Self>
    where
        Self: Sized,
    {
        LrFactor { inner: self, factor }
    }

    /// The same optimiser, which also keeps an exponential moving average of the weights (Polyak and
    /// Juditsky, *Acceleration of stochastic approximation by averaging*, 1992), corrected for its
    /// beginning as Adam's are: `a <- a + (1 - decay) / (1 - decay^t) (p - a)`, with the new `p`.
    /// State: `ema`. [`Scope::averaged`](crate::nn::Scope::averaged) builds a model with these weights.
    fn averaged(self, decay: f64) -> Averaged<Self>
    where
        Self: Sized,
    {
        Averaged { inner: self, decay }
    }
}

/// The gradients of a scalar `loss` with respect to all parameters declared so far, in their order.
#[track_caller]
pub fn parameter_gradients(graph: &Graph, loss: &Value) -> Vec<Gradient> {
    let parameters = graph.parameters();
    if graph.admit("minimize", &[loss]).is_err() {
        return Vec::new();
    }
    if parameters.is_empty() {
        let why = "expected a graph that declares at least one parameter (Graph::parameter)";
        graph.mistake("minimize", &[loss], why);
        return Vec::new();
    }
    let wrt: Vec<&Value> = parameters.iter().map(|(_, parameter)| parameter).collect();
    let values = gradients(loss, &wrt);
    let pairs = parameters.iter().zip(values);
    pairs
        .map(|((name, parameter), value)| Gradient { name: name.clone(), parameter: parameter.clone(), value })
        .collect()
}

/// Scales all gradients by one factor so that their norm, taken over all of them as one vector, is
/// at most `max_norm`: `g * min(1, max_norm / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_`
/// (Pascanu et al., *On the difficulty of training recurrent neural networks*, ICML 2013).
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, clip_norm, parameter_gradients};
/// # let graph = wgrad::Graph::new();
/// # let w = graph.parameter("w", wgrad::Tensor::scalar(1.0));
/// # let loss = w.square();
/// let gradients = parameter_gradients(&graph, &loss);
/// Sgd::new().lr(0.1).apply(&graph, &clip_norm(&gradients, 1.0));
/// # assert!(graph.mistakes().is_empty());
/// ```
#[track_caller]
pub fn clip_norm(gradients: &[Gradient], max_norm: f64) -> Vec<Gradient> {
    let values: Vec<&Value> = gradients.iter().map(|g| &g.value).collect();
    let Some(first) = values.first() else { return Vec::new() };
    if let Err(invalid) = first.graph().admit("clip_norm", &values) {
        return gradients.iter().map(|g| Gradient { value: invalid.clone(), ..g.clone() }).collect();
    }
    let squares = gradients.iter().map(|g| g.value.square().sum_all());
    let Some(sum) = squares.reduce(|a, b| a + b) else { return Vec::new() };
    let norm = sum.sqrt();
    let factor = norm.full_like(max_norm) / (norm + 1e-6);
    let factor = factor.minimum(&factor.ones_like());
    gradients.iter().map(|g| Gradient { value: &g.value * &factor, ..g.clone() }).collect()
}

/// Limits each element of all gradients to `-limit` to `limit`, as PyTorch's `clip_grad_value_`.
#[track_caller]
pub fn clip_value(gradients: &[Gradient], limit: f64) -> Vec<Gradient> {
    gradients.iter().map(|g| Gradient { value: g.value.clamp(-limit, limit), ..g.clone() }).collect()
}

/// The learning rate: a scalar `lr` of the graph, the default where it is not fed.
fn learning_rate(graph: &Graph, default: f64) -> Value {
    graph.scalar("lr", default)
}

/// A function of the step's number, which starts at 1.
fn of_step(graph: &Graph, function: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Value {
    graph.counted(STEP, DType::F32, move |done| function(done as f64 + 1.0))
}

/// Remembers hyper-parameters that lie outside their range, with the user's line.
#[track_caller]
fn check(graph: &Graph, optimizer: &str, not_negative: &[(&str, f64)], below_one: &[(&str, f64)]) {
    let location = std::panic::Location::caller();
    let complain = |name: &str, x: f64, range: &str| {
        graph.mistake_at(location, optimizer, &[], format!("{name} must be {range}, not {x}"));
    };
    for &(name, x) in not_negative {
        if !(x >= 0.0 && x.is_finite()) {
            complain(name, x, "a number of at least 0");
        }
    }
    for &(name, x) in below_one {
        if !(0.0..1.0).contains(&x) {
            complain(name, x, "in [0, 1)");
        }
    }
}
