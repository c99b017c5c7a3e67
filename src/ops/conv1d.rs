//! One-dimensional convolution, computed as a two-dimensional one of height 1.

use super::conv2d::Conv2d;
use crate::Value;
use crate::op::Case;

/// Options of a one-dimensional convolution. The kernel size is that of the weight.
///
/// ```
/// use wgrad::ops::conv1d::Conv1d;
/// // Each output depends only on the input at its own and earlier positions.
/// let causal = Conv1d::default().dilation(4).causal(3);
/// assert_eq!(causal, Conv1d { stride: 1, padding: [8, 0], dilation: 4, groups: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv1d {
    /// Step between adjacent windows, at least 1.
    pub stride: usize,
    /// Zeros added before and after.
    pub padding: [usize; 2],
    /// Step between adjacent kernel elements, at least 1.
    pub dilation: usize,
    /// Number of independent channel groups.
    pub groups: usize,
}

impl Default for Conv1d {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Conv1d { stride: 1, padding: [0, 0], dilation: 1, groups: 1 }
    }
}

impl Conv1d {
    /// Sets the stride.
    pub fn stride(self, stride: usize) -> Self {
        Conv1d { stride, ..self }
    }

    /// Sets the padding on both sides.
    pub fn padding(self, padding: usize) -> Self {
        Conv1d { padding: [padding; 2], ..self }
    }

    /// Sets the dilation.
    pub fn dilation(self, dilation: usize) -> Self {
        Conv1d { dilation, ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Conv1d { groups, ..self }
    }

    /// The same options for images of height 1.
    fn wide(self, padding: usize) -> Conv2d {
        Conv2d { stride: [1, self.stride], padding: [0, padding], dilation: [1, self.dilation], groups: self.groups }
    }

    /// Pads only before the first element, so that no output depends on later elements, for this kernel size
    /// and the dilation set so far (van den Oord et al., *WaveNet*, arXiv:1609.03499).
    pub fn causal(self, kernel: usize) -> Self {
        Conv1d { padding: [self.dilation.saturating_mul(kernel.saturating_sub(1)), 0], ..self }
    }
}

impl Value {
    /// One-dimensional convolution of data `[N, C, L]` with `weight` `[O, C / groups, K]` and an optional `bias`
    /// `[O]`; the result is `[N, O, M]`:
    /// `y[n, o, i] = sum over c, u of x[n, c, i stride + u dilation - padding] weight[o, c, u]`, with
    /// `M = (L + padding[0] + padding[1] - dilation (K - 1) - 1) / stride + 1`, rounded down.
    ///
    /// # Errors
    /// As for [`Value::conv2d`], with height 1.
    #[track_caller]
    pub fn conv1d(&self, weight: &Value, bias: Option<&Value>, options: Conv1d) -> Value {
        let (mut x, weight) = match self.with_height("conv1d", weight, "[O, C / groups, K]") {
            Ok(tall) => tall,
            Err(invalid) => return invalid,
        };
        let mut padding = options.padding[0];
        if options.padding[1] != padding {
            x = x.pad(&[(0, 0), (0, 0), (0, 0), options.padding.into()], 0.0);
            padding = 0;
        }
        x.conv2d(&weight, bias, options.wide(padding)).without_height()
    }

    /// Transposed one-dimensional convolution of data `[N, C, L]` with `weight` `[C, O / groups, K]` and an optional
    /// `bias` `[O]`; the result is `[N, O, M]`, with
    /// `M = (L - 1) stride - padding[0] - padding[1] + dilation (K - 1) + output_padding + 1`.
    ///
    /// # Errors
    /// As for [`Value::conv_transpose2d`], with height 1.
    ///
    /// ```
    /// use wgrad::ops::conv1d::Conv1d;
    /// use wgrad::{DType, Graph};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [8, 3, 10]);
    /// let weight = graph.input("weight", DType::F32, [3, 4, 5]);
    /// let y = x.conv_transpose1d(&weight, None, Conv1d::default().stride(2).padding(2), 1);
    /// assert_eq!(y.shape()[..], [8, 4, 20]);
    /// ```
    #[track_caller]
    pub fn conv_transpose1d(
        &self,
        weight: &Value,
        bias: Option<&Value>,
        options: Conv1d,
        output_padding: usize,
    ) -> Value {
        let (x, weight) = match self.with_height("conv_transpose1d", weight, "[C, O / groups, K]") {
            Ok(tall) => tall,
            Err(invalid) => return invalid,
        };
        // Padding crops the ends of the output: the common part there, the rest here.
        let [before, behind] = options.padding;
        let common = before.min(behind);
        let y = x.conv_transpose2d(&weight, bias, options.wide(common), [0, output_padding]).without_height();
        let size = y.dim(2);
        if before == behind || !y.is_valid() {
            return y;
        }
        if before - common + (behind - common) >= size {
            let why = format!("the padding {:?} leaves an empty output; use less padding", options.padding);
            return self.graph().error("conv_transpose1d", &[self, &weight], why);
        }
        y.slice(2, before - common, size - (behind - common), 1)
    }

    /// Reshapes data `[N, C, L]` and a weight to images of height 1.
    #[track_caller]
    fn with_height(&self, op: &str, weight: &Value, form: &str) -> Result<(Value, Value), Value> {
        self.graph().admit(op, &[self, weight])?;
        if self.shape().rank() != 3 || weight.shape().rank() != 3 {
            let why = format!("expected data [N, C, L] and a weight {form}");
            return Err(self.graph().error(op, &[self, weight], why));
        }
        let tall = |v: &Value| v.reshape(&[v.dim(0), v.dim(1), 1, v.dim(2)].map(|size| size as isize));
        Ok((tall(self), tall(weight)))
    }

    #[track_caller]
    fn without_height(&self) -> Value {
        if !self.is_valid() {
            return self.clone();
        }
        self.reshape(&[self.dim(0), self.dim(1), self.dim(3)].map(|size| size as isize))
    }
}

/// The test cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, x: [usize; 3], weight: [usize; 3], options: Conv1d| {
        Case::new("conv1d", name, move |v| vec![v[0].conv1d(&v[1], Some(&v[2]), options)])
            .float("x", x)
            .float("weight", weight)
            .float("bias", [weight[0]])
    };
    let transposed = |name: &str, x: [usize; 3], weight: [usize; 3], options: Conv1d, output_padding: usize| {
        let build = move |v: &[Value]| vec![v[0].conv_transpose1d(&v[1], Some(&v[2]), options, output_padding)];
        Case::new("conv_transpose1d", name, build)
            .float("x", x)
            .float("weight", weight)
            .float("bias", [weight[1] * options.groups])
    };
    let plain = Conv1d::default();
    vec![
        case("kernel 3, padded", [2, 3, 10], [4, 3, 3], plain.padding(1)),
        case("kernel 5, stride 2", [1, 2, 17], [3, 2, 5], plain.stride(2).padding(2)),
        case("dilated, 2 groups", [2, 4, 13], [6, 2, 3], plain.dilation(2).padding(2).groups(2)),
        case("causal, dilated", [2, 3, 21], [5, 3, 3], plain.dilation(4).causal(3)),
        case("depthwise", [2, 8, 33], [8, 1, 4], plain.groups(8).causal(4)),
        case("one element", [3, 5, 1], [2, 5, 1], plain),
        transposed("kernel 3", [2, 3, 5], [3, 4, 3], plain, 0),
        transposed("stride 2", [2, 3, 5], [3, 4, 4], plain.stride(2).padding(1), 1),
        transposed("output padding with dilation", [1, 2, 4], [2, 3, 3], plain.stride(2).dilation(3).padding(2), 2),
        transposed("cropped at the start, 2 groups", [2, 4, 6], [4, 2, 3], plain.dilation(2).causal(3).groups(2), 0),
        case("no examples", [0, 2, 5], [2, 2, 3], plain.padding(1)),
    ]
}
