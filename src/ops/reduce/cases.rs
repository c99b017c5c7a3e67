//! Test cases of the reductions.

use super::SHORT_ROWS;
use crate::op::{Case, Fill};
use crate::{DType, Shape, Tensor, TensorType, Value};

/// Test cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("sum", "last", |x| vec![x[0].sum(&[-1], false)]).float("x", [3, 5]),
        Case::new("sum", "first", |x| vec![x[0].sum(&[0], true)]).float("x", [33, 8]),
        // Above 65,536 elements there are shaders for vec4 columns, and for plain rows and columns without divisions.
        Case::new("sum", "first, by vec4", |x| vec![x[0].sum(&[0], true)]).float("x", [70, 1024]).forward_only(),
        Case::new("sum", "first, by vec4, then plus a vector", |x| vec![x[0].sum(&[0], false) + &x[1]])
            .float("x", [65, 1032])
            .float("b", [1032])
            .forward_only(),
        Case::new("mean", "last, by vec4, then plus a vector", |x| vec![x[0].mean(&[1], false) + &x[1]])
            .float("x", [1032, 68])
            .float("b", [1032])
            .forward_only(),
        Case::new("sum", "many rows of slices", |x| {
            vec![x[0].slice(1, 3, 70, 1).sum(&[1], false), x[0].slice(1, 4, 72, 1).sum(&[1], false)]
        })
        .float("x", [1031, 80])
        .forward_only(),
        Case::new("mean", "many rows of 70", |x| vec![x[0].mean(&[1], false)]).float("x", [1031, 70]).forward_only(),
        Case::new("sum", "all but channels", |x| vec![x[0].sum(&[0, 2, 3], false)]).float("x", [3, 5, 4, 7]),
        Case::new("sum", "all but channels, by vec4", |x| vec![x[0].sum(&[0, 2, 3], false)]).float("x", [2, 3, 8, 8]),
        Case::new("sum", "every other axis", |x| vec![x[0].sum(&[1, 3, 5], false)]).float("x", [2, 3, 2, 3, 2, 3]),
        Case::new("sum", "too many axes to merge", |x| vec![x[0].sum(&[0, 2, 4, 6], false)])
            .float("x", [2, 3, 2, 1, 2, 3, 2, 2]),
        Case::new("sum", "every other of seven and of eight axes", |x| {
            vec![x[0].sum(&[0, 2, 4, 6], false), x[0].sum(&[1, 3, 5], true), x[1].sum(&[0, 2, 4, 6], true)]
        })
        .float("x", [2, 3, 2, 2, 2, 3, 2])
        .float("y", [2, 2, 2, 2, 2, 2, 2, 2]),
        Case::new("mean", "every other of eight axes, of a view", |x| {
            vec![x[0].permute(&[7, 1, 5, 3, 4, 2, 6, 0]).mean(&[1, 3, 5, 7], false)]
        })
        .float("x", [2, 3, 2, 2, 2, 2, 2, 3]),
        Case::new("var", "every other of eight axes", |x| vec![x[0].var(&[0, 2, 4, 6], 1, false)])
            .float("x", [2, 2, 3, 2, 2, 2, 2, 2]),
        Case::new("logsumexp", "every other of nine axes", |x| vec![x[0].logsumexp(&[0, 2, 4, 6, 8], true)])
            .float("x", [2; 9]),
        Case::new("max", "and min, every other of eight axes", |x| {
            vec![x[0].max(&[0, 2, 4, 6], false), x[0].min(&[1, 3, 5, 7], true)]
        })
        .input("x", TensorType::new(DType::F32, [2, 3, 2, 2, 2, 2, 3, 2]), Fill::Distinct),
        Case::new("prod", "every other of eight axes", |x| vec![x[0].prod(&[1, 3, 5, 7], false)]).input(
            "x",
            TensorType::new(DType::F32, [2; 8]),
            Fill::Uniform(0.5, 1.5),
        ),
        Case::new("sum", "i32, every other of seven axes", |x| {
            vec![x[0].sum(&[0, 2, 4, 6], false), x[0].max(&[1, 3, 5], true), x[0].prod(&[0, 2, 4, 6], true)]
        })
        .input("x", TensorType::new(DType::I32, [2, 3, 2, 2, 2, 2, 3]), Fill::Index(1 << 30))
        .forward_only(),
        Case::new("sum", "two whole workgroups of rows", |x| vec![x[0].sum(&[1], false)]).float("x", [128, 3]),
        Case::new("sum", "many rows", |x| vec![x[0].sum(&[1], false)]).float("x", [700, 3]),
        Case::new("sum", "an offset, two axes kept", |x| vec![x[0].slice(2, 1, 9, 1).sum(&[1], false)])
            .float("x", [4, 6, 10, 5]),
        Case::new("min", "of the largest u32, and the maximum of zeros", |x| {
            let zeros = &x[0] * 0.0;
            let largest = x[0].graph().constant(Tensor::of(&Shape::from([]), vec![u32::MAX]));
            let largest = zeros.maximum(&largest.broadcast_to(x[0].shape()));
            vec![largest.min(&[1], false), zeros.max(&[1], false)]
        })
        .input("x", TensorType::new(DType::U32, [3, 5]), Fill::Index(9))
        .forward_only(),
        Case::new("min", "of the largest i32, and the maximum of the smallest", |x| {
            let all = |number: i32| {
                let number = x[0].graph().constant(Tensor::of(&Shape::from([]), vec![number]));
                number.broadcast_to(x[0].shape())
            };
            let zeros = &x[0] * 0.0;
            vec![zeros.maximum(&all(i32::MAX)).min(&[1], false), zeros.minimum(&all(i32::MIN)).max(&[1], false)]
        })
        .input("x", TensorType::new(DType::I32, [3, 5]), Fill::Index(9))
        .forward_only(),
        Case::new("sum", "permuted", |x| vec![x[0].permute(&[2, 0, 1]).sum(&[1], false)]).float("x", [4, 7, 9]),
        Case::new("sum", "broadcast", |x| vec![x[0].broadcast_to(&[3, 4, 5].into()).sum(&[0, 2], false)])
            .float("x", [4, 1]),
        Case::new("sum", "slices with offset and step", |x| {
            vec![x[0].slice(1, 3, 20, 2).sum(&[1], false), x[0].slice(0, 1, 3, 1).sum(&[0], false)]
        })
        .float("x", [4, 24]),
        Case::new("sum", "of nothing is 0", |x| vec![x[0].sum(&[1], false)]).float("x", [3, 0]),
        Case::new("sum", "zero-size result", |x| vec![x[0].sum(&[1], false)]).float("x", [0, 3]),
        Case::new("sum", "a scalar over no axes", |x| vec![x[0].sum_all() + 1.0]).float("x", []),
        Case::new("mean", "last, kept", |x| vec![x[0].mean(&[-1], true)]).float("x", [5, 6]),
        Case::new("mean", "of the planes", |x| vec![x[0].mean(&[2, 3], false)]).float("x", [2, 5, 4, 4]),
        Case::new("mean", "all", |x| vec![x[0].mean_all()]).float("x", [7, 11]),
        Case::new("mean", "all of 70,001", |x| vec![x[0].mean_all()]).float("x", [70_001]).forward_only(),
        Case::new("logsumexp", "last", |x| vec![x[0].logsumexp(&[-1], false)]).float("x", [4, 9]),
        Case::new("logsumexp", "+-80, two axes", |x| vec![x[0].logsumexp(&[0, 2], true)]).input(
            "x",
            TensorType::new(DType::F32, [3, 2, 5]),
            Fill::Special(&[80.0, -80.0, 79.0], -80.0, 80.0),
        ),
        // Sums long enough for two stages, and lengths that are not whole vectors.
        Case::new("sum", "all of 40,000", |x| vec![x[0].sum_all()]).float("x", [200, 200]),
        Case::new("sum", "all of 70,001", |x| vec![x[0].sum_all()]).float("x", [70_001]).forward_only(),
        Case::new("sum", "all of 1.2 million", |x| vec![x[0].sum_all()]).float("x", [1200, 1000]).forward_only(),
        Case::new("sum", "long columns", |x| vec![x[0].sum(&[0], false)]).float("x", [12_000, 6]).forward_only(),
        Case::new("sum", "long columns, by vec4", |x| vec![x[0].sum(&[0], false)])
            .float("x", [5000, 16])
            .forward_only(),
        // Two rows, each in two parts of whole workgroups; and parts that end within lines.
        Case::new("sum", "two long rows", |x| vec![x[0].sum(&[1], false)]).float("x", [2, 33_000]).forward_only(),
        // Rows in parts also for workgroups of a software adapter.
        Case::new("sum", "two longer rows", |x| vec![x[0].sum(&[1], false)]).float("x", [2, 140_000]).forward_only(),
        Case::new("sum", "planes in parts", |x| vec![x[0].sum(&[0, 2], false)]).float("x", [4, 3, 1501]).forward_only(),
        Case::new("sum", "long planes", |x| vec![x[0].sum(&[0, 2], false)]).float("x", [9, 5, 3001]).forward_only(),
    ];
    for size in [1, 2, 255, 256, 257, 1000, 5000] {
        cases.push(Case::new("sum", format!("rows of {size}"), |x| vec![x[0].sum(&[1], false)]).float("x", [3, size]));
        cases.push(
            Case::new("max", format!("rows of {size}"), |x| vec![x[0].max(&[1], false), x[0].min(&[1], true)]).input(
                "x",
                TensorType::new(DType::F32, [3, size]),
                Fill::Distinct,
            ),
        );
    }
    // Enough rows for workgroups of several, the last not full.
    for size in SHORT_ROWS {
        let name = format!("259 rows of {size}");
        let sums = Case::new("sum", name.clone(), |x| vec![x[0].sum(&[1], false)]).float("x", [259, size]);
        let extremes = Case::new("max", name, |x| vec![x[0].max(&[1], false), x[0].min(&[1], false)]);
        let extremes = extremes.input("x", TensorType::new(DType::F32, [259, size]), Fill::Distinct);
        cases.extend([sums, extremes].map(Case::forward_only));
    }
    // All terms round in the same direction: a plain running sum would accumulate the errors.
    let tenths = |case: Case, shape: &[usize]| {
        case.input("x", TensorType::new(DType::F32, shape), Fill::Uniform(0.1, 0.1)).forward_only()
    };
    cases.extend([
        tenths(Case::new("mean", "of 999,999 tenths", |x| vec![x[0].mean_all()]), &[999_999]),
        tenths(Case::new("sum", "1030 rows of 2047 tenths", |x| vec![x[0].sum(&[1], false)]), &[1030, 2047]),
        tenths(Case::new("sum", "rows of 16,384 tenths", |x| vec![x[0].sum(&[1], false)]), &[5, 16_384]),
        tenths(Case::new("sum", "columns of 4096 tenths", |x| vec![x[0].sum(&[0], false)]), &[4096, 24]),
        tenths(Case::new("sum", "tenths in short rows", |x| vec![x[0].sum(&[0, 2], false)]), &[1365, 5, 3]),
    ]);
    // Neutral elements as data: minus infinity for max, infinity for min.
    const LOWEST: [f64; 15] = {
        let mut x = [f64::NEG_INFINITY; 15];
        x[6] = -3.0;
        x[13] = 2.5;
        x
    };
    let infinite = |case: Case| case.input("x", TensorType::new(DType::F32, [3, 5]), Fill::Special(&LOWEST, 0.0, 0.0));
    cases.extend([
        infinite(Case::new("max", "a row of minus infinity", |x| vec![x[0].max(&[1], false)])).forward_only(),
        infinite(Case::new("min", "a row of infinity", |x| vec![x[0].neg().min(&[1], false)])).forward_only(),
        infinite(Case::new("logsumexp", "a row of minus infinity", |x| vec![x[0].logsumexp(&[1], false)]))
            .forward_only(),
    ]);
    let factors = |case: Case, shape: &[usize], fill: Fill| case.input("x", TensorType::new(DType::F32, shape), fill);
    let near_one = Fill::Uniform(0.9, 1.1);
    cases.extend([
        factors(Case::new("prod", "last", |x| vec![x[0].prod(&[-1], false)]), &[3, 5], Fill::Uniform(-2.0, 2.0)),
        factors(
            Case::new("prod", "with no, one and two zeros", |x| vec![x[0].prod(&[1], true)]),
            &[4, 3],
            Fill::Special(&[0.0, 2.0, 3.0, 0.0, -1.5, 0.0, 2.0, -0.0, 1.0, 1.0, 0.5, 0.25], -2.0, 2.0),
        ),
        factors(Case::new("prod", "two axes", |x| vec![x[0].prod(&[0, 2], false)]), &[3, 4, 5], near_one.clone()),
        factors(Case::new("prod", "columns by vec4", |x| vec![x[0].prod(&[0], false)]), &[9, 8000], near_one.clone())
            .forward_only(),
        factors(Case::new("prod", "rows of 257", |x| vec![x[0].prod(&[1], false)]), &[3, 257], near_one.clone()),
        factors(Case::new("prod", "all of 20,000", |x| vec![x[0].prod(&[0], false)]), &[20_000], near_one)
            .forward_only(),
        factors(
            Case::new("prod", "of nothing is 1", |x| vec![x[0].prod(&[1], false)]),
            &[3, 0],
            Fill::Uniform(-1.0, 1.0),
        ),
    ]);
    let distinct = |case: Case, shape: &[usize]| case.input("x", TensorType::new(DType::F32, shape), Fill::Distinct);
    cases.push(distinct(Case::new("max", "two axes, kept", |x| vec![x[0].max(&[0, 1], true)]), &[3, 4, 5]));
    cases.push(distinct(Case::new("min", "middle", |x| vec![x[0].min(&[1], false)]), &[3, 4, 8]));
    cases.push(distinct(Case::new("max", "all of 30,000", |x| vec![x[0].max(&[0, 1], false)]), &[300, 100]));
    // Rows of 8 with a NaN or an infinity; columns with some of them; whole tensors.
    const SEEDED: &[f64] = &{
        let mut x = [0.25; 64];
        (x[0], x[8 + 7], x[16 + 3], x[16 + 4], x[24 + 5]) =
            (f64::NAN, f64::NAN, f64::NAN, f64::INFINITY, f64::INFINITY);
        (x[32 + 1], x[40 + 2], x[40 + 6]) = (f64::NEG_INFINITY, f64::INFINITY, f64::NEG_INFINITY);
        x
    };
    for [op, each] in [["max", "min"], ["sum", "prod"]] {
        for size in [8, 7] {
            let case = Case::new(op, format!("NaN and infinities, with {each}, rows of {size}"), move |x| {
                let x = x[0].slice(1, 0, size, 1);
                let of = |x: &Value, axis: &[isize]| match op {
                    "max" => [x.max(axis, false), x.min(axis, false)],
                    _ => [x.sum(axis, false), x.prod(axis, false)],
                };
                [of(&x, &[0]), of(&x, &[1]), of(&x, &[0, 1])].concat()
            });
            let ty = TensorType::new(DType::F32, [24, 8]);
            cases.push(case.input("x", ty, Fill::Special(SEEDED, 0.5, 1.0)).forward_only());
        }
    }
    let long = Case::new("max", "NaN in 20,000", |x| vec![x[0].max(&[0], false), x[0].min(&[0], false)]);
    let ty = TensorType::new(DType::F32, [20_000]);
    cases.push(long.input("x", ty, Fill::Special(SEEDED, 0.5, 1.0)).forward_only());
    let wide = Case::new("max", "NaN by vec4 along rows and columns", |x| {
        [0, 1].map(|axis| [x[0].max(&[axis], false), x[0].min(&[axis], false)]).concat()
    });
    let ty = TensorType::new(DType::F32, [130, 512]);
    cases.push(wide.input("x", ty, Fill::Special(SEEDED, 0.5, 1.0)).forward_only());
    for dtype in [DType::I32, DType::U32] {
        cases.push(
            Case::new("sum", format!("{dtype}, every reduction"), |x| {
                vec![
                    x[0].sum(&[1], false),
                    x[0].max(&[1], false),
                    x[0].min(&[0], true),
                    x[0].sum_all(),
                    x[0].prod(&[1], false),
                ]
            })
            .input("x", TensorType::new(dtype, [6, 36]), Fill::Index(1 << 30))
            .forward_only(),
        );
        cases.push(
            Case::new("sum", format!("{dtype}, by vec4 along rows and columns"), |x| {
                vec![x[0].sum(&[1], false), x[0].sum(&[0], false), x[0].max(&[0], false), x[0].min(&[1], false)]
            })
            .input("x", TensorType::new(dtype, [130, 512]), Fill::Index(1 << 30))
            .forward_only(),
        );
    }
    cases.extend(fused());
    cases
}

/// Reductions of what pointwise ops compute, as the reductions read it.
fn fused() -> Vec<Case> {
    let two = |case: Case, shape: &[usize]| case.float("x", shape).float("y", shape);
    let squares = |x: &Value, y: &Value| (x - y.slice(0, 0, 1, 1).broadcast_to(x.shape())).square();
    vec![
        two(Case::new("sum", "of products, last", |x| vec![(&x[0] * &x[1]).sum(&[-1], false)]), &[5, 33]),
        two(Case::new("mean", "of products, last by vec4", |x| vec![(&x[0] * &x[1]).mean(&[1], true)]), &[9, 64]),
        two(Case::new("sum", "of products, first", |x| vec![(&x[0] * &x[1]).sum(&[0], false)]), &[33, 7]),
        two(
            Case::new("sum", "of squared distances from the first row", move |x| {
                vec![squares(&x[0], &x[1]).sum(&[0], false)]
            }),
            &[70, 1024],
        )
        .forward_only(),
        two(
            Case::new("sum", "of squared distances along rows, then a root", move |x| {
                vec![(squares(&x[0], &x[1]).sum(&[1], false) + 1.0).sqrt() * 0.5]
            }),
            &[70, 1030],
        )
        .forward_only(),
        two(
            Case::new("mean", "of 70,001 squared differences, doubled", |x| {
                vec![(&x[0] - &x[1]).square().mean_all() * 2.0]
            }),
            &[70_001],
        )
        .forward_only(),
        two(
            Case::new("max", "and min, of scaled products", |x| {
                let of = |a: &Value, b: &Value| (a * b) * 3.0;
                vec![of(&x[0], &x[1]).max(&[1], false), (of(&x[1], &x[0]) + 0.5).min(&[0], true)]
            }),
            &[130, 512],
        )
        .forward_only(),
        two(
            Case::new("sum", "of products that are permuted, sliced and reshaped", |x| {
                let products = || &x[0] * &x[1] + x[2].broadcast_to(x[0].shape());
                vec![
                    products().permute(&[2, 0, 1]).sum(&[1], false),
                    (products() * 2.0).slice(2, 1, 7, 2).sum(&[0, 2], false),
                    (products() * 4.0).reshape(&[12, 18]).sum(&[0], false),
                ]
            }),
            &[4, 6, 9],
        )
        .float("b", [6, 1]),
        two(
            Case::new("sum", "of products with a transpose", |x| {
                vec![(&x[0] * x[0].t()).sum(&[1], false), (&x[0].t() * &x[0] * &x[1]).sum(&[0], false)]
            }),
            &[19, 19],
        ),
        // The product is stored for the second output, and the first reads it.
        two(
            Case::new("sum", "of squares of a result", |x| {
                let products = &x[0] * &x[1];
                vec![products.square().sum(&[1], false), products]
            }),
            &[6, 36],
        ),
        two(
            Case::new("sum", "of broadcast products", |x| {
                vec![(&x[0] * &x[1]).reshape(&[4, 1, 9]).broadcast_to(&[4, 3, 9].into()).sum(&[0, 1], false)]
            }),
            &[4, 9],
        ),
        Case::new("sum", "of products of narrow numbers", |x| {
            vec![(&x[0] * &x[1]).sum(&[1], false), (&x[2] * &x[0] * &x[0]).sum(&[0], false)]
        })
        .input("x", TensorType::new(DType::F16, [9, 40]), Fill::Uniform(-2.0, 2.0))
        .input("y", TensorType::new(DType::BF16, [9, 40]), Fill::Uniform(-2.0, 2.0))
        .float("z", [9, 40])
        .forward_only(),
        Case::new("sum", "of selected numbers", |x| {
            vec![x[0].gt(&x[1]).where_(&x[1], &x[0]).sum(&[1], false), x[0].lt(&x[1]).cast(DType::F32).sum_all()]
        })
        .float("x", [12, 20])
        .float("y", [12, 20])
        .forward_only(),
        Case::new("sum", "of NaN and infinities", |x| {
            vec![(&x[0] * 2.0).sum(&[1], false), x[0].abs().max(&[0], false)]
        })
        .input(
            "x",
            TensorType::new(DType::F32, [8, 8]),
            Fill::Special(&[f64::NAN, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, f64::INFINITY], 0.5, 1.0),
        )
        .forward_only(),
    ]
}
