//! Programs by what they compute and the types of their inputs, compiled when first needed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Batch;
use crate::{Graph, Pending, Program, Result, Session, Tensor, TensorType, Value, gpu};

/// The inputs of a graph, declared when they are first used, with the types of a batch. Example: [`Programs`].
pub struct Inputs {
    graph: Graph,
    types: BTreeMap<String, TensorType>,
    values: RefCell<BTreeMap<String, Value>>,
}

impl Inputs {
    pub(super) fn new(graph: &Graph, types: &Types) -> Inputs {
        Inputs { graph: graph.clone(), types: types.clone(), values: RefCell::default() }
    }

    /// The input that is fed with the batch's tensor of this name. If the batch has none, the graph records an error.
    #[track_caller]
    pub fn get(&self, name: &str) -> Value {
        if let Some(value) = self.values.borrow().get(name) {
            return value.clone();
        }
        let value = match self.types.get(name) {
            Some(ty) => self.graph.input(name, ty.dtype, ty.shape.clone()),
            None => {
                let names: Vec<&str> = self.types.keys().map(String::as_str).collect();
                let why = format!("the batch has no tensor `{name}`; it has {}", names.join(", "));
                self.graph.error("input", &[], why)
            }
        };
        self.values.borrow_mut().insert(name.to_owned(), value.clone());
        value
    }

    /// The names of the inputs that were used.
    pub(super) fn used(&self) -> Vec<String> {
        self.values.borrow().keys().cloned().collect()
    }
}

/// The types of a batch's tensors.
pub(super) type Types = BTreeMap<String, TensorType>;

pub(super) fn types(batch: &Batch) -> Types {
    batch.iter().map(|(name, tensor)| (name.clone(), tensor.ty())).collect()
}

/// A program with the names of its inputs.
pub(super) struct Compiled {
    pub program: Program,
    inputs: Vec<String>,
}

impl Compiled {
    pub fn new(program: Program, inputs: Vec<String>) -> Compiled {
        Compiled { program, inputs }
    }

    /// The batch's tensors that the program reads.
    pub fn feeds<'a>(&'a self, batch: &'a Batch) -> Vec<(&'a str, &'a Tensor)> {
        let names = self.inputs.iter().map(String::as_str);
        names.filter_map(|name| Some((name, batch.get(name)?))).collect()
    }
}

/// What a program is for: a kind of step and a number.
type Purpose = (&'static str, usize);

/// Programs by purpose and types. The least recently used one is dropped if there are too many.
#[derive(Default)]
pub(super) struct Cache {
    session: Option<u64>,
    compiled: Vec<(Purpose, Types, Rc<Compiled>)>,
}

/// Programs that are kept. Most trainings need four: a full and a partial batch, for training and evaluation.
const KEPT: usize = 12;

impl Cache {
    /// The program, compiled by `compile` if there is none yet.
    pub async fn get(
        &mut self,
        session: &mut Session,
        purpose: Purpose,
        types: &Types,
        compile: impl AsyncFnOnce(&mut Session) -> Result<Compiled>,
    ) -> Result<Rc<Compiled>> {
        if self.session != Some(session.id()) {
            self.compiled.clear();
            self.session = Some(session.id());
        }
        let known = self.compiled.iter().position(|(kind, of, _)| *kind == purpose && of == types);
        let entry = match known {
            Some(at) => self.compiled.remove(at),
            None => (purpose, types.clone(), Rc::new(compile(session).await?)),
        };
        let program = entry.2.clone();
        self.compiled.push(entry);
        if self.compiled.len() > KEPT {
            self.compiled.remove(0);
        }
        Ok(program)
    }
}

/// A user-defined step for tensors of any shapes: a function that builds its graph, and a program for each set of
/// types, compiled when it is first needed. For training loops that a [`Trainer`](super::Trainer) does not cover, such
/// as those of two networks with an optimiser each.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::{Batch, Programs};
/// let mut step = Programs::new(|graph, batch| {
///     let p = Scope::train(graph, 0).linear("fc", &batch.get("x"), 1);
///     let loss = p.mse_loss(&batch.get("y"), Reduction::Mean);
///     Adam::new().minimize(graph, &loss);
///     vec![loss]
/// });
/// let mut session = Session::new(Device::cpu());
/// for rows in [8, 8, 3] {
///     let column = |x: f32| Tensor::new([rows, 1], vec![x; rows]);
///     let batch = Batch::from([("x".into(), column(2.0)?), ("y".into(), column(1.0)?)]);
///     let loss = step.run(&mut session, &batch, &[("lr", 0.1)])?[0].item()?;
///     assert!(loss.is_finite());
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Programs {
    build: Box<BuildGraph>,
    cache: Cache,
}

type BuildGraph = dyn Fn(&Graph, &Inputs) -> Vec<Value>;

impl Programs {
    /// `build` adds a step to a graph, from its [inputs](Inputs), and returns the outputs.
    pub fn new(build: impl Fn(&Graph, &Inputs) -> Vec<Value> + 'static) -> Programs {
        Programs { build: Box::new(build), cache: Cache::default() }
    }

    /// Runs the step on a batch, with values for the graph's [scalars](Graph::scalar); see [`Session::run`].
    ///
    /// # Errors
    /// As [`Session::compile`] and [`Session::run`].
    pub fn run(&mut self, session: &mut Session, batch: &Batch, scalars: &[(&str, f64)]) -> Result<Vec<Tensor>> {
        gpu::block_on(self.run_async(session, batch, scalars))
    }

    /// [`Programs::run`] for browsers.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub async fn run_async(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        scalars: &[(&str, f64)],
    ) -> Result<Vec<Tensor>> {
        self.start_async(session, batch, scalars).await?.outputs_async().await
    }

    /// Starts the step; see [`Session::start`].
    ///
    /// # Errors
    /// As [`Session::compile`] and [`Session::start`].
    pub fn start(&mut self, session: &mut Session, batch: &Batch, scalars: &[(&str, f64)]) -> Result<Pending> {
        gpu::block_on(self.start_async(session, batch, scalars))
    }

    /// [`Programs::start`] for browsers, where compiling takes time.
    ///
    /// # Errors
    /// As [`Programs::start`].
    pub async fn start_async(
        &mut self,
        session: &mut Session,
        batch: &Batch,
        scalars: &[(&str, f64)],
    ) -> Result<Pending> {
        let types = types(batch);
        let compile = async |session: &mut Session| {
            let graph = Graph::new();
            let inputs = Inputs::new(&graph, &types);
            let outputs = (self.build)(&graph, &inputs);
            let program = session.compile_async(&graph, &outputs.iter().collect::<Vec<_>>()).await?;
            Ok(Compiled::new(program, inputs.used()))
        };
        let compiled = self.cache.get(session, ("step", 0), &types, compile).await?;
        let scalars: Vec<(&str, Tensor)> = scalars.iter().map(|&(name, x)| (name, Tensor::scalar(x))).collect();
        let mut feeds = compiled.feeds(batch);
        feeds.extend(scalars.iter().map(|(name, x)| (*name, x)));
        session.start(&compiled.program, &feeds)
    }
}
