//! Runs a model on given inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wgrad::{Graph, Program, Result, Session, Tensor};

use crate::build::{Built, OutputValue, Problem, error};
use crate::constant::Constant;
use crate::model::Model;
use crate::options::BuildOptions;

/// A model as a graph for inputs of given shapes.
pub struct Prepared {
    /// The graph.
    pub graph: Graph,
    /// Its inputs and outputs.
    pub built: Built,
    /// The inputs whose values became part of the graph, because they decide about its shapes.
    pub fixed: BTreeSet<String>,
    feeds: Vec<(String, Arc<Tensor>)>,
}

impl Model {
    /// Builds a graph for inputs with these shapes. Inputs that decide about shapes become constants of the graph.
    ///
    /// # Errors
    /// As [`Model::build`].
    pub fn prepare(&self, inputs: &BTreeMap<String, Constant>, options: &BuildOptions) -> Result<Prepared> {
        self.try_prepare(inputs, options).map_err(|problems| error(self, &problems))
    }

    /// As [`Model::prepare`], with a list of problems instead of one error.
    ///
    /// # Errors
    /// As [`Model::try_build`].
    pub fn try_prepare(
        &self,
        inputs: &BTreeMap<String, Constant>,
        options: &BuildOptions,
    ) -> std::result::Result<Prepared, Vec<Problem>> {
        let mut options = options.clone();
        for (name, constant) in inputs {
            options = options.shape(name, constant.shape());
        }
        let mut fixed = BTreeSet::new();
        loop {
            let graph = Graph::new();
            let built = match self.try_build(&graph, &options) {
                Ok(built) => built,
                Err(problems) => {
                    let needed = problems.iter().flat_map(|problem| &problem.needs);
                    let more: Vec<&String> = needed.filter(|name| inputs.contains_key(*name)).collect();
                    if more.is_empty() || more.iter().all(|name| fixed.contains(*name)) {
                        return Err(problems);
                    }
                    for name in more {
                        options = options.constant(name, inputs[name].clone());
                        fixed.insert(name.clone());
                    }
                    continue;
                }
            };
            let mut feeds = Vec::new();
            let mut problems = Vec::new();
            for (name, ty, _) in &built.inputs {
                let tensor = match inputs.get(name) {
                    None => Err(format!("input `{name}` is missing")),
                    Some(constant) if constant.ty != *ty => Err(format!("input `{name}` is {ty}, not {}", constant.ty)),
                    Some(constant) => constant.to_tensor().map_err(|why| format!("input `{name}`: {why}")),
                };
                match tensor {
                    Ok(tensor) => feeds.push((name.clone(), tensor)),
                    Err(why) => problems.push(Problem::of_model(why)),
                }
            }
            return match problems.is_empty() {
                true => Ok(Prepared { graph, built, fixed, feeds }),
                false => Err(problems),
            };
        }
    }
}

impl Prepared {
    /// The inputs by name, as [`Session::run`] takes them.
    pub fn feeds(&self) -> Vec<(&str, &Tensor)> {
        self.feeds.iter().map(|(name, tensor)| (name.as_str(), &**tensor)).collect()
    }

    /// Compiles the graph.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn compile(&self, session: &mut Session) -> Result<Program> {
        session.compile(&self.graph, &self.built.values())
    }

    /// Runs the program that [`Prepared::compile`] made; the outputs have the types of the model.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run(&self, session: &mut Session, program: &Program) -> Result<Vec<(String, Constant)>> {
        let tensors = match self.built.values().is_empty() {
            true => Vec::new(),
            false => session.run(program, &self.feeds())?,
        };
        let mut tensors = tensors.into_iter();
        let outputs = self.built.outputs.iter().filter_map(|output| {
            let value = match &output.value {
                OutputValue::Constant(constant) => constant.clone(),
                OutputValue::Graph(_) => Constant::of_tensor(output.elem_type, tensors.next()?),
            };
            Some((output.name.clone(), value))
        });
        Ok(outputs.collect())
    }
}
