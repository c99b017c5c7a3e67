//! Evaluation of a data set.

use std::ops::ControlFlow;

use super::{Batch, Dataset, Evaluation, Loader, Meter, Trainer};
use crate::data::Batches;
use crate::trace::span;
use crate::{Error, Pending, Result, Session};

/// Loss and metrics with the current weights.
pub(super) fn evaluate(trainer: &mut Trainer, session: &mut Session, data: &dyn Dataset) -> Result<Evaluation> {
    let _span = span!("evaluate");
    let batches = Batches::new(data.len(), trainer.batch)?;
    let loader = Loader::new(data, batches).workers(trainer.workers);
    let mut sums = Sums { loss: 0.0, rows: 0.0, meter: Meter::new(&trainer.metrics) };
    let mut pending: Option<(Batch, usize, Pending)> = None;
    loader.epoch(0, 0, |loaded| {
        let program = trainer.evaluation(session, &loaded.tensors)?;
        let started = trainer.start(session, &program, &program.feeds(&loaded.tensors))?;
        if let Some(previous) = pending.replace((loaded.tensors, loaded.rows.len(), started)) {
            sums.add(trainer, previous)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(last) = pending {
        sums.add(trainer, last)?;
    }
    Ok(Evaluation { loss: sums.loss / sums.rows, metrics: sums.meter.values()?, confusion: sums.meter.confusion() })
}

struct Sums {
    loss: f64,
    rows: f64,
    meter: Meter,
}

impl Sums {
    fn add(&mut self, trainer: &Trainer, (batch, rows, pending): (Batch, usize, Pending)) -> Result<()> {
        let outputs = pending.outputs()?;
        let [loss, rest @ ..] = &outputs[..] else { return Err(Error::Input("the step has no loss".into())) };
        self.loss += loss.item()? * rows as f64;
        self.rows += rows as f64;
        match rest {
            [prediction] => self.meter.add(prediction, trainer.target_of(&batch)?),
            _ => Ok(()),
        }
    }
}
