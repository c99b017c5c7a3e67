//! Models: a network with the programs that run it.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::Batch;
use super::programs::{Cache, Compiled, types};
use crate::graph::Summary;
use crate::io::{LoadedWeights, Weights};
use crate::nn::Scope;
use crate::plan::Options;
use crate::{DType, Error, Graph, Result, Session, Shape, Tensor, Value, gpu};

/// A function that adds a network to a graph.
type Network = dyn Fn(&Scope, &Value) -> Value + Send + Sync;

/// A network, the shape of its input rows, and the programs that run it, which are compiled when they are first needed.
///
/// One function builds the network for training and for inference; [`Scope::is_training`] distinguishes them. The
/// weights are variables of a [`Session`], which other programs share.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::Model;
///
/// let mut model = Model::new([4], |nn: &Scope, x: &Value| {
///     let x = nn.linear("fc1", x, 16).relu();
///     nn.linear("fc2", &x, 3)
/// });
/// let mut session = Session::new(Device::cpu());
/// let x = Tensor::new([10, 4], vec![0.5f32; 40])?;
/// let y = model.predict(&mut session, &x)?; // any number of rows
/// assert_eq!(y.shape()[..], [10, 3]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Model {
    network: Arc<Network>,
    row: Shape,
    dtype: DType,
    seed: u64,
    averaged: bool,
    batch: usize,
    options: Options,
    programs: Cache,
}

/// The same network, with programs of its own.
impl Clone for Model {
    fn clone(&self) -> Model {
        Model {
            network: self.network.clone(),
            row: self.row.clone(),
            options: self.options.clone(),
            programs: Cache::default(),
            ..*self
        }
    }
}

impl Model {
    /// A network whose input has rows of this shape: `[features]`, `[channels, height, width]`, `[time, features]`. The
    /// input is f32; see [`Model::dtype`].
    pub fn new(row: impl Into<Shape>, network: impl Fn(&Scope, &Value) -> Value + Send + Sync + 'static) -> Model {
        Model {
            network: Arc::new(network),
            row: row.into(),
            dtype: DType::F32,
            seed: 0,
            averaged: false,
            batch: 64,
            options: Options::default(),
            programs: Cache::default(),
        }
    }

    /// The element type of the input, such as i32 for token numbers.
    pub fn dtype(self, dtype: DType) -> Model {
        Model { dtype, ..self }
    }

    /// The seed of initial weights and dropout masks; default 0.
    pub fn seed(self, seed: u64) -> Model {
        Model { seed, ..self }
    }

    /// Whether [`Model::predict`] uses the moving averages of the weights; see
    /// [`Trainer::average`](super::Trainer::average).
    pub fn averaged(self, averaged: bool) -> Model {
        Model { averaged, programs: Cache::default(), ..self }
    }

    /// The largest number of rows that [`Model::predict`] computes at a time; default 64.
    pub fn batch(self, rows: usize) -> Model {
        Model { batch: rows.max(1), programs: Cache::default(), ..self }
    }

    /// Options of compilation, such as [`Options::precision`].
    pub fn options(self, options: Options) -> Model {
        Model { options, programs: Cache::default(), ..self }
    }

    /// Adds the network to the scope's graph.
    #[track_caller]
    pub fn forward(&self, nn: &Scope, x: &Value) -> Value {
        (self.network)(nn, x)
    }

    /// The input of a batch, or an error of the graph if its rows are not those that the model was made for.
    #[track_caller]
    pub(super) fn expect_rows(&self, x: &Value) -> Value {
        match x.shape().split_first() {
            Some((_, row)) if x.is_valid() && *row != self.row[..] => {
                let (row, wanted) = (Shape::from(row), &self.row);
                let why = format!("its rows have the shape {row}, but the model was made for {wanted} (Model::new)");
                x.graph().error("Trainer", &[x], why)
            }
            _ => x.clone(),
        }
    }

    pub(super) fn seed_value(&self) -> u64 {
        self.seed
    }

    /// A graph for inference of `rows` rows: input `x`, and the output.
    pub fn graph(&self, rows: usize) -> (Graph, Value) {
        let graph = Graph::new();
        let nn = Scope::eval(&graph, self.seed);
        let y = self.build(&if self.averaged { nn.averaged() } else { nn }, rows);
        (graph, y)
    }

    /// The output for `rows` rows of an input `x`.
    fn build(&self, nn: &Scope, rows: usize) -> Value {
        let shape: Shape = std::iter::once(rows).chain(self.row.iter().copied()).collect();
        self.forward(nn, &nn.graph().input("x", self.dtype, shape))
    }

    /// The layers of the network with `rows` rows in training: their outputs, parameters, multiply-adds and the memory that
    /// training keeps.
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// use wgrad::train::Model;
    /// let model = Model::new([4], |nn: &Scope, x: &Value| nn.linear("fc2", &nn.linear("fc1", x, 16).relu(), 3));
    /// let summary = model.summary(64)?;
    /// println!("{summary}");
    /// assert_eq!((summary.parameters(), summary.multiply_adds()), (5 * 16 + 17 * 3, 64 * (4 * 16 + 16 * 3)));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::summary`].
    pub fn summary(&self, rows: usize) -> Result<Summary> {
        let graph = Graph::new();
        let y = self.build(&Scope::train(&graph, self.seed), rows);
        graph.summary(&[&y])
    }

    /// The outputs for rows `[n, ...]`, for any n: rows are computed in batches, the last one padded. Weights that the
    /// session does not have yet are initialised.
    ///
    /// # Errors
    /// [`Error::Input`] if the rows have another shape; errors of compilation and of the device.
    pub fn predict(&mut self, session: &mut Session, x: &Tensor) -> Result<Tensor> {
        gpu::block_on(self.predict_async(session, x))
    }

    /// [`Model::predict`] for browsers.
    ///
    /// # Errors
    /// As [`Model::predict`].
    pub async fn predict_async(&mut self, session: &mut Session, x: &Tensor) -> Result<Tensor> {
        let rows = match x.shape().split_first() {
            Some((&rows, row)) if *row == self.row[..] && x.dtype() == self.dtype && rows > 0 => rows,
            _ => {
                let row: String = self.row.iter().map(|size| format!(", {size}")).collect();
                return Err(Error::Input(format!(
                    "predict: expected rows {}[n{row}] with at least one row, found {}",
                    self.dtype,
                    x.ty()
                )));
            }
        };
        let size = self.batch.min(rows.next_power_of_two());
        let batch = |first: usize| -> Result<Batch> {
            let numbers: Vec<usize> = (first..first + size).map(|row| row.min(rows - 1)).collect();
            Ok(Batch::from([("x".to_owned(), x.rows(&numbers)?)]))
        };
        let mut parts = Vec::new();
        let mut pending = None;
        for first in (0..rows).step_by(size) {
            let feeds = batch(first)?;
            let step = self.inference(session, &feeds).await?;
            let started = session.start(&step.program, &step.feeds(&feeds))?;
            if let Some(previous) = pending.replace(started) {
                parts.extend(previous.outputs_async().await?);
            }
        }
        if let Some(last) = pending {
            parts.extend(last.outputs_async().await?);
        }
        if let Some(part) = parts.iter().find(|part| part.shape().first() != Some(&size)) {
            return Err(Error::Input(format!(
                "predict: the network returns {} for {size} rows; the first axis must be the rows",
                part.ty()
            )));
        }
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?.slice(0, 0..rows)
    }

    async fn inference(&mut self, session: &mut Session, feeds: &Batch) -> Result<Rc<Compiled>> {
        let types = types(feeds);
        let rows = feeds["x"].shape()[0];
        let mut programs = std::mem::take(&mut self.programs);
        let compile = async |session: &mut Session| {
            let (graph, y) = self.graph(rows);
            let options = Options { choices: session.choices().clone(), ..self.options.clone() };
            Ok(Compiled::new(session.compile_with_async(&graph, &[&y], &options).await?, vec!["x".to_owned()]))
        };
        let compiled = programs.get(session, ("inference", 0), &types, compile).await;
        self.programs = programs;
        compiled
    }

    /// Saves the weights and running statistics under PyTorch's names; see [`Session::save_weights`].
    ///
    /// # Errors
    /// As [`Session::save_weights`].
    pub fn save(&self, session: &Session, path: impl AsRef<Path>) -> Result<()> {
        session.save_weights(path, &self.graph(1).0)
    }

    /// Loads weights; see [`Session::load_weights`]. For other names and parts of a model, see [`Model::load_with`].
    ///
    /// # Errors
    /// As [`Session::compile`] and [`Session::load_weights`].
    pub fn load(&mut self, session: &mut Session, path: impl AsRef<Path>) -> Result<()> {
        self.load_with(session, path, &Weights::new()).map(drop)
    }

    /// Loads weights under other names, of parts of the model, or what matches: a pre-trained network without its last
    /// layer, for example. See [`Session::load_weights_with`].
    ///
    /// ```
    /// use wgrad::io::Weights;
    /// use wgrad::prelude::*;
    /// use wgrad::train::Model;
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let path = folder.path().join("weights.safetensors");
    /// let network = |classes| move |nn: &Scope, x: &Value| nn.linear("fc", &nn.linear("body", x, 8).relu(), classes);
    /// let mut first = Session::new(Device::cpu());
    /// let mut model = Model::new([4], network(1000));
    /// model.predict(&mut first, &Tensor::new([1, 4], vec![1.0f32; 4])?)?; // declares random weights
    /// model.save(&first, &path)?;
    ///
    /// let mut session = Session::new(Device::cpu());
    /// let report = Model::new([4], network(3)).load_with(&mut session, &path, &Weights::new().skip("fc"))?;
    /// assert_eq!(report.loaded, ["body.bias", "body.weight"]);
    /// assert_eq!(session.get("body.weight")?, first.get("body.weight")?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::compile`] and [`Session::load_weights_with`].
    pub fn load_with(
        &mut self,
        session: &mut Session,
        path: impl AsRef<Path>,
        weights: &Weights,
    ) -> Result<LoadedWeights> {
        let (graph, y) = self.graph(1);
        session.compile(&graph, &[&y])?;
        session.load_weights_with(path, &graph, weights)
    }
}
