//! Two-dimensional convolution (cross-correlation, as in every deep-learning framework) and its
//! two gradients. All three are bilinear, and the gradients of each are the other two.
//!
//! Data is `[N, C, H, W]`, weights are `[O, C / groups, KH, KW]`. With stride `s`, padding `p` and
//! dilation `d` (Dumoulin and Visin, *A guide to convolution arithmetic for deep learning*,
//! arXiv:1603.07285):
//!
//! `y[n, o, i, j] = sum over c, u, v of x[n, c, i s + u d - p, j s + v d - p] weight[o, c, u, v]`.

mod cases;
mod depthwise;
mod kernels;
mod packed;
mod pointwise;
mod reference;
mod tiles;

pub use cases::cases;

use crate::op::{Attributes, Backward, Lowering, Op, Rounding};
use crate::{DType, Shape, Tensor, TensorType, Value};

/// One number per spatial axis, height first. A single number converts to a pair of equal ones.
///
/// ```
/// use wgrad::ops::conv2d::{Conv2d, Pair};
/// assert_eq!(Pair::from(3), Pair([3, 3]));
/// assert_eq!(Conv2d::default().stride([2, 1]).padding(1).stride, [2, 1]); // height and width
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Pair([both, both])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Pair(pair)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Self {
        Pair([height, width])
    }
}

/// Options of a convolution. The kernel size is that of the weight.
///
/// ```
/// use wgrad::ops::conv2d::Conv2d;
/// let halve = Conv2d::same(3).stride(2);
/// assert_eq!(halve, Conv2d { stride: [2, 2], padding: [1, 1], dilation: [1, 1], groups: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step between adjacent windows, at least 1.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Step between adjacent kernel elements, at least 1.
    pub dilation: [usize; 2],
    /// Number of independent channel groups; equal to the number of channels for a depthwise convolution.
    pub groups: usize,
}

impl Default for Conv2d {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// Padding `(kernel - 1) / 2`, which keeps the size for odd kernels, stride 1 and dilation 1.
    pub fn same(kernel: impl Into<Pair>) -> Self {
        Conv2d::default().padding(kernel.into().0.map(|k| k.saturating_sub(1) / 2))
    }

    /// Sets the stride.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Conv2d { stride: stride.into().0, ..self }
    }

    /// Sets the padding.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Conv2d { padding: padding.into().0, ..self }
    }

    /// Sets the dilation.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Conv2d { dilation: dilation.into().0, ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Conv2d { groups, ..self }
    }
}

/// Maximum loop iterations per invocation: some drivers silently stop longer loops.
const MAX_ITERATIONS: usize = 16_000;

/// Maximum number of kernel elements. lavapipe stops an invocation after 65,535 loop iterations. It also counts
/// the final check of each loop condition: with one column and one channel, 6 iterations per kernel row.
const MAX_TAPS: usize = 10_000;

/// The three passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConvPass {
    /// `y` from `x` and `weight`.
    Forward,
    /// The gradient of `x`, with this height and width, from `dy` and `weight`.
    BackwardData([usize; 2]),
    /// The gradient of `weight`, with this kernel size, from `x` and `dy`.
    BackwardFilter([usize; 2]),
}

/// The op of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Convolution {
    options: Conv2d,
    pass: ConvPass,
}

/// All sizes of a convolution, validated.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    kh: usize,
    kw: usize,
    oh: usize,
    ow: usize,
    options: Conv2d,
}

impl Sizes {
    /// Input channels per group.
    fn group_c(&self) -> usize {
        self.c / self.options.groups
    }

    /// Output channels per group.
    fn group_o(&self) -> usize {
        self.o / self.options.groups
    }

    /// Floating-point operations of each of the three passes.
    fn flops(&self) -> f64 {
        let sizes = [self.n, self.o, self.oh, self.ow, self.group_c(), self.kh, self.kw];
        2.0 * sizes.iter().map(|&s| s as f64).product::<f64>()
    }
}

/// The number of windows along one axis, or an error message.
pub(super) fn windows(
    axis: &str,
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
) -> Result<usize, String> {
    if stride == 0 || dilation == 0 || kernel == 0 {
        return Err(format!(
            "{axis}: kernel, stride and dilation must be at least 1, not {kernel}, {stride} and {dilation}"
        ));
    }
    // These limits prevent overflow in all products below, and in 32 bits on the device.
    if [kernel, stride, padding, dilation].iter().any(|&v| v > 1 << 15) {
        return Err(format!("{axis}: kernel, stride, padding and dilation must be at most {}", 1 << 15));
    }
    let (extent, padded) = (dilation * (kernel - 1) + 1, size.saturating_add(2 * padding));
    if extent > padded {
        let dilated = if dilation > 1 { format!(" (dilated to {extent})") } else { String::new() };
        return Err(format!(
            "{axis}: the kernel of {kernel}{dilated} is larger than the input of {size} with padding {padding} on \
             each side; use more padding or a smaller kernel"
        ));
    }
    Ok((padded - extent) / stride + 1)
}

/// The output shape `[N, O, OH, OW]` for `x` and `weight`, or an error message.
pub(super) fn output_shape(x: &[usize], weight: &[usize], options: Conv2d) -> Result<Shape, String> {
    let (&[n, c, h, w], &[o, group_c, kh, kw]) = (x, weight) else {
        return Err(format!(
            "expected data [N, C, H, W] and a weight [O, C / groups, KH, KW], not shapes {x:?} and {weight:?}"
        ));
    };
    let Conv2d { stride, padding, dilation, groups } = options;
    if groups == 0 || !c.is_multiple_of(groups) || !o.is_multiple_of(groups) {
        return Err(format!(
            "groups must divide both channel counts, but {groups} does not divide C = {c} and O = {o}"
        ));
    }
    if group_c != c / groups {
        return Err(format!(
            "the data has C = {c} channels in {groups} group(s), so the weight [O, C / groups, KH, KW] must have \
             size {} on its second axis, not {group_c}",
            c / groups
        ));
    }
    if kh.saturating_mul(kw) > MAX_TAPS {
        return Err(format!("a kernel must have at most {MAX_TAPS} elements, not {kh} x {kw}; use matmul() instead"));
    }
    let oh = windows("height", h, kh, stride[0], padding[0], dilation[0])?;
    let ow = windows("width", w, kw, stride[1], padding[1], dilation[1])?;
    Ok([n, o, oh, ow].into())
}

impl Convolution {
    /// The shapes of `x`, `weight` and `y`: those of the inputs and `result`.
    fn shapes<'a>(&self, inputs: &'a [&TensorType], result: &'a Shape) -> [&'a Shape; 3] {
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        match self.pass {
            ConvPass::Forward => [a, b, result],
            ConvPass::BackwardData(_) => [result, b, a],
            ConvPass::BackwardFilter(_) => [a, result, b],
        }
    }

    /// All sizes, for types that [`Op::infer`] has accepted.
    fn sizes(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Sizes {
        let [x, weight, y] = self.shapes(inputs, &outputs[0].shape);
        Sizes {
            n: x[0],
            c: x[1],
            h: x[2],
            w: x[3],
            o: weight[0],
            kh: weight[2],
            kw: weight[3],
            oh: y[2],
            ow: y[3],
            options: self.options,
        }
    }
}

impl Op for Convolution {
    fn name(&self) -> &'static str {
        match self.pass {
            ConvPass::Forward => "conv2d",
            ConvPass::BackwardData(_) => "conv2d_input_grad",
            ConvPass::BackwardFilter(_) => "conv2d_weight_grad",
        }
    }

    fn attributes(&self) -> Attributes {
        let Conv2d { stride, padding, dilation, groups } = self.options;
        let mut attributes: Attributes = vec![
            ("stride", stride.into()),
            ("padding", padding.into()),
            ("dilation", dilation.into()),
            ("groups", groups.into()),
        ];
        match self.pass {
            ConvPass::Forward => {}
            ConvPass::BackwardData(size) | ConvPass::BackwardFilter(size) => attributes.push(("size", size.into())),
        }
        attributes
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if inputs.iter().any(|ty| ty.dtype != DType::F32) {
            return Err("expected f32 operands; cast() the others".into());
        }
        if inputs.iter().any(|ty| ty.shape.rank() != 4) {
            return Err("expected tensors with four axes: data [N, C, H, W] and a weight [O, C / groups, KH, KW]; \
                        reshape() first"
                .into());
        }
        let (a, b, groups) = (&inputs[0].shape, &inputs[1].shape, self.options.groups);
        let result: Shape = match self.pass {
            ConvPass::Forward => output_shape(a, b, self.options)?,
            ConvPass::BackwardData([h, w]) => [a[0], b[1].saturating_mul(groups), h, w].into(),
            ConvPass::BackwardFilter([kh, kw]) => [b[1], a[1].checked_div(groups).unwrap_or(0), kh, kw].into(),
        };
        let [x, weight, y] = self.shapes(inputs, &result);
        let expected = output_shape(x, weight, self.options)?;
        if expected != *y {
            return Err(format!("data {x} and weight {weight} give an output {expected}, but its gradient is {y}"));
        }
        Ok(vec![TensorType::new(DType::F32, result)])
    }

    fn gradient(&self, g: &Backward<'_>) -> Vec<Option<Value>> {
        let options = self.options;
        let (a, b, dy) = (g.x(0), g.x(1), g.dy());
        // Each pass is the derivative of the trilinear form <conv2d(x, weight), dy> for one of its three
        // arguments. Its gradients are the other two passes, with the incoming gradient as that argument.
        match self.pass {
            ConvPass::Forward => vec![
                g.when(0, || dy.conv2d_input_grad(b, spatial(a), options)),
                g.when(1, || a.conv2d_weight_grad(&dy, spatial(b), options)),
            ],
            ConvPass::BackwardData(_) => vec![
                g.when(0, || dy.conv2d(b, None, options)),
                g.when(1, || dy.conv2d_weight_grad(a, spatial(b), options)),
            ],
            ConvPass::BackwardFilter(_) => vec![
                g.when(0, || b.conv2d_input_grad(&dy, spatial(a), options)),
                g.when(1, || a.conv2d(&dy, None, options)),
            ],
        }
    }

    fn reference(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Vec<Tensor> {
        let types: Vec<TensorType> = inputs.iter().map(|t| t.ty()).collect();
        let sizes = self.sizes(&types.iter().collect::<Vec<_>>(), outputs);
        let (a, b) = (inputs[0].f64s(), inputs[1].f64s());
        vec![Tensor::of(&outputs[0].shape, reference::of(self.pass, a, b, &sizes))]
    }

    fn rounding(&self, inputs: &[&TensorType]) -> Rounding {
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        Rounding::Sum(match self.pass {
            ConvPass::Forward => b[1] * b[2] * b[3],
            ConvPass::BackwardData(_) => b[0] / self.options.groups.max(1) * b[2] * b[3],
            ConvPass::BackwardFilter(_) => a[0] * b[2] * b[3],
        })
    }

    fn may_be_nan(&self, inputs: &[&Tensor], outputs: &[TensorType]) -> Option<Vec<bool>> {
        let types = inputs.iter().map(|t| t.ty()).collect::<Vec<_>>();
        reference::may_be_nan(self.pass, inputs, &self.sizes(&types.iter().collect::<Vec<_>>(), outputs))
    }

    fn multiply_adds(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> u64 {
        (self.sizes(inputs, outputs).flops() / 2.0) as u64
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Kernel(self)
    }
}

/// Height and width of data, or the kernel size of a weight.
fn spatial(v: &Value) -> [usize; 2] {
    [v.dim(2), v.dim(3)]
}

impl Value {
    /// Two-dimensional convolution of data `[N, C, H, W]` with `weight` `[O, C / groups, KH, KW]` and an optional
    /// `bias` `[O]`. The result is `[N, O, OH, OW]`, with
    /// `OH = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1`, rounded down, and `OW` likewise. Padding counts as
    /// zeros: times a weight that is infinite or NaN, it may be NaN or 0. The same holds for the gradients.
    ///
    /// # Errors
    /// At compile time, if channels and groups do not match, the kernel is larger than the padded input, or a
    /// stride or dilation is 0.
    ///
    /// ```
    /// use wgrad::ops::conv2d::Conv2d;
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [8, 3, 32, 32]);
    /// let weight = graph.input("weight", DType::F32, [16, 3, 5, 5]);
    /// let bias = graph.input("bias", DType::F32, [16]);
    /// let y = x.conv2d(&weight, Some(&bias), Conv2d::same(5).stride(2));
    /// assert_eq!(**y.shape(), [8, 16, 16, 16]);
    /// ```
    #[track_caller]
    pub fn conv2d(&self, weight: &Value, bias: Option<&Value>, options: Conv2d) -> Value {
        let y = self.op(Convolution { options, pass: ConvPass::Forward }, &[weight]);
        y.add_channel_bias("conv2d", bias)
    }

    /// The gradient of [`Value::conv2d`] with respect to its input. `self` is the gradient of the output
    /// `[N, O, OH, OW]`, `size` the height and width of the input; the result is `[N, C, H, W]`. This is the
    /// transpose of the convolution as a linear map.
    #[track_caller]
    pub fn conv2d_input_grad(&self, weight: &Value, size: impl Into<Pair>, options: Conv2d) -> Value {
        self.op(Convolution { options, pass: ConvPass::BackwardData(size.into().0) }, &[weight])
    }

    /// The gradient of [`Value::conv2d`] with respect to its weight. `self` is the input `[N, C, H, W]`, `dy` the
    /// gradient of the output `[N, O, OH, OW]`, `kernel` the kernel size; the result is `[O, C / groups, KH, KW]`.
    #[track_caller]
    pub fn conv2d_weight_grad(&self, dy: &Value, kernel: impl Into<Pair>, options: Conv2d) -> Value {
        self.op(Convolution { options, pass: ConvPass::BackwardFilter(kernel.into().0) }, &[dy])
    }

    /// Transposed convolution of data `[N, C, H, W]` with `weight` `[C, O / groups, KH, KW]` and an optional `bias`
    /// `[O]`; it reverses the shape change of [`Value::conv2d`]. The result is `[N, O, OH, OW]`, with
    /// `OH = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1` and `OW` likewise.
    /// `output_padding`, less than the stride or the dilation, selects one of the sizes that `conv2d` maps to `H`.
    #[track_caller]
    pub fn conv_transpose2d(
        &self,
        weight: &Value,
        bias: Option<&Value>,
        options: Conv2d,
        output_padding: impl Into<Pair>,
    ) -> Value {
        let extra = output_padding.into().0;
        if let Some(invalid) = [self, weight].into_iter().find(|v| !v.is_valid()) {
            return invalid.clone();
        }
        let Conv2d { stride, padding, dilation, .. } = options;
        let fits = |axis: usize| extra[axis] == 0 || extra[axis] < stride[axis].max(dilation[axis]);
        if !fits(0) || !fits(1) {
            let why = format!(
                "expected an output padding less than the stride {stride:?} or dilation {dilation:?}, not {extra:?}"
            );
            return self.graph().error("conv_transpose2d", &[self, weight], why);
        }
        let size = |axis: usize| {
            let (input, kernel) = (spatial(self)[axis].checked_sub(1)?, spatial(weight)[axis].checked_sub(1)?);
            let grown = input.checked_mul(stride[axis])?.checked_add(extra[axis])?;
            let kernel = kernel.checked_mul(dilation[axis])?;
            grown.checked_add(kernel)?.checked_add(1)?.checked_sub(padding[axis].checked_mul(2)?)
        };
        let (Some(h), Some(w)) = (size(0), size(1)) else {
            let why =
                "expected data [N, C, H, W], a weight [C, O / groups, KH, KW] and a non-empty output; use less padding";
            return self.graph().error("conv_transpose2d", &[self, weight], why);
        };
        // Whole strides of output padding are the outputs of additional zeros in the data.
        let zeros = [0, 1].map(|axis| extra[axis].checked_div(stride[axis]).unwrap_or(0));
        let x =
            if zeros == [0, 0] { self.clone() } else { self.pad(&[(0, 0), (0, 0), (0, zeros[0]), (0, zeros[1])], 0.0) };
        x.conv2d_input_grad(weight, [h, w], options).add_channel_bias("conv_transpose2d", bias)
    }

    /// Adds `bias` `[O]` to data `[N, O, H, W]`.
    #[track_caller]
    fn add_channel_bias(&self, op: &str, bias: Option<&Value>) -> Value {
        let Some(bias) = bias else { return self.clone() };
        if self.is_valid() && bias.is_valid() && **bias.shape() != [self.dim(1)] {
            let why = format!("expected a bias of shape [{}], one element per output channel", self.dim(1));
            return self.graph().error(op, &[self, bias], why);
        }
        self + bias.reshape(&[-1, 1, 1])
    }
}
