//! Test cases of the convolutions.

use super::{Conv2d, Pair, spatial};
use crate::op::{Case, Fill};
use crate::{DType, TensorType};

/// Shapes of `x` and `weight`, and the options.
struct Example {
    name: &'static str,
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2d,
}

fn examples() -> Vec<Example> {
    let plain = Conv2d::default();
    let list: &[(&'static str, [usize; 4], [usize; 4], Conv2d)] = &[
        ("3x3 padding 1", [2, 3, 8, 9], [4, 3, 3, 3], Conv2d::same(3)),
        ("3x3 stride 2 padding 1", [2, 4, 9, 7], [5, 4, 3, 3], Conv2d::same(3).stride(2)),
        ("1x1", [2, 7, 5, 6], [9, 7, 1, 1], plain),
        ("1x1 stride 2", [2, 5, 5, 6], [3, 5, 1, 1], plain.stride(2)),
        ("5x3 asymmetric", [1, 2, 11, 8], [3, 2, 5, 3], plain.stride([1, 2]).padding([2, 1])),
        ("dilation 2", [2, 3, 10, 10], [4, 3, 3, 3], plain.padding(2).dilation(2)),
        ("dilation 2, one channel", [2, 1, 9, 10], [3, 1, 3, 3], plain.padding(2).dilation(2)),
        ("dilation 3x1 stride 2", [1, 2, 13, 9], [3, 2, 3, 2], plain.stride(2).dilation([3, 1])),
        ("groups 2", [2, 4, 6, 7], [6, 2, 3, 3], Conv2d::same(3).groups(2)),
        ("groups 3 stride 2 dilation 2", [1, 6, 9, 8], [9, 2, 2, 3], plain.groups(3).stride(2).dilation([1, 2])),
        ("depthwise", [2, 8, 7, 7], [8, 1, 3, 3], Conv2d::same(3).groups(8)),
        ("depthwise multiplier 2 stride 2", [1, 3, 9, 9], [6, 1, 3, 3], plain.groups(3).stride(2)),
        (
            "depthwise 5x3 stride 2 dilation 2",
            [2, 6, 13, 9],
            [6, 1, 5, 3],
            plain.groups(6).stride([2, 1]).dilation([1, 2]),
        ),
        // Phases with one, two and three kernel rows; with one kernel column or none; rows covered by no window.
        ("depthwise 5x4 stride 2x3", [2, 6, 11, 13], [6, 1, 5, 4], plain.groups(6).stride([2, 3]).padding([2, 1])),
        ("depthwise 3x3 stride 2", [2, 8, 12, 10], [8, 1, 3, 3], Conv2d::same(3).groups(8).stride(2)),
        ("depthwise 4x6 stride 2x4", [1, 5, 9, 15], [5, 1, 4, 6], plain.groups(5).stride([2, 4]).padding([1, 0])),
        ("depthwise 3x2 stride 4x1", [1, 5, 14, 9], [5, 1, 3, 2], plain.groups(5).stride([4, 1])),
        ("depthwise 2 channels, many positions", [3, 2, 24, 17], [2, 1, 3, 3], Conv2d::same(3).groups(2)),
        ("depthwise, more channels than a workgroup", [1, 260, 3, 4], [260, 1, 2, 2], plain.groups(260).padding(1)),
        ("1x1 on planes of vec4", [3, 12, 8, 8], [40, 12, 1, 1], plain),
        ("4x4 stride 2", [2, 3, 10, 12], [4, 3, 4, 4], plain.stride(2).padding(1)),
        ("7x7 stride 2 padding 3", [1, 3, 20, 20], [8, 3, 7, 7], Conv2d::same(7).stride(2)),
        ("kernel as large as the input", [3, 5, 6, 4], [7, 5, 6, 4], plain),
        ("stride larger than the kernel", [2, 2, 11, 10], [3, 2, 2, 2], plain.stride([4, 3])),
        ("padding larger than the kernel", [1, 2, 4, 3], [3, 2, 2, 2], plain.padding([3, 4])),
        ("padding 1 on a 1x1 kernel", [2, 3, 4, 5], [4, 3, 1, 1], plain.padding(1)),
        ("one of everything", [1, 1, 1, 1], [1, 1, 1, 1], plain),
        // For the gradients: gaps between folded columns; phases that end inside a vec4; a grid of many workgroups.
        ("stride 2 dilation 2 to two channels", [1, 3, 11, 12], [2, 3, 3, 3], plain.stride(2).dilation(2)),
        ("4x4 stride 3, four channels", [1, 4, 13, 14], [2, 4, 4, 4], plain.stride(3)),
        ("4x4 stride 3, four images", [4, 1, 13, 14], [2, 1, 4, 4], plain.stride(3)),
        ("4x4 stride 2, 16 channels", [1, 16, 16, 16], [9, 16, 4, 4], plain.stride(2).padding(1)),
        ("columns covered by no window", [1, 2, 8, 8], [2, 2, 3, 3], plain.stride(3)),
        ("1 channel to 32, 3x3", [3, 1, 14, 13], [32, 1, 3, 3], plain),
        ("1 channel to 5, 5x7, planes of vec4", [2, 1, 6, 10], [5, 1, 5, 7], plain.padding([2, 3])),
        ("1 channel to 40, 5x7, rows of vec4", [2, 1, 9, 8], [40, 1, 5, 7], plain.padding([2, 3])),
        ("17 channels to 33", [2, 17, 6, 5], [33, 17, 3, 3], Conv2d::same(3)),
        ("32 channels to 64", [2, 32, 9, 8], [64, 32, 3, 3], plain),
        ("33 channels to 65, more than a tile", [1, 33, 9, 15], [65, 33, 2, 1], plain),
        // Split sums with a short last part: with vec4 of positions, and with phases.
        ("36 channels, planes of vec4", [1, 36, 6, 8], [5, 36, 3, 3], Conv2d::same(3)),
        ("4x4 stride 2 to 70 channels", [1, 6, 10, 8], [70, 6, 4, 4], plain.stride(2).padding(1)),
        // Tiles read these without a copy, forward and for the input gradient.
        (
            "12 channels to 8, 3x5 asymmetric",
            [2, 12, 11, 9],
            [8, 12, 3, 5],
            plain.stride([2, 1]).padding([3, 2]).dilation([1, 2]),
        ),
        ("4 channels, 3x2 dilation 3x2", [3, 4, 9, 8], [4, 4, 3, 2], plain.padding([2, 1]).dilation([3, 2])),
        ("20 channels to 36, 2x3 stride 3x2", [2, 20, 7, 10], [36, 20, 2, 3], plain.stride([3, 2]).padding([0, 1])),
        // The largest kernel that they read so, and one that is larger.
        ("4 channels, 8x8", [1, 4, 7, 12], [4, 4, 8, 8], plain.padding([5, 2])),
        ("4 channels, 1x9", [2, 4, 3, 14], [4, 4, 1, 9], plain.padding([0, 3])),
        ("wide and flat", [1, 2, 1, 300], [3, 2, 1, 9], plain.stride([1, 2]).padding([0, 4])),
        ("two whole workgroups of elements", [2, 1, 8, 8], [1, 1, 1, 1], plain),
        ("more weights than positions", [1, 68, 2, 3], [48, 68, 1, 1], plain),
        ("empty batch", [0, 3, 5, 5], [2, 3, 3, 3], plain),
        ("no input channels", [2, 0, 4, 4], [3, 0, 3, 3], plain),
    ];
    list.iter().map(|&(name, x, weight, options)| Example { name, x, weight, options }).collect()
}

/// The test cases of this family: every example forward and backward, and each gradient op separately.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Example { name, x, weight, options } in examples() {
        let forward = move |v: &[crate::Value]| vec![v[0].conv2d(&v[1], None, options)];
        cases.push(Case::new("conv2d", name, forward).float("x", x).float("weight", weight));
        let Ok(y) = super::output_shape(&x, &weight, options) else { continue };
        let (size, kernel) = ([x[2], x[3]], [weight[2], weight[3]]);
        let input_grad = move |v: &[crate::Value]| vec![v[0].conv2d_input_grad(&v[1], size, options)];
        let weight_grad = move |v: &[crate::Value]| vec![v[0].conv2d_weight_grad(&v[1], kernel, options)];
        cases.push(Case::new("conv2d_input_grad", name, input_grad).float("dy", &y).float("weight", weight));
        cases.push(Case::new("conv2d_weight_grad", name, weight_grad).float("x", x).float("dy", &y));
        if x[2] * x[3] > 48 && x[0] * x[1] < 16 {
            let special = |case: Case, operand: &'static str, shape: &[usize], values: &'static [f64]| {
                case.input(operand, TensorType::new(DType::F32, shape), Fill::Special(values, -1.0, 1.0)).forward_only()
            };
            const NAN: &[f64] = &[0.5, f64::NAN, 0.25, 0.5];
            let of = |what: &str| format!("{name}, {what}");
            cases.push(special(Case::new("conv2d", of("NaN"), forward), "x", &x, NAN).float("weight", weight));
            let case = Case::new("conv2d_input_grad", of("NaN in the gradient"), input_grad);
            cases.push(special(case, "dy", &y, NAN).float("weight", weight));
            let case = Case::new("conv2d_weight_grad", of("NaN in the input"), weight_grad);
            cases.push(special(case, "x", &x, NAN).float("dy", &y));
            // The operand that some kernels multiply by padding.
            const PADDED: &[f64] = &[f64::NAN, 0.5, f64::INFINITY];
            let name = of("NaN and infinity by padding");
            cases.push(special(Case::new("conv2d", &name, forward).float("x", x), "weight", &weight, PADDED));
            let case = Case::new("conv2d_input_grad", &name, input_grad).float("dy", &y);
            cases.push(special(case, "weight", &weight, PADDED));
            let case = Case::new("conv2d_weight_grad", &name, weight_grad).float("x", x);
            cases.push(special(case, "dy", &y, PADDED));
        }
    }
    cases.extend(composed());
    cases
}

fn composed() -> Vec<Case> {
    vec![
        Case::new("conv2d", "bias and relu", |v| vec![v[0].conv2d(&v[1], Some(&v[2]), Conv2d::same([3, 5])).relu()])
            .float("x", [2, 6, 9, 11])
            .float("weight", [10, 6, 3, 5])
            .float("bias", [10]),
        Case::new("conv2d", "second convolution on the first", |v| {
            let y = v[0].conv2d(&v[1], Some(&v[2]), Conv2d::default());
            vec![y.conv2d(&v[3], None, Conv2d::same(3)) + y.slice(1, 0, 8, 1)]
        })
        .float("x", [2, 4, 10, 10])
        .float("weight", [8, 4, 3, 3])
        .float("bias", [8])
        .float("second", [8, 8, 3, 3]),
        Case::new("conv2d", "more channels than one loop covers", |v| {
            vec![v[0].conv2d(&v[1], None, Conv2d::default()).relu()]
        })
        .float("x", [1, 1100, 4, 5])
        .float("weight", [2, 1100, 4, 4])
        .forward_only(),
        Case::new("conv2d_input_grad", "more channels than one loop covers", |v| {
            vec![v[0].conv2d_input_grad(&v[1], [4, 5], Conv2d::default()).relu()]
        })
        .float("dy", [1, 1100, 1, 2])
        .float("weight", [1100, 2, 4, 4])
        .forward_only(),
        Case::new("conv2d", "permuted input", |v| {
            vec![v[0].permute(&[0, 3, 1, 2]).conv2d(&v[1], None, Conv2d::same(3))]
        })
        .float("x", [2, 7, 6, 5])
        .float("weight", [4, 5, 3, 3]),
        Case::new("conv2d_weight_grad", "many positions", |v| {
            vec![v[0].conv2d_weight_grad(&v[1], spatial(&v[0]).map(|_| 3), Conv2d::default())]
        })
        .float("x", [5, 2, 70, 71])
        .float("dy", [5, 3, 68, 69])
        .forward_only(),
        Case::new("conv2d_weight_grad", "parts of more than nine workgroups", |v| {
            vec![v[0].conv2d_weight_grad(&v[1], [4, 6], Conv2d::default())]
        })
        .float("x", [1, 16, 35, 37])
        .float("dy", [1, 1, 32, 32])
        .forward_only(),
        Case::new("conv2d", "large", |v| vec![v[0].conv2d(&v[1], None, Conv2d::same(3))])
            .float("x", [2, 33, 30, 31])
            .float("weight", [70, 33, 3, 3])
            .forward_only(),
        transposed("3x3", [2, 3, 5, 6], [3, 4, 3, 3], Conv2d::default(), 0),
        transposed("4x4 stride 2", [2, 4, 5, 4], [4, 3, 4, 4], Conv2d::default().stride(2).padding(1), 0),
        transposed("3x3 stride 2", [1, 3, 6, 5], [3, 5, 3, 3], Conv2d::default().stride(2).padding(1), 1),
        transposed("output padding with dilation", [2, 2, 3, 4], [2, 3, 2, 3], Conv2d::default().dilation(3), [2, 1]),
        transposed(
            "output padding with dilation, stride 2",
            [1, 3, 4, 3],
            [3, 2, 3, 2],
            Conv2d::default().stride(2).dilation([4, 3]).padding(1),
            [3, 2],
        ),
        transposed("groups 2", [2, 4, 4, 5], [4, 3, 3, 3], Conv2d::default().stride(2).groups(2), 0),
    ]
}

fn transposed(
    name: &'static str,
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2d,
    output_padding: impl Into<Pair>,
) -> Case {
    let output_padding = output_padding.into();
    Case::new("conv_transpose2d", name, move |v| {
        vec![v[0].conv_transpose2d(&v[1], Some(&v[2]), options, output_padding)]
    })
    .float("x", x)
    .float("weight", weight)
    .float("bias", [weight[1] * options.groups])
}
