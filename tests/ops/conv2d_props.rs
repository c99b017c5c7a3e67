//! Convolution and pooling over random shapes: the reference compared with plain loops, and the gradient
//! rules with finite differences. Needs no GPU.

use proptest::prelude::*;
use wgrad::check::CaseGraph;
use wgrad::op::{Case, Fill};
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::{DType, Device, Graph, Session, Tensor, TensorType};

/// Shapes of data and weight, with valid options.
fn convolution() -> impl Strategy<Value = ([usize; 4], [usize; 4], Conv2d)> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (0usize..3, 1usize..4, 1usize..4, 1usize..4, pair(1..4), pair(1..4), pair(0..3), pair(1..3), pair(0..5)).prop_map(
        |(n, groups, group_c, group_o, kernel, stride, padding, dilation, extra)| {
            let size = |i: usize| {
                let extent = dilation[i] * (kernel[i] - 1) + 1;
                extent.saturating_sub(2 * padding[i]).max(1) + extra[i]
            };
            let x = [n, groups * group_c, size(0), size(1)];
            (x, [groups * group_o, group_c, kernel[0], kernel[1]], Conv2d { stride, padding, dilation, groups })
        },
    )
}

/// The sum from the definition, index by index.
fn conv2d_by_the_formula(x: &[f64], xs: [usize; 4], w: &[f64], ws: [usize; 4], ys: &[usize], o: Conv2d) -> Vec<f64> {
    let mut y = Vec::new();
    for n in 0..ys[0] {
        for f in 0..ys[1] {
            for i in 0..ys[2] {
                for j in 0..ys[3] {
                    let mut sum = 0.0;
                    for c in 0..ws[1] {
                        for u in 0..ws[2] {
                            for v in 0..ws[3] {
                                let row = (i * o.stride[0] + u * o.dilation[0]).checked_sub(o.padding[0]);
                                let column = (j * o.stride[1] + v * o.dilation[1]).checked_sub(o.padding[1]);
                                let channel = f / (ws[0] / o.groups) * ws[1] + c;
                                if let (Some(row), Some(column)) = (row, column)
                                    && row < xs[2]
                                    && column < xs[3]
                                {
                                    sum += x[((n * xs[1] + channel) * xs[2] + row) * xs[3] + column]
                                        * w[((f * ws[1] + c) * ws[2] + u) * ws[3] + v];
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn pooling() -> impl Strategy<Value = ([usize; 4], Pool2d)> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (1usize..3, 1usize..3, pair(1..5), pair(1..4), pair(0..3), pair(0..6), any::<bool>()).prop_map(
        |(n, c, kernel, stride, padding, extra, count_include_pad)| {
            let padding = [padding[0].min(kernel[0] / 2), padding[1].min(kernel[1] / 2)];
            let options = Pool2d { kernel, stride, padding, count_include_pad };
            let size = |i: usize| (kernel[i] - 2 * padding[i]).max(1) + extra[i];
            ([n, c, size(0), size(1)], options)
        },
    )
}

/// `fold` applied to the elements of each window.
fn pool_by_the_formula(x: &[f64], xs: [usize; 4], ys: &[usize], o: Pool2d, fold: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut y = Vec::new();
    for plane in 0..ys[0] * ys[1] {
        for i in 0..ys[2] {
            for j in 0..ys[3] {
                let mut covered = Vec::new();
                for u in 0..o.kernel[0] {
                    for v in 0..o.kernel[1] {
                        let row = (i * o.stride[0] + u).checked_sub(o.padding[0]);
                        let column = (j * o.stride[1] + v).checked_sub(o.padding[1]);
                        if let (Some(row), Some(column)) = (row, column)
                            && row < xs[2]
                            && column < xs[3]
                        {
                            covered.push(x[(plane * xs[2] + row) * xs[3] + column]);
                        }
                    }
                }
                y.push(fold(&covered));
            }
        }
    }
    y
}

/// The elements of several tensors.
type Numbers = Vec<Vec<f64>>;

/// Checks the case's gradients; returns its graph, sampled inputs and outputs.
fn checked(case: &Case) -> Result<(CaseGraph, Numbers, Numbers), String> {
    let graph = CaseGraph::new(case).map_err(|e| e.to_string())?;
    graph.check_gradients(1, 12)?;
    let inputs = graph.sample(2);
    let outputs = graph.reference(&inputs).map_err(|e| e.to_string())?;
    let floats = |tensors: &[wgrad::Tensor]| tensors.iter().map(|t| t.to_f64()).collect();
    let (inputs, outputs) = (floats(&inputs), floats(&outputs));
    Ok((graph, inputs, outputs))
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * (1.0 + b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn conv2d_matches_its_formula((x, weight, options) in convolution()) {
        let case = Case::new("conv2d", "random", move |v| vec![v[0].conv2d(&v[1], None, options)])
            .float("x", x)
            .float("weight", weight);
        let (graph, inputs, outputs) = checked(&case).map_err(TestCaseError::fail)?;
        let y = graph.outputs[0].1.shape();
        let expected = conv2d_by_the_formula(&inputs[0], x, &inputs[1], weight, y, options);
        prop_assert!(close(&outputs[0], &expected));
    }

    #[test]
    fn pooling_matches_its_formula((x, options) in pooling()) {
        let distinct = |case: Case| case.input("x", TensorType::new(DType::F32, x), Fill::Distinct);
        let case = distinct(Case::new("pool2d", "random", move |v| {
            vec![v[0].max_pool2d(options), v[0].avg_pool2d(options)]
        }));
        let (graph, inputs, outputs) = checked(&case).map_err(TestCaseError::fail)?;
        let y = graph.outputs[0].1.shape();
        let largest = |covered: &[f64]| covered.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        prop_assert!(close(&outputs[0], &pool_by_the_formula(&inputs[0], x, y, options, largest)));
        let average = |covered: &[f64]| {
            let window = options.kernel[0] * options.kernel[1];
            covered.iter().sum::<f64>() / if options.count_include_pad { window } else { covered.len() } as f64
        };
        prop_assert!(close(&outputs[1], &pool_by_the_formula(&inputs[0], x, y, options, average)));
    }

    /// Any arguments give a value or an error, never a panic.
    #[test]
    fn nothing_panics(
        x in prop::collection::vec(0usize..6, 0..6),
        weight in prop::collection::vec(0usize..6, 0..6),
        numbers in prop::array::uniform8(prop_oneof![0usize..4, Just(usize::MAX), Just(1 << 40)]),
    ) {
        let graph = Graph::new();
        let data = graph.input("x", DType::F32, x);
        let kernel = graph.input("weight", DType::F32, weight);
        let [a, b, c, d, e, f, g, h] = numbers;
        let options = Conv2d { stride: [a, b], padding: [c, d], dilation: [e, f], groups: g };
        let _ = data.conv2d(&kernel, Some(&kernel), options);
        let _ = data.conv2d_input_grad(&kernel, [g, h], options);
        let _ = data.conv2d_weight_grad(&kernel, [g, h], options);
        let _ = data.conv_transpose2d(&kernel, None, options, [g, h]);
        let pool = Pool2d { kernel: [a, b], stride: [c, d], padding: [e, f], count_include_pad: g == 0 };
        let _ = data.max_pool2d(pool);
        let _ = data.avg_pool2d(pool);
        let _ = data.global_avg_pool2d();
    }
}

#[test]
fn error_messages_name_the_problem() {
    let message = |x: [usize; 4], weight: [usize; 4], options: Conv2d| {
        let graph = Graph::new();
        let (x, weight) = (graph.input("x", DType::F32, x), graph.input("weight", DType::F32, weight));
        x.conv2d(&weight, None, options);
        graph.errors().first().map(|m| m.to_string()).unwrap_or_default()
    };
    let plain = Conv2d::default();
    for (x, weight, options, expected) in [
        ([1, 3, 8, 8], [4, 2, 3, 3], plain, "C = 3 channels"),
        ([1, 3, 8, 2], [4, 3, 3, 3], plain, "width: the kernel of 3 is larger than the input of 2"),
        ([1, 3, 8, 8], [4, 3, 3, 3], plain.groups(2), "2 does not divide C = 3"),
        ([1, 3, 8, 8], [4, 3, 3, 3], plain.stride([0, 1]), "height: kernel, stride and dilation must be at least 1"),
        ([1, 3, 8, 8], [4, 3, 3, 3], plain.dilation(4), "dilated to 9"),
    ] {
        let got = message(x, weight, options);
        assert!(got.contains(expected), "{got}");
    }
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 1, 8, 8]);
    x.max_pool2d(Pool2d::new(3).padding(2));
    let got = graph.errors()[0].to_string();
    assert!(got.contains("at most half the kernel"), "{got}");
}

/// Padding is not multiplied, so an infinity spreads only to what depends on it, and makes no NaN.
#[test]
fn infinities_do_not_meet_the_padding() {
    let inf = f64::INFINITY;
    let graph = Graph::new();
    let x = graph.parameter("x", Tensor::new([1, 1, 3, 3], [1.0f32; 9]).unwrap());
    let w = graph.input("w", DType::F32, [1, 1, 3, 3]);
    let dy = graph.input("dy", DType::F32, [1, 1, 3, 3]);
    let y = x.conv2d(&w, None, Conv2d::default().padding(1));
    let grads = wgrad::gradients(&(&y * &dy).sum_all(), &[&x, &w]);
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&y, &grads[0], &grads[1]]).unwrap();
    let first = |first: f32| {
        let values: Vec<f32> = (0..9).map(|i| if i == 0 { first } else { 1.0 }).collect();
        Tensor::new([1, 1, 3, 3], values).unwrap()
    };
    let run = |session: &mut Session, w: f32, dy: f32| -> Vec<Vec<f64>> {
        let outputs = session.run(&program, &[("w", &first(w)), ("dy", &first(dy))]).unwrap();
        outputs.iter().map(Tensor::to_f64).collect()
    };
    // The other numbers count pairs of an input and a weight.
    let pairs = [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0];
    let weight = run(&mut session, f32::INFINITY, 1.0);
    assert_eq!(weight[0], [4.0, 6.0, 4.0, 6.0, inf, inf, 4.0, inf, inf]);
    assert_eq!(weight[1], [inf, inf, 4.0, inf, inf, 6.0, 4.0, 6.0, 4.0]);
    assert_eq!(weight[2], pairs);
    let gradient = run(&mut session, 1.0, f32::INFINITY);
    assert_eq!(gradient[0], pairs);
    assert_eq!(gradient[1], [inf, inf, 4.0, inf, inf, 6.0, 4.0, 6.0, 4.0]);
    assert_eq!(gradient[2], [4.0, 6.0, 4.0, 6.0, inf, inf, 4.0, inf, inf]);
}

/// Outputs that see nothing but padding.
#[test]
fn an_input_without_rows_gives_zeros() {
    let graph = Graph::new();
    let x = graph.parameter("x", Tensor::new([1, 2, 0, 3], Vec::<f32>::new()).unwrap());
    let w = graph.parameter("w", Tensor::new([1, 2, 1, 1], [1.0f32, 2.0]).unwrap());
    let y = x.conv2d(&w, None, Conv2d::default().padding(1));
    let grads = wgrad::gradients(&y.sum_all(), &[&x, &w]);
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[&y, &grads[0], &grads[1]]).unwrap();
    let outputs: Vec<Vec<f64>> = session.run(&program, &[]).unwrap().iter().map(Tensor::to_f64).collect();
    assert_eq!(outputs, [vec![0.0; 2 * 5], vec![], vec![0.0; 2]]);
}
