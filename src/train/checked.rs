//! Checks of the steps of a training, and tuning of their kernels.

use std::fmt;
use std::ops::ControlFlow;

use super::programs::{Compiled, types};
use super::steps::StepGraph;
use super::{Batch, Dataset, Trainer};
use crate::time::{Duration, Instant};
use crate::trace::span;
use crate::tuning::Tuned;
use crate::{Error, Pending, Result, Session, StepProfile, Tensor, Trace, gpu};

/// How steps are checked while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checking {
    None,
    Shadow,
    FindNan,
}

/// What [`Trainer::shadow`] or [`Trainer::find_nan`] has checked. Example: [`Trainer::verify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Steps: of training, updates from accumulated gradients, and of evaluation.
    pub steps: usize,
    /// Kernel calls that were compared with the reference.
    pub calls: usize,
    /// Numbers that were compared with the reference.
    pub numbers: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { steps, calls, numbers } = self;
        let unit = if *steps == 1 { "step" } else { "steps" };
        match calls {
            0 => write!(f, "{steps} {unit} without NaN or infinity"),
            _ => write!(f, "{steps} {unit} correct: {calls} kernel calls, {numbers} numbers compared"),
        }
    }
}

impl Trainer {
    /// Starts a step; with checks, runs it, or another rank does: they check in turn.
    pub(super) async fn start(
        &mut self,
        session: &mut Session,
        program: &Compiled,
        feeds: &[(&str, &Tensor)],
    ) -> Result<Pending> {
        let (rank, ranks) = self.place();
        let checking = if self.turns % ranks == rank { self.checking } else { Checking::None };
        self.turns += 1;
        self.start_checked(session, program, feeds, checking).await
    }

    async fn start_checked(
        &mut self,
        session: &mut Session,
        program: &Compiled,
        feeds: &[(&str, &Tensor)],
        checking: Checking,
    ) -> Result<Pending> {
        let program = &program.program;
        let (outputs, found) = match checking {
            Checking::None => return session.start(program, feeds),
            Checking::Shadow => {
                let (outputs, report) = session.check_async(program, feeds).await?;
                self.checked.calls += report.calls.len();
                self.checked.numbers += report.compared();
                (outputs, report.divergence.map(|divergence| divergence.to_string()))
            }
            Checking::FindNan => {
                let (outputs, found) = session.find_nan_async(program, feeds).await?;
                (outputs, found.map(|found| found.to_string()))
            }
        };
        match found {
            Some(found) => Err(Error::Training(format!("after {} correct steps:\n{found}", self.checked.steps))),
            None => {
                self.checked.steps += 1;
                Ok(Pending::done(outputs))
            }
        }
    }

    /// Measures kernel variants for the training step of a batch; see [`Session::tune`]. Later steps use the fastest.
    ///
    /// # Errors
    /// As [`Session::tune`]; errors of the data.
    pub fn tune(&mut self, session: &mut Session, data: &dyn Dataset, budget: Duration) -> Result<Tuned> {
        let StepGraph { graph, outputs, .. } = self.training_graph(&types(&self.first_batch(data)?));
        session.tune(&graph, &outputs.iter().collect::<Vec<_>>(), budget)
    }

    /// Compares every kernel call of one training step with the reference, in a session of its own: the variables of
    /// `session` do not change. See [`Session::run_checked`].
    ///
    /// ```no_run
    /// # use wgrad::prelude::*;
    /// # use wgrad::train::{Model, Trainer};
    /// # let (mut session, data) = (Session::new(Device::open(None)?), Tensor::scalar(0.0));
    /// # let model = Model::new([4], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
    /// let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean));
    /// println!("{}", trainer.verify(&session, &data)?);
    /// trainer.fit(&mut session, &data, None)?;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Training`] with the first kernel call that computes wrong; errors of data, compilation and device. The
    /// other [ranks](Trainer::distributed) of a job get them, too.
    pub fn verify(&mut self, session: &Session, data: &dyn Dataset) -> Result<Checked> {
        gpu::block_on(self.verify_async(session, data))
    }

    /// [`Trainer::verify`] for browsers.
    ///
    /// # Errors
    /// As [`Trainer::verify`].
    pub async fn verify_async(&mut self, session: &Session, data: &dyn Dataset) -> Result<Checked> {
        let verified = self.verify_step(session, data).await;
        self.reporting(verified)
    }

    async fn verify_step(&mut self, session: &Session, data: &dyn Dataset) -> Result<Checked> {
        let mut other = Session::new(session.device().clone());
        other.set_choices(session.choices().clone());
        let batch = self.first_batch(data)?;
        let program = self.training(&mut other, &batch).await?;
        let checked = std::mem::take(&mut self.checked);
        let started = self.start_checked(&mut other, &program, &program.feeds(&batch), Checking::Shadow).await;
        let own = std::mem::replace(&mut self.checked, checked);
        started.map(|_| own)
    }

    /// Where the time of a training step goes, launch by launch, in a session of its own: the variables of `session` do
    /// not change. See [`Session::profile`]. Then trains for up to 20 batches or two seconds, with the trainer's
    /// [workers](Trainer::workers), and records the trace of it: it shows whether the training waits for data.
    /// The report of a later [`fit`](Trainer::fit) shows the profile.
    ///
    /// # Errors
    /// As [`Session::profile`]; errors of data and compilation.
    pub fn profile(&mut self, session: &Session, data: &dyn Dataset) -> Result<StepProfile> {
        let mut other = Session::new(session.device().clone());
        other.set_choices(session.choices().clone());
        let batch = self.first_batch(data)?;
        let program = gpu::block_on(self.training(&mut other, &batch))?;
        let mut profile = other.profile(&program.program, &program.feeds(&batch))?;
        let (trained, trace) = Trace::record(|| self.train_briefly(&mut other, data));
        trained?;
        profile.training = Some(trace);
        self.profiled = Some(profile.clone());
        Ok(profile)
    }

    /// Trains for some batches, one step ahead of the host as in [`Trainer::fit`].
    fn train_briefly(&mut self, session: &mut Session, data: &dyn Dataset) -> Result<()> {
        const BATCHES: usize = 20;
        const TIME: Duration = Duration::from_secs(2);
        let began = Instant::now();
        let loader = self.loader(data, self.batches(data)?);
        let mut pending: Option<Pending> = None;
        loader.epoch(0, 0, |loaded| {
            let _span = span!("step", loaded.number as u64);
            let program = gpu::block_on(self.training(session, &loaded.tensors))?;
            let started = session.start(&program.program, &program.feeds(&loaded.tensors))?;
            pending.replace(started).map_or(Ok(()), |previous| previous.outputs().map(drop))?;
            let ends = loaded.number + 1 == BATCHES || began.elapsed() >= TIME;
            Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        pending.map_or(Ok(()), |last| last.outputs().map(drop))
    }

    /// The first batch in the order of the rows; in a job, this rank's share of it.
    pub(super) fn first_batch(&self, data: &dyn Dataset) -> Result<Batch> {
        let rows: Vec<usize> = (0..data.len().min(self.batch)).collect();
        data.batch(&rows[self.share(rows.len()).rows], 0)
    }
}
