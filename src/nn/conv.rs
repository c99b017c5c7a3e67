//! Convolution layers other than [`Conv2d`].

use super::{Conv2d, Layer, Scope};
use crate::ops::conv2d::Pair;
use crate::{Value, ops};

/// Convolution of data `[N, C, L]`; see [`Value::conv1d`].
///
/// Parameters: `NAME.weight` `[out, C / groups, K]` and `NAME.bias` `[out]`, both from `U(-b, b)` with
/// `b = 1 / sqrt(C / groups K)`, as in PyTorch.
///
/// ```
/// use wgrad::nn::{Conv1d, Layer, Scope};
/// use wgrad::ops::conv1d::Conv1d as Options;
/// use wgrad::{DType, Graph, Value};
/// // Three causal convolutions with doubling dilation: each output depends on the last 15 steps.
/// let graph = Graph::new();
/// let nn = Scope::train(&graph, 0);
/// let x = graph.input("x", DType::F32, [8, 4, 100]);
/// let y = [1, 2, 4].iter().fold(x, |x, &dilation| {
///     let options = Options::default().dilation(dilation).causal(3);
///     Conv1d::new(&nn, &format!("conv{dilation}"), 4, 4, 3, options).forward(&x).relu()
/// });
/// assert_eq!(y.shape()[..], [8, 4, 100]);
/// ```
#[derive(Clone, Debug)]
pub struct Conv1d {
    /// `[out, C / groups, K]`.
    pub weight: Value,
    /// `[out]`; `None` for no bias.
    pub bias: Option<Value>,
    /// Stride, padding, dilation, groups.
    pub options: ops::conv1d::Conv1d,
}

impl Conv1d {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        options: ops::conv1d::Conv1d,
    ) -> Conv1d {
        let (weight, bias) = nn.weight_and_bias(name, &[outputs, inputs / options.groups.max(1), kernel]);
        Conv1d { weight, bias, options }
    }
}

impl Layer for Conv1d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.conv1d(&self.weight, self.bias.as_ref(), self.options))
    }
}

/// Transposed convolution of data `[N, C, L]`; see [`Value::conv_transpose1d`].
///
/// Parameters: `NAME.weight` `[C, out / groups, K]` and `NAME.bias` `[out]`, both from `U(-b, b)` with
/// `b = 1 / sqrt(out / groups K)`, as in PyTorch.
///
/// ```
/// use wgrad::nn::{ConvTranspose1d, Layer, Scope};
/// use wgrad::ops::conv1d::Conv1d;
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let double = Conv1d::default().stride(2).padding(1);
/// let layer = ConvTranspose1d::new(&Scope::train(&graph, 0), "up", 8, 4, 3, double).output_padding(1);
/// assert_eq!(layer.forward(&graph.input("x", DType::F32, [2, 8, 7])).shape()[..], [2, 4, 14]);
/// ```
#[derive(Clone, Debug)]
pub struct ConvTranspose1d {
    /// `[C, out / groups, K]`.
    pub weight: Value,
    /// `[out]`; `None` for no bias.
    pub bias: Option<Value>,
    /// Stride, padding, dilation, groups.
    pub options: ops::conv1d::Conv1d,
    /// Added to the length of the output; default 0.
    pub output_padding: usize,
}

impl ConvTranspose1d {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        options: ops::conv1d::Conv1d,
    ) -> ConvTranspose1d {
        let weight = [inputs, outputs / options.groups.max(1), kernel];
        let (weight, bias) = nn.weight_and_bias_of(name, &weight, outputs);
        ConvTranspose1d { weight, bias, options, output_padding: 0 }
    }

    /// Sets the output padding.
    pub fn output_padding(self, output_padding: usize) -> ConvTranspose1d {
        ConvTranspose1d { output_padding, ..self }
    }
}

impl Layer for ConvTranspose1d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.conv_transpose1d(&self.weight, self.bias.as_ref(), self.options, self.output_padding))
    }
}

/// Transposed convolution of data `[N, C, H, W]`; see [`Value::conv_transpose2d`].
///
/// Parameters: `NAME.weight` `[C, out / groups, KH, KW]` and `NAME.bias` `[out]`, both from `U(-b, b)`
/// with `b = 1 / sqrt(out / groups KH KW)`, as in PyTorch.
///
/// ```
/// use wgrad::nn::{ConvTranspose2d, Layer, Scope};
/// use wgrad::ops::conv2d::Conv2d;
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let double = Conv2d::same(3).stride(2);
/// let layer = ConvTranspose2d::new(&Scope::train(&graph, 0), "up", 8, 4, 3, double).output_padding(1);
/// assert_eq!(layer.forward(&graph.input("x", DType::F32, [2, 8, 7, 7])).shape()[..], [2, 4, 14, 14]);
/// ```
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    /// `[C, out / groups, KH, KW]`.
    pub weight: Value,
    /// `[out]`; `None` for no bias.
    pub bias: Option<Value>,
    /// Stride, padding, dilation, groups.
    pub options: ops::conv2d::Conv2d,
    /// Added to the height and width of the output; default 0.
    pub output_padding: [usize; 2],
}

impl ConvTranspose2d {
    /// Declares the parameters.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Pair>,
        options: ops::conv2d::Conv2d,
    ) -> ConvTranspose2d {
        let Pair([height, width]) = kernel.into();
        let weight = [inputs, outputs / options.groups.max(1), height, width];
        let (weight, bias) = nn.weight_and_bias_of(name, &weight, outputs);
        ConvTranspose2d { weight, bias, options, output_padding: [0, 0] }
    }

    /// Sets the output padding.
    pub fn output_padding(self, padding: impl Into<Pair>) -> ConvTranspose2d {
        ConvTranspose2d { output_padding: padding.into().0, ..self }
    }
}

impl Layer for ConvTranspose2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.widely(|x| x.conv_transpose2d(&self.weight, self.bias.as_ref(), self.options, self.output_padding))
    }
}

/// Depthwise-separable convolution of data `[N, C, H, W]`: a depthwise convolution, then a 1 x 1 convolution over the
/// channels (Howard et al., *MobileNets*, arXiv:1704.04861). It has `C (KH KW + out)` weights instead of `C KH KW out`.
///
/// Parameters: `NAME.depthwise` and `NAME.pointwise`, each with `weight` and `bias` like [`Conv2d`].
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::SeparableConv2d;
/// use wgrad::ops::conv2d::Conv2d;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 3, 8, 8], vec![1.0f32; 192])?);
/// let y = SeparableConv2d::new(&Scope::eval(&graph, 0), "conv", 3, 16, 3, Conv2d::same(3)).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!(y.shape()[..], [1, 16, 8, 8]);
/// assert_eq!(session.get("conv.depthwise.weight")?.shape()[..], [3, 1, 3, 3]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeparableConv2d {
    /// The depthwise convolution: as many groups as channels.
    pub depthwise: Conv2d,
    /// The 1 x 1 convolution.
    pub pointwise: Conv2d,
}

impl SeparableConv2d {
    /// Declares the parameters; `options` are those of the depthwise convolution, except for its groups.
    #[track_caller]
    pub fn new(
        nn: &Scope,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: impl Into<Pair>,
        options: ops::conv2d::Conv2d,
    ) -> SeparableConv2d {
        let part = nn.part(name);
        SeparableConv2d {
            depthwise: Conv2d::new(&part, "depthwise", inputs, inputs, kernel, options.groups(inputs)),
            pointwise: Conv2d::new(&part, "pointwise", inputs, outputs, 1, ops::conv2d::Conv2d::default()),
        }
    }
}

impl Layer for SeparableConv2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        self.pointwise.forward(&self.depthwise.forward(x))
    }
}
