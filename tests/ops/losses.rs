//! Losses at the limits of their range: invalid classes, probabilities of 0, values near the largest f32, ignored rows.
//! The expected values are PyTorch's, or follow from the formula.

use wgrad::loss::{ClassLoss, Reduction};
use wgrad::{DType, Device, Error, Graph, Result, Session, Tensor, Value, gradients};

use crate::common;

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::new(shape, data.to_vec()).expect("a tensor")
}

fn classes(shape: &[usize], data: &[i32]) -> Tensor {
    Tensor::new(shape, data.to_vec()).expect("a tensor")
}

/// A loss of `x` and a target, and its gradient with respect to `x`.
fn loss(
    device: &Device,
    x: &Tensor,
    target: &Tensor,
    build: impl Fn(&Value, &Value) -> Value,
) -> Result<(f64, Vec<f64>)> {
    let graph = Graph::new();
    let [x_value, t_value] = [("x", x), ("t", target)].map(|(name, x)| graph.input(name, x.dtype(), x.shape()));
    let loss = build(&x_value, &t_value);
    let dx = gradients(&loss, &[&x_value]).remove(0);
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss, &dx])?;
    let outputs = session.run(&program, &[("x", x), ("t", target)])?;
    Ok((outputs[0].item()?, outputs[1].to_f64()))
}

fn near(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{got:?}, expected {want:?}");
    for (a, b) in got.iter().zip(want) {
        assert!(a == b || (a - b).abs() <= 2e-6 * b.abs().max(1.0), "{got:?}, expected {want:?}");
    }
}

fn check(x: &Tensor, target: &Tensor, build: impl Fn(&Value, &Value) -> Value, want: f64, want_dx: &[f64]) {
    for device in common::devices() {
        let (loss, dx) = loss(&device, x, target, &build).expect("runs");
        near(&[loss], &[want]);
        near(&dx, want_dx);
    }
}

const INFINITY: f32 = f32::INFINITY;

#[test]
fn classes_out_of_range_are_errors() {
    let x = tensor(&[2, 3], &[-0.1, -2.0, -3.0, -1.0, -0.5, -2.0]);
    let options = [
        ClassLoss::default(),
        ClassLoss { label_smoothing: 0.1, ..ClassLoss::default() },
        ClassLoss { ignore_index: Some(-100), ..ClassLoss::default() },
        ClassLoss { ignore_index: Some(1), reduction: Reduction::Sum, ..ClassLoss::default() },
    ];
    for device in common::devices() {
        for options in &options {
            for class in [7, 3, -1, i32::MIN] {
                let target = classes(&[2], &[0, class]);
                let as_float = tensor(&[2], &[0.0, class as f32]);
                let all: [Result<_>; 4] = [
                    loss(&device, &x, &target, |x, t| x.cross_entropy_with(t, options)),
                    loss(&device, &x, &target, |x, t| x.nll_loss(t, options)),
                    loss(&device, &x, &as_float, |x, t| x.cross_entropy_with(&t.cast(DType::I32), options)),
                    loss(&device, &x, &as_float, |x, t| x.nll_loss(&t.cast(DType::I32), options)),
                ];
                for result in all {
                    let error = result.expect_err("out of range");
                    assert!(matches!(error, Error::Input(_)) && error.to_string().contains("out of range"), "{error}");
                }
            }
        }
    }
}

#[test]
fn classes_with_probability_0_do_not_affect_others() {
    let x = tensor(&[2, 3], &[-0.1, -INFINITY, -2.0, -1.0, -0.5, -INFINITY]);
    let target = classes(&[2], &[0, 1]);
    check(&x, &target, |x, t| x.nll_loss(t, &ClassLoss::default()), 0.3, &[-0.5, 0.0, 0.0, 0.0, -0.5, 0.0]);
    // Two classes remain in each row; the mean over the rows halves each loss.
    let p = 1.0 / (1.0 + 0.5f64.exp());
    let q = 1.0 / (1.0 + 1.9f64.exp());
    let want = (-(1.0 - q).ln() - (1.0 - p).ln()) / 2.0;
    let dx = [-q / 2.0, 0.0, q / 2.0, p / 2.0, -p / 2.0, 0.0];
    check(&x, &target, |x, t| x.cross_entropy_with(t, &ClassLoss::default()), want, &dx);
    check(&x, &target, |x, t| x.cross_entropy(t, Reduction::Mean), want, &dx);
    let one_hot = tensor(&[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    check(&x, &one_hot, |x, t| x.cross_entropy(t, Reduction::Mean), want, &dx);
    check(&x, &one_hot, |x, t| x.cross_entropy_with(t, &ClassLoss::default()), want, &dx);
    // The same with a class weight of 0.
    let weighted = |x: &Value, t: &Value| {
        let weight = x.graph().constant(tensor(&[3], &[1.0, 1.0, 0.0]));
        x.slice(0, 1, 2, 1).cross_entropy_with(
            &t.slice(0, 1, 2, 1),
            &ClassLoss { weight: Some(weight), label_smoothing: 0.5, ..ClassLoss::default() },
        )
    };
    let [first, second] = [p.ln(), (1.0 - p).ln()];
    let want = -(0.5 * second + 0.5 / 3.0 * (first + second));
    // The shares of the classes are 1/6, 2/3 and 0.
    let dx = [0.0, 0.0, 0.0, p * 5.0 / 6.0 - 1.0 / 6.0, (1.0 - p) * 5.0 / 6.0 - 2.0 / 3.0, 0.0];
    check(&x, &target, weighted, want, &dx);
    // The divergence from a distribution with a probability of 0.
    check(&x, &one_hot, |x, t| x.kl_div(t, Reduction::Sum), 0.6, &[-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]);
}

#[test]
fn the_largest_logits_give_finite_losses() {
    let x = tensor(&[2, 3], &[3e38, -3e38, 0.0, -3e38, -3e38, 3e38]);
    let one_hot = tensor(&[2, 3], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let target = classes(&[2], &[0, 2]);
    let ignored = ClassLoss { ignore_index: Some(1), ..ClassLoss::default() };
    check(&x, &target, |x, t| x.cross_entropy(t, Reduction::Mean), 0.0, &[0.0; 6]);
    check(&x, &target, |x, t| x.cross_entropy_with(t, &ClassLoss::default()), 0.0, &[0.0; 6]);
    check(&x, &target, |x, t| x.cross_entropy_with(t, &ignored), 0.0, &[0.0; 6]);
    check(&x, &one_hot, |x, t| x.cross_entropy(t, Reduction::Mean), 0.0, &[0.0; 6]);
    check(&x, &one_hot, |x, t| x.cross_entropy_with(t, &ClassLoss::default()), 0.0, &[0.0; 6]);
    check(&x, &target, |x, t| x.log_softmax(1).nll_loss(t, &ClassLoss::default()), 0.0, &[0.0; 6]);
}

#[test]
fn loss_and_gradients_are_0_if_every_row_is_ignored() {
    let x = tensor(&[2, 3], &[0.5, -1.0, 2.0, 1.0, 0.0, -INFINITY]);
    let target = classes(&[2], &[-100, -100]);
    for reduction in [Reduction::Mean, Reduction::Sum] {
        for label_smoothing in [0.0, 0.2] {
            let options = ClassLoss { reduction, ignore_index: Some(-100), label_smoothing, ..ClassLoss::default() };
            check(&x, &target, |x, t| x.cross_entropy_with(t, &options), 0.0, &[0.0; 6]);
            check(&x, &target, |x, t| x.nll_loss(t, &options), 0.0, &[0.0; 6]);
        }
        let none = |x: &Value, t: &Value, options: ClassLoss| {
            let weight = Some(x.graph().constant(tensor(&[3], &[1.0, 0.0, 1.0])));
            x.cross_entropy_with(t, &ClassLoss { weight, reduction, ..options })
        };
        let ones = classes(&[2], &[1, 1]);
        check(&x, &ones, |x, t| none(x, t, ClassLoss::default()), 0.0, &[0.0; 6]);
    }
    // Two rows, one of them ignored.
    let some = classes(&[2], &[-100, 0]);
    let options = ClassLoss { ignore_index: Some(-100), ..ClassLoss::default() };
    let p = 1.0 / (1.0 + 1f64.exp());
    check(&x, &some, |x, t| x.cross_entropy_with(t, &options), -(1.0 - p).ln(), &[0.0, 0.0, 0.0, -p, p, 0.0]);
}

/// Cross entropy with options over the middle axis of `[N, C, D]`, in plain loops, from the share of each class.
fn plain(x: &[f32], sizes: [usize; 3], share: impl Fn(usize, usize, usize) -> f64) -> f64 {
    let [n, c, d] = sizes;
    let mut sum = 0.0;
    for (row, column) in (0..n * d).map(|at| (at / d, at % d)) {
        let at = |k: usize| f64::from(x[(row * c + k) * d + column]);
        let ln = (0..c).map(|k| at(k).exp()).sum::<f64>().ln();
        sum -= (0..c).map(|k| share(row, k, column) * (at(k) - ln)).sum::<f64>();
    }
    sum
}

#[test]
fn loss_options_work_with_more_axes_and_probabilities() {
    let [n, c, d] = [2, 3, 4];
    let x: Vec<f32> = (0..n * c * d).map(|i| ((i * 7 + 3) % 11) as f32 / 4.0 - 1.0).collect();
    let target: Vec<i32> = (0..n * d).map(|i| (i * 5 % 4) as i32 - 1).collect(); // -1 is ignored
    let probabilities: Vec<f32> = (0..n * c * d).map(|i| (i * 3 % 7) as f32 / 8.0).collect();
    const WEIGHTS: [f32; 3] = [0.5, 2.0, 1.25];
    let x_tensor = tensor(&[n, c, 2, 2], &x);
    for device in common::devices() {
        for smoothing in [0.0, 0.3] {
            for weighted in [false, true] {
                let weight = |k: usize| if weighted { f64::from(WEIGHTS[k]) } else { 1.0 };
                let options = |x: &Value, reduction, ignore_index| ClassLoss {
                    weight: weighted.then(|| x.graph().constant(tensor(&[3], &WEIGHTS))),
                    label_smoothing: smoothing,
                    reduction,
                    ignore_index,
                };
                let smooth = |share: f64| share * (1.0 - smoothing) + smoothing / c as f64;
                let class = |row: usize, column: usize| target[row * d + column];
                let want = plain(&x, [n, c, d], |row, k, column| {
                    let hit = if class(row, column) == k as i32 { 1.0 } else { 0.0 };
                    if class(row, column) < 0 { 0.0 } else { smooth(hit) * weight(k) }
                });
                let total: f64 = target.iter().filter(|&&k| k >= 0).map(|&k| weight(k as usize)).sum();
                let t = classes(&[n, 2, 2], &target);
                let build =
                    |reduction| move |x: &Value, t: &Value| x.cross_entropy_with(t, &options(x, reduction, Some(-1)));
                let sum = loss(&device, &x_tensor, &t, build(Reduction::Sum)).expect("runs").0;
                let mean = loss(&device, &x_tensor, &t, build(Reduction::Mean)).expect("runs").0;
                near(&[sum, mean], &[want, want / total]);
                let nll = |x: &Value, t: &Value| x.log_softmax(1).nll_loss(t, &options(x, Reduction::Mean, Some(-1)));
                near(&[loss(&device, &x_tensor, &t, nll).expect("runs").0], &[want / total]);

                let want = plain(&x, [n, c, d], |row, k, column| {
                    smooth(f64::from(probabilities[(row * c + k) * d + column])) * weight(k)
                });
                let t = tensor(&[n, c, 2, 2], &probabilities);
                let build =
                    |reduction| move |x: &Value, t: &Value| x.cross_entropy_with(t, &options(x, reduction, None));
                let sum = loss(&device, &x_tensor, &t, build(Reduction::Sum)).expect("runs").0;
                let mean = loss(&device, &x_tensor, &t, build(Reduction::Mean)).expect("runs").0;
                near(&[sum, mean], &[want, want / (n * d) as f64]);
            }
        }
    }
}

#[test]
fn cosine_similarity_is_accurate_for_large_and_small_values() {
    for scale in [1e-15f64, 1e-5, 1.0, 1e10, 1e19, 1e38] {
        let x = tensor(&[1, 2], &[scale as f32, 2.0 * scale as f32]);
        let y = tensor(&[1, 2], &[2.0 * scale as f32, scale as f32]);
        let small = scale < 1e-8;
        // Norms below 1e-8 count as 1e-8, as in PyTorch.
        let want = if small { 4.0 * scale * scale / 1e-16 } else { 0.8 };
        for device in common::devices() {
            let (cosine, dx) = loss(&device, &x, &y, |x, y| x.cosine_similarity(y, 1).sum_all()).expect("runs");
            near(&[cosine], &[want]);
            let want = if small { [2e16 * scale, 1e16 * scale] } else { [0.24 / scale, -0.12 / scale] };
            for (got, want) in dx.iter().zip(want) {
                // The smallest gradients are subnormal.
                assert!((got - want).abs() <= 1e-5 * want.abs() + 1e-38, "{scale}: {dx:?}, expected {want:?}");
            }
        }
    }
    // Rows of very different norms.
    let x = tensor(&[2, 3], &[1e30, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let y = tensor(&[2, 3], &[3e-6, 4e-6, 0.0, 1.0, 2.0, 3.0]);
    check(
        &x,
        &y,
        |x, y| x.cosine_similarity(y, -1).sum_all() * 2.0,
        1.2,
        &[0.0, 1.6e-30, 0.0, 2e8 / 14f64.sqrt(), 4e8 / 14f64.sqrt(), 6e8 / 14f64.sqrt()],
    );
}

#[test]
fn cosine_embedding_loss_is_accurate_for_large_and_small_rows() {
    for scale in [1e-3f64, 1.0, 1e10, 1e19, 1e38] {
        let graph = Graph::new();
        let [x, y] = ["x", "y"].map(|name| graph.input(name, DType::F32, [2, 2]));
        let target = graph.constant(tensor(&[2], &[1.0, -1.0]));
        let loss = x.cosine_embedding_loss(&y, &target, 0.5, Reduction::Sum);
        let dx = gradients(&loss, &[&x]).remove(0);
        for device in common::devices() {
            let mut session = Session::new(device);
            let program = session.compile(&graph, &[&loss, &dx]).expect("compiles");
            let row = |a: f64, b: f64| tensor(&[2, 2], &[a as f32, b as f32, a as f32, b as f32]);
            let (x, y) = (row(scale, 2.0 * scale), row(2.0 * scale, scale));
            let outputs = session.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
            // 1 - 0.8 plus 0.8 - 0.5. PyTorch adds 1e-12 to the squares, which changes the sixth digit for 1e-3.
            assert!((outputs[0].item().expect("a number") - 0.5).abs() < 1e-6, "{scale}: {:?}", outputs[0]);
            for (got, want) in outputs[1].to_f64().iter().zip([-0.24, 0.12, 0.24, -0.12].map(|x| x / scale)) {
                assert!((got - want).abs() <= 1e-5 * want.abs() + 1e-38, "{scale}: {got}, expected {want}");
            }
        }
    }
}

#[test]
fn invalid_loss_options_are_errors() {
    let graph = Graph::new();
    let [x, y] = ["x", "y"].map(|name| graph.input(name, DType::F32, [2, 3]));
    let t = graph.input("t", DType::I32, [2]);
    let sign = graph.input("sign", DType::F32, [2]);
    let mut made = 0;
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let options = ClassLoss { label_smoothing: bad, ..ClassLoss::default() };
        let mut values = vec![
            x.cross_entropy_with(&t, &options),
            x.cross_entropy_with(&y, &options),
            x.nll_loss(&t, &options),
            x.huber_loss(&y, bad, Reduction::Mean),
            x.smooth_l1_loss(&y, bad, Reduction::Mean),
        ];
        if bad != -1.0 {
            values.push(x.cosine_embedding_loss(&y, &sign, bad, Reduction::Mean));
        }
        assert!(values.iter().all(|value| !value.is_valid()), "{bad}");
        made += values.len();
    }
    let ignored = ClassLoss { ignore_index: Some(0), ..ClassLoss::default() };
    assert!(!x.cross_entropy_with(&y, &ignored).is_valid());
    assert_eq!(graph.errors().len(), made + 1, "{:?}", graph.errors());
}

#[test]
fn dropout_with_probability_1_gives_zeros() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [4]);
        let seed = graph.step_scalar("seed", DType::U32, |n| n as f64);
        let layer = wgrad::nn::Scope::train(&graph, 0).dropout(&x, 1.0);
        let loss = (x.dropout(1.0, &seed, &seed) * 3.0 + layer + 0.5).sum_all();
        let dx = gradients(&loss, &[&x]).remove(0);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss, &dx]).expect("compiles");
        let x = tensor(&[4], &[1.0, -2.0, 3e38, INFINITY]);
        let outputs = session.run(&program, &[("x", &x)]).expect("runs");
        assert_eq!((outputs[0].item().expect("a number"), outputs[1].to_f64()), (2.0, vec![0.0; 4]));
    }
}

#[test]
fn invalid_dropout_probabilities_are_errors() {
    for p in [-0.1, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [4]);
        let seed = graph.step_scalar("seed", DType::U32, |n| n as f64);
        assert!(!x.dropout(p, &seed, &seed).is_valid());
        for nn in [wgrad::nn::Scope::train(&graph, 0), wgrad::nn::Scope::eval(&graph, 0)] {
            assert!(!nn.dropout(&x, p).is_valid());
        }
        assert_eq!(graph.errors().len(), 3);
        assert!(graph.errors().iter().all(|m| m.to_string().contains("[0, 1]") && m.op == "dropout"));
    }
}

type Penalty = fn(&Graph, f64) -> Value;

#[test]
fn penalties_apply_to_the_selected_parameters() {
    let cases: [(Penalty, f64, [f64; 3]); 2] = [
        (|graph, strength| graph.l1_penalty(strength, |n| n.ends_with(".weight")), 0.5 * 10.0, [0.5, -0.5, 0.5]),
        (|graph, strength| graph.l2_penalty(strength, |n| n.ends_with(".weight")), 0.5 * 54.0, [1.0, -2.0, 7.0]),
    ];
    for (penalty, value, slopes) in cases {
        let graph = Graph::new();
        let first = graph.parameter("a.weight", Tensor::new([2], [1.0, -2.0]).unwrap());
        let second = graph.parameter("b.weight", Tensor::scalar(7.0));
        let bias = graph.parameter("b.bias", Tensor::scalar(100.0));
        let penalty = penalty(&graph, 0.5);
        let dy = gradients(&penalty, &[&first, &second, &bias]);
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&penalty, &dy[0], &dy[1], &dy[2]]).unwrap();
        let outputs = session.run(&program, &[]).unwrap();
        let flat: Vec<f64> = outputs.iter().flat_map(Tensor::to_f64).collect();
        assert_eq!(flat, [value, slopes[0], slopes[1], slopes[2], 0.0]);
    }
}

#[test]
fn invalid_penalties_are_errors() {
    let graph = Graph::new();
    graph.parameter("w", Tensor::scalar(1.0));
    graph.l1_penalty(1.0, |name| name == "v");
    graph.l2_penalty(-1.0, |_| true);
    graph.l2_penalty(f64::NAN, |_| true);
    let messages: Vec<String> = graph.errors().iter().map(ToString::to_string).collect();
    assert!(messages[0].contains("declared so far: w") && messages[0].contains("losses.rs"), "{messages:?}");
    assert!(messages.len() == 3 && messages[2].contains("at least 0, not NaN"), "{messages:?}");
}
