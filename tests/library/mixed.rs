//! Mixed precision: f16 and bf16 activations, and loss scaling.

use wgrad::nn::{self, Layer, Scope};
use wgrad::ops::conv1d::Conv1d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::recurrent::Cell;
use wgrad::optim::{Adam, LossScale, Optimizer, Sgd, accumulate, clip_norm, parameter_gradients};
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, Graph, Reduction, Session, Tensor, Value, gradients, models};

use crate::common;

fn numbers(shape: &[usize], step: usize) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (i * step % 29) as f32 / 14.0 - 1.0).collect::<Vec<f32>>()).expect("fits")
}

/// A network of two layers, its input and its target.
fn network(graph: &Graph, dtype: DType) -> (Value, Value) {
    let nn = Scope::train(graph, 3).mixed(dtype);
    let x = nn.activation(&graph.input("x", DType::F32, [8, 6]));
    (nn.linear("fc2", &nn.linear("fc1", &x, 12).tanh(), 4), graph.input("target", DType::F32, [8, 4]))
}

#[test]
fn every_layer_gives_the_type_of_its_input() {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0).mixed(DType::F16);
    let input = |name: &str, shape: &[usize]| nn.activation(&graph.input(name, DType::F32, shape));
    let (rows, image, series) = (input("rows", &[4, 8]), input("image", &[2, 4, 6, 6]), input("series", &[2, 4, 10]));
    let words = graph.input("words", DType::I32, [2, 5]);
    let outputs = [
        nn.linear("linear", &rows, 3),
        nn.conv2d("conv2d", &image, 8, 3, Conv2d::same(3)),
        nn::Conv1d::new(&nn, "conv1d", 4, 4, 3, Conv1d::default()).forward(&series),
        nn::ConvTranspose1d::new(&nn, "up1", 4, 4, 3, Conv1d::default()).forward(&series),
        nn::ConvTranspose2d::new(&nn, "up2", 4, 4, 3, Conv2d::default()).forward(&image),
        nn::SeparableConv2d::new(&nn, "separable", 4, 6, 3, Conv2d::same(3)).forward(&image),
        nn.layer_norm("layer_norm", &rows),
        nn::RmsNorm::new(&nn, "rms_norm", &[8]).forward(&rows),
        nn::GroupNorm::new(&nn, "group_norm", 2, 4).forward(&image),
        nn::InstanceNorm2d::affine(&nn, "instance_norm", 4).forward(&image),
        nn.batch_norm("batch_norm", &image),
        Scope::eval(&graph, 0).batch_norm("batch_norm_eval", &image),
        nn::PRelu::new(&nn, "prelu", 4).forward(&image),
        nn.dropout(&rows, 0.5),
        nn.embedding("embedding", &words, 9, 8),
        nn::TransformerEncoderLayer::new(&nn, "block", 8, 2, 16, 0.1)
            .norm_first()
            .forward(&nn.embedding("tokens", &words, 9, 8)),
        nn::Recurrent::new(Cell::Lstm, &nn, "lstm", 10, 6, Default::default()).forward(&series),
        image.max_pool2d(2).relu().flatten(1),
        nn::rotary(&series, 100.0),
    ];
    assert!(graph.errors().is_empty(), "{:?}", graph.errors());
    for (number, output) in outputs.iter().enumerate() {
        assert_eq!(output.dtype(), DType::F16, "output {number}");
    }
    assert!(graph.parameters().iter().all(|(_, parameter)| parameter.dtype() == DType::F32));
    for device in common::devices() {
        let mut session = Session::new(device);
        let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>()).expect("compiles");
        let ids = Tensor::new([2, 5], (0..10).map(|i| i % 9).collect::<Vec<i32>>()).expect("ids");
        let (rows, image) = (numbers(&[4, 8], 7), numbers(&[2, 4, 6, 6], 11));
        let series = numbers(&[2, 4, 10], 5);
        let feeds = [("rows", &rows), ("image", &image), ("series", &series), ("words", &ids)];
        let outputs = session.run(&program, &feeds).expect("runs");
        assert!(outputs.iter().all(|output| output.to_f64().iter().all(|x| x.is_finite())));
    }
}

/// Scales are powers of two, so with f32 activations nothing changes.
#[test]
fn a_scaled_step_in_f32_has_the_same_bits() {
    for device in common::devices() {
        let optimizers: [(&str, &dyn Optimizer); 2] =
            [("sgd", &Sgd::new().lr(0.1).momentum(0.9)), ("adam", &Adam::new())];
        for (name, optimizer) in optimizers {
            let train = |scaled: bool| {
                let graph = Graph::new();
                let (y, target) = network(&graph, DType::F32);
                let loss = y.mse_loss(&target, Reduction::Mean);
                match scaled {
                    true => LossScale::new().interval(2).minimize(&graph, optimizer, &loss),
                    false => optimizer.minimize(&graph, &loss),
                };
                let mut session = Session::new(device.clone());
                let options = Options { fuse: false, ..Options::default() };
                let program = session.compile_with(&graph, &[&loss], &options).expect("compiles");
                let (x, target) = (numbers(&[8, 6], 7), numbers(&[8, 4], 5));
                for _ in 0..5 {
                    session.run(&program, &[("x", &x), ("target", &target)]).expect("runs");
                }
                session
            };
            let (plain, scaled) = (train(false), train(true));
            for variable in plain.names() {
                let (a, b) = (plain.get(&variable).expect("plain"), scaled.get(&variable).expect("scaled"));
                assert_eq!(a, b, "{variable} with {name} on {device}");
            }
            assert_eq!(scaled.get("loss_scale.scale").expect("scale").item().expect("one"), 65536.0 * 4.0);
            assert_eq!(scaled.get("loss_scale.good_steps").expect("steps").item().expect("one"), 1.0);
            assert_eq!(scaled.get("loss_scale.skipped").expect("skipped").item().expect("one"), 0.0);
        }
    }
}

/// Without scaling, gradients below 3e-8 are 0 in f16.
#[test]
fn scaling_saves_gradients_that_underflow() {
    for device in common::devices() {
        let gradients = |dtype: DType, scaled: bool| {
            let graph = Graph::new();
            let (y, target) = network(&graph, dtype);
            let loss = (y.cast(DType::F32) * &target * 1e-8).sum_all();
            let found = match scaled {
                true => LossScale::new().initial(2f64.powi(24)).gradients(&graph, &loss).gradients,
                false => parameter_gradients(&graph, &loss),
            };
            let outputs: Vec<&Value> = found.iter().map(|gradient| &gradient.value).collect();
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &outputs).expect("compiles");
            let feeds = [("x", &numbers(&[8, 6], 7)), ("target", &numbers(&[8, 4], 5))];
            session.run(&program, &feeds).expect("runs").iter().flat_map(Tensor::to_f64).collect::<Vec<f64>>()
        };
        let (exact, lost, saved) =
            (gradients(DType::F32, false), gradients(DType::F16, false), gradients(DType::F16, true));
        let largest = exact.iter().fold(0f64, |most, x| most.max(x.abs()));
        assert!(largest > 1e-9);
        assert!(lost.iter().all(|&x| x == 0.0), "nothing is left on {device}");
        for (saved, exact) in saved.iter().zip(&exact) {
            assert!((saved - exact).abs() <= 2e-3 * largest, "{saved:e}, not {exact:e}, on {device}");
        }
    }
}

/// A step that overflows changes nothing but the scale.
#[test]
fn a_step_that_overflows_is_skipped() {
    for device in common::devices() {
        let graph = Graph::new();
        let (y, target) = network(&graph, DType::F16);
        let loss = y.mse_loss(&target, Reduction::Mean);
        let scaled = LossScale::new().gradients(&graph, &loss);
        scaled.apply(&graph, &Adam::new().lr(0.01), &clip_norm(&scaled.gradients, 1.0));
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&loss, &scaled.finite]).expect("compiles");
        let (x, target) = (numbers(&[8, 6], 7), numbers(&[8, 4], 5));
        let huge = Tensor::new([8, 4], vec![1e30f32; 32]).expect("fits");
        let state = |session: &Session| -> Vec<(String, Tensor)> {
            let names = session.names().into_iter().filter(|name| !name.starts_with("loss_scale"));
            names.map(|name| (name.clone(), session.get(&name).expect("a variable"))).collect()
        };
        let scale = |session: &Session, name: &str| session.get(name).expect("declared").item().expect("one number");
        let mut losses = Vec::new();
        for step in 0..40 {
            let before = state(&session);
            let bad = step == 0 || step == 7;
            let fed = if bad { &huge } else { &target };
            let outputs = session.run(&program, &[("x", &x), ("target", fed)]).expect("runs");
            assert_eq!(outputs[1].item().expect("a bool") == 0.0, bad, "step {step} on {device}");
            assert_eq!(before == state(&session), bad, "step {step} on {device}");
            if !bad {
                losses.push(outputs[0].item().expect("a loss"));
            }
        }
        assert_eq!(scale(&session, "loss_scale.scale"), 65536.0 / 4.0);
        assert_eq!(scale(&session, "loss_scale.skipped"), 2.0);
        assert_eq!(scale(&session, "loss_scale.good_steps"), 32.0);
        assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    }
}

/// However often steps are skipped, the scale does not become 0.
#[test]
fn many_skipped_steps_leave_a_scale() {
    for device in common::devices() {
        let graph = Graph::new();
        let (y, target) = network(&graph, DType::F16);
        let loss = y.mse_loss(&target, Reduction::Mean);
        LossScale::new().minimize(&graph, &Sgd::new().lr(0.01), &loss);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        let (x, good) = (numbers(&[8, 6], 7), numbers(&[8, 4], 5));
        let bad = Tensor::new([8, 4], vec![f32::NAN; 32]).expect("fits");
        for _ in 0..200 {
            session.run(&program, &[("x", &x), ("target", &bad)]).expect("runs");
        }
        assert_eq!(session.get("loss_scale.scale").expect("scale").item().expect("one"), 2f64.powi(-60));
        session.run(&program, &[("x", &x), ("target", &good)]).expect("runs");
        assert_eq!(session.get("loss_scale.skipped").expect("skipped").item().expect("one"), 200.0);
        let weights = session.get("fc1.weight").expect("weights").to_f64();
        assert!(weights.iter().all(|x| x.is_finite()));
    }
}

/// Norms of gradients, and sums over batches, are in f32 for narrow parameters, too.
#[test]
fn narrow_gradients_are_clipped_and_accumulated_in_f32() {
    for device in common::devices() {
        let graph = Graph::new();
        let w = graph.parameter("w", Tensor::new([2], [1.0f32, 1.0]).expect("two").cast(DType::F16));
        let x = graph.input("x", DType::F32, [2]);
        let loss = (w.cast(DType::F32) * &x).sum_all();
        let found = parameter_gradients(&graph, &loss);
        let clipped = clip_norm(&found, 1.0);
        accumulate(&graph, &found);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&clipped[0].value]).expect("compiles");
        let feed = |numbers: [f32; 2]| Tensor::new([2], numbers).expect("two");
        let got = session.run(&program, &[("x", &feed([3000.0, 4000.0]))]).expect("runs")[0].to_f64();
        assert!((got[0] - 0.6).abs() < 1e-3 && (got[1] - 0.8).abs() < 1e-3, "{got:?}");
        session.run(&program, &[("x", &feed([1.0, -0.5]))]).expect("runs");
        let sum = session.get("w.grad_sum").expect("sum");
        assert_eq!((sum.dtype(), sum.to_f64()), (DType::F32, vec![3001.0, 3999.5]));
    }
}

/// The statistics of norms are not rounded: a variance beyond f16 has a gradient.
#[test]
fn norms_of_large_numbers_have_gradients() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F16, [2, 8]);
        let weight = graph.constant(numbers(&[2, 8], 11));
        let loss = (x.layer_norm(&[8], None, None, 1e-5).cast(DType::F32) * weight).sum_all() * 1e4;
        let dx = gradients(&loss, &[&x]).remove(0);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&dx]).expect("compiles");
        let x = Tensor::new([2, 8], (0..16).map(|i| (i * 37 % 16) as f32 * 500.0).collect::<Vec<f32>>()).expect("16");
        let got = session.run(&program, &[("x", &x.cast(DType::F16))]).expect("runs")[0].to_f64();
        assert!(got.iter().filter(|x| **x != 0.0).count() > 12, "{got:?}");
    }
}

#[test]
fn mistakes_are_reported() {
    let graph = Graph::new();
    let (y, target) = network(&graph, DType::F16);
    let loss = y.mse_loss(&target, Reduction::Mean);
    LossScale { growth: 0.5, ..LossScale::new() }.minimize(&graph, &Sgd::new(), &loss);
    LossScale::new().minimize(&graph, &Sgd::new(), &loss.cast(DType::F16));
    Scope::train(&graph, 0).mixed(DType::I8).activation(&y);
    let errors: Vec<String> = graph.errors().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, says) in errors.iter().zip(["growth at least 1", "must be f32", "must be floats, not i8"]) {
        assert!(error.contains(says) && error.contains("mixed.rs"), "{error}");
    }
}

/// The activations that the backward pass of the classic network keeps take half of the memory.
#[test]
fn stored_activations_take_half_of_the_memory() {
    let plan = |dtype: DType| {
        let graph = Graph::new();
        let nn = Scope::train(&graph, 0).mixed(dtype);
        let loss = models::mnist_cnn_training_in(&graph, &nn, 64, 0.0);
        let profile = Device::gpu().map_or(wgrad::Profile::webgpu_defaults(), |device| device.profile().clone());
        Plan::of(&graph, &[&loss], &profile, &Options::default()).expect("a valid graph").0
    };
    // What a launch before the loss writes, and one after it reads.
    let kept = |plan: &Plan| {
        let at = plan.calls.iter().position(|call| call.label.starts_with("cross_entropy")).expect("the loss");
        let (forward, backward) = plan.calls.split_at(at);
        let written = forward.iter().flat_map(|call| &call.writes);
        let read = |value| backward.iter().flat_map(|call| &call.reads).any(|stored| stored.value == value);
        written.filter(|stored| read(stored.value)).map(|stored| stored.ty.bytes()).sum::<usize>() as f64
    };
    let (wide, f16, bf16) = (plan(DType::F32), plan(DType::F16), plan(DType::BF16));
    assert!(kept(&f16) <= 0.55 * kept(&wide) && kept(&bf16) <= 0.55 * kept(&wide), "{} of {}", kept(&f16), kept(&wide));
    let least = |plan: &Plan| plan.least_temporary_bytes as f64;
    assert!(least(&bf16) <= 0.75 * least(&wide), "{} of {}", least(&bf16), least(&wide));
}
