//! Layers without parameters that change the size of images.

use super::Layer;
use crate::Value;
use crate::ops::conv2d::Pair;
use crate::ops::interpolate::Interpolation;
use crate::ops::pad::Padding;

/// Resizes data `[N, C, H, W]`, by a factor or to a fixed size; see [`Value::interpolate`].
///
/// ```
/// use wgrad::nn::{Layer, Upsample};
/// use wgrad::ops::interpolate::Interpolation;
/// use wgrad::{DType, Graph};
/// let x = Graph::new().input("x", DType::F32, [2, 3, 5, 7]);
/// let y = Upsample::by(2, Interpolation::Nearest).forward(&x); // nn.Upsample(scale_factor=2)
/// assert_eq!(y.shape()[..], [2, 3, 10, 14]);
/// let y = Upsample::to([8, 8], Interpolation::Linear).forward(&x); // nn.Upsample((8, 8), mode="bilinear")
/// assert_eq!(y.shape()[..], [2, 3, 8, 8]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Upsample {
    by: bool,
    size: [usize; 2],
    mode: Interpolation,
}

impl Upsample {
    /// Multiplies height and width: PyTorch's `scale_factor`.
    pub fn by(factor: impl Into<Pair>, mode: Interpolation) -> Upsample {
        Upsample { by: true, size: factor.into().0, mode }
    }

    /// Gives this height and width.
    pub fn to(size: impl Into<Pair>, mode: Interpolation) -> Upsample {
        Upsample { by: false, size: size.into().0, mode }
    }
}

impl Layer for Upsample {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        let [_, _, h, w] = x.shape()[..] else { return not_images("upsample", x) };
        let [a, b] = self.size;
        let size = if self.by { [h.saturating_mul(a), w.saturating_mul(b)] } else { self.size };
        x.interpolate(&size, self.mode)
    }
}

/// Channels become pixels: `[N, C r^2, H, W]` to `[N, C, H r, W r]`; see [`Value::pixel_shuffle`].
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::nn::PixelShuffle;
/// let graph = Graph::new();
/// let x = graph.constant(Tensor::new([1, 4, 1, 1], [1.0f32, 2.0, 3.0, 4.0])?);
/// let y = PixelShuffle(2).forward(&x);
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let y = &session.run(&program, &[])?[0];
/// assert_eq!((y.shape()[..].to_vec(), y.to_f32()), (vec![1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PixelShuffle(pub usize);

impl Layer for PixelShuffle {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.pixel_shuffle(self.0)
    }
}

/// Pixels become channels: `[N, C, H r, W r]` to `[N, C r^2, H, W]`; see [`Value::pixel_unshuffle`].
/// Example: [`PixelShuffle`].
#[derive(Clone, Copy, Debug)]
pub struct PixelUnshuffle(pub usize);

impl Layer for PixelUnshuffle {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        x.pixel_unshuffle(self.0)
    }
}

/// Pads images `[N, C, H, W]` at all four sides, with a number ([`Value::pad`]) or with their own elements
/// ([`Value::pad_with`]).
///
/// ```
/// use wgrad::nn::{Layer, Pad2d};
/// use wgrad::ops::pad::Padding;
/// use wgrad::{DType, Graph};
/// let x = Graph::new().input("x", DType::F32, [2, 3, 5, 7]);
/// assert_eq!(Pad2d::zeros(1).forward(&x).shape()[..], [2, 3, 7, 9]); // nn.ZeroPad2d(1)
/// let bottom_and_right = Pad2d::with([(0, 1), (0, 2)], Padding::Reflect); // nn.ReflectionPad2d((0, 2, 0, 1))
/// assert_eq!(bottom_and_right.forward(&x).shape()[..], [2, 3, 6, 9]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pad2d {
    /// Rows added above and below, columns added left and right.
    pads: [(usize, usize); 2],
    with: Filling,
}

#[derive(Clone, Copy, Debug)]
enum Filling {
    Number(f64),
    Own(Padding),
}

/// The numbers of rows above and below and of columns left and right that [`Pad2d`] adds. A single number means all
/// four. Example: [`Pad2d`].
#[derive(Clone, Copy, Debug)]
pub struct Sides([(usize, usize); 2]);

impl From<usize> for Sides {
    fn from(all: usize) -> Sides {
        Sides([(all, all); 2])
    }
}

impl From<[(usize, usize); 2]> for Sides {
    fn from(sides: [(usize, usize); 2]) -> Sides {
        Sides(sides)
    }
}

impl Pad2d {
    /// With zeros: PyTorch's `ZeroPad2d`.
    pub fn zeros(sides: impl Into<Sides>) -> Pad2d {
        Pad2d::constant(sides, 0.0)
    }

    /// With a number: PyTorch's `ConstantPad2d`.
    pub fn constant(sides: impl Into<Sides>, value: f64) -> Pad2d {
        Pad2d { pads: sides.into().0, with: Filling::Number(value) }
    }

    /// With the image's own elements: PyTorch's `ReflectionPad2d`, `ReplicationPad2d` and `CircularPad2d`.
    pub fn with(sides: impl Into<Sides>, padding: Padding) -> Pad2d {
        Pad2d { pads: sides.into().0, with: Filling::Own(padding) }
    }
}

impl Layer for Pad2d {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        if x.shape().rank() != 4 {
            return not_images("pad", x);
        }
        let pads = [(0, 0), (0, 0), self.pads[0], self.pads[1]];
        match self.with {
            Filling::Number(value) => x.pad(&pads, value),
            Filling::Own(padding) => x.pad_with(&pads, padding),
        }
    }
}

#[track_caller]
fn not_images(op: &str, x: &Value) -> Value {
    if x.is_valid() { x.graph().error(op, &[x], "expected data [N, C, H, W]") } else { x.clone() }
}
