//! The settings of a trainer: which ones make sense, and their description in the run's folder.

use serde_json::{Value as Json, json};

use super::trainer::Plateau;
use super::{Dataset, Metric, Trainer};
use crate::{Error, Result};

impl Trainer {
    /// Refuses settings that make no sense.
    pub(super) fn check(&self, data: &dyn Dataset, validation: Option<&dyn Dataset>) -> Result<()> {
        let invalid = |why: &str| Err(Error::Input(format!("the training cannot begin: {why}")));
        if data.is_empty() {
            return invalid("the training data has no rows");
        }
        if validation.is_some_and(Dataset::is_empty) {
            return invalid("the validation data has no rows");
        }
        if self.drop_last && data.len() < self.batch {
            let why = format!("drop_last leaves no batch of {} rows from {} rows", self.batch, data.len());
            return invalid(&why);
        }
        if self.accumulate == 0 {
            return invalid("accumulate needs at least one batch");
        }
        if let Some((name, _)) = self.monitor.as_ref().filter(|_| validation.is_none()) {
            return invalid(&format!("monitor({name}) needs validation data"));
        }
        match self.plateau {
            Some(_) if self.schedule.is_none() => {
                invalid("reduce_on_plateau needs a learning rate to reduce; call lr() or schedule()")
            }
            Some(Plateau { factor, .. }) if !(factor > 0.0 && factor < 1.0) => {
                invalid(&format!("the factor of reduce_on_plateau must be between 0 and 1, not {factor}"))
            }
            _ => Ok(()),
        }
    }

    /// The settings that decide which rows a step sees: a run is resumed only with the same.
    pub(super) fn fixed_settings(&self, rows: usize) -> Json {
        json!({
            "rows": rows, "batch": self.batch, "seed": self.seed, "shuffle": self.shuffle,
            "drop_last": self.drop_last, "accumulate": self.accumulate,
        })
    }

    /// The other settings, for reports.
    pub(super) fn other_settings(&self) -> Json {
        let seconds = self.time_budget.map(|budget| budget.as_secs_f64());
        let plateau = self.plateau.map(|Plateau { factor, patience }| json!({"factor": factor, "epochs": patience}));
        json!({
            "epochs": self.epochs,
            "steps": self.steps,
            "optimizer": if self.update.is_some() { "a function" } else { &self.optimizer_name },
            "schedule": self.schedule.is_some(),
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "activations": self.mixed.to_string(),
            "precision": self.options.precision.to_string(),
            "average": self.average,
            "metrics": self.metrics.iter().map(Metric::name).collect::<Vec<_>>(),
            "monitor": self.monitor.as_ref().map(|(name, _)| name),
            "higher_is_better": self.monitor.as_ref().is_some_and(|(_, higher)| *higher),
            "early_stopping": self.early_stopping,
            "reduce_on_plateau": plateau,
            "time_budget": seconds,
            "workers": self.workers,
            "watch": self.watch,
            "ranks": self.world.as_ref().map_or(1, |world| world.ranks()),
            "compress_gradients": self.compress,
            "metadata": self.metadata,
        })
    }
}
