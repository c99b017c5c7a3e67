//! Optimisers that scale steps by the magnitude of past gradients.

use super::{Optimizer, Rule, check, learning_rate, of_step};
use crate::Graph;

/// RMSprop (Tieleman and Hinton, *Lecture 6.5*, Coursera 2012; centred: Graves, *Generating
/// sequences with recurrent neural networks*, arXiv:1308.0850):
///
/// `g <- g + weight_decay p`, `v <- alpha v + (1 - alpha) g^2`, `p <- p - lr g / (sqrt(v) + eps)`.
/// Centred, `v` is reduced by the square of `a <- alpha a + (1 - alpha) g`; with momentum,
/// `b <- momentum b + g / (sqrt(v) + eps)`, `p <- p - lr b`. State: `rmsprop.v`, `rmsprop.mean`,
/// `rmsprop.momentum`, if used.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::RmsProp::new().lr(0.1).alpha(0.75).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.8).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
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
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay rate of the moving average of squared gradients, in [0, 1).
        alpha: f64,
        /// Added to the divisor to avoid division by 0.
        eps: f64,
        /// Strength of the L2 penalty.
        weight_decay: f64,
        /// Momentum, in [0, 1); 0 for none.
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
                // Rounding may make the difference negative.
                v = (v - gradient.average("rmsprop.mean", alpha, &g).square()).relu();
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
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::Adagrad::new().lr(0.1).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.9).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
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
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay of the learning rate per step.
        lr_decay: f64,
        /// Added to the divisor to avoid division by 0.
        eps: f64,
        /// Strength of the L2 penalty.
        weight_decay: f64,
    }
}

impl Optimizer for Adagrad {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let Adagrad { lr, lr_decay, eps, weight_decay } = *self;
        let not_negative = [("lr", lr), ("lr_decay", lr_decay), ("eps", eps), ("weight_decay", weight_decay)];
        check(graph, "adagrad", &not_negative, &[]);
        let lr = learning_rate(graph, lr);
        let falls = of_step(move |t| 1.0 / (1.0 + (t - 1.0) * lr_decay));
        let graph = graph.clone();
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            let state = gradient.state("adagrad.sum");
            let sum = &state + g.square();
            graph.assign(&state, &sum);
            let step = g / (sum.sqrt() + eps) * &lr;
            let step = if lr_decay == 0.0 { step } else { step * gradient.of_step("adagrad", &falls) };
            &gradient.parameter - step
        })
    }
}

/// Adadelta (Zeiler, arXiv:1212.5701): `g <- g + weight_decay p`,
/// `v <- rho v + (1 - rho) g^2`, `d = g sqrt(u + eps) / sqrt(v + eps)`, `p <- p - lr d`,
/// `u <- rho u + (1 - rho) d^2`. State: `adadelta.v`, `adadelta.u`.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::Adadelta::new().lr(1.0).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.9968).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adadelta {
    lr: f64,
    rho: f64,
    eps: f64,
    weight_decay: f64,
}

impl Default for Adadelta {
    fn default() -> Self {
        Adadelta { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay: 0.0 }
    }
}

impl Adadelta {
    /// `lr` 1, `rho` 0.9, `eps` 1e-6, no weight decay.
    pub fn new() -> Self {
        Adadelta::default()
    }

    setters! {
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay rate of both averages of squares, in [0, 1).
        rho: f64,
        /// Keeps the divisor and the first steps above 0.
        eps: f64,
        /// Strength of the L2 penalty.
        weight_decay: f64,
    }
}

impl Optimizer for Adadelta {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let Adadelta { lr, rho, eps, weight_decay } = *self;
        let not_negative = [("lr", lr), ("eps", eps), ("weight_decay", weight_decay)];
        check(graph, "adadelta", &not_negative, &[("rho", rho)]);
        let lr = learning_rate(graph, lr);
        let graph = graph.clone();
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            let v = gradient.average("adadelta.v", rho, &g.square());
            let steps = gradient.state("adadelta.u");
            let step = g * (&steps + eps).sqrt() / (v + eps).sqrt();
            graph.assign(&steps, &(&steps * rho + step.square() * (1.0 - rho)));
            &gradient.parameter - step * &lr
        })
    }
}
