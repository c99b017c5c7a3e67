//! Optimisers that wrap another one.

use super::{EMA, Optimizer, Rule, check, of_step};
use crate::Graph;

impl<O: Optimizer + ?Sized> Optimizer for &O {
    fn rule(&self, graph: &Graph) -> Rule {
        (**self).rule(graph)
    }
}

/// See [`Optimizer::lr_factor`].
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd};
/// use wgrad::{Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// Sgd::new().lr(0.1).lr_factor(0.5).minimize(&graph, &w.square()); // the gradient is 2
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// session.run(&step, &[])?;
/// assert_eq!(session.get("w")?.item()?, 0.9);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LrFactor<O> {
    pub(super) inner: O,
    pub(super) factor: f64,
}

impl<O: Optimizer> Optimizer for LrFactor<O> {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        check(graph, "lr_factor", &[("factor", self.factor)], &[]);
        let (rule, factor) = (self.inner.rule(graph), self.factor);
        // All rules are p - lr step, so the change of p is proportional to the rate.
        Box::new(move |gradient| {
            let p = &gradient.parameter;
            p + (rule(gradient) - p) * factor
        })
    }
}

/// See [`Optimizer::averaged`].
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd};
/// use wgrad::{Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let w = graph.parameter("w", Tensor::scalar(1.0));
/// Sgd::new().lr(0.25).averaged(0.5).minimize(&graph, &w.square()); // halves w in each step
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[])?;
/// (0..2).try_for_each(|_| session.run(&step, &[]).map(drop))?;
/// assert_eq!(session.get("w")?.item()?, 0.25);
/// assert!((session.get("w.ema")?.item()? - 1.0 / 3.0).abs() < 1e-9); // (0.5 / 2 + 0.25) / (0.5 + 1), of 0.5 and 0.25
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Averaged<O> {
    pub(super) inner: O,
    pub(super) decay: f64,
}

impl<O: Optimizer> Optimizer for Averaged<O> {
    #[track_caller]
    fn rule(&self, graph: &Graph) -> Rule {
        let decay = self.decay;
        check(graph, "averaged", &[], &[("decay", decay)]);
        let rule = self.inner.rule(graph);
        let weight = of_step(move |t| (1.0 - decay) / (1.0 - decay.powf(t)));
        let graph = graph.clone();
        Box::new(move |gradient| {
            let new = rule(gradient);
            let average = gradient.state(EMA);
            graph.assign(&average, &(&average + (&new - &average) * gradient.of_step(EMA, &weight)));
            new
        })
    }
}
