//! 1x1 convolutions with stride 1 and no padding: for each image, the product of the weight `[O, C]` and the data
//! `[C, H W]`, by the kernels of [`Matmul`] and without copies.

use super::{ConvPass, Sizes};
use crate::op::{Args, Binding, Cost, Kernel, Lowered, Precision, Slot, Variant};
use crate::ops::matmul::Matmul;
use crate::shape::View;
use crate::{DType, Profile, Shape, TensorType};

/// Whether the convolution is such a product, forward or for the input gradient (the weight gradient also sums over
/// images).
pub(super) fn supports(s: &Sizes, pass: ConvPass) -> bool {
    let options = &s.options;
    let plain = [s.kh, s.kw] == [1, 1] && options.stride == [1, 1] && options.padding == [0, 0] && options.groups == 1;
    plain && !matches!(pass, ConvPass::BackwardFilter(_)) && ![s.n, s.c, s.o, s.h, s.w].contains(&0)
}

/// The share of the time of a packed convolution on a software adapter: less than 1 if tiles of 32 columns are over
/// three quarters full; otherwise it is faster to pack all images together.
pub(super) fn share(s: &Sizes) -> f64 {
    let plane = s.h * s.w;
    0.75 * plane.next_multiple_of(32) as f64 / plane as f64
}

/// The arguments of the product for each image: `y = W x` or `dx = W^T dy`.
fn of_product<R>(s: &Sizes, pass: ConvPass, profile: &Profile, f: impl FnOnce(&Args<'_>) -> R) -> R {
    let backward = pass != ConvPass::Forward;
    let (rows, inner) = if backward { (s.c, s.o) } else { (s.o, s.c) };
    let plane = s.h * s.w;
    let ty = |sizes: [usize; 3]| TensorType::new(DType::F32, Shape::from(sizes));
    let (weight, data) = (ty([s.n, rows, inner]), ty([s.n, inner, plane]));
    let strides = if backward { vec![0, 1, rows] } else { vec![0, inner, 1] };
    let views = [View { shape: weight.shape.clone(), strides, offset: 0 }, View::contiguous(&data.shape)];
    let outputs = [ty([s.n, rows, plane])];
    f(&Args { inputs: &[&weight, &data], stored: &[DType::F32; 2], views: &views, outputs: &outputs, profile })
}

/// The fastest variant of the product with exactly this precision, and its estimated time.
fn fastest(args: &Args<'_>, precision: Precision) -> Option<(&'static Variant, Cost)> {
    let product: &dyn Kernel = &Matmul;
    product.candidates(args, precision).into_iter().find(|(variant, _)| variant.precision() == precision)
}

/// The estimated time of the product.
pub(super) fn cost(s: &Sizes, pass: ConvPass, precision: Precision, profile: &Profile) -> Option<Cost> {
    of_product(s, pass, profile, |args| fastest(args, precision).map(|(_, cost)| cost))
}

/// The launches of the product.
pub(super) fn product(s: &Sizes, pass: ConvPass, precision: Precision, profile: &Profile) -> Result<Lowered, String> {
    let mut lowered = of_product(s, pass, profile, |args| {
        let (variant, _) = fastest(args, precision).ok_or("no variant of matmul runs here")?;
        Matmul.lower(variant, args)
    })?;
    // The first operand of the product is the second of this op.
    for binding in lowered.launches.iter_mut().flat_map(|launch| &mut launch.bindings) {
        if let Binding::Read(Slot::Input(input)) = binding {
            *input = 1 - *input;
        }
    }
    Ok(lowered)
}
