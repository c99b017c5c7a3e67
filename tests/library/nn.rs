//! Layers, optimisers and checkpoints on the reference; the golden training runs there and on a GPU.

use crate::common;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value as Json;
use wgrad::io::safetensors;
use wgrad::nn::{self, Flatten, Layer, Linear, MaxPool2d, Scope, Sequential, init};
use wgrad::ops::conv2d::Conv2d;
use wgrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd, clip_norm, parameter_gradients};
use wgrad::{DType, Device, Error, Graph, Reduction, Session, Tensor, Value};

fn mlp(nn: &Scope, x: &Value) -> Value {
    let x = nn.linear("fc1", x, 16).tanh();
    nn.linear("fc2", &x, 3)
}

fn cnn(nn: &Scope, x: &Value) -> Value {
    let x = nn.conv2d("conv1", x, 8, 3, Conv2d::same(3)).relu().max_pool2d(2);
    let x = nn.conv2d("conv2", &x, 16, 3, Conv2d::same(3)).relu().max_pool2d(2);
    let x = nn.linear("fc1", &x.flatten(1), 32).relu();
    nn.linear("fc2", &x, 10)
}

/// The same CNN built from layer objects.
fn cnn_layers(nn: &Scope, x: &Value) -> Value {
    Sequential::new()
        .then(nn::Conv2d::new(nn, "conv1", 1, 8, 3, Conv2d::same(3)))
        .then(Value::relu)
        .then(MaxPool2d::new(2))
        .then(nn::Conv2d::new(nn, "conv2", 8, 16, 3, Conv2d::same(3)))
        .then(Value::relu)
        .then(MaxPool2d::new(2))
        .then(Flatten)
        .then(Linear::new(nn, "fc1", 784, 32))
        .then(Value::relu)
        .then(Linear::new(nn, "fc2", 32, 10))
        .forward(x)
}

/// Scalars fed in one step, by name.
type Feeds<'a> = &'a [(&'a str, f64)];

/// A counter of `training_on`.
const STEP: &str = "fc1.weight.adam.step";

type Model = fn(&Scope, &Value) -> Value;

/// The optimiser that a run's hyper-parameters describe.
fn optimizer(run: &Json) -> Box<dyn Optimizer> {
    let hyper = &run["hyper"];
    let number = |name: &str| hyper[name].as_f64().unwrap();
    let flag = |name: &str| hyper[name].as_bool().unwrap();
    let betas = || (hyper["betas"][0].as_f64().unwrap(), hyper["betas"][1].as_f64().unwrap());
    let (lr, decay) = (number("lr"), number("weight_decay"));
    match run["class"].as_str().unwrap() {
        "SGD" => {
            Box::new(Sgd::new().lr(lr).momentum(number("momentum")).nesterov(flag("nesterov")).weight_decay(decay))
        }
        "RMSprop" => Box::new(
            RmsProp::new()
                .lr(lr)
                .alpha(number("alpha"))
                .eps(number("eps"))
                .weight_decay(decay)
                .momentum(number("momentum"))
                .centered(flag("centered")),
        ),
        "Adagrad" => {
            Box::new(Adagrad::new().lr(lr).lr_decay(number("lr_decay")).eps(number("eps")).weight_decay(decay))
        }
        "Adam" => Box::new(Adam::new().lr(lr).betas(betas()).eps(number("eps")).weight_decay(decay)),
        "AdamW" => Box::new(AdamW::new().lr(lr).betas(betas()).eps(number("eps")).weight_decay(decay)),
        other => panic!("unknown optimiser {other}"),
    }
}

/// Results of a golden run, as pairs of ours and PyTorch's: losses, and parameters by name.
struct Trained {
    losses: Vec<(f64, f64)>,
    parameters: BTreeMap<String, Vec<(f64, f64)>>,
}

fn train(device: &Device, json: &Json, golden: &BTreeMap<String, Tensor>, run: &Json, model: Model) -> Trained {
    let about = &json["models"][run["model"].as_str().unwrap()];
    let key = |entry: &Json| golden[entry.as_str().unwrap()].clone();
    let (all_x, all_y) = (key(&about["x"]), key(&about["target"]));
    let batch = about["batch"].as_u64().unwrap() as usize;
    let steps = run["steps"].as_u64().unwrap() as usize;

    let graph = Graph::new();
    let sizes: Vec<usize> = std::iter::once(batch).chain(all_x.shape()[1..].iter().copied()).collect();
    let x = graph.input("x", DType::F32, sizes);
    let y = graph.input("y", DType::I32, [batch]);
    let loss = model(&Scope::train(&graph, 1), &x).cross_entropy(&y, Reduction::Mean);
    optimizer(run).minimize(&graph, &loss);
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss]).unwrap();
    for (name, entry) in about["init"].as_object().unwrap() {
        session.set(name, &key(entry)).unwrap();
    }
    let mut losses = Vec::new();
    for step in 0..steps {
        let first = (step * batch) % all_x.shape()[0];
        let rows: Vec<usize> = (first..first + batch).collect();
        let feeds = [("x", &all_x.rows(&rows).unwrap()), ("y", &all_y.rows(&rows).unwrap())];
        losses.push(session.run(&program, &feeds).unwrap()[0].item().unwrap());
    }
    assert!(losses.len() == steps && steps > 0);
    let pairs = |got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        got.iter().copied().zip(want.iter().copied()).collect::<Vec<_>>()
    };
    let finals = run["final"].as_object().unwrap();
    let parameters = finals
        .iter()
        .map(|(name, entry)| (name.clone(), pairs(&session.get(name).unwrap().to_f64(), &key(entry).to_f64())));
    Trained { losses: pairs(&losses, &key(&run["losses"]).to_f64()), parameters: parameters.collect() }
}

/// Runs every golden run of both models and passes its results to `judge`.
fn golden_runs(device: &Device, judge: impl Fn(&str, &Trained)) {
    let json: Json = serde_json::from_str(&fs::read_to_string("tests/golden/train.json").unwrap()).unwrap();
    let golden = safetensors::load("tests/golden/train.safetensors").unwrap();
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 14);
    for run in runs {
        let name = run["name"].as_str().unwrap();
        let model: Model = match name {
            "cnn/adam" => cnn_layers,
            _ if name.starts_with("cnn") => cnn,
            _ => mlp,
        };
        judge(name, &train(device, &json, &golden, run, model));
    }
}

fn worst(pairs: &[(f64, f64)], distance: fn(f64, f64) -> f64) -> f64 {
    assert!(!pairs.is_empty() && pairs.iter().all(|(got, _)| got.is_finite()));
    pairs.iter().map(|&(got, want)| distance(got, want)).fold(0.0, f64::max)
}

#[test]
fn golden_runs_on_the_reference() {
    golden_runs(&Device::cpu(), |name, trained| {
        let losses = worst(&trained.losses, |got, want| (got - want).abs() / want.abs());
        let parameters =
            worst(&trained.parameters.values().flatten().copied().collect::<Vec<_>>(), |g, w| (g - w).abs());
        eprintln!("{name}: losses {losses:.1e} relative, parameters {parameters:.1e}");
        assert!(losses <= 1e-9, "{name}: losses are {losses:e} off");
        assert!(parameters <= 1e-9, "{name}: parameters are {parameters:e} off");
    });
}

#[test]
fn golden_runs_on_a_gpu() {
    let Some(device) = common::device() else { return };
    golden_runs(&device, |name, trained| {
        let losses = worst(&trained.losses, |got, want| (got - want).abs());
        assert!(losses <= 1e-5, "{name}: losses are {losses:e} off");
        let mut off: Vec<f64> = trained.parameters.values().flatten().map(|(got, want)| (got - want).abs()).collect();
        assert!(off.iter().all(|x| x.is_finite()), "{name}");
        off.sort_by(f64::total_cmp);
        let (most, all) = (off[off.len() * 999 / 1000], off[off.len() - 1]);
        eprintln!("{name}: losses {losses:.1e}, parameters {most:.1e} for 99.9%, {all:.1e} for all");
        let allowed = if name.contains("sgd") { 1e-5 } else { 2e-4 };
        assert!(most <= 1e-5 && all <= allowed, "{name}: parameters are {most:e} (99.9%) and {all:e} (all) off");
    });
}

/// Values of one parameter `w` after each step, with the loss `g w`, whose gradient is `g`.
fn updates(optimizer: &dyn Optimizer, w: f64, g: f64, feeds: &[Feeds]) -> Vec<f64> {
    let graph = Graph::new();
    let p = graph.parameter("w", Tensor::scalar(w));
    optimizer.minimize(&graph, &(&p * g));
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[]).unwrap();
    let step = |feeds: &Feeds| {
        let tensors: Vec<Tensor> = feeds.iter().map(|(_, x)| Tensor::scalar(*x)).collect();
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, _)| *name).zip(&tensors).collect();
        session.run(&program, &feeds).unwrap();
        session.get("w").unwrap().item().unwrap()
    };
    feeds.iter().map(step).collect()
}

#[track_caller]
fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-14), "{got:?}, expected {want:?}");
}

#[test]
fn optimiser_options_outside_the_golden_runs_follow_their_formulas() {
    // The learning rate is fed in some steps.
    let got = updates(&Sgd::new().lr(0.5), 1.0, 1.0, &[&[], &[("lr", 0.25)], &[]]);
    close(&got, &[0.5, 0.25, -0.25]);
    // Centred RMSprop with momentum: v - mean^2 of a constant gradient g after t steps is
    // g^2 ((1 - a^t) - (1 - a^t)^2).
    let (a, g, lr, eps) = (0.9f64, 2.0f64, 0.1, 1e-3);
    let rms = RmsProp::new().lr(lr).alpha(a).eps(eps).momentum(0.5).centered(true);
    let (mut w, mut b, mut want) = (1.0, 0.0, Vec::new());
    for t in 1..=4 {
        let s = 1.0 - a.powi(t);
        b = 0.5 * b + g / ((g * g * (s - s * s)).sqrt() + eps);
        w -= lr * b;
        want.push(w);
    }
    close(&updates(&rms, 1.0, g, &[&[] as Feeds; 4]), &want);
    // Adagrad with learning rate decay: the sum after t steps is t g^2.
    let (mut w, mut want) = (1.0, Vec::new());
    for t in 1..=3 {
        w -= 0.1 / (1.0 + f64::from(t - 1) * 0.5) * g / ((f64::from(t) * g * g).sqrt() + 1e-10);
        want.push(w);
    }
    close(&updates(&Adagrad::new().lr(0.1).lr_decay(0.5), 1.0, g, &[&[] as Feeds; 3]), &want);
    // Adam with an L2 penalty: the first step is lr g / (|g| + eps), g = 2 + 0.1 * 1.
    close(&updates(&Adam::new().lr(0.1).weight_decay(0.1), 1.0, g, &[&[]]), &[1.0 - 0.1 * 2.1 / (2.1 + 1e-8)]);
    // Two parameters with gradients 3 and 4: norm 5, clipped to 1.
    let graph = Graph::new();
    let (a, b) = (graph.parameter("a", Tensor::scalar(0.0)), graph.parameter("b", Tensor::scalar(0.0)));
    let gradients = parameter_gradients(&graph, &(&a * 3.0 + &b * 4.0));
    Sgd::new().lr(1.0).apply(&graph, &clip_norm(&gradients, 1.0));
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[]).unwrap();
    session.run(&program, &[]).unwrap();
    let got = ["a", "b"].map(|name| session.get(name).unwrap().item().unwrap());
    close(&got, &[-3.0 / (5.0 + 1e-6), -4.0 / (5.0 + 1e-6)]);
    // An empty list is allowed.
    assert!(clip_norm(&[], 1.0).is_empty());
}

#[test]
fn optimiser_errors_report_the_users_line() {
    let complaints = |build: &dyn Fn(&Graph, &Value)| {
        let graph = Graph::new();
        let w = graph.parameter("w", Tensor::scalar(1.0));
        build(&graph, &w);
        let errors = graph.errors();
        assert!(errors.iter().all(|m| m.location.file().ends_with("nn.rs")), "{errors:?}");
        errors.iter().map(|m| m.message.clone()).collect::<Vec<_>>().join("; ")
    };
    assert!(complaints(&|g, w| drop(Adam::new().betas((0.9, 1.0)).minimize(g, &w.square()))).contains("beta2"));
    assert!(complaints(&|g, w| drop(Adam::new().lr(f64::NAN).minimize(g, &w.square()))).contains("lr must be"));
    assert!(complaints(&|g, w| drop(Sgd::new().nesterov(true).minimize(g, &w.square()))).contains("Nesterov"));
    let twice = |g: &Graph, w: &Value| {
        Adam::new().minimize(g, &w.square());
        Adam::new().minimize(g, &w.square());
    };
    assert!(complaints(&twice).contains("`w.adam.m` already"));
    assert!(complaints(&|_, w| drop(Sgd::new().minimize(&Graph::new(), w))).is_empty());
    let empty = Graph::new();
    Sgd::new().minimize(&empty, &empty.scalar("x", 1.0));
    assert_eq!(empty.errors().len(), 1);
    // A loss must be a scalar; an invalid loss is reported once.
    let vector = |g: &Graph, _: &Value| {
        let v = g.parameter("v", Tensor::new([2], [1.0f32, 2.0]).unwrap());
        Sgd::new().minimize(g, &v);
    };
    assert!(complaints(&vector).contains("must be one float"));
}

#[test]
fn layer_errors_are_reported_without_panics() {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0);
    let x = graph.input("x", DType::F32, [4, 3, 8, 8]);
    let bad = nn.conv2d("conv", &x, 4, 9, Conv2d::default());
    let line = line!() - 1;
    let y = nn.linear("fc", &bad.flatten(1), 10);
    assert!(!y.is_valid());
    assert_eq!(graph.errors().len(), 1, "{:?}", graph.errors());
    assert_eq!(graph.errors()[0].location.line(), line);
    nn.conv2d("groups", &x, 4, 3, Conv2d::same(3).groups(2));
    nn.conv2d("none", &x, 4, 3, Conv2d::same(3).groups(0));
    nn.linear("scalar", &graph.scalar("s", 1.0), 3);
    nn.linear("huge", &x, usize::MAX);
    nn.conv2d("huge", &x, 1 << 40, usize::MAX, Conv2d::default());
    assert_eq!(graph.errors().len(), 8, "{:?}", graph.errors());
    Linear::new(&nn, "fc2", 7, 3).forward(&x);
    nn.dropout(&x, 1.5);
    Sequential::new().then(Linear::new(&nn, "fc3", 9, 1)).forward(&x);
    let line = line!() - 1;
    assert_eq!(graph.errors().len(), 11, "{:?}", graph.errors());
    assert_eq!(graph.errors()[10].location.line(), line);
    // A duplicate name.
    nn.linear("fc2", &x, 3);
    assert!(graph.errors()[11].message.contains("`fc2.weight` already"));
}

#[test]
fn initial_values_match_pytorch_and_depend_only_on_seed_and_name() {
    let build = |seed: u64, first: &str| {
        let graph = Graph::new();
        let nn = Scope::train(&graph, seed);
        nn.linear(first, &graph.input("a", DType::F32, [1, 50]), 20);
        nn.linear("fc", &graph.input("b", DType::F32, [1, 100]), 200);
        nn.conv2d("conv", &graph.input("c", DType::F32, [1, 4, 8, 8]), 60, [3, 5], Conv2d::default().groups(2));
        let declared = graph.nodes().variables;
        declared.into_iter().map(|v| (v.name, v.initial)).collect::<BTreeMap<_, _>>()
    };
    let one = build(1, "other");
    assert_eq!(one["fc.weight"].shape()[..], [200, 100]);
    assert_eq!(one["conv.weight"].shape()[..], [60, 2, 3, 5]);
    let again = build(1, "another name");
    assert_eq!((&one["fc.weight"], &one["conv.bias"]), (&again["fc.weight"], &again["conv.bias"]));
    assert_ne!(one["fc.weight"], build(2, "other")["fc.weight"]);
    for (name, fan_in) in [("fc.weight", 100.0f64), ("fc.bias", 100.0), ("conv.weight", 30.0), ("conv.bias", 30.0)] {
        let values = one[name].to_f64();
        let bound = 1.0 / fan_in.sqrt();
        let largest = values.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        assert!(largest <= bound * (1.0 + 1e-6) && largest > 0.9 * bound, "{name}: {largest}, bound {bound}");
    }
    // Mean and standard deviation of each distribution.
    let n = 40_000.0f64;
    for (init, mean, std) in [
        (init::kaiming_uniform(0.0), 0.0, (2.0f64 / 100.0).sqrt()),
        (init::kaiming_normal(1.0), 0.0, (1.0f64 / 100.0).sqrt()),
        (init::xavier_uniform(1.0), 0.0, (2.0f64 / 500.0).sqrt()),
        (init::xavier_normal(2.0), 0.0, 2.0 * (2.0f64 / 500.0).sqrt()),
        (init::uniform(1.0, 3.0), 2.0, 2.0 / 12f64.sqrt()),
        (init::normal(-1.0, 0.5), -1.0, 0.5),
        (init::constant(4.0), 4.0, 0.0),
        (init::zeros(), 0.0, 0.0),
        (init::ones(), 1.0, 0.0),
    ] {
        let values = init.draw([400, 100], 3, "w").to_f64();
        let m = values.iter().sum::<f64>() / n;
        let s = (values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n).sqrt();
        assert!((m - mean).abs() <= 5.0 * std / n.sqrt() + 1e-9, "{init:?}: mean {m}");
        assert!((s - std).abs() <= 0.02 * std + 1e-9, "{init:?}: deviation {s}");
    }
    // Empty and scalar shapes work.
    for shape in [vec![], vec![0], vec![3, 0], vec![5]] {
        assert!(init::xavier_normal(1.0).draw(shape, 0, "x").to_f64().iter().all(|x| x.is_finite()));
    }
}

#[test]
fn dropout_draws_a_new_mask_per_step_in_training_and_is_off_in_evaluation() {
    let mut session = Session::new(Device::cpu());
    let ones = Tensor::new([1000], vec![1.0f32; 1000]).unwrap();
    let mut build = |seed: Option<u64>| {
        let graph = Graph::new();
        let nn = seed.map_or(Scope::eval(&graph, 0), |seed| Scope::train(&graph, seed));
        let x = graph.input("x", DType::F32, [1000]);
        let ys = [nn.dropout(&x, 0.25), nn.dropout(&x, 0.25)];
        session.compile(&graph, &[&ys[0], &ys[1]]).unwrap()
    };
    let (train, other, eval) = (build(Some(5)), build(Some(6)), build(None));
    let mut run = |program| session.run(program, &[("x", &ones)]).unwrap();
    assert!(run(&eval).iter().all(|y| y.to_f32() == ones.to_f32()));
    let first = run(&train);
    let kept = first[0].to_f64().iter().filter(|&&y| y != 0.0).count();
    assert!((650..850).contains(&kept), "{kept}");
    assert!(first[0].to_f64().iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-12));
    assert_ne!(first[0], first[1], "each call has its own mask");
    let second = run(&train);
    assert_ne!(first[0], second[0], "each step draws a new mask");
    assert_ne!(run(&other)[0], run(&train)[0]);
    session.set_counter(nn::DROPOUT, 0);
    assert_eq!(session.run(&train, &[("x", &ones)]).unwrap(), first, "the same step draws the same mask");
}

/// A session with a compiled training step of the MLP.
fn training_on(device: Device) -> (Session, wgrad::Program) {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [4, 20]);
    let nn = Scope::train(&graph, 9);
    let loss = nn.dropout(&mlp(&nn, &x), 0.5).square().mean_all();
    Adam::new().minimize(&graph, &loss);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&loss]).unwrap();
    (session, program)
}

fn training() -> (Session, wgrad::Program) {
    training_on(Device::cpu())
}

fn eval_graph(out: usize) -> Graph {
    let graph = Graph::new();
    let nn = Scope::eval(&graph, 0);
    let x = nn.linear("fc1", &graph.input("x", DType::F32, [1, 20]), 16).tanh();
    nn.linear("fc2", &x, out);
    graph
}

#[test]
fn training_resumes_exactly_from_a_checkpoint() {
    resumes_exactly(&Device::cpu());
    if let Some(device) = common::device() {
        resumes_exactly(&device);
    }
}

fn resumes_exactly(device: &Device) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let x = init::normal(0.0, 1.0).draw([4, 20], 1, "x");
    let step = |session: &mut Session, program: &wgrad::Program| {
        session.run(program, &[("x", &x)]).unwrap()[0].item().unwrap().to_bits()
    };
    let (mut session, program) = training_on(device.clone());
    for _ in 0..3 {
        step(&mut session, &program);
    }
    session.save(&path).unwrap();
    let went_on: Vec<u64> = (0..3).map(|_| step(&mut session, &program)).collect();
    let (mut resumed, program) = training_on(device.clone());
    step(&mut resumed, &program);
    resumed.load(&path).unwrap();
    assert_eq!(resumed.counter(STEP), 3);
    assert_eq!((0..3).map(|_| step(&mut resumed, &program)).collect::<Vec<_>>(), went_on);
    // An invalid counter.
    let mut contents = safetensors::read(&path).unwrap();
    contents.metadata.insert(format!("counter.{STEP}"), "-1".into());
    safetensors::save(&path, &contents.tensors, &contents.metadata).unwrap();
    assert!(resumed.load(&path).unwrap_err().to_string().contains(&format!("counter `{STEP}` is not a number")));
    assert_eq!(resumed.counter(STEP), 6);
}

#[test]
fn mismatched_checkpoints_list_all_differences_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let (mut session, _program) = training();
    session.save(&path).unwrap();
    let mut contents = safetensors::read(&path).unwrap();
    let all = |session: &Session| session.names().iter().map(|name| session.get(name).unwrap()).collect::<Vec<_>>();
    let before = all(&session);
    contents.tensors.remove("fc1.bias");
    contents.tensors.insert("fc9.bias".into(), Tensor::scalar(1.0));
    contents.tensors.insert("fc2.weight".into(), Tensor::scalar(1.0));
    contents.tensors.insert("fc2.bias".into(), Tensor::new([3], [9.0f32; 3]).unwrap());
    safetensors::save(&path, &contents.tensors, &contents.metadata).unwrap();
    let Err(Error::File { message, .. }) = session.load(&path) else { panic!("was accepted") };
    for part in [
        "`fc1.bias` (f32[16]) is missing",
        "`fc9.bias` (f32[]) is unknown",
        "`fc2.weight` is f32[], expected f32[3, 16]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(all(&session), before);
}

#[test]
fn weights_are_saved_and_loaded_under_pytorch_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (session, _program) = training();
    session.save_weights(&path, &eval_graph(3)).unwrap();
    let weights = safetensors::load(&path).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
    assert!(weights.values().all(|t| matches!(t.data(), wgrad::Data::F32(_))));
    // Load into an evaluation graph, from a weights file and from a full checkpoint.
    let fresh = |graph: &Graph| {
        let mut session = Session::new(Device::cpu());
        session.compile(graph, &[]).unwrap();
        session
    };
    let checkpoint = folder.path().join("checkpoint.safetensors");
    session.save(&checkpoint).unwrap();
    for path in [&path, &checkpoint] {
        let graph = eval_graph(3);
        let mut eval = fresh(&graph);
        assert_ne!(eval.get("fc1.weight").unwrap(), session.get("fc1.weight").unwrap());
        eval.load_weights(path, &graph).unwrap();
        assert_eq!(eval.get("fc1.weight").unwrap(), session.get("fc1.weight").unwrap());
    }
    let graph = eval_graph(4);
    let mut wrong = fresh(&graph);
    let before = wrong.get("fc1.weight").unwrap();
    assert!(
        wrong.load_weights(&path, &graph).unwrap_err().to_string().contains("`fc2.bias` is f32[3], expected f32[4]")
    );
    assert_eq!(wrong.get("fc1.weight").unwrap(), before);
    let mut unknown = weights.clone();
    unknown.insert("fc3.bias".into(), Tensor::scalar(0.0));
    unknown.insert("bn1.num_batches_tracked".into(), Tensor::new([], [7]).unwrap());
    safetensors::save(&path, &unknown, &BTreeMap::new()).unwrap();
    let graph = eval_graph(3);
    let why = fresh(&graph).load_weights(&path, &graph).unwrap_err().to_string();
    assert!(why.contains("`fc3.bias` (f32[]) is unknown") && !why.contains("bn1"), "{why}");
    assert!(
        Session::new(Device::cpu())
            .load_weights(&path, &graph)
            .unwrap_err()
            .to_string()
            .contains("compile the graph first")
    );
}

/// A layer built in both scopes computes the same once the parameters that one of them lacks are set to `neutral`.
fn lacks(
    modify: impl Fn(&Scope) -> Scope,
    data: &[usize],
    neutral: &[(&str, f32)],
    build: impl Fn(&Scope, &Value) -> Value,
) -> Vec<String> {
    let x = Tensor::new(data, (0..data.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect::<Vec<_>>());
    let x = x.expect("data");
    let run = |scope: &dyn Fn(&Graph) -> Scope| {
        let graph = Graph::new();
        let y = build(&scope(&graph), &graph.input("x", DType::F32, data));
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&y]).expect("compiles");
        for (name, value) in neutral {
            if let Some(ty) = session.variable_type(name).cloned() {
                let values = vec![*value; ty.shape.numel()];
                session.set(name, &Tensor::new(ty.shape, values).expect("values")).expect("sets");
            }
        }
        let y = session.run(&program, &[("x", &x)]).expect("runs").remove(0).to_f64();
        (y, session.names())
    };
    let (with, all) = run(&|graph| Scope::eval(graph, 3));
    let (without, names) = run(&|graph| modify(&Scope::eval(graph, 3)));
    assert!(with.iter().all(|y| y.is_finite()) && with.iter().any(|&y| y != 0.0));
    assert_eq!(with, without);
    let left: Vec<String> = all.into_iter().filter(|name| !names.contains(name)).collect();
    let expected: Vec<&str> = neutral.iter().map(|(name, _)| *name).collect();
    assert_eq!(left, expected);
    names
}

#[test]
fn layers_without_bias_declare_none() {
    let bias: &[(&str, f32)] = &[("l.bias", 0.0)];
    let conv = Conv2d::same(3);
    lacks(Scope::without_bias, &[4, 6], bias, |nn, x| nn.linear("l", x, 5));
    lacks(Scope::without_bias, &[2, 3, 5, 5], bias, |nn, x| nn.conv2d("l", x, 4, 3, conv));
    lacks(Scope::without_bias, &[2, 3, 5, 5], bias, |nn, x| {
        nn::ConvTranspose2d::new(nn, "l", 3, 4, 3, conv).forward(x)
    });
    lacks(Scope::without_bias, &[2, 3, 9], bias, |nn, x| {
        nn::Conv1d::new(nn, "l", 3, 4, 3, Default::default()).forward(x)
    });
    lacks(Scope::without_bias, &[4, 6], bias, |nn, x| nn.layer_norm("l", x));
    lacks(Scope::without_bias, &[4, 3, 2, 2], bias, |nn, x| nn.batch_norm("l", x));
    let attention = [("l.in_proj_bias", 0.0), ("l.out_proj.bias", 0.0)];
    lacks(Scope::without_bias, &[2, 5, 8], &attention, |nn, x| nn::MultiheadAttention::new(nn, "l", 8, 2).forward(x));
    lacks(Scope::without_bias, &[2, 5, 8], &attention, |nn, x| {
        nn::MultiheadAttention::new(nn, "l", 8, 2).attend(x, &x.relu(), &x.neg(), &Default::default())
    });
    let recurrent = [("l.bias_hh_l0", 0.0), ("l.bias_ih_l0", 0.0)];
    lacks(Scope::without_bias, &[2, 5, 8], &recurrent, |nn, x| {
        nn::Recurrent::gru(nn, "l", 8, 4, Default::default()).forward(x)
    });
}

#[test]
fn norms_without_affine_have_no_parameters() {
    let affine: &[(&str, f32)] = &[("l.bias", 0.0), ("l.weight", 1.0)];
    lacks(Scope::without_affine, &[4, 6], affine, |nn, x| nn.layer_norm("l", x));
    lacks(Scope::without_affine, &[4, 6], &affine[1..], |nn, x| nn::RmsNorm::new(nn, "l", &[6]).forward(x));
    lacks(Scope::without_affine, &[2, 6, 3], affine, |nn, x| nn::GroupNorm::new(nn, "l", 2, 6).forward(x));
    let names = lacks(Scope::without_affine, &[4, 3, 2, 2], affine, |nn, x| nn.batch_norm("l", x));
    assert_eq!(names, ["l.num_batches_tracked", "l.running_mean", "l.running_var"]);
    // Other layers keep their bias.
    let graph = Graph::new();
    Scope::train(&graph, 0).without_affine().linear("l", &graph.input("x", DType::F32, [2, 3]), 4);
    assert_eq!(graph.parameters().len(), 2);
}
