//! Test cases: row lengths at the limits of a workgroup, every layout of rows, long rows split into parts, and data
//! whose mean is far from 0.

use super::{NormKind, Normalize, NormalizeGrad};
use crate::autodiff::gradients_of;
use crate::op::{Bits, Case, Fill};
use crate::ops::reduce::SHORT_ROWS;
use crate::{DType, TensorType, Value};

const EPS: f64 = 1e-5;

fn data(case: Case, shape: &[usize], fill: Fill) -> Case {
    case.input("x", TensorType::new(DType::F32, shape), fill)
}

/// Layer and RMS norm without scale and shift, over the last axis.
fn rows(name: &str, shape: &[usize], fill: Fill) -> [Case; 2] {
    let size = shape[shape.len() - 1];
    // With a tiny eps, rows of one or two elements normalise to the same result for any data, and the gradient is pure
    // rounding error.
    let eps = if size < 4 { 0.5 } else { EPS };
    [
        data(
            Case::new("layer_norm", name, move |x| vec![x[0].layer_norm(&[size], None, None, eps)]),
            shape,
            fill.clone(),
        ),
        data(Case::new("rms_norm", name, move |x| vec![x[0].rms_norm(&[size], None, eps)]), shape, fill),
    ]
}

/// Batch norm in training: data, mean and variance.
fn batch(name: &str, shape: &[usize], fill: Fill) -> Case {
    let case = Case::new("batch_norm", name, |x| {
        let of = x[0].batch_norm_training(Some(&x[1]), Some(&x[2]), EPS);
        vec![of.y, of.mean, of.var]
    });
    data(case, shape, fill).float("weight", [shape[1]]).float("bias", [shape[1]])
}

/// The gradient as an op, so that its own gradient is checked.
fn again(centered: bool, shape: &[usize]) -> Case {
    let kind = NormKind { centered, eps: Bits(EPS) };
    let name = if centered { "normalize_grad" } else { "rms_normalize_grad" };
    let case = Case::new(name, "differentiated again", move |x| {
        let outputs = x[0].graph().apply(Normalize(kind), &[&x[0]]);
        vec![outputs[0].op(NormalizeGrad(kind), &[&outputs[1], &x[1]])]
    });
    case.float("x", shape).float("dy", shape)
}

/// Variance and standard deviation.
fn moments() -> Vec<Case> {
    let spread = |name: &str, axes: &'static [isize], shape: &[usize], fill: Fill| {
        let case = |root: bool| {
            let op = if root { "std" } else { "var" };
            data(Case::new(op, name, move |x| vec![x[0].spread(root, axes, 1, root)]), shape, fill.clone())
        };
        [case(false), case(true)]
    };
    let unit = Fill::Uniform(-2.0, 2.0);
    let mut cases = vec![
        Case::new("var", "biased, kept", |x| vec![x[0].var(&[1], 0, true)]).float("x", [5, 9]),
        Case::new("std", "biased, of all", |x| vec![x[0].std(&[0, 1], 0, false)]).float("x", [5, 9]),
        // Differentiates twice through the variance, the mean and the ops of the gradient.
        Case::new("var", "differentiated again", |x| vec![gradient_of(&x[0].var(&[1], 1, false), &x[0])])
            .float("x", [4, 6]),
        Case::new("std", "differentiated again", |x| vec![gradient_of(&x[0].std(&[1], 1, false), &x[0])])
            .float("x", [4, 6]),
    ];
    cases.extend(spread("two axes around another", &[0, 2], &[3, 4, 5], unit.clone()));
    cases.extend(spread("two axes between others", &[1, 3], &[3, 4, 2, 5], unit.clone()));
    cases.extend(spread("columns by vec4", &[0], &[67, 8], unit.clone()));
    cases.extend(spread("rows by vec4 in parts", &[1], &[3, 40_000], unit.clone()));
    cases.extend(spread("columns in parts", &[0], &[30_001, 3], unit.clone()));
    cases.extend(spread("columns by vec4 in parts", &[0], &[2100, 36], unit.clone()));
    cases.extend(spread("no rows", &[1], &[0, 5], unit));
    // The mean is a million times the deviation, or its square overflows f32.
    let apart: [(&str, Fill); 3] = [
        ("a mean of a million", Fill::Uniform(1e6, 1_000_003.0)),
        ("huge", Fill::Uniform(7e19, 1.3e20)),
        ("one number", Fill::Uniform(12_345.678, 12_345.678)),
    ];
    for (name, fill) in apart {
        for (place, axes, shape) in [
            ("rows", &[1][..], &[2, 1000][..]),
            ("a row of 16,384", &[1], &[1, 16_384]),
            ("columns in parts", &[0], &[10_000, 2]),
            ("columns by vec4 in parts", &[0], &[9001, 4]),
        ] {
            let [var, std] = spread(&format!("{place}, {name}"), axes, shape, fill.clone());
            if name != "huge" {
                cases.push(var.forward_only());
            }
            cases.push(std.forward_only());
        }
    }
    let tiny = spread("rows, tiny", &[1], &[3, 40_000], Fill::Uniform(1e-26, 3e-25));
    cases.extend(tiny.into_iter().skip(1).map(Case::forward_only));
    cases
}

/// The gradient of the sum of squares.
fn gradient_of(y: &Value, x: &Value) -> Value {
    gradients_of(&[(y, &(y * 2.0))], &[x]).swap_remove(0)
}

/// Test cases of this family.
pub fn cases() -> Vec<Case> {
    let unit = Fill::Uniform(-2.0, 2.0);
    let mut cases = Vec::new();
    // 128 and 256 invocations hold 512 and 1024 scalars or vectors.
    for size in [1, 2, 3, 4, 33, 127, 511, 513, 768, 1027, 2044, 2052, 4096, 4100] {
        cases.extend(rows(&format!("rows of {size}"), &[3, size], unit.clone()));
    }
    // Enough rows for workgroups of several, the last not full.
    for size in SHORT_ROWS {
        cases.extend(rows(&format!("259 rows of {size}"), &[259, size], unit.clone()));
    }
    cases.extend(rows("8 rows of 1", &[8, 1], unit.clone()));
    cases.extend(rows("many short rows", &[1025, 5], unit.clone()));
    cases.extend(rows("two whole workgroups of rows", &[128, 4], unit.clone()));
    cases.extend(rows("a long row", &[1, 20_004], unit.clone()));
    cases.extend(rows("long rows, not a multiple of 4", &[2, 17_001], unit.clone()));
    cases.extend(rows("a mean of 1000", &[3, 770], Fill::Uniform(999.0, 1001.0)));
    cases.extend(rows("a mean of -1000, in parts", &[2, 40_000], Fill::Uniform(-1000.505, -1000.5)));
    cases.extend(rows("a mean of a million", &[2, 16_384], Fill::Uniform(1e6, 1_000_003.0)).map(Case::forward_only));
    cases.extend(rows("hard values", &[4, 12], Fill::Special(&[1e-40, 100.0, -100.0, 0.0, 1e-20, 3e4], -1.0, 1.0)));
    cases.extend(rows("no rows", &[0, 5], unit.clone()));
    cases.push(
        Case::new("layer_norm", "rows of one number", |x| {
            vec![x[0].broadcast_to(&[5, 12].into()).layer_norm(&[12], None, None, EPS)]
        })
        .input("x", TensorType::new(DType::F32, [5, 1]), Fill::Uniform(-1000.0, 1000.0))
        .forward_only(), // the gradient is 0
    );
    cases.push(
        Case::new("layer_norm", "two axes, scaled and shifted", |x| {
            vec![x[0].layer_norm(&[4, 5], Some(&x[1]), Some(&x[2]), EPS)]
        })
        .float("x", [2, 3, 4, 5])
        .float("weight", [4, 5])
        .float("bias", [4, 5]),
    );
    cases.push(
        Case::new("layer_norm", "scaled, shifted, relu", |x| {
            vec![x[0].layer_norm(&[130], Some(&x[1]), Some(&x[2]), 1e-3).relu()]
        })
        .input("x", TensorType::new(DType::F32, [6, 130]), Fill::Distinct)
        .float("weight", [130])
        .float("bias", [130]),
    );
    // The gradient is multiplied in the epilogue of the kernel that computes it.
    for size in [12, 9] {
        cases.push(
            Case::new("layer_norm", format!("of products, rows of {size}"), move |x| {
                vec![(&x[0] * &x[1]).layer_norm(&[size], None, None, EPS)]
            })
            .float("x", [5, size])
            .input("by", TensorType::new(DType::F32, [5, size]), Fill::Uniform(0.5, 2.0)),
        );
    }
    cases.push(
        Case::new("layer_norm", "of transposed data", |x| vec![x[0].t().layer_norm(&[6], None, Some(&x[1]), EPS)])
            .float("x", [6, 9])
            .float("bias", [6]),
    );
    cases.push(
        Case::new("rms_norm", "scaled", |x| vec![x[0].rms_norm(&[16], Some(&x[1]), 1e-6)])
            .float("x", [2, 5, 16])
            .float("weight", [16]),
    );
    for (name, shape, groups) in
        [("2 of 6", &[3, 6, 5, 3][..], 2), ("one", &[2, 4, 3], 1), ("of 8, by vec4", &[2, 8, 4, 4], 4)]
    {
        cases.push(
            Case::new("group_norm", name, move |x| vec![x[0].group_norm(groups, Some(&x[1]), Some(&x[2]), EPS)])
                .float("x", shape)
                .float("weight", [shape[1]])
                .float("bias", [shape[1]]),
        );
    }
    cases.push(
        Case::new("instance_norm", "planes", |x| vec![x[0].instance_norm(Some(&x[1]), None, EPS)])
            .float("x", [2, 3, 5, 7])
            .float("weight", [3]),
    );
    cases.push(batch("of rows", &[9, 6], unit.clone()));
    cases.push(batch("of rows by vec4", &[67, 8], unit.clone()));
    cases.push(batch("of rows, one channel", &[33, 1], unit.clone()));
    cases.push(batch("of planes", &[3, 5, 3, 3], unit.clone()));
    cases.push(batch("of planes by vec4", &[3, 5, 4, 7], unit.clone()));
    cases.push(batch("one example", &[1, 3, 5, 5], unit.clone()));
    cases.push(batch("more channels than a workgroup", &[3, 130, 3], unit.clone()));
    cases.push(batch("planes in parts", &[6, 3, 31, 43], unit.clone()));
    cases.push(batch("planes by vec4 in parts", &[7, 5, 64, 32], unit.clone()));
    cases.push(batch("rows by vec4 in parts", &[2100, 36], unit.clone()));
    cases.push(batch("many channels in parts", &[128, 516], unit.clone()));
    cases.push(batch("rows in parts", &[2100, 10], unit));
    cases.push(batch("a mean of 300, in parts", &[5, 2, 60, 60], Fill::Uniform(299.0, 301.0)));
    cases.push(
        Case::new("batch_norm", "in evaluation", |x| {
            vec![x[0].batch_norm(&x[1], &x[2], Some(&x[3]), Some(&x[4]), EPS)]
        })
        .float("x", [3, 4, 2, 5])
        .float("mean", [4])
        .input("var", TensorType::new(DType::F32, [4]), Fill::Uniform(0.5, 2.0))
        .float("weight", [4])
        .float("bias", [4]),
    );
    cases.extend(moments());
    for centered in [true, false] {
        cases.push(again(centered, &[1, 4, 6]));
        cases.push(again(centered, &[3, 2, 5]));
    }
    cases
}
