//! Layers as structs.

use std::panic::Location;

use super::{Scope, init};
use crate::ops::conv2d::Pair;
use crate::ops::pool2d::Pool2d;
use crate::{DType, Shape, Value, ops};

/// The counter of steps for dropout masks and random numbers.
pub const DROPOUT: &str = "dropout.step";

/// A function from value to value. Every `Fn(&Value) -> Value` is a layer.
///
/// The layers of this module have f32 parameters. If their input is a narrow float, so is their output: they compute in
/// f32 and round the result once.
///
/// ```
/// use wgrad::prelude::*;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([3], [-1.0f32, 0.5, 2.0])?);
/// let y = Sequential::new().then(|x: &Value| x.clamp(0.0, 1.0)).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.to_f32(), [0.0, 0.5, 1.0]); // functions are layers
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Layer {
    /// The output for `x`. Mismatched shapes become errors of the graph.
    #[track_caller]
    fn forward(&self, x: &Value) -> Value;
}

impl<F: Fn(&Value) -> Value> Layer for F {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.graph().at(Location::caller(), || self(x))
    }
}

/// `x W^T + b` along the last axis, `[.., in]` to `[.., out]`.
///
/// Parameters: `NAME.weight` `[out, in]` and `NAME.bias` `[out]`, both from `U(-b, b)` with
/// `b = 1 / sqrt(in)`, as in PyTorch.
///
/// ```
/// use wgrad::prelude::*;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 2], [1.0f32, 2.0])?);
/// let y = Linear::new(&Scope::eval(&graph, 0), "fc", 2, 3).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.shape()[..], [1, 3]);
/// assert_eq!(session.names(), ["fc.bias", "fc.weight"]);
/// assert_eq!(session.get("fc.weight")?.shape()[..], [3, 2]); // [out, in]
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Value,
    /// `[out]`; `None` for no bias.
    pub bias: Option<Value>,
}

impl Linear {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, inputs: usize, outputs: usize) -> Linear {
        let (weight, bias) = nn.weight_and_bias(name, &[outputs, inputs]);
        Linear { weight, bias }
    }
}

impl Layer for Linear {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        let (inputs, rank) = (self.weight.dim(1), x.shape().rank());
        if x.is_valid() && self.weight.is_valid() && (rank == 0 || x.dim(-1) != inputs) {
            let why = format!("the weight is for rows of {inputs} numbers, which must be the size of the last axis");
            return x.graph().error("linear", &[x, &self.weight], why);
        }
        x.widely(|x| {
            let y = x.matmul(&self.weight.t());
            match &self.bias {
                Some(bias) => y + bias,
                None => y,
            }
        })
    }
}

/// Convolution of data `[N, C, H, W]`; see [`Value::conv2d`].
///
/// Parameters: `NAME.weight` `[out, C / groups, KH, KW]` and `NAME.bias` `[out]`, both from
/// `U(-b, b)` with `b = 1 / sqrt(C / groups KH KW)`, as in PyTorch.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::Conv2d;
/// use wgrad::ops::conv2d::Conv2d as Options;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 3, 8, 8], vec![1.0f32; 192])?);
/// let y = Conv2d::new(&Scope::eval(&graph, 0), "conv", 3, 4, 3, Options::same(3)).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.shape()[..], [1, 4, 8, 8]);
/// assert_eq!(session.get("conv.weight")?.shape()[..], [4, 3, 3, 3]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[out, C / groups, KH, KW]`.
    pub weight: Value,
    /// `[out]`; `None` for no bias.
    pub bias: Option<Value>,
    /// Stride, padding, dilation, groups.
    pub options: ops::conv2d::Conv2d,
}

impl Conv2d {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Pair>,
        options: ops::conv2d::Conv2d,
    ) -> Conv2d {
        let Pair([height, width]) = kernel.into();
        // If groups do not divide the channels, the convolution reports the error.
        let (weight, bias) = nn.weight_and_bias(name, &[outputs, inputs / options.groups.max(1), height, width]);
        Conv2d { weight, bias, options }
    }
}

impl Layer for Conv2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.conv2d(&self.weight, self.bias.as_ref(), self.options))
    }
}

/// The maximum over windows of data `[N, C, H, W]`; see [`Value::max_pool2d`].
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::MaxPool2d;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 1, 2, 4], [1.0f32, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0])?);
/// let y = MaxPool2d::new(2).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.to_f32(), [4.0, 8.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d(Pool2d);

impl MaxPool2d {
    /// Pools over the given windows; a single number means a square kernel with an equal stride.
    pub fn new(options: impl Into<Pool2d>) -> MaxPool2d {
        MaxPool2d(options.into())
    }
}

impl Layer for MaxPool2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.max_pool2d(self.0)
    }
}

/// The average over windows of data `[N, C, H, W]`; see [`Value::avg_pool2d`].
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::AvgPool2d;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 1, 2, 4], [1.0f32, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0])?);
/// let y = AvgPool2d::new(2).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.to_f32(), [2.5, 6.5]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d(Pool2d);

impl AvgPool2d {
    /// Pools over the given windows; a single number means a square kernel with an equal stride.
    pub fn new(options: impl Into<Pool2d>) -> AvgPool2d {
        AvgPool2d(options.into())
    }
}

impl Layer for AvgPool2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.avg_pool2d(self.0)
    }
}

/// Merges all axes except the first: `[N, C, H, W]` to `[N, C * H * W]`.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::Flatten;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([2, 1, 2], [1.0f32, 2.0, 3.0, 4.0])?);
/// let y = Flatten.forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!((y.shape()[..].to_vec(), y.to_f32()), (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Flatten;

impl Layer for Flatten {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.flatten(1)
    }
}

/// The input itself: a placeholder for a layer, such as a shortcut without a convolution.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::Identity;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([2], [1.0f32, 2.0])?);
/// let y = Identity.forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.to_f32(), [1.0, 2.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl Layer for Identity {
    fn forward(&self, x: &Value) -> Value {
        x.clone()
    }
}

/// Dropout (Srivastava et al., JMLR 15, 2014); see [`Value::dropout`]. The identity in evaluation.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::Dropout;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1000], vec![1.0f32; 1000])?);
/// let y = Dropout::new(&Scope::train(&graph, 0), 0.5).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert!(y.to_f32().iter().all(|&y| y == 0.0 || y == 2.0)); // Scope::eval: all 1
/// assert!((y.to_f32().iter().sum::<f32>() - 1000.0).abs() < 200.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dropout {
    nn: Scope,
    p: f64,
}

impl Dropout {
    /// Zeroes elements with probability `p`, in [0, 1], if the scope is for training.
    pub fn new(nn: &Scope, p: f64) -> Dropout {
        Dropout { nn: nn.clone(), p }
    }
}

impl Layer for Dropout {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        if self.p == 0.0 || !self.nn.is_training() && self.p > 0.0 && self.p <= 1.0 {
            return x.clone();
        }
        let (seed, step) = self.nn.random_state();
        x.dropout(self.p, &seed, &step)
    }
}

/// A ReLU with a learned slope below 0; see [`Value::prelu`].
///
/// Parameter: `NAME.weight` `[count]`, initialised to 0.25, as in PyTorch.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::PRelu;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([2], [-4.0f32, 4.0])?);
/// let y = PRelu::new(&Scope::eval(&graph, 0), "act", 1).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.to_f32(), [-1.0, 4.0]); // the slope begins as 0.25
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PRelu {
    /// `[count]`.
    pub weight: Value,
}

impl PRelu {
    /// Declares the parameter: one slope per channel, or a single one for all if `count` is 1.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, count: usize) -> PRelu {
        PRelu { weight: nn.part(name).parameter("weight", [count], init::constant(0.25)) }
    }
}

impl Layer for PRelu {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.prelu(&self.weight))
    }
}

/// Layers applied in sequence.
///
/// ```
/// use wgrad::nn::{Flatten, Layer, Linear, Scope, Sequential};
/// use wgrad::{DType, Graph, Value};
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0);
/// let mlp = Sequential::new()
///     .then(Flatten)
///     .then(Linear::new(&nn, "fc1", 784, 32))
///     .then(Value::relu)
///     .then(Linear::new(&nn, "fc2", 32, 10));
/// let logits = mlp.forward(&graph.input("x", DType::F32, [64, 1, 28, 28]));
/// assert_eq!(logits.shape()[..], [64, 10]);
/// ```
#[derive(Default)]
pub struct Sequential(Vec<(Box<dyn Layer>, &'static Location<'static>)>);

impl Sequential {
    /// Without layers, the identity.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Appends a layer. Errors in it are reported at the caller's line.
    #[track_caller]
    pub fn then(mut self, layer: impl Layer + 'static) -> Sequential {
        self.0.push((Box::new(layer), Location::caller()));
        self
    }
}

impl Layer for Sequential {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        self.0.iter().fold(x.clone(), |x, (layer, location)| x.graph().at(location, || layer.forward(&x)))
    }
}

impl Scope {
    /// `x W^T + b` along the last axis: `[.., in]` to `[.., outputs]`. Declares `NAME.weight`
    /// `[outputs, in]` and `NAME.bias` `[outputs]`. See [`Linear`].
    #[track_caller]
    pub fn linear(&self, name: &str, x: &Value, outputs: usize) -> Value {
        if !x.is_valid() {
            return x.clone();
        }
        Linear::new(self, name, x.dim(-1), outputs).forward(x)
    }

    /// Convolution of data `[N, C, H, W]` to `channels` channels. Declares `NAME.weight`
    /// `[channels, C / groups, kernel]` and `NAME.bias` `[channels]`. See [`Conv2d`].
    #[track_caller]
    pub fn conv2d(
        &self,
        name: &str,
        x: &Value,
        channels: usize,
        kernel: impl Into<Pair>,
        options: ops::conv2d::Conv2d,
    ) -> Value {
        if !x.is_valid() {
            return x.clone();
        }
        Conv2d::new(self, name, x.dim(1), channels, kernel, options).forward(x)
    }

    /// In training, zeroes each element with probability `p` and divides the others by `1 - p`, with a new mask for
    /// each step and each call. In evaluation, returns `x`. See [`Value::dropout`].
    #[track_caller]
    pub fn dropout(&self, x: &Value, p: f64) -> Value {
        Dropout::new(self, p).forward(x)
    }

    /// Independent normal numbers of mean 0 and variance 1, f32, new ones for each step and each call, in training and
    /// in evaluation. The scope's seed determines them. See
    /// [`Graph::random_normal`](crate::Graph::random_normal).
    ///
    /// ```
    /// use wgrad::prelude::*;
    /// let graph = Graph::new();
    /// let z = Scope::eval(&graph, 0).random_normal([3]);
    /// let mut session = Session::new(Device::cpu());
    /// let program = session.compile(&graph, &[&z])?;
    /// assert_ne!(session.run(&program, &[])?, session.run(&program, &[])?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[track_caller]
    pub fn random_normal(&self, shape: impl Into<Shape>) -> Value {
        let (seed, step) = self.random_state();
        self.graph().random_normal(shape, &seed, &step)
    }

    /// The seed and the number of the step. Both are step scalars, fed by the host, so that kernels do not depend on the
    /// seed.
    #[track_caller]
    fn random_state(&self) -> (Value, Value) {
        let seed = f64::from(self.seed32());
        let seed = self.graph().step_scalar(DROPOUT, DType::U32, move |_| seed);
        let step = self.graph().step_scalar(DROPOUT, DType::U32, |step| f64::from(step as u32));
        (seed, step)
    }
}
