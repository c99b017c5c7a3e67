//! The context of building a model: graph, names, seed and mode.

use super::{Init, init};
use crate::{DType, Graph, Shape, Tensor, TensorType, Value, optim};

/// The context in which a model is built: a graph, a name prefix, a seed, and the mode (training or evaluation).
/// Cheap to create and clone. See the [module](super) for a complete model.
///
/// ```
/// use wgrad::prelude::*;
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0); // the seed of initial values and dropout
/// let x = nn.part("body").frozen().linear("fc", &graph.input("x", DType::F32, [8, 4]), 3);
/// nn.without_bias().linear("head", &x, 2);
/// let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["head.weight"]); // what an optimiser trains; body.fc is frozen
/// ```
#[derive(Clone, Debug)]
pub struct Scope {
    graph: Graph,
    prefix: String,
    seed: u64,
    stream: u32,
    training: bool,
    weights: ParameterRole,
    activations: DType,
    /// Whether layers have a bias, and norms a scale and shift.
    bias: bool,
    affine: bool,
}

/// The role of a scope's parameters in the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ParameterRole {
    Trained,
    Frozen,
    /// The moving averages of the trained parameters.
    Averaged,
}

impl Scope {
    /// For training: dropout is active, with new masks at each step. The seed determines initial values and masks.
    pub fn train(graph: &Graph, seed: u64) -> Scope {
        Scope {
            graph: graph.clone(),
            prefix: String::new(),
            seed,
            stream: 0,
            training: true,
            weights: ParameterRole::Trained,
            activations: DType::F32,
            bias: true,
            affine: true,
        }
    }

    /// For evaluation and inference: dropout is the identity. The seed matters only if the session has no variables of
    /// the model yet; they are then initialised as in training.
    pub fn eval(graph: &Graph, seed: u64) -> Scope {
        Scope { training: false, ..Scope::train(graph, seed) }
    }

    /// The same scope with other dropout masks and random numbers from the same seed: the ranks of a job have the same
    /// initial values, but each its own masks.
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// let draw = |stream| {
    ///     let graph = Graph::new();
    ///     let z = Scope::train(&graph, 0).random_stream(stream).random_normal([2]);
    ///     let mut session = Session::new(Device::cpu());
    ///     let program = session.compile(&graph, &[&z])?;
    ///     session.run(&program, &[])
    /// };
    /// assert_ne!(draw(0)?, draw(1)?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn random_stream(&self, stream: u32) -> Scope {
        Scope { stream, ..self.clone() }
    }

    /// A part of the model: its names are prefixed with `name` and a dot.
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

    /// The same scope with frozen parameters: they become [variables](Graph::variable) of the same names, which no
    /// optimiser of this graph trains. Their gradients are not computed.
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

    /// The same scope with the parameters replaced by their moving averages, as maintained by
    /// [`Optimizer::averaged`](crate::optim::Optimizer::averaged), for evaluation. These are the variables `NAME.ema`,
    /// which are zero before the first step.
    pub fn averaged(&self) -> Scope {
        Scope { weights: ParameterRole::Averaged, ..self.clone() }
    }

    /// The same scope for layers without bias: linear layers, convolutions, attention, recurrent layers and norms declare
    /// no bias.
    ///
    /// ```
    /// use wgrad::nn::{BatchNorm2d, Conv2d, Layer, Scope};
    /// use wgrad::{DType, Graph, ops};
    /// let graph = Graph::new();
    /// let nn = Scope::train(&graph, 0);
    /// let x = graph.input("x", DType::F32, [8, 3, 32, 32]);
    /// // The norm subtracts the mean, so a bias before it would have no effect.
    /// let y = Conv2d::new(&nn.without_bias(), "conv1", 3, 16, 3, ops::conv2d::Conv2d::same(3)).forward(&x);
    /// BatchNorm2d::new(&nn, "bn1", 16).forward(&y);
    /// let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["conv1.weight", "bn1.weight", "bn1.bias"]);
    /// ```
    pub fn without_bias(&self) -> Scope {
        Scope { bias: false, ..self.clone() }
    }

    /// The same scope for norms without scale and shift (PyTorch's `affine=False` and `elementwise_affine=False`).
    pub fn without_affine(&self) -> Scope {
        Scope { affine: false, ..self.clone() }
    }

    /// The same scope for mixed precision: activations are stored as `dtype`, f16 or bf16, and so are their gradients.
    /// Parameters, their gradients, optimiser state, statistics of norms and losses stay in f32; sums are computed in
    /// f32. Models convert their input with [`Scope::activation`]; layers give the type of their input.
    ///
    /// Gradients of f16 activations underflow below 6e-8; [`LossScale`](crate::optim::LossScale) prevents that.
    ///
    /// ```
    /// use wgrad::nn::Scope;
    /// use wgrad::optim::{LossScale, Sgd};
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let nn = Scope::train(&graph, 0).mixed(DType::F16);
    /// let x = nn.activation(&graph.input("x", DType::F32, [32, 8]));
    /// let y = nn.linear("fc2", &nn.linear("fc1", &x, 16).relu(), 1);
    /// assert_eq!(y.dtype(), DType::F16);
    /// let loss = y.mse_loss(&graph.input("target", DType::F32, [32, 1]), Default::default());
    /// LossScale::new().minimize(&graph, &Sgd::new(), &loss);
    /// assert!(graph.errors().is_empty());
    /// ```
    pub fn mixed(&self, dtype: DType) -> Scope {
        Scope { activations: dtype, ..self.clone() }
    }

    /// The type of the activations: f32, unless set by [`Scope::mixed`].
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// Floats in the type of the activations.
    #[track_caller]
    pub fn activation(&self, x: &Value) -> Value {
        if !self.activations.is_float() {
            let why = format!("activations must be floats, not {}", self.activations);
            return self.graph.error("mixed", &[x], why);
        }
        x.cast(self.activations)
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

    /// An error before the initial value is allocated: the graph would reject such a size only afterwards.
    #[track_caller]
    fn too_large(&self, name: &str, shape: &Shape) -> Option<Value> {
        if shape.numel() < 1 << 31 {
            return None;
        }
        let why = format!("`{name}` of shape {shape} has 2^31 elements or more; are its sizes in the right order?");
        Some(self.graph.error("variable", &[], why))
    }

    /// A bias, unless layers have none.
    #[track_caller]
    pub(super) fn bias(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Option<Value> {
        // Not `then`: a closure would hide the caller.
        if self.bias { Some(self.parameter(name, shape, init)) } else { None }
    }

    /// `NAME.weight`, ones, and `NAME.bias`, zeros: the scale and shift of a norm, unless norms have none.
    #[track_caller]
    pub(super) fn scale_and_shift(&self, name: &str, shape: impl Into<Shape>) -> (Option<Value>, Option<Value>) {
        if !self.affine {
            return (None, None);
        }
        let (part, shape) = (self.part(name), shape.into());
        (Some(part.parameter("weight", shape.clone(), init::ones())), part.bias("bias", shape, init::zeros()))
    }

    /// A layer's weight `[out, ...]` and bias `[out]`, initialised as in PyTorch: both from `U(-b, b)` with
    /// `b = 1 / sqrt(fan_in)`.
    #[track_caller]
    pub(super) fn weight_and_bias(&self, name: &str, weight: &[usize]) -> (Value, Option<Value>) {
        self.weight_and_bias_of(name, weight, weight[0])
    }

    /// The same with a given number of outputs, which may differ from the weight's first size.
    #[track_caller]
    pub(super) fn weight_and_bias_of(&self, name: &str, weight: &[usize], outputs: usize) -> (Value, Option<Value>) {
        let part = self.part(name);
        let fan_in: f64 = weight[1..].iter().map(|&size| size as f64).product();
        let bound = 1.0 / fan_in.max(1.0).sqrt();
        (
            part.parameter("weight", weight, init::kaiming_uniform(5f64.sqrt())),
            part.bias("bias", [outputs], init::uniform(-bound, bound)),
        )
    }

    /// The seed of random numbers, in 32 bits.
    pub(super) fn seed32(&self) -> u32 {
        (self.seed ^ (self.seed >> 32)) as u32 ^ self.stream.wrapping_mul(0x9e37_79b9)
    }
}
