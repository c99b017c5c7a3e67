//! Normalisation layers: their variables over training steps and in evaluation, and invalid arguments.

use wgrad::nn::{BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm2d, Layer, LayerNorm, RmsNorm, Scope};
use wgrad::optim::{Optimizer, Sgd};
use wgrad::{DType, Device, Error, Graph, Session, Tensor};

use crate::common;

const SHAPE: [usize; 4] = [4, 3, 5, 2];

/// Data with a mean of about 3, different in each step.
fn batch(step: usize) -> Tensor {
    let values = (0..120).map(|i| ((i * 37 + step * 11) % 101) as f32 / 25.0 + (i % 3) as f32);
    Tensor::new(SHAPE, values.collect::<Vec<_>>()).expect("a tensor")
}

/// Three training steps, then an evaluation by another program in the same session.
fn train_and_evaluate(device: &Device) -> (Session, Tensor) {
    let mut session = Session::new(device.clone());
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, SHAPE);
    let y = BatchNorm2d::new(&Scope::train(&graph, 1), "bn", 3).forward(&x);
    let loss = (y - 0.5).square().mean_all();
    Sgd::new().lr(0.1).minimize(&graph, &loss);
    let step = session.compile(&graph, &[&loss]).expect("compiles");
    for number in 0..3 {
        session.run(&step, &[("x", &batch(number))]).expect("runs");
    }
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, SHAPE);
    let y = BatchNorm2d::new(&Scope::eval(&graph, 1), "bn", 3).forward(&x);
    let evaluation = session.compile(&graph, &[&y]).expect("compiles");
    let before = session.get("bn.running_mean").expect("a variable");
    let y = session.run(&evaluation, &[("x", &batch(9))]).expect("runs").swap_remove(0);
    assert_eq!(before, session.get("bn.running_mean").expect("a variable"), "evaluation updates nothing");
    (session, y)
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 2e-5 * want.abs().max(1.0), "{got}, expected {want}");
    }
}

/// Mean and unbiased variance of each channel.
fn statistics(x: &Tensor) -> [[f64; 2]; 3] {
    let x = x.to_f64();
    [0, 1, 2].map(|c| {
        let of: Vec<f64> = (0..120).filter(|i| i / 10 % 3 == c).map(|i| x[i]).collect();
        let mean = of.iter().sum::<f64>() / 40.0;
        [mean, of.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 39.0]
    })
}

#[test]
fn running_statistics_follow_the_batches_and_are_used_in_evaluation() {
    let mut running = [[0.0, 1.0]; 3];
    for number in 0..3 {
        for (old, new) in running.iter_mut().zip(statistics(&batch(number))) {
            *old = [0, 1].map(|i| 0.9 * old[i] + 0.1 * new[i]);
        }
    }
    for device in std::iter::once(Device::cpu()).chain(common::device()) {
        let (session, y) = train_and_evaluate(&device);
        let get = |name: &str| session.get(&format!("bn.{name}")).expect("a variable");
        close(&get("running_mean").to_f64(), &running.map(|r| r[0]));
        close(&get("running_var").to_f64(), &running.map(|r| r[1]));
        assert_eq!(get("num_batches_tracked").item().expect("a number"), 3.0);
        let (weight, bias, x) = (get("weight").to_f64(), get("bias").to_f64(), batch(9).to_f64());
        assert!(weight[0] != 1.0 && bias[0] != 0.0, "they are trained");
        let want = x.iter().enumerate().map(|(i, x)| {
            let c = i / 10 % 3;
            (x - running[c][0]) / (running[c][1] + 1e-5).sqrt() * weight[c] + bias[c]
        });
        close(&y.to_f64(), &want.collect::<Vec<f64>>());
        let names = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"];
        assert_eq!(session.names(), names.map(|name| format!("bn.{name}")));
    }
}

#[test]
fn running_statistics_use_the_momentum_or_the_cumulative_average() {
    for (momentum, eps) in [(Some(0.1), 1e-5), (Some(0.75), 0.5), (Some(1.0), 1e-3), (Some(0.0), 1e-5), (None, 1e-2)] {
        for device in common::devices() {
            let mut session = Session::new(device);
            let layer = |nn: &Scope, graph: &Graph| {
                let x = graph.input("x", DType::F32, SHAPE);
                BatchNorm2d::new(nn, "bn", 3).momentum(momentum).eps(eps).forward(&x)
            };
            let graph = Graph::new();
            let step = session.compile(&graph, &[&layer(&Scope::train(&graph, 1), &graph)]).expect("compiles");
            let mut running = [[0.0, 1.0]; 3];
            for number in 0..4 {
                let y = session.run(&step, &[("x", &batch(number))]).expect("runs").swap_remove(0).to_f64();
                let share = momentum.unwrap_or(1.0 / (number + 1) as f64);
                let of = statistics(&batch(number));
                for (old, new) in running.iter_mut().zip(of) {
                    *old = [0, 1].map(|i| (1.0 - share) * old[i] + share * new[i]);
                }
                let want = batch(number).to_f64().into_iter().enumerate().map(|(i, x)| {
                    let [mean, unbiased] = of[i / 10 % 3];
                    (x - mean) / (unbiased * 39.0 / 40.0 + eps).sqrt()
                });
                close(&y, &want.collect::<Vec<f64>>());
            }
            let get = |name: &str| session.get(&format!("bn.{name}")).expect("a variable").to_f64();
            close(&get("running_mean"), &running.map(|r| r[0]));
            close(&get("running_var"), &running.map(|r| r[1]));
            let graph = Graph::new();
            let evaluation = session.compile(&graph, &[&layer(&Scope::eval(&graph, 1), &graph)]).expect("compiles");
            let y = session.run(&evaluation, &[("x", &batch(9))]).expect("runs").swap_remove(0);
            let want = batch(9).to_f64().into_iter().enumerate().map(|(i, x)| {
                let [mean, var] = running[i / 10 % 3];
                (x - mean) / (var + eps).sqrt()
            });
            close(&y.to_f64(), &want.collect::<Vec<f64>>());
        }
    }
}

#[test]
fn only_parameters_are_trained() {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 0);
    let x = graph.input("x", DType::F32, [2, 6, 4, 4]);
    let y = GroupNorm::new(&nn, "group", 3, 6).forward(&BatchNorm2d::new(&nn, "batch", 6).forward(&x));
    let y = InstanceNorm2d::new().forward(&InstanceNorm2d::affine(&nn, "instance", 6).forward(&y));
    let y = RmsNorm::new(&nn, "rms", &[4]).forward(&LayerNorm::new(&nn, "layer", &[4, 4]).forward(&y));
    assert!(y.is_valid());
    let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
    let want = "group.weight group.bias batch.weight batch.bias instance.weight instance.bias rms.weight layer.weight \
                layer.bias";
    assert_eq!(names, want.split(' ').collect::<Vec<_>>());
}

#[test]
fn invalid_norm_arguments_are_reported() {
    let refused = |build: &dyn Fn(&Graph)| {
        let graph = Graph::new();
        build(&graph);
        match Session::new(Device::cpu()).compile(&graph, &[&graph.input("z", DType::F32, [])]) {
            Err(Error::Graph(errors)) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            other => panic!("{:?}", other.err()),
        }
    };
    let x = |graph: &Graph, shape: &[usize]| graph.input("x", DType::F32, shape);
    type Case<'a> = (&'a str, &'a dyn Fn(&Graph));
    let cases: &[Case<'_>] = &[
        ("last axes are [5]", &|g| drop(x(g, &[2, 4]).layer_norm(&[5], None, None, 1e-5))),
        ("weight of shape [4]", &|g| {
            let x = x(g, &[2, 4]);
            x.layer_norm(&[4], Some(&x), None, 1e-5);
        }),
        ("divides C = 4", &|g| drop(x(g, &[2, 4]).group_norm(3, None, None, 1e-5))),
        ("more than one element", &|g| drop(x(g, &[1, 4]).batch_norm_training(None, None, 1e-5))),
        ("more than one element", &|g| drop(x(g, &[2, 4, 1]).instance_norm(None, None, 1e-5))),
        ("at least one element", &|g| drop(x(g, &[2, 0]).rms_norm(&[0], None, 1e-5))),
        ("for eps", &|g| drop(x(g, &[2, 4]).rms_norm(&[4], None, 0.0))),
        ("[N, C, ...]", &|g| drop(x(g, &[4]).group_norm(2, None, None, 1e-5))),
        ("1 spatial axes", &|g| drop(BatchNorm1d::new(&Scope::train(g, 0), "bn", 3).forward(&x(g, &[2, 3, 4, 4])))),
        ("momentum must be in [0, 1]", &|g| {
            BatchNorm2d::new(&Scope::train(g, 0), "bn", 3).momentum(f64::NAN).forward(&x(g, &[2, 3, 4, 4]));
        }),
        ("variable `bn.running_mean` is assigned twice", &|g| {
            let bn = BatchNorm2d::new(&Scope::train(g, 0), "bn", 3);
            bn.forward(&bn.forward(&x(g, &[2, 3, 4, 4])));
        }),
    ];
    for (what, build) in cases {
        let message = refused(build);
        assert!(message.contains(what), "`{what}` is not in: {message}");
    }
}
