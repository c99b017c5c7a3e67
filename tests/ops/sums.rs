//! Sums of many terms, variances around large means, and infinities in both, on every device and with every kernel,
//! compared with values computed by hand.

use wgrad::ops::attention::Attention;
use wgrad::plan::Options;
use wgrad::{Graph, Session, Tensor, Value, gradients};

use crate::common;

const NONE: f64 = f64::NEG_INFINITY;

/// Checks the outputs of each device and variant.
fn by_every_kernel(
    feeds: &[(&'static str, Tensor)],
    build: impl Fn(&[Value]) -> Vec<Value>,
    check: impl Fn(&str, &[Vec<f64>]),
) {
    let graph = Graph::new();
    let inputs: Vec<Value> = feeds.iter().map(|(name, x)| graph.input(name, x.dtype(), x.shape())).collect();
    let outputs = build(&inputs);
    let outputs: Vec<&Value> = outputs.iter().collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, x)| (*name, x)).collect();
    for device in common::devices() {
        for variant in [None, Some("workgroup"), Some("invocation"), Some("parts"), Some("tile"), Some("shuffle")] {
            let mut session = Session::new(device.clone());
            let options = Options { variant: variant.map(str::to_owned), ..Options::default() };
            let program = session.compile_with(&graph, &outputs, &options).expect("compiles");
            let got = session.run(&program, &feeds).expect("runs");
            let got: Vec<Vec<f64>> = got.iter().map(Tensor::to_f64).collect();
            check(&format!("{device}, variant {variant:?}"), &got);
        }
    }
}

fn tensor(shape: &[usize], values: impl Iterator<Item = f32>) -> Tensor {
    Tensor::new(shape, values.take(shape.iter().product()).collect::<Vec<f32>>()).expect("fits")
}

fn near(way: &str, got: &[f64], want: &[f64], relative: f64) {
    assert_eq!(got.len(), want.len(), "{way}");
    for (got, want) in got.iter().zip(want) {
        assert!(got == want || (got - want).abs() <= relative * want.abs(), "{got}, expected {want}: {way}");
    }
}

/// Mean and biased variance.
fn moments(x: &[f64]) -> [f64; 2] {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    [mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64]
}

#[test]
fn sums_of_many_terms_are_accurate() {
    let tenth = f64::from(0.1f32);
    for n in [1_000_000, 10_000_000] {
        by_every_kernel(
            &[("x", tensor(&[n], std::iter::repeat(0.1)))],
            |x| vec![x[0].sum_all(), x[0].mean_all()],
            |way, got| {
                near(way, &got[0], &[n as f64 * tenth], 1e-6);
                near(way, &got[1], &[tenth], 1e-6);
            },
        );
    }
}

#[test]
fn variance_is_accurate_for_large_means() {
    by_every_kernel(
        &[("x", tensor(&[1, 16_384], (0..).map(|k| 1e6 + (k % 4) as f32)))],
        |x| {
            let var = x[0].var(&[1], 0, false);
            let slope = gradients(&var.sum_all(), &[&x[0]]).swap_remove(0);
            vec![var, x[0].std(&[1], 0, false), x[0].layer_norm(&[16_384], None, None, 1e-5), slope]
        },
        |way, got| {
            near(way, &got[0], &[1.25], 1e-4);
            near(way, &got[1], &[1.25f64.sqrt()], 1e-4);
            let c = |k: usize| (k % 4) as f64 - 1.5;
            near(way, &got[2], &(0..16_384).map(|k| c(k) / 1.25001f64.sqrt()).collect::<Vec<f64>>(), 1e-4);
            near(way, &got[3], &(0..16_384).map(|k| c(k) / 8192.0).collect::<Vec<f64>>(), 1e-6);
        },
    );
    let x = |k: usize| 1e6 + (k / 2 % 3) as f32;
    let column: Vec<f64> = (0..100_000).map(|k| f64::from(x(2 * k))).collect();
    let [mean, var] = moments(&column);
    assert!((var - 0.667).abs() < 1e-3);
    by_every_kernel(
        &[("x", tensor(&[100_000, 2], (0..).map(x)))],
        |x| {
            let norm = x[0].batch_norm_training(None, None, 1e-5);
            vec![x[0].var(&[0], 0, false), x[0].std(&[0], 1, true), norm.mean, norm.var]
        },
        |way, got| {
            near(way, &got[0], &[var; 2], 1e-4);
            near(way, &got[1], &[(var * 100_000.0 / 99_999.0).sqrt(); 2], 1e-4);
            near(way, &got[2], &[mean; 2], 1e-7);
            near(way, &got[3], &[var; 2], 1e-4);
        },
    );
}

#[test]
fn std_is_accurate_where_the_variance_overflows_or_underflows() {
    for scale in [1e20, 1e-25] {
        let x = |k: usize| ([0.7, 1.0, 1.3][k % 3] * scale) as f32;
        // Each of the three values makes up a third of each row or column.
        let want = moments(&[x(0), x(1), x(2)].map(f64::from))[1].sqrt();
        for (axis, shape) in [(1, [3, 30_000]), (0, [90_000, 1]), (0, [30_000, 4])] {
            by_every_kernel(
                &[("x", tensor(&shape, (0..).map(x)))],
                |x| vec![x[0].std(&[axis], 0, false)],
                |way, got| near(way, &got[0], &vec![want; shape[1 - axis as usize]], 1e-5),
            );
        }
    }
}

#[test]
fn std_of_equal_numbers_has_gradient_0() {
    by_every_kernel(
        &[("x", tensor(&[2, 3], [5.0, 5.0, 5.0, 1.0, 2.0, 3.0].into_iter()))],
        |x| {
            let y = x[0].std(&[1], 1, false);
            let slope = gradients(&y.sum_all(), &[&x[0]]).swap_remove(0);
            vec![y, slope]
        },
        |way, got| {
            near(way, &got[0], &[0.0, 1.0], 1e-6);
            near(way, &got[1], &[0.0, 0.0, 0.0, -0.5, 0.0, 0.5], 1e-6);
        },
    );
}

#[test]
fn max_min_and_logsumexp_handle_rows_of_minus_infinity() {
    let low = f32::NEG_INFINITY;
    by_every_kernel(
        &[("x", tensor(&[3, 2], [low, low, low, 2.0, 1.0, 1.0].into_iter()))],
        |x| {
            let (max, min, sum) = (x[0].max(&[1], false), x[0].neg().min(&[1], false), x[0].logsumexp(&[1], false));
            let slope = |y: &Value| gradients(&y.sum_all(), &[&x[0]]).swap_remove(0);
            let slopes = [slope(&max), slope(&sum)];
            [vec![max, min, sum], slopes.to_vec()].concat()
        },
        |way, got| {
            assert_eq!(got[0], [NONE, 2.0, 1.0], "{way}");
            assert_eq!(got[1], [-NONE, -2.0, -1.0], "{way}");
            near(way, &got[2], &[NONE, 2.0, 1.0 + 2f64.ln()], 1e-6);
            near(way, &got[3], &[0.5, 0.5, 0.0, 1.0, 0.5, 0.5], 1e-6);
            near(way, &got[4], &[0.0, 0.0, 0.0, 1.0, 0.5, 0.5], 1e-6);
        },
    );
    // Longer than one dispatch or workgroup handles.
    for shape in [[2, 70_000], [70_000, 2]] {
        by_every_kernel(
            &[("x", tensor(&shape, std::iter::repeat(low)))],
            |x| {
                let axes = [if x[0].dim(0) == 2 { 1 } else { 0 }];
                vec![x[0].max(&axes, false), x[0].logsumexp(&axes, false)]
            },
            |way, got| got.iter().for_each(|got| assert_eq!(got[..], [NONE; 2], "{way}")),
        );
    }
    by_every_kernel(
        &[("x", tensor(&[1, 3], [f32::INFINITY, 1.0, 2.0].into_iter()))],
        |x| vec![x[0].logsumexp(&[1], false)],
        |way, got| assert_eq!(got[0], [-NONE], "{way}"),
    );
}

#[test]
fn a_fully_masked_query_gives_zero_and_no_gradient() {
    let low = f32::NEG_INFINITY;
    for [e, width] in [[8, 4], [4100, 4], [4, 4100]] {
        for causal in [false, true] {
            let numbers = |n: usize| tensor(&[1, n], (0..).map(|k| ((k * 7 % 11) as f32 - 5.0) / 50.0));
            let reshaped = |n: usize, rows: usize| {
                let x = numbers(n * rows);
                Tensor::new([rows, n], x.to_f32()).expect("fits")
            };
            by_every_kernel(
                &[
                    ("q", reshaped(e, 2)),
                    ("k", reshaped(e, 3)),
                    ("v", reshaped(width, 3)),
                    ("mask", tensor(&[2, 3], [low, low, low, low, 0.5, low].into_iter())),
                ],
                |x| {
                    let options = Attention { attn_mask: Some(x[3].clone()), is_causal: causal, scale: None };
                    let y = x[0].scaled_dot_product_attention(&x[1], &x[2], &options);
                    let loss = y.square().sum_all();
                    let slopes = gradients(&loss, &[&x[0], &x[1], &x[2], &x[3]]);
                    [vec![y], slopes].concat()
                },
                |way, got| {
                    // The second query sees only the second key, whose weight is always 1.
                    let v = reshaped(width, 3).to_f64();
                    let seen = &v[width..2 * width];
                    near(way, &got[0], &[&vec![0.0; width][..], seen].concat(), 1e-6);
                    let of_v: Vec<f64> = seen.iter().map(|v| 2.0 * v).collect();
                    let none = vec![0.0; width];
                    near(way, &got[3], &[&none[..], &of_v, &none].concat(), 1e-6);
                    for slope in [&got[1], &got[2], &got[4]] {
                        // Not exactly 0: delta sums the same products in another order.
                        assert!(slope.iter().all(|dx| dx.abs() < 1e-5), "{slope:?}: {way}");
                    }
                },
            );
        }
    }
}
