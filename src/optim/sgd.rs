//! Gradient descent with momentum or sign updates.

use super::{Optimizer, Rule, check, learning_rate};
use crate::Graph;

/// Stochastic gradient descent, with momentum (Sutskever et al., *On the importance of
/// initialization and momentum in deep learning*, ICML 2013) in PyTorch's form:
///
/// `g <- g + weight_decay p`, `b <- momentum b + g`, `p <- p - lr b`; with Nesterov's momentum
/// `p <- p - lr (g + momentum b)`. State: `sgd.momentum`, unless momentum is 0.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::Sgd::new().lr(0.1).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.8).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
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
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Momentum, in [0, 1); 0 for none.
        momentum: f64,
        /// Whether to use Nesterov momentum.
        nesterov: bool,
        /// Strength of the L2 penalty.
        weight_decay: f64,
    }
}

impl Optimizer for Sgd {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        check(graph, "sgd", &[("lr", self.lr), ("weight_decay", self.weight_decay)], &[("momentum", self.momentum)]);
        if self.nesterov && self.momentum == 0.0 {
            graph.error("sgd", &[], "Nesterov momentum requires a momentum above 0; call momentum()");
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

/// Lion (Chen et al., *Symbolic discovery of optimization algorithms*, NeurIPS 2023): steps of equal magnitude in the
/// direction of the sign,
///
/// `p <- p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p)`, then
/// `m <- beta2 m + (1 - beta2) g`. State: `lion.m`.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::Lion::new().lr(0.1).weight_decay(0.0).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.9).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lion {
    lr: f64,
    betas: (f64, f64),
    weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Lion { lr: 1e-4, betas: (0.9, 0.99), weight_decay: 0.0 }
    }
}

impl Lion {
    /// `lr` 1e-4, `betas` (0.9, 0.99), no weight decay.
    pub fn new() -> Self {
        Lion::default()
    }

    setters! {
        /// The default learning rate, used if `lr` is not fed; typically a third to a tenth of Adam's.
        lr: f64,
        /// Weight of the average in the direction of a step, and decay rate of the average, in [0, 1).
        betas: (f64, f64),
        /// Relative decrease of a weight per step, before multiplication by the learning rate.
        weight_decay: f64,
    }
}

impl Optimizer for Lion {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let Lion { lr, betas: (beta1, beta2), weight_decay } = *self;
        check(graph, "lion", &[("lr", lr), ("weight_decay", weight_decay)], &[("beta1", beta1), ("beta2", beta2)]);
        let lr = learning_rate(graph, lr);
        let graph = graph.clone();
        Box::new(move |gradient| {
            let (p, g) = (&gradient.parameter, &gradient.value);
            let m = gradient.state("lion.m");
            graph.assign(&m, &(&m * beta2 + g * (1.0 - beta2)));
            let mut step = (&m * beta1 + g * (1.0 - beta1)).sign();
            if weight_decay != 0.0 {
                step = step + p * weight_decay;
            }
            p - step * &lr
        })
    }
}
