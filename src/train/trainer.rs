//! The trainer: what to train, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::path::PathBuf;

use super::checked::{Checked, Checking};
use super::model::Model;
use super::programs::{Cache, Inputs};
use super::run::Run;
use super::{Batch, Dataset, Epoch, Evaluation, History, Metric};
use crate::data::Batches;
use crate::distributed::World;
use crate::nn::Scope;
use crate::optim::schedule::{Constant, Schedule};
use crate::optim::{Adam, Gradient, Optimizer};
use crate::plan::Options;
use crate::time::Duration;
use crate::{DType, Error, Graph, Result, Session, StepProfile, Tensor, Value, gpu};

/// What a training step computes from a batch. Example: [`Trainer::of`].
#[derive(Clone, Debug)]
pub struct Step {
    /// The mean loss over the rows, a scalar.
    pub loss: Value,
    /// What metrics compare with the target.
    pub prediction: Option<Value>,
}

pub(super) type BuildStep = dyn Fn(&Scope, &Inputs) -> Step;
pub(super) type BuildUpdate = dyn Fn(&Graph, &[Gradient]);
pub(super) type BuildSchedule = dyn Fn(u64) -> Box<dyn Schedule>;

/// Whether a training goes on after a callback. Example: [`StepEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Go on.
    Continue,
    /// Save a checkpoint, if there is a folder, and end the training.
    Stop,
}

/// A finished optimiser step, for callbacks.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::{Control, Model, Trainer};
/// let data = (Tensor::new([8, 1], vec![1.0f32; 8])?, Tensor::new([8, 1], vec![2.0f32; 8])?);
/// let model = Model::new([1], |nn: &Scope, x: &Value| nn.linear("fc", x, 1));
/// let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).batch(2).epochs(9).quiet();
/// let stop = |epochs: u64| if epochs < 2 { Control::Continue } else { Control::Stop };
/// trainer = trainer.on_step(move |event| Ok(stop(event.epoch))); // after the first step of epoch 2
/// let history = trainer.fit(&mut Session::new(Device::cpu()), &data, None)?;
/// assert!(history.epochs.len() < 9);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepEvent {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The number of batches so far, in this epoch.
    pub batch: usize,
    /// The loss of the batch.
    pub loss: f64,
}

/// A function that is called after each epoch.
type OnEpoch = dyn FnMut(&mut Session, &Epoch) -> Result<Control>;
/// A function that is called after each batch, one batch late.
type OnStep = dyn FnMut(&StepEvent) -> Result<Control>;

/// Reduces the learning rate when the monitored value stops improving.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plateau {
    pub factor: f64,
    pub patience: u64,
}

/// Trains a model: epochs, validation, metrics, checkpoints, progress.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::{Metric, Model, Trainer};
///
/// // y = 2 x - 1
/// let x = Tensor::new([64, 1], (0..64).map(|i| i as f32 / 32.0 - 1.0).collect::<Vec<_>>())?;
/// let y = Tensor::new([64, 1], x.to_f32().iter().map(|x| 2.0 * x - 1.0).collect::<Vec<_>>())?;
/// let data = (x, y);
///
/// let mut model = Model::new([1], |nn: &Scope, x: &Value| nn.linear("line", x, 1));
/// let mut session = Session::new(Device::cpu());
/// let history = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean))
///     .optimizer(Adam::new().lr(0.1))
///     .epochs(30)
///     .batch(16)
///     .metrics([Metric::R2])
///     .quiet()
///     .fit(&mut session, &data, Some(&data))?;
/// let last = history.epochs.last().unwrap();
/// assert!(last.validation.as_ref().unwrap().get("r2").unwrap() > 0.99);
/// let predicted = model.predict(&mut session, &Tensor::new([1, 1], [0.25f32])?)?;
/// assert!((predicted.item()? + 0.5).abs() < 0.1);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// Losses are read one step late, so that the device does not wait for the host. With [`Trainer::folder`], the training
/// keeps checkpoints and a log, Ctrl-C ends it after the current step, and [`Trainer::resume`] continues as if it had
/// never stopped, bit for bit on the same device.
pub struct Trainer {
    pub(super) build: Box<BuildStep>,
    pub(super) seed: u64,
    pub(super) optimizer: Box<dyn Optimizer>,
    /// The optimiser with its settings, as text.
    pub(super) optimizer_name: String,
    pub(super) update: Option<Box<BuildUpdate>>,
    pub(super) schedule: Option<Box<BuildSchedule>>,
    pub(super) epochs: u64,
    pub(super) steps: Option<u64>,
    pub(super) batch: usize,
    pub(super) shuffle: bool,
    pub(super) drop_last: bool,
    pub(super) accumulate: usize,
    pub(super) clip_norm: Option<f64>,
    pub(super) clip_value: Option<f64>,
    pub(super) mixed: DType,
    pub(super) average: Option<f64>,
    pub(super) options: Options,
    pub(super) target: String,
    pub(super) metrics: Vec<Metric>,
    pub(super) monitor: Option<(String, bool)>,
    pub(super) early_stopping: Option<u64>,
    pub(super) plateau: Option<Plateau>,
    pub(super) time_budget: Option<Duration>,
    pub(super) workers: usize,
    pub(super) folder: Option<PathBuf>,
    pub(super) checkpoint_every: Option<u64>,
    pub(super) keep: usize,
    pub(super) resume: bool,
    pub(super) restore_best: bool,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) on_epoch: Vec<Box<OnEpoch>>,
    pub(super) on_step: Vec<Box<OnStep>>,
    pub(super) quiet: bool,
    pub(super) checking: Checking,
    pub(super) checked: Checked,
    pub(super) profiled: Option<StepProfile>,
    pub(super) watch: Option<u64>,
    pub(super) tensorboard: bool,
    pub(super) programs: Cache,
    pub(super) world: Option<World>,
    pub(super) compress: bool,
    /// Steps so far, of which ranks check one after the other.
    pub(super) turns: usize,
}

impl Trainer {
    /// Trains a model on batches with the input `x` and the target `y`. `loss` takes the prediction and the target, and
    /// returns the mean loss over the rows.
    ///
    /// In [mixed precision](Trainer::mixed), the input is converted for the model, and the prediction to f32 for the
    /// loss.
    #[track_caller]
    pub fn new(model: &Model, loss: impl Fn(&Value, &Value) -> Value + 'static) -> Trainer {
        let (model, seed) = (model.clone(), model.seed_value());
        let here = Location::caller();
        let trainer = Trainer::of(move |nn, batch| {
            let [x, y] = ["x", "y"].map(|name| nn.graph().at(here, || batch.get(name)));
            let x = nn.graph().at(here, || model.expect_rows(&x));
            let x = if x.dtype().is_float() { nn.activation(&x) } else { x };
            let prediction = model.forward(nn, &x);
            let prediction = if prediction.dtype().is_float() { prediction.cast(DType::F32) } else { prediction };
            Step { loss: loss(&prediction, &y), prediction: Some(prediction) }
        });
        trainer.seed(seed)
    }

    /// Trains anything: `step` builds the loss, and optionally the prediction, from the tensors of a batch. Use this
    /// for several inputs, several losses, or targets that are computed from inputs.
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// use wgrad::train::{Batch, Step, Trainer};
    ///
    /// let column = |x: Vec<f32>| Tensor::new([x.len(), 1], x);
    /// let a: Vec<f32> = (0..32).map(|i| i as f32 / 32.0).collect();
    /// let b: Vec<f32> = a.iter().rev().map(|x| x * x).collect();
    /// let sum = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    /// let data = Batch::from([("a".into(), column(a)?), ("b".into(), column(b)?), ("sum".into(), column(sum)?)]);
    /// let mut session = Session::new(Device::cpu());
    /// let history = Trainer::of(|nn, batch| {
    ///     let both = nn.linear("a", &batch.get("a"), 1) + nn.linear("b", &batch.get("b"), 1);
    ///     let loss = both.mse_loss(&batch.get("sum"), Reduction::Mean);
    ///     Step { loss, prediction: Some(both) }
    /// })
    /// .target("sum")
    /// .lr(0.05)
    /// .epochs(40)
    /// .batch(8)
    /// .quiet()
    /// .fit(&mut session, &data, None)?;
    /// assert!(history.epochs[39].loss < 0.1 * history.epochs[0].loss);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn of(step: impl Fn(&Scope, &Inputs) -> Step + 'static) -> Trainer {
        Trainer {
            build: Box::new(step),
            seed: 0,
            optimizer: Box::new(Adam::new()),
            optimizer_name: format!("{:?}", Adam::new()),
            update: None,
            schedule: None,
            epochs: 10,
            steps: None,
            batch: 32,
            shuffle: true,
            drop_last: false,
            accumulate: 1,
            clip_norm: None,
            clip_value: None,
            mixed: DType::F32,
            average: None,
            options: Options::default(),
            target: "y".to_owned(),
            metrics: Vec::new(),
            monitor: None,
            early_stopping: None,
            plateau: None,
            time_budget: None,
            workers: 0,
            folder: None,
            checkpoint_every: None,
            keep: 3,
            resume: false,
            restore_best: false,
            metadata: BTreeMap::new(),
            on_epoch: Vec::new(),
            on_step: Vec::new(),
            quiet: false,
            checking: Checking::None,
            checked: Checked::default(),
            profiled: None,
            watch: None,
            tensorboard: false,
            programs: Cache::default(),
            world: None,
            compress: false,
            turns: 0,
        }
    }

    /// The optimiser; default [`Adam`].
    pub fn optimizer<O: Optimizer + fmt::Debug + 'static>(mut self, optimizer: O) -> Trainer {
        self.optimizer_name = format!("{optimizer:?}");
        self.optimizer = Box::new(optimizer);
        self
    }

    /// Replaces the optimiser by a function that applies optimisers to gradients, which are clipped already: for groups
    /// of parameters with rates, decays or optimisers of their own. See [`optim`](crate::optim).
    pub fn update(mut self, update: impl Fn(&Graph, &[Gradient]) + 'static) -> Trainer {
        self.update = Some(Box::new(update));
        self
    }

    /// A constant learning rate, instead of the optimiser's own.
    pub fn lr(self, lr: f64) -> Trainer {
        self.schedule(move |_| Constant(lr))
    }

    /// A learning rate that depends on the step. The function receives the total number of optimiser steps.
    ///
    /// ```
    /// # use wgrad::train::{Model, Trainer};
    /// # use wgrad::Reduction;
    /// # let model = Model::new([1], |nn, x| nn.linear("fc", x, 1));
    /// use wgrad::optim::schedule::{Cosine, Schedule};
    /// let trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean))
    ///     .schedule(|steps| Cosine { lr: 1e-3, last: 1e-5, steps }.after_warm_up(100));
    /// ```
    pub fn schedule<S: Schedule + 'static>(mut self, schedule: impl Fn(u64) -> S + 'static) -> Trainer {
        self.schedule = Some(Box::new(move |steps| Box::new(schedule(steps))));
        self
    }

    /// The number of epochs, passes over the training data; default 10.
    pub fn epochs(mut self, epochs: u64) -> Trainer {
        self.epochs = epochs;
        self
    }

    /// Ends the training after this many optimiser steps, if the epochs do not end earlier.
    pub fn steps(mut self, steps: u64) -> Trainer {
        self.steps = Some(steps);
        self
    }

    /// Rows per batch; default 32.
    pub fn batch(mut self, rows: usize) -> Trainer {
        self.batch = rows;
        self
    }

    /// Whether rows are shuffled for each epoch; default true.
    pub fn shuffle(mut self, shuffle: bool) -> Trainer {
        self.shuffle = shuffle;
        self
    }

    /// Leaves out the last batch of an epoch if it is smaller than the others.
    pub fn drop_last(mut self) -> Trainer {
        self.drop_last = true;
        self
    }

    /// Makes an optimiser step from the mean gradient of this many batches.
    pub fn accumulate(mut self, batches: usize) -> Trainer {
        self.accumulate = batches;
        self
    }

    /// Limits the joint norm of all gradients; see [`clip_norm`](crate::optim::clip_norm).
    pub fn clip_norm(mut self, max_norm: f64) -> Trainer {
        self.clip_norm = Some(max_norm);
        self
    }

    /// Limits each element of the gradients; see [`clip_value`](crate::optim::clip_value).
    pub fn clip_value(mut self, limit: f64) -> Trainer {
        self.clip_value = Some(limit);
        self
    }

    /// Stores activations as f16, with [dynamic loss scaling](crate::optim::LossScale), or as bf16; see
    /// [`Scope::mixed`].
    pub fn mixed(mut self, dtype: DType) -> Trainer {
        self.mixed = dtype;
        self
    }

    /// Keeps moving averages of the weights, and validates with them; see [`Optimizer::averaged`] and
    /// [`Model::averaged`]. Has no effect with [`Trainer::update`].
    pub fn average(mut self, decay: f64) -> Trainer {
        self.average = Some(decay);
        self
    }

    /// Options of compilation, such as [`Options::precision`].
    pub fn options(mut self, options: Options) -> Trainer {
        self.options = options;
        self
    }

    /// The seed of initial weights, dropout and the order of rows; default that of the model.
    pub fn seed(mut self, seed: u64) -> Trainer {
        self.seed = seed;
        self
    }

    /// The name of the tensor that metrics compare predictions with; default `y`.
    pub fn target(mut self, name: &str) -> Trainer {
        self.target = name.to_owned();
        self
    }

    /// Metrics of the validation data.
    pub fn metrics(mut self, metrics: impl IntoIterator<Item = Metric>) -> Trainer {
        self.metrics = metrics.into_iter().collect();
        self
    }

    /// The metric that decides about the best epoch, early stopping and plateaus; default is the validation loss, or
    /// without validation data the training loss. It is added to the metrics.
    pub fn monitor(mut self, metric: Metric) -> Trainer {
        self.monitor = Some((metric.name(), metric.higher_is_better()));
        if !self.metrics.iter().any(|known| known.name() == metric.name()) {
            self.metrics.push(metric);
        }
        self
    }

    /// Ends the training if the monitored value has not improved for this many epochs.
    pub fn early_stopping(mut self, epochs: u64) -> Trainer {
        self.early_stopping = Some(epochs);
        self
    }

    /// Multiplies the learning rate by `factor` whenever the monitored value has not improved for `epochs` epochs.
    /// Requires [`Trainer::lr`] or [`Trainer::schedule`].
    pub fn reduce_on_plateau(mut self, factor: f64, epochs: u64) -> Trainer {
        self.plateau = Some(Plateau { factor, patience: epochs });
        self
    }

    /// Ends the training after the first step at which it has taken this long, including the time before a resume.
    pub fn time_budget(mut self, budget: Duration) -> Trainer {
        self.time_budget = Some(budget);
        self
    }

    /// Threads that prepare batches; default 0, which prepares each batch when it is needed.
    /// [`Loader::suitable_workers`](super::Loader::suitable_workers) suggests a number. The batches do not depend on
    /// it.
    pub fn workers(mut self, threads: usize) -> Trainer {
        self.workers = threads;
        self
    }

    /// The folder of the run: `config.json`, `metrics.jsonl`, `step.json` (what a training step consists of),
    /// `worst.json` (the rows predicted worst), `checkpoints/`, and `report.html`, a [`Report`](super::Report) that is
    /// renewed during the training. A run that is already there is renamed, unless it
    /// is [resumed](Trainer::resume). Ctrl-C then ends the training after the current step, with a checkpoint.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Trainer {
        self.folder = Some(folder.into());
        self
    }

    /// Also saves a checkpoint after each `batches` batches, not only after each epoch.
    pub fn checkpoint_every(mut self, batches: u64) -> Trainer {
        self.checkpoint_every = Some(batches.max(1));
        self
    }

    /// The number of checkpoints that are kept, besides the best one; default 3.
    pub fn keep(mut self, checkpoints: usize) -> Trainer {
        self.keep = checkpoints;
        self
    }

    /// Continues from the newest checkpoint of the folder, if there is one.
    pub fn resume(mut self, resume: bool) -> Trainer {
        self.resume = resume;
        self
    }

    /// Loads the best weights into the session at the end.
    pub fn restore_best(mut self) -> Trainer {
        self.restore_best = true;
        self
    }

    /// Adds an entry to the metadata of the checkpoints, as `user.KEY`.
    pub fn metadata(mut self, key: &str, value: &str) -> Trainer {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Calls a function after each epoch.
    pub fn on_epoch(mut self, call: impl FnMut(&mut Session, &Epoch) -> Result<Control> + 'static) -> Trainer {
        self.on_epoch.push(Box::new(call));
        self
    }

    /// Calls a function after each batch, one batch late, with its loss.
    pub fn on_step(mut self, call: impl FnMut(&StepEvent) -> Result<Control> + 'static) -> Trainer {
        self.on_step.push(Box::new(call));
        self
    }

    /// Compares every kernel call of every step with the reference, and ends with an error at the first that differs;
    /// see [`Session::run_checked`]. The last line of progress, and [`Trainer::checked`], tell how much was compared.
    pub fn shadow(self, shadow: bool) -> Trainer {
        self.check_by(Checking::Shadow, shadow)
    }

    /// Looks for NaN and infinity in every step, and ends with an error at the first; see [`Session::find_nan`].
    pub fn find_nan(self, find_nan: bool) -> Trainer {
        self.check_by(Checking::FindNan, find_nan)
    }

    fn check_by(mut self, checking: Checking, on: bool) -> Trainer {
        if on {
            self.checking = checking;
        } else if self.checking == checking {
            self.checking = Checking::None;
        }
        self
    }

    /// What [`Trainer::shadow`] or [`Trainer::find_nan`] has checked so far.
    pub fn checked(&self) -> Checked {
        self.checked
    }

    /// Prints nothing. Otherwise progress goes to standard error.
    pub fn quiet(mut self) -> Trainer {
        self.quiet = true;
        self
    }

    /// Trains on `data`, and evaluates `validation` after each epoch. The session's variables are the result; those
    /// that exist already are trained further.
    ///
    /// # Errors
    /// [`Error::Input`] for settings that make no sense and empty data; [`Error::Training`] if the loss is not finite,
    /// with the step, the first node that is not finite, and the last good checkpoint; errors of data, compilation,
    /// device and files.
    pub fn fit(
        &mut self,
        session: &mut Session,
        data: &dyn Dataset,
        validation: Option<&dyn Dataset>,
    ) -> Result<History> {
        gpu::block_on(self.fit_async(session, data, validation))
    }

    /// [`Trainer::fit`] for browsers, which have no [folders](Trainer::folder).
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub async fn fit_async(
        &mut self,
        session: &mut Session,
        data: &dyn Dataset,
        validation: Option<&dyn Dataset>,
    ) -> Result<History> {
        let fitted = self.try_fit(session, data, validation).await;
        self.reporting(fitted)
    }

    async fn try_fit(
        &mut self,
        session: &mut Session,
        data: &dyn Dataset,
        validation: Option<&dyn Dataset>,
    ) -> Result<History> {
        self.check(data, validation)?;
        Run::new(self, session, data, validation).await?.fit().await
    }

    /// Loss and metrics of the current weights on a data set.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn evaluate(&mut self, session: &mut Session, data: &dyn Dataset) -> Result<Evaluation> {
        gpu::block_on(self.evaluate_async(session, data))
    }

    /// [`Trainer::evaluate`] for browsers.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub async fn evaluate_async(&mut self, session: &mut Session, data: &dyn Dataset) -> Result<Evaluation> {
        if data.is_empty() {
            return Err(Error::Input("the data to evaluate has no rows".into()));
        }
        let evaluated = super::evaluate::evaluate(self, session, data, None).await;
        self.reporting(evaluated)
    }

    /// The batches of an epoch.
    pub(super) fn batches(&self, data: &dyn Dataset) -> Result<Batches> {
        let mut batches = Batches::new(data.len(), self.batch)?;
        if self.shuffle {
            batches = batches.shuffled(self.seed);
        }
        if self.drop_last {
            batches = batches.drop_last();
        }
        Ok(batches)
    }

    /// The learning rates, for a total number of steps.
    pub(super) fn schedule_of(&self, steps: u64) -> Option<Box<dyn Schedule>> {
        self.schedule.as_ref().map(|schedule| schedule(steps))
    }

    /// Whether the loss is scaled, so that a step whose gradients overflow is skipped.
    pub(super) fn is_scaled(&self) -> bool {
        self.mixed == DType::F16
    }

    /// The target of a batch.
    pub(super) fn target_of<'b>(&self, batch: &'b Batch) -> Result<&'b Tensor> {
        batch.get(&self.target).ok_or_else(|| {
            let names: Vec<&str> = batch.keys().map(String::as_str).collect();
            let (target, names) = (&self.target, names.join(", "));
            Error::Input(format!("the batch has no target `{target}`, only {names}; name it with Trainer::target"))
        })
    }
}
