//! Learning rate schedules: values for the scalar `lr`, fed at each step without recompiling.
//!
//! ```
//! use wgrad::optim::schedule::{Cosine, Schedule};
//! use wgrad::optim::{Adam, Optimizer};
//! use wgrad::{Device, Graph, Session, Tensor};
//!
//! let graph = Graph::new();
//! let w = graph.parameter("w", Tensor::scalar(1.0));
//! let loss = w.square();
//! Adam::new().minimize(&graph, &loss);
//! let mut session = Session::new(Device::cpu());
//! let program = session.compile(&graph, &[&loss])?;
//!
//! let schedule = Cosine { lr: 0.1, last: 0.001, steps: 90 }.after_warm_up(10);
//! for step in 0..100 {
//!     session.run(&program, &[("lr", &Tensor::scalar(schedule.lr(step)))])?;
//! }
//! assert!(session.get("w")?.item()?.abs() < 0.1);
//! # Ok::<(), wgrad::Error>(())
//! ```

use std::f64::consts::PI;

/// A learning rate for each step, counted from 0.
///
/// ```
/// use wgrad::optim::schedule::*;
/// let schedule = Constant(0.5).after_warm_up(3);
/// assert_eq!([0, 1, 2, 3].map(|step| schedule.lr(step)), [0.125, 0.25, 0.375, 0.5]);
/// ```
pub trait Schedule {
    /// The learning rate of a step.
    fn lr(&self, step: u64) -> f64;

    /// Prepends `steps` steps in which the rate rises linearly to the first rate of this schedule (Goyal et al.,
    /// arXiv:1706.02677).
    fn after_warm_up(self, steps: u64) -> WarmUp<Self>
    where
        Self: Sized,
    {
        WarmUp { steps, then: self }
    }
}

/// A constant learning rate. Example: [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant(pub f64);

impl Schedule for Constant {
    fn lr(&self, _: u64) -> f64 {
        self.0
    }
}

/// `lr gamma^(step / every)`, the quotient rounded down: PyTorch's `StepLR`.
///
/// ```
/// use wgrad::optim::schedule::*;
/// let schedule = Step { lr: 1.0, every: 10, gamma: 0.5 };
/// assert_eq!([0, 9, 10, 25].map(|step| schedule.lr(step)), [1.0, 1.0, 0.5, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The initial learning rate.
    pub lr: f64,
    /// Number of steps between decreases; 0 for never.
    pub every: u64,
    /// Factor of each decrease.
    pub gamma: f64,
}

impl Schedule for Step {
    fn lr(&self, step: u64) -> f64 {
        let falls = step.checked_div(self.every).unwrap_or(0);
        self.lr * self.gamma.powf(falls as f64)
    }
}

/// From `lr` to `last` along half a cosine, `last + (lr - last) (1 + cos(pi step / steps)) / 2`, then constant at
/// `last` (Loshchilov and Hutter, *SGDR*, ICLR 2017; equal to PyTorch's `CosineAnnealingLR` in the first `steps`
/// steps).
///
/// ```
/// use wgrad::optim::schedule::*;
/// let schedule = Cosine { lr: 1.0, last: 0.0, steps: 100 };
/// let close = |step: u64, lr: f64| (schedule.lr(step) - lr).abs() < 1e-9;
/// assert!(close(0, 1.0) && close(50, 0.5) && close(100, 0.0) && close(200, 0.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// The initial learning rate.
    pub lr: f64,
    /// The final learning rate.
    pub last: f64,
    /// The step at which it is reached.
    pub steps: u64,
}

impl Schedule for Cosine {
    fn lr(&self, step: u64) -> f64 {
        cosine(self.lr, self.last, step as f64, self.steps as f64)
    }
}

/// From `from` to `to` along half a cosine of length `steps`.
fn cosine(from: f64, to: f64, step: f64, steps: f64) -> f64 {
    if step >= steps {
        return to;
    }
    to + (from - to) * (1.0 + (PI * step / steps).cos()) / 2.0
}

/// See [`Schedule::after_warm_up`]. Example: [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp<S> {
    steps: u64,
    then: S,
}

impl<S: Schedule> Schedule for WarmUp<S> {
    fn lr(&self, step: u64) -> f64 {
        match step.checked_sub(self.steps) {
            Some(step) => self.then.lr(step),
            None => self.then.lr(0) * (step + 1) as f64 / (self.steps + 1) as f64,
        }
    }
}

/// Rises from `max / div` to `max` along half a cosine in the first `rise` of the steps, then falls to
/// `max / div / final_div` (Smith and Topin, *Super-convergence*, arXiv:1708.07120), as PyTorch's `OneCycleLR`.
///
/// ```
/// use wgrad::optim::schedule::*;
/// let schedule = OneCycle::new(1.0, 100);
/// assert!(schedule.lr(0) < 0.05 && schedule.lr(99) < 0.001);
/// assert!((0..100).map(|step| schedule.lr(step)).fold(0.0, f64::max) > 0.99);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    /// The maximum learning rate.
    pub max: f64,
    /// Total number of steps.
    pub steps: u64,
    /// Fraction of steps in which the rate rises, in (0, 1).
    pub rise: f64,
    /// Ratio of the maximum to the initial rate.
    pub div: f64,
    /// Ratio of the initial to the final rate.
    pub final_div: f64,
}

impl OneCycle {
    /// With PyTorch's defaults: `rise` 0.3, `div` 25, `final_div` 1e4.
    pub fn new(max: f64, steps: u64) -> OneCycle {
        OneCycle { max, steps, rise: 0.3, div: 25.0, final_div: 1e4 }
    }
}

impl Schedule for OneCycle {
    fn lr(&self, step: u64) -> f64 {
        let first = self.max / self.div;
        let last = first / self.final_div;
        let (step, end) = (step as f64, self.steps as f64 - 1.0);
        let top = self.rise * self.steps as f64 - 1.0;
        if step <= top { cosine(first, self.max, step, top) } else { cosine(self.max, last, step - top, end - top) }
    }
}

/// Reduces the rate when a metric stops decreasing: PyTorch's `ReduceLROnPlateau` with `mode="min"`.
///
/// ```
/// let mut rate = wgrad::optim::schedule::ReduceOnPlateau::new(0.1).patience(1);
/// assert_eq!(rate.observe(2.0), 0.1); // the best so far
/// assert_eq!(rate.observe(2.0), 0.1); // no improvement
/// assert_eq!(rate.observe(3.0), 0.1 * 0.1); // no improvement for the second time
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReduceOnPlateau {
    lr: f64,
    factor: f64,
    patience: u32,
    threshold: f64,
    cooldown: u32,
    least: f64,
    best: f64,
    bad: u32,
    cooling: u32,
}

impl ReduceOnPlateau {
    /// Starts at `lr`; `factor` 0.1, `patience` 10, `threshold` 1e-4, no cooldown, no minimum rate.
    pub fn new(lr: f64) -> ReduceOnPlateau {
        ReduceOnPlateau {
            lr,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            cooldown: 0,
            least: 0.0,
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
        }
    }

    setters! {
        /// Factor of each reduction.
        factor: f64,
        /// Number of observations without improvement that are tolerated; the next one reduces the rate.
        patience: u32,
        /// Minimum improvement, relative to the best value.
        threshold: f64,
        /// Number of observations to ignore after a reduction.
        cooldown: u32,
        /// The minimum learning rate.
        least: f64,
    }

    /// Records a metric, such as the validation loss of an epoch; returns the learning rate from now on. NaN is not
    /// an improvement.
    pub fn observe(&mut self, measure: f64) -> f64 {
        // Uses the magnitude of the best value, so that negative values must also decrease to improve.
        if measure < self.best - self.threshold * self.best.abs() || self.best == f64::INFINITY && measure < self.best {
            (self.best, self.bad) = (measure, 0);
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            (self.cooling, self.bad) = (self.cooling - 1, 0);
        }
        if self.bad > self.patience {
            let lr = self.lr * self.factor;
            self.lr = if lr < self.least { self.least } else { lr };
            (self.cooling, self.bad) = (self.cooldown, 0);
        }
        self.lr
    }

    /// The current learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }
}
