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
//! A further optimiser is one struct with one method, [`Optimizer::rule`].

use std::panic::Location;

use crate::{DType, Graph, Tensor, Value, gradients};

/// The counter of steps: how often the session has run programs that train with it.
pub const STEP: &str = "optimizer.step";

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
            for gradient in gradients.iter().filter(|g| g.value.is_valid()) {
                graph.assign(&gradient.parameter, &rule(gradient));
            }
        });
    }
}

/// The gradients of a scalar `loss` with respect to all parameters declared so far, in their order.
#[track_caller]
pub fn parameter_gradients(graph: &Graph, loss: &Value) -> Vec<Gradient> {
    let parameters = graph.parameters();
    if !loss.is_valid() {
        return Vec::new();
    }
    if !loss.graph().same(graph) || parameters.is_empty() {
        let why = "expected a loss of this graph, which declares at least one parameter (Graph::parameter)";
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
    let squares = gradients.iter().map(|g| g.value.square().sum_all());
    let Some(sum) = squares.reduce(|a, b| a + b) else { return Vec::new() };
    let norm = sum.sqrt();
    let factor = norm.full_like(max_norm) / (norm + 1e-6);
    let factor = factor.minimum(&factor.ones_like());
    gradients.iter().map(|g| Gradient { value: &g.value * &factor, ..g.clone() }).collect()
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

/// Stochastic gradient descent, with momentum (Sutskever et al., *On the importance of
/// initialization and momentum in deep learning*, ICML 2013) in PyTorch's form:
///
/// `g <- g + weight_decay p`, `b <- momentum b + g`, `p <- p - lr b`; with Nesterov's momentum
/// `p <- p - lr (g + momentum b)`. State: `sgd.momentum`, where momentum is not 0.
#[derive(Clone, Debug)]
pub struct Sgd {
    lr: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: 1e-3, momentum: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

impl Sgd {
    /// `lr` 1e-3, no momentum, no weight decay.
    pub fn new() -> Self {
        Sgd::default()
    }

    setters! {
        /// The learning rate where none is fed.
        lr: f64,
        /// The share of the last update that goes on, in [0, 1); 0 for none.
        momentum: f64,
        /// Whether to look ahead along the momentum.
        nesterov: bool,
        /// The strength of the L2 penalty.
        weight_decay: f64,
    }
}

impl Optimizer for Sgd {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        check(graph, "sgd", &[("lr", self.lr), ("weight_decay", self.weight_decay)], &[("momentum", self.momentum)]);
        if self.nesterov && self.momentum == 0.0 {
            graph.mistake("sgd", &[], "Nesterov's momentum needs a momentum above 0");
        }
        let lr = learning_rate(graph, self.lr);
        let Sgd { momentum, nesterov, weight_decay, .. } = *self;
        let graph = graph.clone();
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            if momentum == 0.0 {
                return &gradient.parameter - g * &lr;
            }
            let state = gradient.state("sgd.momentum");
            let velocity = &state * momentum + &g;
            graph.assign(&state, &velocity);
            let step = if nesterov { g + velocity * momentum } else { velocity };
            &gradient.parameter - step * &lr
        })
    }
}

/// RMSprop (Tieleman and Hinton, *Lecture 6.5*, Coursera 2012; centred: Graves, *Generating
/// sequences with recurrent neural networks*, arXiv:1308.0850):
///
/// `g <- g + weight_decay p`, `v <- alpha v + (1 - alpha) g^2`, `p <- p - lr g / (sqrt(v) + eps)`.
/// Centred, `v` is reduced by the square of `a <- alpha a + (1 - alpha) g`; with momentum,
/// `b <- momentum b + g / (sqrt(v) + eps)`, `p <- p - lr b`. State: `rmsprop.v`, `rmsprop.mean`,
/// `rmsprop.momentum`, as far as used.
#[derive(Clone, Debug)]
pub struct RmsProp {
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

impl RmsProp {
    /// `lr` 1e-2, `alpha` 0.99, `eps` 1e-8; no weight decay, no momentum, not centred.
    pub fn new() -> Self {
        RmsProp::default()
    }

    setters! {
        /// The learning rate where none is fed.
        lr: f64,
        /// The decay of the average of squares, in [0, 1).
        alpha: f64,
        /// What keeps the divisor from 0.
        eps: f64,
        /// The strength of the L2 penalty.
        weight_decay: f64,
        /// The share of the last update that goes on, in [0, 1); 0 for none.
        momentum: f64,
        /// Whether to divide by an estimate of the standard deviation instead of the root mean square.
        centered: bool,
    }
}

impl Optimizer for RmsProp {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let RmsProp { lr, alpha, eps, weight_decay, momentum, centered } = *self;
        let not_negative = [("lr", lr), ("eps", eps), ("weight_decay", weight_decay)];
        check(graph, "rmsprop", &not_negative, &[("alpha", alpha), ("momentum", momentum)]);
        let lr = learning_rate(graph, lr);
        let graph = graph.clone();
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            let mut v = gradient.average("rmsprop.v", alpha, &g.square());
            if centered {
                v = v - gradient.average("rmsprop.mean", alpha, &g).square();
            }
            let mut step = g / (v.sqrt() + eps);
            if momentum > 0.0 {
                let state = gradient.state("rmsprop.momentum");
                step = &state * momentum + step;
                graph.assign(&state, &step);
            }
            &gradient.parameter - step * &lr
        })
    }
}

/// Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011): `g <- g + weight_decay p`, `s <- s + g^2`,
/// `p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)` at step `t`. State: `adagrad.sum`.
#[derive(Clone, Debug)]
pub struct Adagrad {
    lr: f64,
    lr_decay: f64,
    eps: f64,
    weight_decay: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad { lr: 1e-2, lr_decay: 0.0, eps: 1e-10, weight_decay: 0.0 }
    }
}

impl Adagrad {
    /// `lr` 1e-2, `eps` 1e-10; no decay of the learning rate or the weights.
    pub fn new() -> Self {
        Adagrad::default()
    }

    setters! {
        /// The learning rate where none is fed.
        lr: f64,
        /// How fast the learning rate falls with the steps.
        lr_decay: f64,
        /// What keeps the divisor from 0.
        eps: f64,
        /// The strength of the L2 penalty.
        weight_decay: f64,
    }
}

impl Optimizer for Adagrad {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let Adagrad { lr, lr_decay, eps, weight_decay } = *self;
        let not_negative = [("lr", lr), ("lr_decay", lr_decay), ("eps", eps), ("weight_decay", weight_decay)];
        check(graph, "adagrad", &not_negative, &[]);
        let mut lr = learning_rate(graph, lr);
        if lr_decay != 0.0 {
            lr = lr * of_step(graph, move |t| 1.0 / (1.0 + (t - 1.0) * lr_decay));
        }
        let graph = graph.clone();
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            let state = gradient.state("adagrad.sum");
            let sum = &state + g.square();
            graph.assign(&state, &sum);
            &gradient.parameter - g / (sum.sqrt() + eps) * &lr
        })
    }
}

/// Adam (Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015):
///
/// `g <- g + weight_decay p`, `m <- beta1 m + (1 - beta1) g`, `v <- beta2 v + (1 - beta2) g^2`,
/// `p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)` at step `t`. State:
/// `adam.m`, `adam.v`.
#[derive(Clone, Debug)]
pub struct Adam {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

impl Adam {
    /// `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-8, no weight decay.
    pub fn new() -> Self {
        Adam::default()
    }

    setters! {
        /// The learning rate where none is fed.
        lr: f64,
        /// The decays of the averages of gradients and of their squares, in [0, 1).
        betas: (f64, f64),
        /// What keeps the divisor from 0.
        eps: f64,
        /// The strength of the L2 penalty. For decoupled decay see [`AdamW`].
        weight_decay: f64,
    }
}

impl Optimizer for Adam {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        check_adam(graph, "adam", self);
        let (lr, weight_decay) = (learning_rate(graph, self.lr), self.weight_decay);
        let step = adam_step(graph, self);
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            &gradient.parameter - step(gradient, &g) * &lr
        })
    }
}

/// AdamW (Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019): Adam whose
/// weight decay is no part of the gradient, `p <- p - lr weight_decay p` beside Adam's update.
/// State as for [`Adam`].
#[derive(Clone, Debug)]
pub struct AdamW {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl AdamW {
    /// `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 1e-2.
    pub fn new() -> Self {
        AdamW::default()
    }

    setters! {
        /// The learning rate where none is fed.
        lr: f64,
        /// The decays of the averages of gradients and of their squares, in [0, 1).
        betas: (f64, f64),
        /// What keeps the divisor from 0.
        eps: f64,
        /// The share of a weight that a step takes away, times the learning rate.
        weight_decay: f64,
    }
}

impl Optimizer for AdamW {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let adam = Adam { lr: self.lr, betas: self.betas, eps: self.eps, weight_decay: self.weight_decay };
        check_adam(graph, "adamw", &adam);
        let (lr, weight_decay) = (learning_rate(graph, self.lr), self.weight_decay);
        let step = adam_step(graph, &adam);
        Box::new(move |gradient| {
            let p = &gradient.parameter;
            p - (step(gradient, &gradient.value) + p * weight_decay) * &lr
        })
    }
}

#[track_caller]
fn check_adam(graph: &Graph, name: &str, adam: &Adam) {
    let not_negative = [("lr", adam.lr), ("eps", adam.eps), ("weight_decay", adam.weight_decay)];
    check(graph, name, &not_negative, &[("beta1", adam.betas.0), ("beta2", adam.betas.1)]);
}

/// Adam's update for a learning rate of 1, from a gradient with or without decay.
fn adam_step(graph: &Graph, adam: &Adam) -> impl Fn(&Gradient, &Value) -> Value + 'static {
    let ((beta1, beta2), eps) = (adam.betas, adam.eps);
    let first = of_step(graph, move |t| 1.0 / (1.0 - beta1.powf(t)));
    let second = of_step(graph, move |t| 1.0 / (1.0 - beta2.powf(t)).sqrt());
    move |gradient, g| {
        let m = gradient.average("adam.m", beta1, g);
        let v = gradient.average("adam.v", beta2, &g.square());
        m * &first / (v.sqrt() * &second + eps)
    }
}
