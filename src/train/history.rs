//! What a training reports: epochs, evaluations, why it ended.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::data::ConfusionMatrix;

/// Loss and metrics on a data set. Example: [`History`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// The mean loss over the rows.
    pub loss: f64,
    /// The metrics by name, in the order in which they were requested.
    pub metrics: Vec<(String, f64)>,
    /// The confusion matrix, if a metric counts classes.
    pub confusion: Option<ConfusionMatrix>,
}

impl Evaluation {
    /// The value of a metric, or of `loss`.
    pub fn get(&self, name: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        metric.or_else(|| (name == "loss").then_some(self.loss))
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {:.4}", self.loss)?;
        self.metrics.iter().try_for_each(|(name, value)| write!(f, ", {name} {value:.4}"))
    }
}

/// An epoch of a training. Example: [`History`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Epoch {
    /// Its number, from 1.
    pub number: u64,
    /// The number of optimiser steps so far.
    pub steps: u64,
    /// The mean loss over the rows of the epoch, in training mode, with the weights of each step.
    pub loss: f64,
    /// Loss and metrics on the validation data after the epoch.
    pub validation: Option<Evaluation>,
    /// The learning rate of the last step, unless it is the optimiser's default.
    pub lr: Option<f64>,
    /// The duration of the epoch without the evaluation.
    pub seconds: f64,
    /// The share of it for which the device waited for data.
    pub waiting: f64,
    /// Rows per second.
    pub rows_per_second: f64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}: {}", self.number, self.figures())
    }
}

/// Why a training ended. Example: [`History`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// All epochs or steps are done.
    Finished,
    /// The monitored value did not improve for this many epochs.
    EarlyStopping(u64),
    /// The time budget is used up.
    TimeBudget,
    /// Interrupted by Ctrl-C or [`Control::Stop`](super::Control::Stop). Names the checkpoint to go on from, if there
    /// is one.
    Interrupted(Option<PathBuf>),
}

/// The epochs of a training, the best of them, and why it ended.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::{Ended, Metric, Model, Trainer};
/// let data = (Tensor::new([4, 1], [0.0f32, 1.0, 2.0, 3.0])?, Tensor::new([4, 1], [1.0f32, 3.0, 5.0, 7.0])?);
/// let model = Model::new([1], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
/// let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).lr(0.1).epochs(50).quiet();
/// trainer = trainer.metrics([Metric::R2]);
/// let history = trainer.fit(&mut Session::new(Device::cpu()), &data, Some(&data))?;
/// let last = &history.epochs[49];
/// assert!(history.ended == Ended::Finished && last.loss < history.epochs[0].loss);
/// assert!(last.validation.as_ref().and_then(|found| found.get("r2")) > Some(0.9));
/// println!("{history}");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// All epochs, including those before a resume.
    pub epochs: Vec<Epoch>,
    /// The number of the best epoch by the monitored value, from 1.
    pub best: Option<u64>,
    /// Why it ended.
    pub ended: Ended,
}

impl History {
    /// The best epoch by the monitored value, else the last one.
    pub fn best_epoch(&self) -> Option<&Epoch> {
        let best = self.epochs.iter().find(|epoch| Some(epoch.number) == self.best);
        best.or(self.epochs.last())
    }
}

/// A line for each epoch, with a mark at the best one.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for epoch in &self.epochs {
            writeln!(f, "{epoch}{}", if Some(epoch.number) == self.best { "  <- best" } else { "" })?;
        }
        match &self.ended {
            Ended::Finished => f.write_str("finished"),
            Ended::EarlyStopping(epochs) => write!(f, "stopped early: no improvement for {epochs} epochs"),
            Ended::TimeBudget => f.write_str("stopped: the time budget is used up"),
            Ended::Interrupted(Some(path)) => write!(f, "interrupted; resume from {}", path.display()),
            Ended::Interrupted(None) => f.write_str("interrupted"),
        }
    }
}

/// A float as text that is read back exactly; JSON has neither NaN nor infinity.
pub(super) fn exact(x: f64) -> Json {
    json!(format!("{x:?}"))
}

/// Reads [`exact`].
pub(super) fn of_exact(json: &Json) -> Option<f64> {
    json.as_str()?.parse().ok()
}

impl Epoch {
    /// Losses, metrics and speed.
    pub(super) fn figures(&self) -> String {
        let validation = self.validation.as_ref().map_or_else(String::new, |v| format!(", validation {v}"));
        let waiting = match self.waiting > 0.1 {
            true => format!(" ({:.0}% waiting for data)", 100.0 * self.waiting),
            false => String::new(),
        };
        let Epoch { loss, rows_per_second, seconds, .. } = self;
        format!("loss {loss:.4}{validation}, {rows_per_second:.0} rows/s, {seconds:.1} s{waiting}")
    }

    /// For a checkpoint. (The confusion matrix is not kept.)
    pub(super) fn to_json(&self) -> Json {
        let validation = self.validation.as_ref().map(|v| {
            let metrics: Vec<Json> = v.metrics.iter().map(|(name, value)| json!([name, exact(*value)])).collect();
            json!({"loss": exact(v.loss), "metrics": metrics})
        });
        json!({
            "number": self.number, "steps": self.steps, "loss": exact(self.loss), "validation": validation,
            "lr": self.lr.map(exact), "seconds": exact(self.seconds), "waiting": exact(self.waiting),
            "rows_per_second": exact(self.rows_per_second),
        })
    }

    pub(super) fn from_json(json: &Json) -> Option<Epoch> {
        let number = |name: &str| of_exact(&json[name]);
        let validation = match &json["validation"] {
            Json::Null => None,
            v => {
                let pair = |pair: &Json| Some((pair[0].as_str()?.to_owned(), of_exact(&pair[1])?));
                let metrics = v["metrics"].as_array()?.iter().map(pair).collect::<Option<_>>()?;
                Some(Evaluation { loss: of_exact(&v["loss"])?, metrics, confusion: None })
            }
        };
        Some(Epoch {
            number: json["number"].as_u64()?,
            steps: json["steps"].as_u64()?,
            loss: number("loss")?,
            validation,
            lr: number("lr"),
            seconds: number("seconds")?,
            waiting: number("waiting")?,
            rows_per_second: number("rows_per_second")?,
        })
    }
}
