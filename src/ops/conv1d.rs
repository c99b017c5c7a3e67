//! One-dimensional convolution: a two-dimensional one of height 1.

use super::conv2d::Conv2d;
use crate::Value;
use crate::op::Case;

/// How a one-dimensional convolution walks over its input. The kernel's size is the weight's.
///
/// ```
/// use wgrad::ops::conv1d::Conv1d;
/// // Each output sees its own and earlier elements alone.
/// let causal = Conv1d::default().dilation(4).causal(3);
/// assert_eq!(causal, Conv1d { stride: 1, padding: [8, 0], dilation: 4, groups: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv1d {
    /// Steps between neighbouring windows, at least 1.
    pub stride: usize,
    /// Zeros added before and behind.
    pub padding: [usize; 2],
    /// Steps between neighbouring elements of the kernel, at least 1.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv1d {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Conv1d { stride: 1, padding: [0, 0], dilation: 1, groups: 1 }
    }
}

impl Conv1d {
    /// With another stride.
    pub fn stride(self, stride: usize) -> Self {
        Conv1d { stride, ..self }
    }

    /// With so many zeros on either side.
    pub fn padding(self, padding: usize) -> Self {
        Conv1d { padding: [padding; 2], ..self }
    }

    /// With another dilation.
    pub fn dilation(self, dilation: usize) -> Self {
        Conv1d { dilation, ..self }
    }

    /// With another number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Conv1d { groups, ..self }
    }

    /// Padded before the first element alone, so that no output of a kernel of this size, under the
    /// dilation set so far, sees a later element (van den Oord et al., *WaveNet*, arXiv:1609.03499).
    pub fn causal(self, kernel: usize) -> Self {
        Conv1d { padding: [self.dilation.saturating_mul(kernel.saturating_sub(1)), 0], ..self }
    }
}

impl Value {
    /// One-dimensional convolution of data `[N, C, L]` with `weight` `[O, C / groups, K]`, plus a `bias`
    /// `[O]` where given: `[N, O, M]`,
    /// `y[n, o, i] = sum over c, u of x[n, c, i stride + u dilation - padding] weight[o, c, u]`, with
    /// `M = (L + padding before and behind - dilation (K - 1) - 1) / stride + 1`, rounded down.
    ///
    /// # Errors
    /// As for [`Value::conv2d`], which this is, of height 1.
    #[track_caller]
    pub fn conv1d(&self, weight: &Value, bias: Option<&Value>, options: Conv1d) -> Value {
        let operands: Vec<&Value> = [self, weight].into_iter().chain(bias).collect();
        if let Err(invalid) = self.graph().admit("conv1d", &operands) {
            return invalid;
        }
        let ([n, c, l], [o, group_c, k]) = (&self.shape()[..], &weight.shape()[..]) else {
            let why = "expected data [N, C, L] and a weight [O, C / groups, K]";
            return self.graph().mistake("conv1d", &[self, weight], why);
        };
        let tall = |v: &Value, [a, b, c]: [usize; 3]| v.reshape(&[a, b, 1, c].map(|size| size as isize));
        let (mut x, weight) = (tall(self, [*n, *c, *l]), tall(weight, [*o, *group_c, *k]));
        let mut padding = options.padding[0];
        if options.padding[1] != padding {
            x = x.pad(&[(0, 0), (0, 0), (0, 0), options.padding.into()], 0.0);
            padding = 0;
        }
        let wide = Conv2d {
            stride: [1, options.stride],
            padding: [0, padding],
            dilation: [1, options.dilation],
            groups: options.groups,
        };
        let y = x.conv2d(&weight, bias, wide);
        let sizes = [y.dim(0), y.dim(1), y.dim(3)].map(|size| size as isize);
        if y.is_valid() { y.reshape(&sizes) } else { y }
    }
}

/// The cases of this family.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, x: [usize; 3], weight: [usize; 3], options: Conv1d| {
        Case::new("conv1d", name, move |v| vec![v[0].conv1d(&v[1], Some(&v[2]), options)])
            .float("x", x)
            .float("weight", weight)
            .float("bias", [weight[0]])
    };
    let plain = Conv1d::default();
    vec![
        case("of 3, padded", [2, 3, 10], [4, 3, 3], plain.padding(1)),
        case("of 5, stride 2", [1, 2, 17], [3, 2, 5], plain.stride(2).padding(2)),
        case("dilated, 2 groups", [2, 4, 13], [6, 2, 3], plain.dilation(2).padding(2).groups(2)),
        case("causal, dilated", [2, 3, 21], [5, 3, 3], plain.dilation(4).causal(3)),
        case("depthwise", [2, 8, 33], [8, 1, 4], plain.groups(8).causal(4)),
        case("of one element", [3, 5, 1], [2, 5, 1], plain),
        case("no examples", [0, 2, 5], [2, 2, 3], plain.padding(1)),
    ]
}
