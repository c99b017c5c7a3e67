//! Statistics of gradients and weights by parameter, without a change to the training.

use std::rc::Rc;

use serde_json::{Map, Value as Json, json};

use super::programs::{Compiled, types};
use super::steps::StepGraph;
use super::{Batch, Trainer};
use crate::{Graph, Result, Session, Tensor, Value};

/// Bins of a histogram of weights.
const BINS: usize = 40;

impl Trainer {
    /// Records statistics of each parameter: at the first of every `steps` optimiser steps the norms of its gradient,
    /// of the weights, and of their update; at the end of each epoch a histogram of the weights. They go to
    /// `metrics.jsonl` and `report.html` in the run's [folder](Trainer::folder), which is required. Off by default.
    ///
    /// All norms are Euclidean. The gradient is unscaled, in [mixed precision](Trainer::mixed), and not clipped. The
    /// weights are those before the step; the update is their difference to those after it. A `steps` of 0 counts as 1.
    ///
    /// Another program computes the norms from the same batch before the step, and changes no variable and no counter.
    /// So the training has the same bits with and without it, and a watched step takes up to twice as long.
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// use wgrad::train::{Model, Trainer};
    /// let folder = tempfile::tempdir().expect("a folder");
    /// let x = Tensor::new([4, 1], [0.0f32, 1.0, 2.0, 3.0])?;
    /// let model = Model::new([1], |nn, x| nn.linear("fc", x, 1));
    /// let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean));
    /// trainer = trainer.epochs(3).batch(2).watch(5).folder(folder.path().join("run")).quiet();
    /// trainer.fit(&mut Session::new(Device::cpu()), &(x.clone(), x), None)?;
    /// let log = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("a log");
    /// assert_eq!(log.lines().filter(|line| line.contains(r#""kind":"norms""#)).count(), 2); // steps 1 and 6
    /// assert_eq!(log.lines().filter(|line| line.contains(r#""kind":"weights""#)).count(), 3);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn watch(mut self, steps: u64) -> Trainer {
        self.watch = Some(steps.max(1));
        self
    }

    /// Whether the step after `steps` steps is watched.
    pub(super) fn watches(&self, steps: u64) -> bool {
        self.watch.is_some_and(|every| steps.is_multiple_of(every))
    }

    /// The names of the parameters that a step on such a batch trains, in the order of the norms.
    pub(super) fn parameters(&self, batch: &Batch) -> Vec<String> {
        let names = self.training_graph(&types(batch)).gradients.into_iter().map(|gradient| gradient.name);
        names.collect()
    }

    /// A program that computes the norms of the step on a batch. Output: f32 `[3, parameters]`, with rows for
    /// gradients, weights and updates. It has no assignments.
    pub(super) async fn norms(&mut self, session: &mut Session, batch: &Batch) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("norms", 0), &types, async |trainer, session| {
            trainer.compile_norms(session, trainer.training_graph(&types)).await
        })
        .await
    }

    /// The same for a step with the accumulated gradients of `batches` batches.
    pub(super) async fn accumulated_norms(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        batches: usize,
    ) -> Result<Rc<Compiled>> {
        let types = types(batch);
        self.program(session, ("accumulated norms", batches), &types, async |trainer, session| {
            trainer.compile_norms(session, trainer.updating_graph(&types, batches)).await
        })
        .await
    }

    async fn compile_norms(&self, session: &mut Session, step: StepGraph) -> Result<Compiled> {
        let norms = norms(&step);
        step.graph.lock().assignments.clear();
        self.compile(session, &step.graph, &norms.iter().collect::<Vec<_>>(), &step.inputs).await
    }
}

/// The norms of gradients, weights and updates.
fn norms(StepGraph { graph, gradients, .. }: &StepGraph) -> Option<Value> {
    let norm = |x: &Value| x.widen().square().sum_all().sqrt().reshape(&[1]);
    let columns: Vec<[Value; 3]> = gradients
        .iter()
        .map(|gradient| {
            let weights = gradient.parameter.widen();
            let updated = assigned(graph, &gradient.parameter).unwrap_or_else(|| gradient.parameter.clone()).widen();
            [norm(&gradient.value), norm(&weights), norm(&(updated - weights))]
        })
        .collect();
    let rows: Vec<&Value> = (0..3).flat_map(|row| columns.iter().map(move |column| &column[row])).collect();
    let (first, others) = rows.split_first()?;
    Some(first.concat(others, 0).reshape(&[3, -1]))
}

/// The value that a step assigns to a variable.
fn assigned(graph: &Graph, variable: &Value) -> Option<Value> {
    let assignments = graph.lock().assignments.clone();
    let assignment = assignments.iter().find(|assignment| assignment.variable == variable.id().node)?;
    Some(graph.value_of(assignment.value))
}

/// The norms by parameter: `{"gradient": {NAME: NORM}, "weight": {...}, "update": {...}}`.
pub(super) fn norms_of(names: &[String], norms: &Tensor) -> Map<String, Json> {
    let values = norms.to_f64();
    let row = |row: &[f64]| -> Json {
        names.iter().zip(row).map(|(name, norm)| (name.clone(), json!(norm))).collect::<Map<_, _>>().into()
    };
    let kinds = ["gradient", "weight", "update"];
    kinds.iter().zip(values.chunks(names.len().max(1))).map(|(kind, norms)| ((*kind).to_owned(), row(norms))).collect()
}

/// The weights by parameter: `{NAME: {"min", "max", "mean", "std", "count", "not_finite", "bins": [COUNT...]}}`. The
/// bins divide the range from `min` to `max` into equal parts; all statistics leave out numbers that are not finite.
pub(super) async fn histograms(session: &Session, names: &[String]) -> Result<Map<String, Json>> {
    let tensors = session.get_all_async(names.to_vec()).await?;
    Ok(tensors.into_iter().map(|(name, tensor)| (name, histogram(&tensor.to_f64()))).collect())
}

fn histogram(values: &[f64]) -> Json {
    let finite = || values.iter().copied().filter(|x| x.is_finite());
    let (min, max) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)));
    let count = finite().count();
    let mean = finite().sum::<f64>() / count as f64;
    let deviation = (finite().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
    let mut bins = [0u64; BINS];
    for x in finite() {
        // Of a range of 0, all are in the first bin.
        let part = (x - min) / (max - min);
        bins[((part * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    json!({
        "min": min, "max": max, "mean": mean, "std": deviation, "count": count,
        "not_finite": values.len() - count, "bins": &bins[..],
    })
}
