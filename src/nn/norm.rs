//! Normalisation layers, with PyTorch's names, initial values and defaults.

use super::{Layer, Scope, init};
use crate::{Shape, Tensor, Value};

/// Default constant added to variances, as in PyTorch.
const EPS: f64 = 1e-5;

/// Layer normalisation over the last axes; see [`Value::layer_norm`].
///
/// Parameters: `NAME.weight`, ones, and `NAME.bias`, zeros, both of shape `normalized_shape`.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::LayerNorm;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([2, 2], [3.0f32, 5.0, -1.0, -9.0])?);
/// let y = LayerNorm::new(&Scope::eval(&graph, 0), "ln", &[2]).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert!(y.to_f64().iter().zip([-1.0, 1.0, 1.0, -1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// The sizes of the normalised axes.
    pub normalized_shape: Vec<usize>,
    /// The scale; `None` for none.
    pub weight: Option<Value>,
    /// The shift; `None` for none.
    pub bias: Option<Value>,
    /// Added to the variance; default 1e-5.
    pub eps: f64,
}

impl LayerNorm {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, normalized_shape: &[usize]) -> LayerNorm {
        let (weight, bias) = nn.scale_and_shift(name, normalized_shape);
        LayerNorm { normalized_shape: normalized_shape.to_vec(), weight, bias, eps: EPS }
    }
}

impl Layer for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.layer_norm(&self.normalized_shape, self.weight.as_ref(), self.bias.as_ref(), self.eps))
    }
}

/// Root-mean-square normalisation over the last axes; see [`Value::rms_norm`].
///
/// Parameter: `NAME.weight`, ones, of shape `normalized_shape`.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::RmsNorm;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 2], [3.0f32, 4.0])?);
/// let y = RmsNorm::new(&Scope::eval(&graph, 0), "norm", &[2]).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// let rms = 12.5f64.sqrt();
/// assert!(y.to_f64().iter().zip([3.0, 4.0]).all(|(y, x)| (y - x / rms).abs() < 1e-6));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// The sizes of the normalised axes.
    pub normalized_shape: Vec<usize>,
    /// The scale; `None` for none.
    pub weight: Option<Value>,
    /// Added to the mean square; default `f32::EPSILON`, as in PyTorch.
    pub eps: f64,
}

impl RmsNorm {
    /// Declares the parameter.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, normalized_shape: &[usize]) -> RmsNorm {
        let (weight, _) = nn.without_bias().scale_and_shift(name, normalized_shape);
        RmsNorm { normalized_shape: normalized_shape.to_vec(), weight, eps: f64::from(f32::EPSILON) }
    }
}

impl Layer for RmsNorm {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.rms_norm(&self.normalized_shape, self.weight.as_ref(), self.eps))
    }
}

/// Group normalisation of data `[N, C, ...]`; see [`Value::group_norm`].
///
/// Parameters: `NAME.weight` `[C]`, ones, and `NAME.bias` `[C]`, zeros.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::GroupNorm;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 4, 1], [3.0f32, 5.0, -1.0, -9.0])?);
/// let y = GroupNorm::new(&Scope::eval(&graph, 0), "gn", 2, 4).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert!(y.to_f64().iter().zip([-1.0, 1.0, 1.0, -1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// Number of channel groups.
    pub num_groups: usize,
    /// The scale; `None` for none.
    pub weight: Option<Value>,
    /// The shift; `None` for none.
    pub bias: Option<Value>,
    /// Added to the variance; default 1e-5.
    pub eps: f64,
}

impl GroupNorm {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, num_groups: usize, channels: usize) -> GroupNorm {
        let (weight, bias) = nn.scale_and_shift(name, [channels]);
        GroupNorm { num_groups, weight, bias, eps: EPS }
    }
}

impl Layer for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.group_norm(self.num_groups, self.weight.as_ref(), self.bias.as_ref(), self.eps))
    }
}

/// Instance normalisation of data `[N, C, H, W]`. It uses the statistics of each example in training and in
/// evaluation; see [`Value::instance_norm`].
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::InstanceNorm2d;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 2, 1, 2], [3.0f32, 5.0, -1.0, -9.0])?);
/// let y = InstanceNorm2d::new().forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert!(y.to_f64().iter().zip([-1.0, 1.0, 1.0, -1.0]).all(|(y, want)| (y - want).abs() < 1e-4));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct InstanceNorm2d {
    /// The scale; `None` for none.
    pub weight: Option<Value>,
    /// The shift; `None` for none.
    pub bias: Option<Value>,
    /// Added to the variance; default 1e-5.
    pub eps: f64,
}

impl InstanceNorm2d {
    /// Without parameters, PyTorch's default.
    pub fn new() -> InstanceNorm2d {
        InstanceNorm2d { weight: None, bias: None, eps: EPS }
    }

    /// With parameters: `NAME.weight` `[C]`, ones, and `NAME.bias` `[C]`, zeros.
    #[track_caller]
    pub fn affine(nn: &Scope, name: &str, channels: usize) -> InstanceNorm2d {
        let (weight, bias) = nn.scale_and_shift(name, [channels]);
        InstanceNorm2d { weight, bias, eps: EPS }
    }
}

impl Default for InstanceNorm2d {
    fn default() -> Self {
        InstanceNorm2d::new()
    }
}

impl Layer for InstanceNorm2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        if x.is_valid() && x.shape().rank() != 4 {
            return x.graph().error("instance_norm", &[x], "expected data [N, C, H, W]");
        }
        x.widely(|x| x.instance_norm(self.weight.as_ref(), self.bias.as_ref(), self.eps))
    }
}

/// Batch normalisation of data with `SPATIAL` axes after the channels. Training uses the statistics of the batch
/// ([`Value::batch_norm_training`]) and updates the running ones at the end of the step; evaluation uses the running
/// ones ([`Value::batch_norm`]).
///
/// Parameters: `NAME.weight` `[C]`, ones, and `NAME.bias` `[C]`, zeros. Variables:
/// `NAME.running_mean` `[C]`, zeros, `NAME.running_var` `[C]`, ones, and
/// `NAME.num_batches_tracked` `[]`, a count. A layer can be used only once per training step, because its running
/// statistics are assigned once.
///
/// ```
/// use wgrad::nn::{BatchNorm2d, Layer, Scope};
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let mut session = Session::new(Device::cpu());
/// let mut program = |train: bool| {
///     let graph = Graph::new();
///     let x = graph.input("x", DType::F32, [2, 1, 1, 2]);
///     let nn = if train { Scope::train(&graph, 0) } else { Scope::eval(&graph, 0) };
///     let y = BatchNorm2d::new(&nn, "bn", 1).forward(&x);
///     let program = session.compile(&graph, &[&y])?;
///     let x = Tensor::new([2, 1, 1, 2], vec![1.0f32, 3.0, 5.0, 7.0])?;
///     Ok::<_, wgrad::Error>(session.run(&program, &[("x", &x)])?[0].to_f32()[3])
/// };
/// // The batch has mean 4 and variance 5 (unbiased: 20/3); the momentum is 0.1.
/// assert!((program(true)? - 3.0 / 5f32.sqrt()).abs() < 1e-4);
/// assert!((program(false)? - 6.6 / (0.9 + 2f32 / 3.0).sqrt()).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm<const SPATIAL: usize> {
    /// The scale; `None` for none.
    pub weight: Option<Value>,
    /// The shift; `None` for none.
    pub bias: Option<Value>,
    /// The running mean, `[C]`.
    pub running_mean: Value,
    /// The running unbiased variance, `[C]`.
    pub running_var: Value,
    /// The number of batches in the running statistics.
    pub num_batches_tracked: Value,
    /// The weight of a new batch in the running statistics; default 0.1. `None` weights all batches equally.
    pub momentum: Option<f64>,
    /// Added to the variance; default 1e-5.
    pub eps: f64,
    training: bool,
}

/// Batch normalisation of data `[N, C]` or `[N, C, L]`. Example: [`BatchNorm`].
pub type BatchNorm1d = BatchNorm<1>;

/// Batch normalisation of data `[N, C, H, W]`. Example: [`BatchNorm`].
pub type BatchNorm2d = BatchNorm<2>;

impl<const SPATIAL: usize> BatchNorm<SPATIAL> {
    /// Declares parameters and variables.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, channels: usize) -> Self {
        let (weight, bias) = nn.scale_and_shift(name, [channels]);
        let part = nn.part(name);
        let count = Tensor::of(&Shape::scalar(), vec![0i32]);
        BatchNorm {
            weight,
            bias,
            running_mean: part.variable("running_mean", [channels], init::zeros()),
            running_var: part.variable("running_var", [channels], init::ones()),
            num_batches_tracked: nn.graph().variable(&part.full_name("num_batches_tracked"), count),
            momentum: Some(0.1),
            eps: EPS,
            training: nn.is_training(),
        }
    }

    /// Sets the weight of a new batch in the running statistics, 0 to 1; `None` averages all batches equally.
    pub fn momentum(self, momentum: impl Into<Option<f64>>) -> Self {
        BatchNorm { momentum: momentum.into(), ..self }
    }

    /// Sets the constant added to the variance.
    pub fn eps(self, eps: f64) -> Self {
        BatchNorm { eps, ..self }
    }
}

impl<const SPATIAL: usize> Layer for BatchNorm<SPATIAL> {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        let rank = x.shape().rank();
        if x.is_valid() && rank != 2 + SPATIAL && (SPATIAL, rank) != (1, 2) {
            let why = format!("expected data [N, C, ...] with {SPATIAL} spatial axes");
            return x.graph().error("batch_norm", &[x], why);
        }
        let (weight, bias) = (self.weight.as_ref(), self.bias.as_ref());
        if !self.training {
            let of = |x: &Value| x.batch_norm(&self.running_mean, &self.running_var, weight, bias, self.eps);
            return x.widely(of);
        }
        if let Some(momentum) = self.momentum.filter(|momentum| !(0.0..=1.0).contains(momentum)) {
            return x.graph().error("batch_norm", &[x], format!("the momentum must be in [0, 1], not {momentum}"));
        }
        // The statistics stay in f32.
        let batch = x.widen().batch_norm_training(weight, bias, self.eps);
        if !batch.y.is_valid() {
            return batch.y;
        }
        let (mean, var) = match self.momentum {
            Some(momentum) => batch.running(&self.running_mean, &self.running_var, momentum),
            None => batch.average(&self.running_mean, &self.running_var, &self.num_batches_tracked),
        };
        x.graph().assign(&self.running_mean, &mean);
        x.graph().assign(&self.running_var, &var);
        x.graph().assign(&self.num_batches_tracked, &(&self.num_batches_tracked + 1.0));
        x.widely(|_| batch.y.clone())
    }
}

impl Scope {
    /// Layer normalisation over the last axis; declares `NAME.weight` and `NAME.bias`. See [`LayerNorm`].
    #[track_caller]
    pub fn layer_norm(&self, name: &str, x: &Value) -> Value {
        if x.is_valid() { LayerNorm::new(self, name, &[x.dim(-1)]).forward(x) } else { x.clone() }
    }

    /// Batch normalisation of data `[N, C]` or `[N, C, H, W]`; declares the parameters and variables of
    /// [`BatchNorm`].
    #[track_caller]
    pub fn batch_norm(&self, name: &str, x: &Value) -> Value {
        match x.shape().rank() {
            _ if !x.is_valid() => x.clone(),
            4 => BatchNorm2d::new(self, name, x.dim(1)).forward(x),
            _ => BatchNorm1d::new(self, name, x.dim(1)).forward(x),
        }
    }
}
