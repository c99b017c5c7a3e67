//! Adam and its variants.

use super::{Gradient, Optimizer, Rule, check, learning_rate, of_step};
use crate::{Graph, Value};

/// Adam (Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015):
///
/// `g <- g + weight_decay p`, `m <- beta1 m + (1 - beta1) g`, `v <- beta2 v + (1 - beta2) g^2`,
/// `p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)` at step `t`. State:
/// `adam.m`, `adam.v`.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::Adam::new().lr(0.1).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.9).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
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
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay rates of the moving averages of the gradients and of their squares, in [0, 1).
        betas: (f64, f64),
        /// Added to the divisor to avoid division by 0.
        eps: f64,
        /// Strength of the L2 penalty. For decoupled decay see [`AdamW`].
        weight_decay: f64,
    }
}

impl Optimizer for Adam {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        check_adam(graph, "adam", self);
        let (lr, weight_decay) = (learning_rate(graph, self.lr), self.weight_decay);
        let step = adam_step(self);
        Box::new(move |gradient| {
            let g = gradient.decayed(weight_decay);
            &gradient.parameter - step(gradient, &g) * &lr
        })
    }
}

/// AdamW (Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019): Adam with decoupled weight decay,
/// `p <- p - lr weight_decay p` in addition to Adam's update. State as for [`Adam`].
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::AdamW::new().lr(0.1).weight_decay(0.5).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.85).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
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
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay rates of the moving averages of the gradients and of their squares, in [0, 1).
        betas: (f64, f64),
        /// Added to the divisor to avoid division by 0.
        eps: f64,
        /// Relative decrease of a weight per step, before multiplication by the learning rate.
        weight_decay: f64,
    }
}

impl Optimizer for AdamW {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let adam = Adam { lr: self.lr, betas: self.betas, eps: self.eps, weight_decay: self.weight_decay };
        check_adam(graph, "adamw", &adam);
        let (lr, weight_decay) = (learning_rate(graph, self.lr), self.weight_decay);
        let step = adam_step(&adam);
        Box::new(move |gradient| {
            let p = &gradient.parameter;
            p - (step(gradient, &gradient.value) + p * weight_decay) * &lr
        })
    }
}

/// NAdam (Dozat, *Incorporating Nesterov momentum into Adam*, ICLR workshop 2016), in PyTorch's
/// form: Adam with Nesterov momentum. With `mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2)`
/// and `P(t) = mu(1) ... mu(t)`,
///
/// `g <- g + weight_decay p`, `m` and `v` as in [`Adam`],
/// `p <- p - lr ((1 - mu(t)) / (1 - P(t)) g + mu(t + 1) / (1 - P(t + 1)) m) / (sqrt(v / (1 - beta2^t)) + eps)`.
/// State: `nadam.m`, `nadam.v`.
///
/// ```
/// use wgrad::optim::Optimizer;
/// use wgrad::{Device, Graph, Session, Tensor, optim};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// optim::NAdam::new().lr(0.1).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert!((session.get("w")?.item()? - 0.8944).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NAdam {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    momentum_decay: f64,
}

impl Default for NAdam {
    fn default() -> Self {
        NAdam { lr: 2e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, momentum_decay: 4e-3 }
    }
}

impl NAdam {
    /// `lr` 2e-3, `betas` (0.9, 0.999), `eps` 1e-8, no weight decay, `momentum_decay` 4e-3.
    pub fn new() -> Self {
        NAdam::default()
    }

    setters! {
        /// The default learning rate, used if `lr` is not fed.
        lr: f64,
        /// Decay rates of the moving averages of the gradients and of their squares, in [0, 1).
        betas: (f64, f64),
        /// Added to the divisor to avoid division by 0.
        eps: f64,
        /// Strength of the L2 penalty.
        weight_decay: f64,
        /// Rate at which the momentum approaches `beta1`.
        momentum_decay: f64,
    }
}

impl Optimizer for NAdam {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let NAdam { lr, betas: (beta1, beta2), eps, weight_decay, momentum_decay } = *self;
        let not_negative =
            [("lr", lr), ("eps", eps), ("weight_decay", weight_decay), ("momentum_decay", momentum_decay)];
        check(graph, "nadam", &not_negative, &[("beta1", beta1), ("beta2", beta2)]);
        let mu = move |t: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(t * momentum_decay));
        // 1 minus the product of the first t factors; products below 1e-20 are negligible against 1.
        let rest = move |t: f64| {
            let factors = (1..=t as u64).map(|i| mu(i as f64));
            let products = factors.scan(1.0, |product, factor| {
                *product *= factor;
                Some(*product)
            });
            1.0 - products.take_while(|product| *product > 1e-20).last().unwrap_or(0.0)
        };
        let lr = learning_rate(graph, lr);
        let of_gradient = of_step(move |t| (1.0 - mu(t)) / rest(t));
        let of_average = of_step(move |t| mu(t + 1.0) / rest(t + 1.0));
        let second = of_step(move |t| 1.0 / (1.0 - beta2.powf(t)).sqrt());
        Box::new(move |gradient| {
            let [of_gradient, of_average, second] =
                [&of_gradient, &of_average, &second].map(|f| gradient.of_step("nadam", f));
            let g = gradient.decayed(weight_decay);
            let m = gradient.average("nadam.m", beta1, &g);
            let v = gradient.average("nadam.v", beta2, &g.square());
            let step = (g * of_gradient + m * of_average) / (v.sqrt() * second + eps);
            &gradient.parameter - step * &lr
        })
    }
}

#[track_caller]
fn check_adam(graph: &Graph, name: &str, adam: &Adam) {
    let not_negative = [("lr", adam.lr), ("eps", adam.eps), ("weight_decay", adam.weight_decay)];
    check(graph, name, &not_negative, &[("beta1", adam.betas.0), ("beta2", adam.betas.1)]);
}

/// Adam's update for learning rate 1, from a gradient with or without decay.
fn adam_step(adam: &Adam) -> impl Fn(&Gradient, &Value) -> Value + 'static {
    let ((beta1, beta2), eps) = (adam.betas, adam.eps);
    let first = of_step(move |t| 1.0 / (1.0 - beta1.powf(t)));
    let second = of_step(move |t| 1.0 / (1.0 - beta2.powf(t)).sqrt());
    move |gradient, g| {
        let [first, second] = [&first, &second].map(|f| gradient.of_step("adam", f));
        let m = gradient.average("adam.m", beta1, g);
        let v = gradient.average("adam.v", beta2, &g.square());
        m * first / (v.sqrt() * second + eps)
    }
}
