//! A training from its beginning, or from a checkpoint, to its end.

use std::ops::ControlFlow;

use super::checked::Checking;
use super::folder::{self, Log};
use super::history::Ended;
use super::progress::Progress;
use super::ranks::{self, SHARE, STOP, Share, Wish};
use super::report::Renewal;
use super::state::{Checkpoints, Snapshot, State};
use super::worst::Worst;
use super::{Control, Dataset, Epoch, History, Loaded, StepEvent, Trainer, interrupt, watch};
use crate::data::Batches;
use crate::optim::schedule::Schedule;
use crate::time::{Duration, Instant};
use crate::trace::span;
use crate::{Error, Pending, Result, Session, Tensor};

/// Steps in a row whose loss may overflow if the loss is scaled: each halves the scale.
const OVERFLOWS: u64 = 20;

pub(super) struct Run<'a> {
    pub(super) trainer: &'a mut Trainer,
    pub(super) session: &'a mut Session,
    pub(super) data: &'a dyn Dataset,
    validation: Option<&'a dyn Dataset>,
    pub(super) batches: Batches,
    schedule: Option<Box<dyn Schedule>>,
    total_steps: u64,
    pub(super) state: State,
    pub(super) checkpoints: Option<Checkpoints>,
    log: Option<Log>,
    report: Option<Renewal>,
    /// The names of the parameters, if they are watched.
    parameters: Vec<String>,
    display: Progress,
    /// The best weights, if they are restored and there is no folder.
    best: Option<Snapshot>,
    overflows: u64,
    ended: Option<Ended>,
    /// What the ranks have agreed on.
    wish: Wish,
}

/// A batch whose loss has not been read.
pub(super) struct Started {
    batch: usize,
    steps: u64,
    lr: Option<f64>,
    rows: usize,
    pub(super) pending: Pending,
    /// The norms of a watched step.
    norms: Option<Pending>,
}

/// The loss of a batch is not finite.
pub(super) struct Diverged {
    pub batch: usize,
    pub loss: f64,
}

impl<'a> Run<'a> {
    pub async fn new(
        trainer: &'a mut Trainer,
        session: &'a mut Session,
        data: &'a dyn Dataset,
        validation: Option<&'a dyn Dataset>,
    ) -> Result<Run<'a>> {
        let batches = trainer.batches(data)?;
        let steps = trainer.epochs.saturating_mul(batches.count().div_ceil(trainer.accumulate) as u64);
        let total_steps = trainer.steps.map_or(steps, |most| most.min(steps));
        let schedule = trainer.schedule_of(total_steps);
        let display = if trainer.quiet || !trainer.is_first() { Progress::quiet() } else { Progress::new() };
        let mut run = Run {
            trainer,
            session,
            data,
            validation,
            batches,
            schedule,
            total_steps,
            state: State::new(),
            checkpoints: None,
            log: None,
            report: None,
            parameters: Vec::new(),
            display,
            best: None,
            overflows: 0,
            ended: None,
            wish: Wish::GoOn,
        };
        if run.trainer.is_first() {
            run.open_folder().await?;
        }
        run.join_ranks().await?;
        Ok(run)
    }

    /// Opens the run's folder, and loads its newest checkpoint if the training is resumed.
    async fn open_folder(&mut self) -> Result<()> {
        let Some(folder) = self.trainer.folder.clone() else {
            let t = &*self.trainer;
            let needs = [(t.resume, "resume"), (t.watch.is_some(), "watch"), (t.tensorboard, "tensorboard")];
            return match needs.iter().find(|(is_set, _)| *is_set) {
                Some((_, what)) => {
                    Err(Error::Input(format!("{what} needs the folder of the run; call Trainer::folder")))
                }
                None => Ok(()),
            };
        };
        if cfg!(target_family = "wasm") {
            return Err(Error::Input("a browser has no folders: train without Trainer::folder".into()));
        }
        if !self.trainer.resume
            && let Some(aside) = folder::set_aside(&folder)?
        {
            self.display.line(&format!("the earlier run in {} is now {}", folder.display(), aside.display()));
        }
        let t = &*self.trainer;
        let (settings, others) = (t.fixed_settings(self.data.len()), t.other_settings());
        let checkpoints = folder.join("checkpoints");
        let checkpoints = Checkpoints::new(checkpoints, t.keep, settings.clone(), t.metadata.clone())?;
        // Declares the variables.
        let batch = self.trainer.first_batch(self.data)?;
        let program = self.trainer.training(self.session, &batch).await?;
        if self.trainer.resume && checkpoints.newest().is_some() {
            if self.trainer.accumulate > 1 {
                self.trainer.updating(self.session, &batch, self.trainer.accumulate).await?;
            }
            let display = std::cell::RefCell::new(&mut self.display);
            let resumed = checkpoints.resume(self.session, |warning| display.borrow_mut().line(warning))?;
            if let Some((path, state)) = resumed {
                self.display.line(&format!("resumed from {}", path.display()));
                for change in folder::changes(&folder, &others) {
                    self.display.line(&change);
                }
                self.state = state;
            }
        }
        folder::write_config(&folder, &settings, &others, self.session.device())?;
        folder::write(&folder, folder::STEP, &self.trainer.description(&program, &batch)?)?;
        let log = Log::open(&folder, self.state.log_lines)?;
        self.log = Some(if self.trainer.tensorboard { log.with_events(&folder, self.state.steps)? } else { log });
        self.report = Some(Renewal::of(folder));
        self.checkpoints = Some(checkpoints);
        interrupt::catch();
        Ok(())
    }

    /// Starts from the state of rank 0.
    async fn join_ranks(&mut self) -> Result<()> {
        let Some(world) = self.trainer.world.clone() else { return Ok(()) };
        if self.session.world().is_none() {
            self.session.distribute(&world)?;
        }
        // Declares the variables.
        let batch = self.trainer.first_batch(self.data)?;
        self.trainer.training(self.session, &batch).await?;
        if self.trainer.accumulate > 1 {
            self.trainer.updating(self.session, &batch, self.trainer.accumulate).await?;
        }
        if self.trainer.folder.is_some() {
            interrupt::catch();
        }
        ranks::synchronise(&world, self.session, &mut self.state)
    }

    /// An error if the ranks have different variables.
    fn compare_ranks(&self) -> Result<()> {
        self.trainer.world.as_ref().map_or(Ok(()), |world| ranks::compare(world, self.session))
    }

    pub async fn fit(mut self) -> Result<History> {
        if let Some(patience) = self.trainer.early_stopping.filter(|&patience| self.state.since_best >= patience) {
            self.ended = Some(Ended::EarlyStopping(patience)); // resumed after its end
        }
        let trained = self.train().await;
        let ended = trained.as_ref().map(|()| self.ended.get_or_insert(Ended::Finished) as &Ended);
        let logged = self.log.as_mut().map_or(Ok(()), |log| log.end(self.state.steps, ended));
        self.renew_report(true);
        trained.and(logged)?;
        let best = self.state.best.map(|(_, epoch)| epoch);
        Ok(History { epochs: self.state.epochs, best, ended: self.ended.unwrap_or(Ended::Finished) })
    }

    async fn train(&mut self) -> Result<()> {
        while self.state.epoch < self.trainer.epochs && self.ended.is_none() {
            if self.state.steps >= self.total_steps {
                if self.state.batch > 0 {
                    self.end_epoch().await?;
                }
                break;
            }
            if self.epoch().await?.is_break() {
                break;
            }
        }
        if self.trainer.restore_best {
            self.load_best()?;
        }
        if self.trainer.checking != Checking::None {
            self.display.line(&self.trainer.checked.to_string());
        }
        Ok(())
    }

    /// Writes the report if it is time to, or at the end. A failure does not end the training.
    fn renew_report(&mut self, ends: bool) {
        let (Some(report), Some(log)) = (&mut self.report, &mut self.log) else { return };
        if ends || report.is_due() {
            match log.flush().and_then(|()| report.renew()) {
                Ok(path) if ends => self.display.line(&format!("report: {}", path.display())),
                Ok(_) => {}
                Err(error) => self.display.line(&format!("the report was not written: {error}")),
            }
        }
    }

    /// Trains an epoch, or the rest of one, and evaluates it. Breaks if the training ends within the epoch.
    async fn epoch(&mut self) -> Result<ControlFlow<()>> {
        let (epoch, first) = (self.state.epoch, self.state.batch);
        let _span = span!("epoch", epoch + 1);
        let (data, batches) = (self.data, self.batches.clone());
        let loader = self.trainer.loader(data, batches);
        let mut started: Option<Started> = None;
        let (mut diverged, mut due) = (None, false);
        let mut clock = Instant::now();
        let each = async |loaded: Loaded| {
            self.state.waiting += loaded.waited.as_secs_f64();
            let number = loaded.number;
            let _span = span!("step", number as u64);
            let next = self.start(number, &loaded.share, &loaded.tensors).await?;
            if let Some(previous) = started.replace(next) {
                diverged = self.finish(previous).await?;
            }
            self.state.batch = number + 1;
            self.lap(&mut clock);
            self.renew_report(false);
            clock = Instant::now();
            due |= self.trainer.checkpoint_every.is_some_and(|every| (number as u64 + 1).is_multiple_of(every));
            // Ranks have different sums of gradients within a step.
            let within = self.trainer.world.is_some() && !self.takes_step(number);
            if diverged.is_none() && !within && (due || self.must_end()) {
                due = false;
                if let Some(last) = started.take() {
                    diverged = self.finish(last).await?;
                }
                if diverged.is_none() && number + 1 < self.batches.count() {
                    self.save()?;
                }
            }
            if diverged.is_none() && !within && self.state.steps.is_multiple_of(ranks::COMPARE) {
                self.compare_ranks()?;
            }
            let ends = diverged.is_some() || self.ended.is_some() || self.state.steps >= self.total_steps;
            Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        loader.epoch_async(epoch, first, each).await?;
        if diverged.is_none()
            && let Some(last) = started
        {
            diverged = self.finish(last).await?;
        }
        self.lap(&mut clock);
        if let Some(diverged) = diverged {
            return Err(self.explain(diverged).await?);
        }
        if self.state.batch == self.batches.count() {
            self.end_epoch().await?;
            return Ok(ControlFlow::Continue(()));
        }
        if self.ended.is_some() {
            self.name_checkpoint();
            return Ok(ControlFlow::Break(()));
        }
        // The limit on steps lies within the epoch.
        self.save()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Adds the time since the last lap.
    fn lap(&mut self, clock: &mut Instant) {
        let seconds = clock.elapsed().as_secs_f64();
        *clock = Instant::now();
        self.state.seconds += seconds;
        self.state.total_seconds += seconds;
    }

    /// Whether the parameters are updated after this batch of an epoch.
    fn takes_step(&self, number: usize) -> bool {
        (number + 1).is_multiple_of(self.trainer.accumulate) || number + 1 == self.batches.count()
    }

    /// The learning rate of the next step.
    pub(super) fn lr(&self) -> Option<f64> {
        self.schedule.as_ref().map(|schedule| schedule.lr(self.state.steps) * self.state.lr_factor)
    }

    /// Starts the step of a batch.
    pub(super) async fn start(&mut self, number: usize, share: &Share, batch: &super::Batch) -> Result<Started> {
        let lr = self.lr();
        let fed = lr.map(Tensor::scalar);
        let of_ranks = match self.trainer.world {
            Some(_) => vec![(SHARE, Tensor::scalar(share.part())), (STOP, Tensor::scalar(self.own_wish().vote()))],
            None => Vec::new(),
        };
        let n = self.trainer.accumulate;
        let program = self.trainer.training(self.session, batch).await?;
        if n > 1 {
            // Declares the optimiser's state, so that every checkpoint has it.
            self.trainer.updating(self.session, batch, n).await?;
        }
        let mut feeds = program.feeds(batch);
        feeds.extend(of_ranks.iter().map(|(name, value)| (*name, value)));
        if n == 1 {
            feeds.extend(fed.iter().map(|lr| ("lr", lr)));
        }
        let watched = self.trainer.watches(self.state.steps);
        if self.trainer.watch.is_some() && self.parameters.is_empty() {
            self.parameters = self.trainer.parameters(batch);
        }
        let mut norms = None;
        if watched && n == 1 {
            let watching = self.trainer.norms(self.session, batch).await?;
            norms = Some(self.session.start_uncounted(&watching.program, &feeds)?);
        }
        let pending = self.trainer.start(self.session, &program, &feeds).await?;
        if n == 1 {
            self.state.steps += 1;
        } else if self.takes_step(number) {
            // The last step of an epoch may have fewer batches.
            let batches = number % n + 1;
            let update = self.trainer.updating(self.session, batch, batches).await?;
            let feeds: Vec<(&str, &Tensor)> = fed.iter().map(|lr| ("lr", lr)).collect();
            if watched {
                let watching = self.trainer.accumulated_norms(self.session, batch, batches).await?;
                norms = Some(self.session.start_uncounted(&watching.program, &feeds)?);
            }
            let _ = self.trainer.start(self.session, &update, &feeds).await?;
            self.state.steps += 1;
        }
        Ok(Started { batch: number, steps: self.state.steps, lr, rows: share.total, pending, norms })
    }

    /// Reads the loss of a batch.
    async fn finish(&mut self, started: Started) -> Result<Option<Diverged>> {
        let Started { batch, steps, lr, rows, pending, norms } = started;
        let outputs = pending.outputs_async().await?;
        let loss = outputs.first().map_or(Ok(f64::NAN), Tensor::item)?;
        if let Some(votes) = outputs.get(1) {
            self.wish = Wish::of(votes.item()?);
        }
        if !loss.is_finite() {
            self.overflows += 1;
            if !self.trainer.is_scaled() || self.overflows > OVERFLOWS {
                return Ok(Some(Diverged { batch, loss }));
            }
        } else {
            self.overflows = 0;
            self.state.loss_sum += loss * rows as f64;
            self.state.rows += rows as f64;
        }
        let epoch = self.state.epoch + 1;
        if let Some(log) = &mut self.log {
            log.step(steps, epoch, batch + 1, loss, lr)?;
            if let Some(pending) = norms {
                for norms in pending.outputs_async().await? {
                    log.norms(steps, epoch, watch::norms_of(&self.parameters, &norms))?;
                }
            }
        }
        for call in &mut self.trainer.on_step {
            if call(&StepEvent { epoch, batch: batch + 1, loss })? == Control::Stop {
                self.ended.get_or_insert(Ended::Interrupted(None));
            }
        }
        if !self.display.is_due() {
            return Ok(None);
        }
        let (all, done) = (self.batches.count(), batch + 1);
        let left = self.state.seconds / done as f64 * all.saturating_sub(done) as f64;
        let rate = self.state.rows / self.state.seconds.max(1e-9);
        let what = format!("epoch {epoch}/{}", self.trainer.epochs);
        let lr = lr.map_or_else(String::new, |lr| format!(", lr {lr:.2e}"));
        let figures = format!("loss {:.4}{lr}, {rate:.0} rows/s", self.state.loss_sum / self.state.rows);
        self.display.step(&what, done, all, &figures, Duration::try_from_secs_f64(left).unwrap_or_default());
        Ok(None)
    }

    /// Whether the training ends after this batch, by Ctrl-C or time.
    fn must_end(&mut self) -> bool {
        if self.ended.is_none() {
            let wish = if self.trainer.world.is_some() { self.wish } else { self.own_wish() };
            self.ended = match wish {
                Wish::Interrupted => Some(Ended::Interrupted(None)),
                Wish::TimeBudget => Some(Ended::TimeBudget),
                Wish::GoOn => None,
            };
        }
        self.ended.is_some()
    }

    /// Whether this rank wants the training to end.
    fn own_wish(&self) -> Wish {
        let budget = self.trainer.time_budget.map(|budget| budget.as_secs_f64());
        if self.trainer.folder.is_some() && interrupt::pressed() {
            Wish::Interrupted
        } else if budget.is_some_and(|budget| self.state.total_seconds >= budget) {
            Wish::TimeBudget
        } else {
            Wish::GoOn
        }
    }

    fn save(&mut self) -> Result<()> {
        if let (Some(checkpoints), Some(log)) = (&self.checkpoints, &mut self.log) {
            log.flush()?;
            self.state.log_lines = log.lines();
            checkpoints.save(self.session, &self.state)?;
        }
        Ok(())
    }

    /// Tells how to go on after an interruption.
    fn name_checkpoint(&mut self) {
        let newest = self.checkpoints.as_ref().and_then(Checkpoints::newest);
        if let Some(Ended::Interrupted(path)) = &mut self.ended {
            if let Some(newest) = &newest {
                self.display.line(&format!("interrupted; to go on, resume the run ({})", newest.display()));
            }
            *path = newest;
        }
    }

    /// Evaluates, decides, records and saves after the batches of an epoch. If the limit on steps lies within the
    /// epoch, the checkpoint from within it remains the newest, so that a resumed training with more steps takes all of
    /// them.
    async fn end_epoch(&mut self) -> Result<()> {
        let whole = self.state.batch == self.batches.count();
        self.compare_ranks()?;
        let validation = match self.validation {
            Some(data) => {
                // A rank has the inputs of its share only.
                let folder = self.trainer.folder.clone().filter(|_| self.trainer.world.is_none());
                let mut worst = Worst::default();
                let collected = folder.as_ref().map(|_| &mut worst);
                let evaluation = super::evaluate::evaluate(self.trainer, self.session, data, collected).await?;
                if let (Some(folder), Some(worst)) = (folder, worst.finish(self.state.epoch + 1)) {
                    folder::write(&folder, folder::WORST, &worst)?;
                }
                Some(evaluation)
            }
            None => None,
        };
        let state = &mut self.state;
        let schedule = self.schedule.as_ref();
        let epoch = Epoch {
            number: state.epoch + 1,
            steps: state.steps,
            loss: state.loss_sum / state.rows,
            validation,
            lr: schedule.map(|schedule| schedule.lr(state.steps.saturating_sub(1)) * state.lr_factor),
            seconds: state.seconds,
            waiting: state.waiting / state.seconds.max(1e-9),
            rows_per_second: state.rows / state.seconds.max(1e-9),
        };
        state.epoch += 1;
        (state.batch, state.loss_sum, state.rows, state.seconds, state.waiting) = (0, 0.0, 0.0, 0.0, 0.0);
        self.display.line(&format!("epoch {}/{}: {}", epoch.number, self.trainer.epochs, epoch.figures()));
        let improved = self.judge(&epoch);
        if let Some(log) = &mut self.log {
            log.epoch(&epoch)?;
            if self.trainer.watch.is_some() {
                let parameters = watch::histograms(self.session, &self.parameters).await?;
                log.weights(epoch.steps, epoch.number, parameters)?;
            }
        }
        for call in &mut self.trainer.on_epoch {
            if call(self.session, &epoch)? == Control::Stop {
                self.ended.get_or_insert(Ended::Interrupted(None));
            }
        }
        self.state.epochs.push(epoch);
        if whole {
            self.save()?;
        }
        if improved {
            match &self.checkpoints {
                Some(checkpoints) => checkpoints.save_best(self.session, &self.state)?,
                None if self.trainer.restore_best => self.best = Some(Snapshot::of(self.session).await?),
                None => {}
            }
        }
        self.renew_report(false);
        if let Some(Ended::Interrupted(None)) = self.ended {
            self.name_checkpoint();
        }
        Ok(())
    }

    /// Compares the monitored value with the best one. Returns whether it is better.
    fn judge(&mut self, epoch: &Epoch) -> bool {
        let (name, higher) = self.trainer.monitor.clone().unwrap_or(("loss".to_owned(), false));
        let value = match &epoch.validation {
            Some(validation) => validation.get(&name).unwrap_or(f64::NAN),
            None => epoch.loss,
        };
        let state = &mut self.state;
        // NaN is never better.
        let better = |best: f64| if higher { value > best } else { value < best };
        if !value.is_nan() && state.best.is_none_or(|(best, _)| better(best)) {
            state.best = Some((value, epoch.number));
            (state.since_best, state.since_reduction) = (0, 0);
            return true;
        }
        state.since_best += 1;
        state.since_reduction += 1;
        if let Some(plateau) = self.trainer.plateau
            && state.since_reduction >= plateau.patience
        {
            state.lr_factor *= plateau.factor;
            state.since_reduction = 0;
            self.display
                .line(&format!("{name} has not improved for {} epochs: learning rate reduced", plateau.patience));
        }
        if let Some(patience) = self.trainer.early_stopping
            && state.since_best >= patience
        {
            self.ended.get_or_insert(Ended::EarlyStopping(patience));
        }
        false
    }

    fn load_best(&mut self) -> Result<()> {
        if let Some(best) = &self.best {
            best.restore(self.session)?;
        } else if let Some(checkpoints) = &self.checkpoints
            && let Some(best) = checkpoints.best()
        {
            checkpoints.load(self.session, &best)?;
        }
        if let Some(world) = self.trainer.world.clone() {
            ranks::broadcast_variables(&world, self.session, self.session.names().iter())?;
        }
        Ok(())
    }
}
