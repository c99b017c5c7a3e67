//! Where a model is built: graph, names, seed, and whether it trains.

use super::{Init, init};
use crate::{DType, Graph, Shape, Tensor, TensorType, Value, optim};

/// What a model is built in: a graph, a prefix of names, a seed, and whether this is training.
/// Cheap to make and to clone. See the [module](super) for a whole model.
#[derive(Clone, Debug)]
pub struct Scope {
    graph: Graph,
    prefix: String,
    seed: u64,
    training: bool,
    weights: ParameterRole,
}

/// What a scope's parameters are to its graph.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ParameterRole {
    Trained,
    Frozen,
    /// The averages of the trained ones.
    Averaged,
}

impl Scope {
    /// For training: dropout draws, anew at each step. The seed decides first values and masks.
    pub fn train(graph: &Graph, seed: u64) -> Scope {
        Scope { graph: graph.clone(), prefix: String::new(), seed, training: true, weights: ParameterRole::Trained }
    }

    /// For evaluation and inference: dropout lets everything through. The seed matters only where
    /// the session meets the model here first; its variables then start as in training.
    pub fn eval(graph: &Graph, seed: u64) -> Scope {
        Scope { training: false, ..Scope::train(graph, seed) }
    }

    /// A part of the model, whose names begin with `name` and a dot.
    ///
    /// ```
    /// use wgrad::{Graph, nn::{Scope, init}};
    /// let graph = Graph::new();
    /// let block = Scope::train(&graph, 0).part("layer1").part("0");
    /// block.parameter("scale", [4], init::ones());
    /// assert_eq!(graph.parameters()[0].0, "layer1.0.scale");
    /// ```
    pub fn part(&self, name: &str) -> Scope {
        Scope { prefix: self.full_name(name) + ".", ..self.clone() }
    }

    /// The same part of the model with parameters that no optimiser of this graph trains: they are
    /// [variables](Graph::variable) of the same names. Gradients with respect to them are not computed.
    ///
    /// ```
    /// use wgrad::{Graph, nn::{Scope, init}};
    /// let graph = Graph::new();
    /// let nn = Scope::train(&graph, 0);
    /// nn.part("backbone").frozen().parameter("scale", [4], init::ones());
    /// nn.part("head").parameter("scale", [4], init::ones());
    /// assert_eq!(graph.parameters().len(), 1);
    /// ```
    pub fn frozen(&self) -> Scope {
        Scope { weights: ParameterRole::Frozen, ..self.clone() }
    }

    /// The same part of the model with the moving averages of its parameters in their place, as
    /// [`Optimizer::averaged`](crate::optim::Optimizer::averaged) keeps them: for evaluation beside
    /// training. They are variables `NAME.ema`, and zero until a step has been taken.
    pub fn averaged(&self) -> Scope {
        Scope { weights: ParameterRole::Averaged, ..self.clone() }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether this is training.
    pub fn is_training(&self) -> bool {
        self.training
    }

    pub(super) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A trainable variable, named within this scope.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Value {
        let (name, shape) = (self.full_name(name), shape.into());
        match self.too_large(&name, &shape) {
            Some(invalid) => invalid,
            None => match self.weights {
                ParameterRole::Trained => self.graph.parameter(&name, init.draw(shape, self.seed, &name)),
                ParameterRole::Frozen => self.graph.variable(&name, init.draw(shape, self.seed, &name)),
                ParameterRole::Averaged => {
                    let zeros = Tensor::zeros(&TensorType::new(DType::F32, shape));
                    self.graph.variable(&format!("{name}.{}", optim::EMA), zeros)
                }
            },
        }
    }

    /// A variable that no optimiser trains, named within this scope.
    #[track_caller]
    pub fn variable(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Value {
        let (name, shape) = (self.full_name(name), shape.into());
        match self.too_large(&name, &shape) {
            Some(invalid) => invalid,
            None => self.graph.variable(&name, init.draw(shape, self.seed, &name)),
        }
    }

    /// A mistake instead of memory that nobody has: the graph refuses such a size anyway, but only
    /// once the first value is there.
    #[track_caller]
    fn too_large(&self, name: &str, shape: &Shape) -> Option<Value> {
        if shape.numel() < 1 << 31 {
            return None;
        }
        let why = format!("`{name}` of shape {shape} has 2^31 elements or more; are its sizes in the right order?");
        Some(self.graph.error("variable", &[], why))
    }

    /// A layer's weight `[out, ...]` and bias `[out]`, as PyTorch starts them: both from
    /// `U(-b, b)` with `b = 1 / sqrt(fan_in)`.
    #[track_caller]
    pub(super) fn weight_and_bias(&self, name: &str, weight: &[usize]) -> (Value, Value) {
        self.weight_and_bias_of(name, weight, weight[0])
    }

    /// The same for so many outputs, which need not be the weight's first size.
    #[track_caller]
    pub(super) fn weight_and_bias_of(&self, name: &str, weight: &[usize], outputs: usize) -> (Value, Value) {
        let part = self.part(name);
        let fan_in: f64 = weight[1..].iter().map(|&size| size as f64).product();
        let bound = 1.0 / fan_in.max(1.0).sqrt();
        (
            part.parameter("weight", weight, init::kaiming_uniform(5f64.sqrt())),
            part.parameter("bias", [outputs], init::uniform(-bound, bound)),
        )
    }

    /// The scope's seed in 32 bits.
    pub(super) fn seed32(&self) -> u32 {
        (self.seed ^ (self.seed >> 32)) as u32
    }
}
