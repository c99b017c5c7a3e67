//! The steps of a training as graphs and programs: forward and backward pass with an update, and evaluation.

use std::rc::Rc;

use super::programs::{Compiled, Inputs, Types, types};
use super::{Batch, Trainer};
use crate::nn::Scope;
use crate::optim::{
    Gradient, LossScale, Optimizer, accumulate, accumulated, clip_norm, clip_value, parameter_gradients,
};
use crate::plan::Options;
use crate::{Error, Graph, Result, Session, Value};

/// The graph of a training step.
pub(super) struct StepGraph {
    pub graph: Graph,
    pub inputs: Inputs,
    /// The loss, unless the step only applies accumulated gradients; of several ranks, also their votes to end.
    pub outputs: Vec<Value>,
    /// The gradients of the parameters, unscaled, and not clipped.
    pub gradients: Vec<Gradient>,
}

impl Trainer {
    fn clipped(&self, gradients: Vec<Gradient>) -> Vec<Gradient> {
        let gradients = match self.clip_value {
            Some(limit) => clip_value(&gradients, limit),
            None => gradients,
        };
        match self.clip_norm {
            Some(limit) => clip_norm(&gradients, limit),
            None => gradients,
        }
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
        let stream = self.world.as_ref().map_or(0, |world| world.rank() as u32);
        if training {
            return Scope::train(graph, self.seed).random_stream(stream).mixed(self.mixed);
        }
        let nn = Scope::eval(graph, self.seed).random_stream(stream).mixed(self.mixed);
        if self.average.is_some() && self.update.is_none() { nn.averaged() } else { nn }
    }

    pub(super) async fn compile(
        &self,
        session: &mut Session,
        graph: &Graph,
        outputs: &[&Value],
        inputs: &Inputs,
    ) -> Result<Compiled> {
        let options = Options { choices: session.choices().clone(), ..self.options.clone() };
        Ok(Compiled::new(session.compile_with_async(graph, outputs, &options).await?, inputs.used()))
    }

    /// A program from the cache.
    pub(super) async fn program(
        &mut self,
        session: &mut Session,
        purpose: (&'static str, usize),
        types: &Types,
        compile: impl AsyncFnOnce(&Trainer, &mut Session) -> Result<Compiled>,
    ) -> Result<Rc<Compiled>> {
        let mut programs = std::mem::take(&mut self.programs);
        let program = programs.get(session, purpose, types, async |session| compile(self, session).await).await;
        self.programs = programs;
        program
    }

    /// The graph of a training step, or if gradients are accumulated, of the part of it that adds them up.
    pub(super) fn training_graph(&self, types: &Types) -> StepGraph {
        let graph = Graph::new();
        let inputs = Inputs::new(&graph, types);
        let step = (self.build)(&self.scope(&graph, true), &inputs);
        self.share_assignments(&graph, graph.assignments());
        let scale = if self.world.is_some() { LossScale::new().across_ranks() } else { LossScale::new() };
        let scaled = self.is_scaled().then(|| scale.gradients(&graph, &step.loss));
        let first = graph.assignments();
        let gradients = match &scaled {
            Some(scaled) => scaled.gradients.clone(),
            None => parameter_gradients(&graph, &step.loss),
        };
        let mut gradients = self.weighted(&graph, gradients);
        if self.accumulate == 1 {
            gradients = self.reduced(gradients);
        }
        let outputs = self.loss_of_all(&graph, &step.loss);
        match self.accumulate {
            1 => self.add_updates(&graph, gradients.clone()),
            _ => accumulate(&graph, &gradients),
        }
        if let Some(scaled) = scaled.filter(|scaled| scaled.finite.is_valid()) {
            graph.assign_if(&scaled.finite, first);
        }
        StepGraph { graph, inputs, outputs, gradients }
    }

    /// The graph of the update from the accumulated gradients of `batches` batches.
    pub(super) fn updating_graph(&self, types: &Types, batches: usize) -> StepGraph {
        // Only the parameters: the model also updates running statistics.
        let built = Graph::new();
        (self.build)(&self.scope(&built, true), &Inputs::new(&built, types));
        let graph = Graph::new();
        for variable in built.nodes().variables.into_iter().filter(|variable| variable.trainable) {
            graph.parameter(&variable.name, variable.initial);
        }
        let gradients = self.reduced(accumulated(&graph, batches));
        self.add_updates(&graph, gradients.clone());
        let inputs = Inputs::new(&graph, &Types::new());
        StepGraph { graph, inputs, outputs: Vec::new(), gradients }
    }

    /// A training step, or if gradients are accumulated, the part of it that adds them up. Output: the loss.
    pub(super) async fn training(&mut self, session: &mut Session, batch: &Batch) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("train", 0), &types, async |trainer, session| {
            let StepGraph { graph, inputs, outputs, .. } = trainer.training_graph(&types);
            trainer.compile(session, &graph, &outputs.iter().collect::<Vec<_>>(), &inputs).await
        })
        .await
    }

    /// The update from the accumulated gradients of `batches` batches.
    pub(super) async fn updating(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        batches: usize,
    ) -> Result<Rc<Compiled>> {
        // The same for batches of all sizes.
        self.program(session, ("update", batches), &Types::new(), async |trainer, session| {
            let StepGraph { graph, inputs, .. } = trainer.updating_graph(&types(batch), batches);
            trainer.compile(session, &graph, &[], &inputs).await
        })
        .await
    }

    /// The evaluation of a batch. Outputs: the loss, and the prediction if metrics need it.
    pub(super) async fn evaluation(&mut self, session: &mut Session, batch: &Batch) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("evaluate", 0), &types, async |trainer, session| {
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
            trainer.compile(session, &graph, &outputs, &inputs).await
        })
        .await
    }
}
