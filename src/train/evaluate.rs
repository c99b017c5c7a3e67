//! Evaluation of a data set.

use std::ops::ControlFlow;

use super::ranks::{Outputs, gather_outputs};
use super::worst::Worst;
use super::{Dataset, Evaluation, Loaded, Meter, Trainer};
use crate::data::Batches;
use crate::trace::span;
use crate::{Error, Pending, Result, Session};

/// Loss and metrics with the current weights. If there are metrics, which need predictions, `worst` collects the rows
/// with the largest errors.
pub(super) async fn evaluate(
    trainer: &mut Trainer,
    session: &mut Session,
    data: &dyn Dataset,
    worst: Option<&mut Worst>,
) -> Result<Evaluation> {
    let _span = span!("evaluate");
    let batches = Batches::new(data.len(), trainer.batch)?;
    let loader = trainer.loader(data, batches);
    let mut sums = Sums { loss: 0.0, rows: 0.0, meter: Meter::new(&trainer.metrics), worst };
    let mut pending: Option<(Loaded, Pending)> = None;
    let each = async |loaded: Loaded| {
        let program = trainer.evaluation(session, &loaded.tensors).await?;
        let started = trainer.start(session, &program, &program.feeds(&loaded.tensors)).await?;
        if let Some((previous, outputs)) = pending.replace((loaded, started)) {
            sums.add(trainer, &previous, outputs).await?;
        }
        Ok(ControlFlow::Continue(()))
    };
    loader.epoch_async(0, 0, each).await?;
    if let Some((last, outputs)) = pending {
        sums.add(trainer, &last, outputs).await?;
    }
    let Sums { loss, rows, meter, .. } = sums;
    Ok(Evaluation { loss: loss / rows, metrics: meter.values()?, confusion: meter.confusion() })
}

struct Sums<'w> {
    loss: f64,
    rows: f64,
    meter: Meter,
    worst: Option<&'w mut Worst>,
}

impl Sums<'_> {
    async fn add(&mut self, trainer: &Trainer, loaded: &Loaded, pending: Pending) -> Result<()> {
        let Loaded { tensors: batch, rows, share, .. } = loaded;
        let outputs = pending.outputs_async().await?;
        let [loss, rest @ ..] = &outputs[..] else { return Err(Error::Input("the step has no loss".into())) };
        if let Some(world) = &trainer.world {
            let tensors = match rest {
                [prediction] => Some((prediction, trainer.target_of(batch)?)),
                _ => None,
            };
            for Outputs { loss, rows, tensors } in gather_outputs(world, share.total, (loss.item()?, tensors))? {
                self.loss += loss * rows as f64;
                self.rows += rows as f64;
                if let Some((prediction, target)) = tensors {
                    self.meter.add(&prediction, &target)?;
                }
            }
            return Ok(());
        }
        self.loss += loss.item()? * rows.len() as f64;
        self.rows += rows.len() as f64;
        match rest {
            [prediction] => {
                let classes = self.meter.add_batch(prediction, trainer.target_of(batch)?)?;
                if let Some(worst) = &mut self.worst {
                    worst.add(batch, &trainer.target, prediction, rows, classes);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
