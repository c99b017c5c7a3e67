//! Test cases of the poolings.

use super::{Pool2d, PoolKind, Pooling};
use crate::op::{Case, Fill};
use crate::{DType, TensorType, Value};

/// Test cases of this family. Max pooling gets distinct inputs: at ties the gradient is a convention.
pub fn cases() -> Vec<Case> {
    let examples: &[(&'static str, [usize; 4], Pool2d)] = &[
        ("2x2", [2, 3, 8, 6], Pool2d::new(2)),
        ("2x2, odd sizes", [2, 3, 7, 9], Pool2d::new(2)),
        ("3x3 stride 2 padding 1", [1, 4, 9, 9], Pool2d::new(3).stride(2).padding(1)),
        ("3x3 stride 1 padding 1", [2, 2, 5, 7], Pool2d::new(3).stride(1).padding(1)),
        ("2x3 stride 2x1", [1, 2, 6, 9], Pool2d::new([2, 3]).stride([2, 1])),
        ("stride larger than the kernel", [1, 3, 11, 8], Pool2d::new(2).stride([3, 4])),
        ("stride larger than the kernel, no rest", [1, 3, 9, 8], Pool2d::new(2).stride([3, 4])),
        ("4x4 stride 1 padding 2", [1, 2, 6, 5], Pool2d::new(4).stride(1).padding(2)),
        ("5x4 stride 1 padding 2", [1, 2, 6, 5], Pool2d::new([5, 4]).stride(1).padding(2)),
        ("1x1", [2, 1, 3, 3], Pool2d::new(1)),
        ("kernel as large as the input", [3, 2, 5, 4], Pool2d::new([5, 4])),
        ("5x4, no rest", [1, 2, 10, 8], Pool2d::new([5, 4])),
        ("3x3 stride 2 padding 1, even", [2, 1, 8, 7], Pool2d::new(3).stride(2).padding(1)),
        ("one element, padded", [1, 1, 1, 1], Pool2d::new(3).padding(1)),
        ("empty batch", [0, 2, 4, 4], Pool2d::new(2)),
        ("two whole workgroups of windows", [1, 2, 16, 16], Pool2d::new(2)),
        ("3x3 padding 1", [2, 2, 8, 10], Pool2d::new(3).padding(1)),
        ("many windows", [2, 3, 32, 32], Pool2d::new(2)),
        ("many windows that overlap", [1, 3, 20, 20], Pool2d::new(3).stride(1).padding(1)),
        ("2x2, rows of vec4, a row left over", [2, 3, 9, 12], Pool2d::new(2)),
        ("26x26 of a digit", [3, 5, 26, 26], Pool2d::new(2)),
    ];
    let distinct = |shape: [usize; 4]| (TensorType::new(DType::F32, shape), Fill::Distinct);
    let mut cases = Vec::new();
    for &(name, x, options) in examples {
        let pooling = move |kind| Pooling { options, kind };
        let Ok([oh, ow]) = pooling(PoolKind::Max).windows([x[2], x[3]]) else { continue };
        let y = [x[0], x[1], oh, ow];
        let (ty, fill) = distinct(x);
        cases.push(Case::new("max_pool2d", name, move |v| vec![v[0].max_pool2d(options)]).input("x", ty, fill.clone()));
        let (ty, fill) = distinct(x);
        cases.push(
            Case::new("max_pool2d_grad", name, move |v| vec![v[0].op(pooling(PoolKind::MaxGrad), &[&v[1]])])
                .input("x", ty, fill)
                .float("dy", y),
        );
        let (ty, fill) = distinct(x);
        cases.push(
            Case::new("max_pool2d_pick", name, move |v| vec![v[0].op(pooling(PoolKind::MaxPick), &[&v[1]])])
                .input("x", ty, fill)
                .float("v", x),
        );
        for include in [true, false] {
            let options = options.count_include_pad(include);
            if !include && options.padding == [0, 0] {
                continue;
            }
            let name = if include { name.to_owned() } else { format!("{name}, padding not counted") };
            cases.push(Case::new("avg_pool2d", name.clone(), move |v| vec![v[0].avg_pool2d(options)]).float("x", x));
            let kind = PoolKind::AvgGrad([x[2], x[3]]);
            cases.push(
                Case::new("avg_pool2d_grad", name, move |v| vec![v[0].op(Pooling { options, kind }, &[])])
                    .float("dy", y),
            );
        }
    }
    const HARD: &[f64] = &{
        let (mut x, mut i) = ([0.0; 432], 0);
        while i < x.len() {
            let other = (i * 37 % 17) as f64 / 8.0;
            x[i] = if i % 11 == 3 {
                f64::NAN
            } else if i % 7 == 2 {
                f64::INFINITY
            } else if i % 5 == 0 {
                f64::NEG_INFINITY
            } else {
                other
            };
            i += 1;
        }
        x
    };
    for (options, h, y) in [
        (Pool2d::new(3).stride(2).padding(1), 9, [2, 3, 5, 4]),
        (Pool2d::new(2), 9, [2, 3, 4, 4]),
        (Pool2d::new(2), 8, [2, 3, 4, 4]),
    ] {
        let name = format!("NaN and infinities, {}x{} of {h} rows", options.kernel[0], options.kernel[1]);
        let ty = || TensorType::new(DType::F32, [2, 3, h, 8]);
        let grad = move |v: &[Value]| vec![v[0].op(Pooling { options, kind: PoolKind::MaxGrad }, &[&v[1]])];
        let max = Case::new("max_pool2d", &name, move |v| vec![v[0].max_pool2d(options)]);
        cases.push(max.input("x", ty(), Fill::Special(HARD, -1.0, 1.0)).forward_only());
        let grad = Case::new("max_pool2d_grad", name, grad);
        cases.push(grad.input("x", ty(), Fill::Special(HARD, -1.0, 1.0)).float("dy", y).forward_only());
    }
    // Overlapping and disjoint windows.
    for (name, options, h, y) in [
        ("ties go to the first", Pool2d::new(3).stride(2).padding(1), 9, [2, 3, 5, 4]),
        ("ties go to the first, 4x4", Pool2d::new(4).stride(1).padding(2), 9, [2, 3, 10, 9]),
        ("ties go to the first, windows apart", Pool2d::new(2), 9, [2, 3, 4, 4]),
        ("ties go to the first, windows that fill the plane", Pool2d::new(2), 8, [2, 3, 4, 4]),
    ] {
        cases.push(
            Case::new("max_pool2d_grad", name, move |v| {
                vec![v[0].op(Pooling { options, kind: PoolKind::MaxGrad }, &[&v[1]])]
            })
            .input("x", TensorType::new(DType::F32, [2, 3, h, 8]), Fill::Index(3))
            .float("dy", y)
            .forward_only(),
        );
    }
    cases.push(Case::new("global_avg_pool2d", "7x5", |v| vec![v[0].global_avg_pool2d()]).float("x", [2, 3, 7, 5]));
    cases.push(
        Case::new("max_pool2d", "of a relu, then relu", |v| vec![v[0].relu().max_pool2d(2).relu()])
            .float("x", [2, 3, 10, 9])
            .forward_only(),
    );
    cases.push(
        Case::new("max_pool2d", "2x2 of a product, times a tensor", |v| vec![(&v[0] * &v[1]).max_pool2d(2) * &v[2]])
            .float("x", [2, 3, 8, 12])
            .float("factor", [2, 3, 8, 12])
            .float("scale", [2, 3, 4, 6]),
    );
    cases
}
