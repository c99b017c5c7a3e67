//! The programs of a trainer, and how their steps are run.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::programs::{Compiled, Inputs, Types, types};
use super::{Batch, Dataset, Trainer};
use crate::nn::Scope;
use crate::optim::schedule::Schedule;
use crate::optim::{
    Gradient, LossScale, Optimizer, accumulate, accumulated, clip_norm, clip_value, parameter_gradients,
};
use crate::plan::Options;
use crate::tuning::Tuned;
use crate::{DType, Error, Graph, Pending, Result, Session, Tensor, Value};

/// How steps are checked while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checking {
    None,
    Shadow,
    FindNan,
}

/// What [`Trainer::shadow`] or [`Trainer::find_nan`] has checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        match calls {
            0 => write!(f, "{steps} steps without NaN or infinity"),
            _ => write!(f, "{steps} steps correct, {calls} kernel calls, {numbers} numbers compared"),
        }
    }
}

impl Trainer {
    /// Starts a step; with checks, runs it.
    pub(super) fn start(
        &mut self,
        session: &mut Session,
        program: &Compiled,
        feeds: &[(&str, &Tensor)],
    ) -> Result<Pending> {
        let program = &program.program;
        let (outputs, found) = match self.checking {
            Checking::None => return session.start(program, feeds),
            Checking::Shadow => {
                let (outputs, report) = session.run_checked(program, feeds)?;
                self.checked.calls += report.calls.len();
                self.checked.numbers += report.compared();
                (outputs, report.divergence.map(|divergence| divergence.to_string()))
            }
            Checking::FindNan => {
                let (outputs, found) = session.find_nan(program, feeds)?;
                (outputs, found.map(|found| format!("the first value that is not finite: {found}")))
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

    /// The learning rates, for a total number of steps.
    pub(super) fn schedule_of(&self, steps: u64) -> Option<Box<dyn Schedule>> {
        self.schedule.as_ref().map(|schedule| schedule(steps))
    }

    fn clipped(&self, gradients: Vec<Gradient>) -> Vec<Gradient> {
        let gradients = self.clip_value.map_or(gradients.clone(), |limit| clip_value(&gradients, limit));
        self.clip_norm.map_or(gradients.clone(), |limit| clip_norm(&gradients, limit))
    }

    /// Adds the updates of the parameters to a graph.
    fn add_updates(&self, graph: &Graph, gradients: Vec<Gradient>) {
        let gradients = self.clipped(gradients);
        match (&self.update, self.average) {
            (Some(update), _) => update(graph, &gradients),
            (None, Some(decay)) => (&*self.optimizer).averaged(decay).apply(graph, &gradients),
            (None, None) => self.optimizer.apply(graph, &gradients),
        }
    }

    fn scope(&self, graph: &Graph, training: bool) -> Scope {
        if training {
            return Scope::train(graph, self.seed).mixed(self.mixed);
        }
        let nn = Scope::eval(graph, self.seed).mixed(self.mixed);
        if self.average.is_some() && self.update.is_none() { nn.averaged() } else { nn }
    }

    fn compile(&self, session: &mut Session, graph: &Graph, outputs: &[&Value], inputs: &Inputs) -> Result<Compiled> {
        let options = Options { choices: session.choices().clone(), ..self.options.clone() };
        Ok(Compiled::new(session.compile_with(graph, outputs, &options)?, inputs.used()))
    }

    /// A program from the cache.
    fn program(
        &mut self,
        session: &mut Session,
        purpose: (&'static str, usize),
        types: &Types,
        compile: impl FnOnce(&Trainer, &mut Session) -> Result<Compiled>,
    ) -> Result<Rc<Compiled>> {
        let mut programs = std::mem::take(&mut self.programs);
        let program = programs.get(session, purpose, types, |session| compile(self, session));
        self.programs = programs;
        program
    }

    /// The graph of a training step, or if gradients are accumulated, of the part of it that adds them up; its loss.
    fn training_graph(&self, types: &Types) -> (Graph, Value, Inputs) {
        let graph = Graph::new();
        let inputs = Inputs::new(&graph, types);
        let step = (self.build)(&self.scope(&graph, true), &inputs);
        let scaled = self.is_scaled().then(|| LossScale::new().gradients(&graph, &step.loss));
        let first = graph.assignments();
        let gradients = match &scaled {
            Some(scaled) => scaled.gradients.clone(),
            None => parameter_gradients(&graph, &step.loss),
        };
        match self.accumulate {
            1 => self.add_updates(&graph, gradients),
            _ => accumulate(&graph, &gradients),
        }
        if let Some(scaled) = scaled.filter(|scaled| scaled.finite.is_valid()) {
            graph.assign_if(&scaled.finite, first);
        }
        (graph, step.loss, inputs)
    }

    /// The program of [`Trainer::training_graph`]. Output: the loss.
    pub(super) fn training(&mut self, session: &mut Session, batch: &Batch) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("train", 0), &types, |trainer, session| {
            let (graph, loss, inputs) = trainer.training_graph(&types);
            trainer.compile(session, &graph, &[&loss], &inputs)
        })
    }

    /// Measures kernel variants for the training step of a batch; see [`Session::tune`]. Later steps use the fastest.
    ///
    /// # Errors
    /// As [`Session::tune`]; errors of the data.
    pub fn tune(&mut self, session: &mut Session, data: &dyn Dataset, budget: Duration) -> Result<Tuned> {
        let (graph, loss, _) = self.training_graph(&types(&self.first_batch(data)?));
        session.tune(&graph, &[&loss], budget)
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
    /// [`Error::Training`] with the first kernel call that computes wrong; errors of data, compilation and device.
    pub fn verify(&mut self, session: &Session, data: &dyn Dataset) -> Result<Checked> {
        let mut other = Session::new(session.device().clone());
        other.set_choices(session.choices().clone());
        let batch = self.first_batch(data)?;
        let program = self.training(&mut other, &batch)?;
        let (checking, checked) = (self.checking, std::mem::take(&mut self.checked));
        self.checking = Checking::Shadow;
        let done = self.start(&mut other, &program, &program.feeds(&batch)).and_then(Pending::outputs);
        let own = std::mem::replace(&mut self.checked, checked);
        self.checking = checking;
        done.map(|_| own)
    }

    /// The first batch in the order of the rows.
    pub(super) fn first_batch(&self, data: &dyn Dataset) -> Result<Batch> {
        let rows: Vec<usize> = (0..data.len().min(self.batch)).collect();
        data.batch(&rows, 0)
    }

    /// The update from the gradients of so many batches.
    pub(super) fn updating(&mut self, session: &mut Session, batch: &Batch, batches: usize) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("update", batches), &types, |trainer, session| {
            // Only the parameters: the model also updates running statistics.
            let built = Graph::new();
            let inputs = Inputs::new(&built, &types);
            (trainer.build)(&trainer.scope(&built, true), &inputs);
            let graph = Graph::new();
            for variable in built.nodes().variables.into_iter().filter(|variable| variable.trainable) {
                graph.parameter(&variable.name, variable.initial);
            }
            trainer.add_updates(&graph, accumulated(&graph, batches));
            trainer.compile(session, &graph, &[], &Inputs::new(&graph, &Types::new()))
        })
    }

    /// The evaluation of a batch. Outputs: the loss, and the prediction if metrics need it.
    pub(super) fn evaluation(&mut self, session: &mut Session, batch: &Batch) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("evaluate", 0), &types, |trainer, session| {
            let graph = Graph::new();
            let inputs = Inputs::new(&graph, &types);
            let step = (trainer.build)(&trainer.scope(&graph, false), &inputs);
            let mut outputs = vec![&step.loss];
            if !trainer.metrics.is_empty() {
                outputs.push(step.prediction.as_ref().ok_or_else(|| {
                    Error::Input(
                        "metrics need a prediction; set Step::prediction in the function of Trainer::of".into(),
                    )
                })?);
            }
            trainer.compile(session, &graph, &outputs, &inputs)
        })
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
