//! What a training tells about a loss that is not finite.

use std::path::PathBuf;

use super::run::{Diverged, Run};
use super::{Batch, loader};
use crate::{Error, Result, Tensor};

impl Run<'_> {
    /// The error for a loss that is not finite: repeats the training from the newest checkpoint up to the step, and
    /// looks for the first node that is not finite. The session is left with the checkpoint's variables.
    pub(super) async fn explain(&mut self, Diverged { batch, loss }: Diverged) -> Result<Error> {
        let epoch = self.state.epoch;
        let mut text = format!("the training diverged: the loss of epoch {}, batch {} is {loss}", epoch + 1, batch + 1);
        if self.trainer.world.is_some() {
            text += "\nto find the first node that is not finite, train with find_nan, or on one rank";
            text += "\ntry a lower learning rate, Trainer::clip_norm, or a warm-up";
            return Ok(Error::Training(text));
        }
        let mut good: Option<PathBuf> = None;
        // Without a checkpoint, the weights are those after the step; what is found first may be a consequence.
        let mut from = batch;
        if let Some(checkpoints) = &self.checkpoints
            && let Some(path) = checkpoints.newest()
        {
            self.state = checkpoints.load(self.session, &path)?;
            from = self.state.batch;
            good = Some(path);
        }
        // A checkpoint is saved after each epoch, unless its file has been removed since.
        if self.state.epoch == epoch {
            let lists: Vec<Vec<usize>> = self.batches.epoch(epoch).collect();
            for number in from..batch {
                let tensors = self.batch(epoch, number, &lists)?;
                let share = self.trainer.share(lists[number].len());
                let started = self.start(number, &share, &tensors).await?;
                drop(started.pending.outputs_async().await?);
            }
            text += &self.first_not_finite(epoch, batch, &lists).await?;
        }
        match (good, &self.checkpoints) {
            (Some(path), Some(checkpoints)) => {
                checkpoints.load(self.session, &path)?;
                text += &format!("\nthe session is back at the last good checkpoint, {}", path.display());
            }
            _ => text += "\nthere is no checkpoint; with Trainer::folder, the last good one is kept",
        }
        text += "\ntry a lower learning rate, Trainer::clip_norm, or a warm-up";
        Ok(Error::Training(text))
    }

    fn batch(&self, epoch: u64, number: usize, lists: &[Vec<usize>]) -> Result<Batch> {
        self.data.batch(&lists[number], loader::step_of(epoch, number, lists.len()))
    }

    /// The first node of a step that is not finite.
    async fn first_not_finite(&mut self, epoch: u64, number: usize, lists: &[Vec<usize>]) -> Result<String> {
        let tensors = self.batch(epoch, number, lists)?;
        let fed = self.lr().map(Tensor::scalar);
        let program = self.trainer.training(self.session, &tensors).await?;
        let mut feeds = program.feeds(&tensors);
        if self.trainer.accumulate == 1 {
            feeds.extend(fed.iter().map(|lr| ("lr", lr)));
        }
        let (_, found) = self.session.find_nan_async(&program.program, &feeds).await?;
        Ok(found.map_or_else(String::new, |found| format!("\n{found}")))
    }
}
