//! Optimisers compared with their formulas in plain loops; gradient clipping and accumulation; weight
//! averages; learning rate schedules.

use wgrad::nn::Scope;
use wgrad::optim::schedule::{Constant, Cosine, OneCycle, ReduceOnPlateau, Schedule, Step};
use wgrad::optim::{
    Adadelta, Adagrad, Adam, AdamW, Gradient, Lion, NAdam, Optimizer, RmsProp, Sgd, accumulate, accumulated, clip_norm,
    clip_value, parameter_gradients,
};
use wgrad::{DType, Device, Graph, Program, Reduction, Session, Tensor, Value};

use crate::common;

const START: [f64; 4] = [1.0, -2.0, 0.5, 3.0];
const SCALE: [f64; 4] = [1.0, 0.1, 3.0, -0.5];

/// The gradient of `sum(scale p^2 / 2 + p * step)`.
fn slope(p: f64, element: usize, step: usize) -> f64 {
    SCALE[element] * p + step as f64 * if element == 2 { -1.0 } else { 0.3 }
}

/// The parameter after each of `count` steps.
fn steps(device: &Device, optimizer: &dyn Optimizer, count: usize) -> Vec<Vec<f64>> {
    let graph = Graph::new();
    let p = graph.parameter("p", Tensor::new([4], START.map(|x| x as f32).to_vec()).expect("a tensor"));
    let scale = graph.constant(Tensor::new([4], SCALE.map(|x| x as f32).to_vec()).expect("a tensor"));
    let push = graph.constant(Tensor::new([4], [0.3f32, 0.3, -1.0, 0.3]).expect("a tensor"));
    let step = graph.scalar("step", 0.0);
    let loss = (p.square() * &scale * 0.5 + &p * push * step.broadcast_to(scale.shape())).sum_all();
    optimizer.minimize(&graph, &loss);
    assert!(graph.errors().is_empty(), "{:?}", graph.errors());
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    let mut after = Vec::new();
    for step in 0..count {
        session.run(&program, &[("step", &Tensor::scalar(step as f64))]).expect("runs");
        after.push(session.get("p").expect("p").to_f64());
    }
    after
}

/// Compares an optimiser with a rule that computes the new parameter from the old one, its gradient,
/// the step number (from 1) and the rule's state.
fn follows(name: &str, optimizer: &dyn Optimizer, rule: impl Fn(f64, f64, f64, &mut [f64; 2]) -> f64) {
    const COUNT: usize = 8;
    let mut want = vec![vec![0.0; 4]; COUNT];
    for element in 0..4 {
        let (mut p, mut state) = (START[element], [0.0; 2]);
        for (step, row) in want.iter_mut().enumerate() {
            p = rule(p, slope(p, element, step), (step + 1) as f64, &mut state);
            row[element] = p;
        }
    }
    let near = |device: &Device, tolerance: f64| {
        for (step, (got, want)) in steps(device, optimizer, COUNT).iter().zip(&want).enumerate() {
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= tolerance, "{name}, step {step}: {got}, expected {want}");
            }
        }
    };
    // The constants 0.1 and 0.3 are f32 in the graph.
    near(&Device::cpu(), 1e-6);
    if let Some(device) = common::device() {
        near(&device, 3e-5);
    }
}

#[test]
fn adadelta() {
    follows("adadelta", &Adadelta::new().lr(0.5).rho(0.8).weight_decay(0.1), |p, g, _, [v, u]| {
        let g = g + 0.1 * p;
        *v = 0.8 * *v + 0.2 * g * g;
        let d = g * (*u + 1e-6).sqrt() / (*v + 1e-6).sqrt();
        *u = 0.8 * *u + 0.2 * d * d;
        p - 0.5 * d
    });
}

#[test]
fn lion() {
    follows("lion", &Lion::new().lr(0.05).betas((0.8, 0.95)).weight_decay(0.2), |p, g, _, [m, _]| {
        let c: f64 = 0.8 * *m + 0.2 * g;
        *m = 0.95 * *m + 0.05 * g;
        p - 0.05 * (c.signum() * f64::from(u8::from(c != 0.0)) + 0.2 * p)
    });
}

#[test]
fn nadam() {
    let (beta1, beta2, decay) = (0.85, 0.97, 0.1);
    follows(
        "nadam",
        &NAdam::new().lr(0.05).betas((beta1, beta2)).weight_decay(0.1).momentum_decay(decay),
        |p, g, t, [m, v]| {
            let g = g + 0.1 * p;
            let mu = |t: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(t * decay));
            let product = |t: f64| (1..=t as usize).map(|i| mu(i as f64)).product::<f64>();
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let root = (*v / (1.0 - beta2.powf(t))).sqrt() + 1e-8;
            p - 0.05 * (1.0 - mu(t)) / (1.0 - product(t)) * g / root
                - 0.05 * mu(t + 1.0) / (1.0 - product(t + 1.0)) * *m / root
        },
    );
    // Without momentum it is RMSprop with bias correction.
    follows("nadam without momentum", &NAdam::new().lr(0.05).betas((0.0, beta2)), |p, g, t, [_, v]| {
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        p - 0.05 * g / ((*v / (1.0 - beta2.powf(t))).sqrt() + 1e-8)
    });
}

#[test]
fn lr_factor_scales_the_learning_rate_of_a_group() {
    follows("a tenth", &Sgd::new().lr(0.5).lr_factor(0.1), |p, g, _, _| p - 0.05 * g);
    let adam = |lr: f64| steps(&Device::cpu(), &AdamW::new().lr(lr).weight_decay(0.3), 6);
    let scaled = steps(&Device::cpu(), &AdamW::new().lr(0.2).weight_decay(0.3).lr_factor(0.25), 6);
    for (got, want) in scaled.iter().flatten().zip(adam(0.05).iter().flatten()) {
        assert!((got - want).abs() < 1e-12, "{got}, expected {want}");
    }
}

#[test]
fn clip_value_clamps_each_element() {
    let graph = Graph::new();
    let p = graph.parameter("p", Tensor::new([3], [0.0f32; 3]).expect("a tensor"));
    let slopes = graph.constant(Tensor::new([3], [5.0f32, -7.0, 0.25]).expect("a tensor"));
    let gradients = parameter_gradients(&graph, &(&p * slopes).sum_all());
    Sgd::new().lr(1.0).apply(&graph, &clip_value(&gradients, 0.5));
    for device in common::devices() {
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[]).expect("compiles");
        session.run(&program, &[]).expect("runs");
        assert_eq!(session.get("p").expect("p").to_f64(), [-0.5, 0.5, -0.25]);
    }
}

/// A program that trains scalar parameters with these names; each starts at 0 and has a gradient of 1.
fn trains(session: &mut Session, names: &[&str], optimizer: &dyn Optimizer) -> Program {
    let graph = Graph::new();
    let parameters = names.iter().map(|name| graph.parameter(name, Tensor::scalar(0.0)));
    let loss = parameters.reduce(|a, b| a + b).expect("a name");
    optimizer.minimize(&graph, &loss);
    session.compile(&graph, &[]).expect("compiles")
}

fn near(session: &Session, name: &str, want: f64) {
    let got = session.get(name).expect("a variable").item().expect("a number");
    assert!((got - want).abs() <= 1e-6, "{name}: {got}, expected {want}");
}

#[test]
fn each_parameter_counts_its_own_steps() {
    let optimizers: [(&dyn Optimizer, f64); 5] = [
        (&Adam::new().lr(0.1), -0.1),
        (&AdamW::new().lr(0.1), -0.1),
        (&NAdam::new().lr(0.1), -0.105_645_2),
        (&Adagrad::new().lr(0.1).lr_decay(0.1), -0.1),
        (&Adam::new().lr(0.1).lr_factor(0.5), -0.05),
    ];
    for device in common::devices() {
        for (optimizer, first) in optimizers {
            let mut session = Session::new(device.clone());
            let old = trains(&mut session, &["old"], optimizer);
            (0..1000).for_each(|_| session.submit(&old, &[]).expect("runs"));
            // A program for another parameter, and one that continues with it and adds a new parameter.
            let new = trains(&mut session, &["new"], optimizer);
            session.run(&new, &[]).expect("runs");
            near(&session, "new", first);
            let both = trains(&mut session, &["new", "joins"], optimizer);
            let twice = trains(&mut session, &["twice"], optimizer);
            session.run(&both, &[]).expect("runs");
            near(&session, "joins", first);
            (0..2).for_each(|_| drop(session.run(&twice, &[]).expect("runs")));
            let twice = session.get("twice").expect("twice").item().expect("a number");
            near(&session, "new", twice);
        }
    }
}

#[test]
fn step_counts_belong_to_parameters_not_programs() {
    for device in common::devices() {
        let mut session = Session::new(device);
        let adam = Adam::new().lr(0.1);
        let [a, b] = ["a", "b"].map(|name| trains(&mut session, &[name], &adam));
        let also_a = trains(&mut session, &["a"], &adam);
        for step in 1..=4 {
            session.run(if step % 2 == 0 { &also_a } else { &a }, &[]).expect("runs");
            session.run(&b, &[]).expect("runs");
            // With a constant gradient of 1, each step of Adam equals the learning rate.
            near(&session, "a", -0.1 * f64::from(step));
            near(&session, "b", -0.1 * f64::from(step));
            assert_eq!(session.counter("a.adam.step"), step as u64);
        }
    }
}

#[test]
fn averages_count_only_their_own_steps() {
    for device in common::devices() {
        let mut session = Session::new(device);
        let plain = trains(&mut session, &["w"], &Sgd::new().lr(1.0));
        let other = trains(&mut session, &["v"], &Sgd::new().lr(1.0).averaged(0.9));
        for _ in 0..10 {
            session.run(&plain, &[]).expect("runs");
            session.run(&other, &[]).expect("runs");
        }
        let averaged = trains(&mut session, &["w"], &Sgd::new().lr(1.0).averaged(0.9));
        session.run(&averaged, &[]).expect("runs");
        near(&session, "w.ema", -11.0);
    }
}

#[test]
fn accumulation_counts_steps_not_batches() {
    for device in common::devices() {
        let batch = Graph::new();
        let w = batch.parameter("w", Tensor::scalar(0.0));
        accumulate(&batch, &parameter_gradients(&batch, &w));
        let step = Graph::new();
        step.parameter("w", Tensor::scalar(0.0));
        Adam::new().lr(0.1).apply(&step, &accumulated(&step, 8));
        let mut session = Session::new(device);
        let [batch, step] = [batch, step].map(|graph| session.compile(&graph, &[]).expect("compiles"));
        (0..8).for_each(|_| drop(session.run(&batch, &[]).expect("runs")));
        session.run(&step, &[]).expect("runs");
        near(&session, "w", -0.1);
        assert_eq!(session.counter("w.adam.step"), 1);
    }
}

#[test]
fn checkpoints_with_a_shared_step_count_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    let adam = Adam::new().lr(0.1).averaged(0.9);
    let mut session = Session::new(Device::cpu());
    let program = trains(&mut session, &["fc.weight", "fc.bias"], &adam);
    (0..3).for_each(|_| drop(session.run(&program, &[]).expect("runs")));
    session.save(&path).expect("saved");
    let mut contents = wgrad::io::safetensors::read(&path).expect("reads");
    let counters = ["fc.bias.adam.step", "fc.bias.ema.step", "fc.weight.adam.step", "fc.weight.ema.step"];
    for counter in counters {
        assert_eq!(contents.metadata.remove(&format!("counter.{counter}")).as_deref(), Some("3"));
    }
    contents.metadata.insert("counter.optimizer.step".into(), "3".into());
    wgrad::io::safetensors::save(&path, &contents.tensors, &contents.metadata).expect("saved");

    let mut resumed = Session::new(Device::cpu());
    let again = trains(&mut resumed, &["fc.weight", "fc.bias"], &adam);
    resumed.load(&path).expect("loads");
    assert_eq!(resumed.counters(), session.counters());
    session.run(&program, &[]).expect("runs");
    resumed.run(&again, &[]).expect("runs");
    for name in session.names() {
        assert_eq!(resumed.get(&name).expect("there"), session.get(&name).expect("there"), "{name}");
    }
    // A parameter added later starts its count at 0.
    let joins = trains(&mut resumed, &["joins"], &adam);
    resumed.run(&joins, &[]).expect("runs");
    near(&resumed, "joins", -0.1);
}

#[test]
fn many_groups_and_step_scalars_are_supported() {
    const GROUPS: usize = 70;
    for device in common::devices() {
        let mut session = Session::new(device);
        let graph = Graph::new();
        let names: Vec<String> = (0..GROUPS).map(|k| format!("w{k}")).collect();
        let parameters: Vec<Value> = names.iter().map(|name| graph.parameter(name, Tensor::scalar(0.0))).collect();
        // More scalars in one kernel than a uniform of 256 bytes holds.
        let terms = (0..GROUPS).map(|k| graph.scalar(&format!("s{k}"), 2f64.powi(k as i32 % 20)));
        let sum = terms.reduce(|a, b| a + b).expect("some");
        let loss = parameters.iter().cloned().reduce(|a, b| a + b).expect("some");
        let gradients = parameter_gradients(&graph, &loss);
        for (k, gradient) in gradients.into_iter().enumerate() {
            Adam::new().lr(0.1).lr_factor(k as f64 / 10.0).apply(&graph, &[gradient]);
        }
        let program = session.compile(&graph, &[&sum]).expect("compiles");
        for step in 1..=2 {
            let s69 = Tensor::scalar(0.5);
            let sum = session.run(&program, &[("s69", &s69)]).expect("runs")[0].item().expect("a number");
            let want: f64 = (0..GROUPS - 1).map(|k| 2f64.powi(k as i32 % 20)).sum::<f64>() + 0.5;
            assert_eq!(sum, want);
            for (k, name) in names.iter().enumerate() {
                near(&session, name, -0.01 * k as f64 * f64::from(step));
            }
        }
    }
}

#[test]
fn updates_of_many_parameters_share_their_wgsl() {
    let texts = |parameters: usize| {
        let graph = Graph::new();
        let parameters = (0..parameters).map(|k| graph.parameter(&format!("w{k}"), Tensor::scalar(0.0)).square());
        let loss = parameters.reduce(|a, b| a + b).expect("some");
        Adam::new().lr(0.1).minimize(&graph, &loss);
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[]).expect("compiles");
        let dispatches = program.plan().calls.iter().flat_map(|call| &call.dispatches);
        dispatches.map(|dispatch| dispatch.wgsl.text.clone()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(texts(40), texts(1));
}

#[test]
fn clip_norm_scales_all_gradients() {
    // Gradients (3, 4) and 12 have norm 13. If one is NaN, all become NaN, as in PyTorch.
    for device in common::devices() {
        let run = |slopes: [f32; 2], most: f64| -> Vec<f64> {
            let graph = Graph::new();
            let p = graph.parameter("p", Tensor::new([2], [0.0f32; 2]).expect("a tensor"));
            let q = graph.parameter("q", Tensor::scalar(0.0));
            let slopes = graph.constant(Tensor::new([2], slopes).expect("a tensor"));
            let gradients = parameter_gradients(&graph, &((&p * slopes).sum_all() + q * 12.0));
            let clipped = clip_norm(&gradients, most);
            let mut session = Session::new(device.clone());
            let values: Vec<&Value> = clipped.iter().map(|g| &g.value).collect();
            let program = session.compile(&graph, &values).expect("compiles");
            session.run(&program, &[]).expect("runs").iter().flat_map(Tensor::to_f64).collect()
        };
        let near = |got: Vec<f64>, want: [f64; 3]| {
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?}, expected {want:?}");
        };
        near(run([3.0, 4.0], 1.0), [3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0]);
        near(run([3.0, 4.0], 20.0), [3.0, 4.0, 12.0]);
        near(run([3.0, 4.0], 0.0), [0.0, 0.0, 0.0]);
        for limit in [1.0, 1e30] {
            let nan = run([f32::NAN, 4.0], limit);
            assert!(nan.iter().all(|x| x.is_nan()), "{nan:?}");
        }
    }
}

#[test]
fn invalid_clipping_limits_are_errors() {
    type Clip = fn(&[Gradient], f64) -> Vec<Gradient>;
    for (name, clip) in [("clip_norm", clip_norm as Clip), ("clip_value", clip_value)] {
        for limit in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let graph = Graph::new();
            let p = graph.parameter("p", Tensor::new([2], [0.0f32; 2]).expect("a tensor"));
            let gradients = parameter_gradients(&graph, &p.sum_all());
            assert!(clip(&gradients, limit).iter().all(|g| !g.value.is_valid()));
            let errors = graph.errors();
            assert_eq!(errors.len(), 1, "{errors:?}");
            let message = errors[0].to_string();
            assert!(message.contains(name) && message.contains("at least 0"), "{message}");
        }
    }
}

#[test]
fn centred_rmsprop_is_stable_for_a_constant_gradient() {
    // The variance of a constant gradient tends to 0: the difference of two rounded squares.
    const SLOPES: [f64; 5] = [0.1, 0.3, 1.0, 3.3, 7.0];
    for device in common::devices() {
        let graph = Graph::new();
        let p = graph.parameter("p", Tensor::new([5], [0.0f32; 5]).expect("a tensor"));
        let slopes = graph.constant(Tensor::new([5], SLOPES.map(|x| x as f32)).expect("a tensor"));
        RmsProp::new().lr(0.01).eps(1.0).centered(true).minimize(&graph, &(&p * slopes).sum_all());
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[]).expect("compiles");
        let mut want = [0.0; 5];
        for step in 1..=20_000 {
            session.submit(&program, &[]).expect("runs");
            let left = 0.99f64.powi(step);
            for (want, slope) in want.iter_mut().zip(SLOPES) {
                *want -= 0.01 * slope / (slope * ((1.0 - left) * left).sqrt() + 1.0);
            }
            if step % 4000 == 0 {
                for (got, want) in session.get("p").expect("p").to_f64().iter().zip(want) {
                    assert!((got - want).abs() <= 0.02 * want.abs(), "step {step}: {got}, expected {want}");
                }
            }
        }
    }
}

fn model(nn: &Scope, x: &Value) -> Value {
    let x = nn.part("body").linear("fc", x, 5).tanh();
    nn.linear("head", &x, 3)
}

fn data(rows: usize) -> (Tensor, Tensor) {
    let x = (0..rows * 4).map(|i| (i * 37 % 19) as f32 / 10.0 - 0.9).collect::<Vec<_>>();
    let y = (0..rows).map(|i| (i * 7 % 3) as i32).collect::<Vec<_>>();
    (Tensor::new([rows, 4], x).expect("a tensor"), Tensor::new([rows], y).expect("a tensor"))
}

fn loss(nn: &Scope, rows: usize) -> Value {
    let x = nn.graph().input("x", DType::F32, [rows, 4]);
    let y = nn.graph().input("y", DType::I32, [rows]);
    model(nn, &x).cross_entropy(&y, Reduction::Mean)
}

#[test]
fn accumulating_three_batches_equals_one_batch_three_times_as_large() {
    for device in common::devices() {
        let (x, y) = data(12);
        let mut whole = Session::new(device.clone());
        let graph = Graph::new();
        let nn = Scope::train(&graph, 3);
        Adam::new().lr(0.1).minimize(&graph, &loss(&nn, 12));
        let program = whole.compile(&graph, &[]).expect("compiles");

        let mut parts = Session::new(device);
        let graph = Graph::new();
        let nn = Scope::train(&graph, 3);
        accumulate(&graph, &parameter_gradients(&graph, &loss(&nn, 4)));
        let part = parts.compile(&graph, &[]).expect("compiles");
        let graph = Graph::new();
        let nn = Scope::train(&graph, 3);
        loss(&nn, 1); // declares the parameters
        Adam::new().lr(0.1).apply(&graph, &accumulated(&graph, 3));
        let step = parts.compile(&graph, &[]).expect("compiles");

        for _ in 0..3 {
            whole.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
            for batch in 0..3 {
                let rows: Vec<usize> = (batch * 4..batch * 4 + 4).collect();
                let (x, y) = (x.rows(&rows).expect("rows"), y.rows(&rows).expect("rows"));
                parts.run(&part, &[("x", &x), ("y", &y)]).expect("runs");
            }
            parts.run(&step, &[]).expect("runs");
        }
        for (name, _) in graph.parameters() {
            let got = parts.get(&name).expect("there").to_f64();
            for (got, want) in got.iter().zip(whole.get(&name).expect("there").to_f64()) {
                assert!((got - want).abs() <= 1e-4, "{name}: {got}, expected {want}");
            }
        }
    }
}

#[test]
fn frozen_parameters_are_neither_updated_nor_differentiated() {
    for device in common::devices() {
        let graph = Graph::new();
        let nn = Scope::train(&graph, 3);
        let x = graph.input("x", DType::F32, [6, 4]);
        let y = graph.input("y", DType::I32, [6]);
        let hidden = nn.part("body").frozen().linear("fc", &x, 5).tanh();
        let loss = nn.linear("head", &hidden, 3).cross_entropy(&y, Reduction::Mean);
        let gradients = Adam::new().lr(0.1).minimize(&graph, &loss);
        assert_eq!(gradients.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["head.weight", "head.bias"]);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        let before = ["body.fc.weight", "head.weight"].map(|name| session.get(name).expect("there").to_f64());
        let (x, y) = data(6);
        session.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
        let after = ["body.fc.weight", "head.weight"].map(|name| session.get(name).expect("there").to_f64());
        assert_eq!(before[0], after[0]);
        assert!(before[1].iter().zip(&after[1]).all(|(a, b)| (a - b).abs() > 0.09), "{before:?} {after:?}");
    }
}

#[test]
fn averaged_weights_are_tracked_and_can_be_evaluated() {
    for device in common::devices() {
        let graph = Graph::new();
        let nn = Scope::train(&graph, 3);
        let total = loss(&nn, 6);
        Sgd::new().lr(0.5).averaged(0.7).minimize(&graph, &total);
        let eval = Graph::new();
        let averaged = model(&Scope::eval(&eval, 3).averaged(), &eval.input("x", DType::F32, [6, 4]));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&total]).expect("compiles");
        let evaluation = session.compile(&eval, &[&averaged]).expect("compiles");
        let (x, y) = data(6);
        let mut sum = vec![0.0; 15];
        let mut weights = 0.0;
        for _ in 0..4 {
            session.run(&program, &[("x", &x), ("y", &y)]).expect("runs");
            let now = session.get("head.weight").expect("there").to_f64();
            sum.iter_mut().zip(now).for_each(|(sum, now)| *sum = 0.7 * *sum + 0.3 * now);
            weights = 0.7 * weights + 0.3;
        }
        let got = session.get("head.weight.ema").expect("there").to_f64();
        for (got, sum) in got.iter().zip(&sum) {
            assert!((got - sum / weights).abs() < 1e-6, "{got}, expected {}", sum / weights);
        }
        // The evaluation uses the averages: assigned to the weights, they give the same outputs.
        let outputs = session.run(&evaluation, &[("x", &x)]).expect("runs")[0].to_f64();
        let plain = Graph::new();
        let logits = model(&Scope::eval(&plain, 3), &plain.input("x", DType::F32, [6, 4]));
        let plain = session.compile(&plain, &[&logits]).expect("compiles");
        for name in ["body.fc.weight", "body.fc.bias", "head.weight", "head.bias"] {
            let average = session.get(&format!("{name}.ema")).expect("there");
            session.set(name, &average).expect("fits");
        }
        assert_eq!(session.run(&plain, &[("x", &x)]).expect("runs")[0].to_f64(), outputs);
    }
}

#[test]
fn schedules_match_pytorch() {
    let rates = |schedule: &dyn Schedule, steps: &[u64]| steps.iter().map(|&s| schedule.lr(s)).collect::<Vec<_>>();
    let near = |got: Vec<f64>, want: &[f64]| {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= 1e-12 * want.abs().max(1e-3), "{got}, expected {want}");
        }
    };
    near(rates(&Constant(0.3), &[0, 1_000_000]), &[0.3, 0.3]);
    near(rates(&Step { lr: 0.8, every: 10, gamma: 0.5 }, &[0, 9, 10, 19, 20, 35]), &[0.8, 0.8, 0.4, 0.4, 0.2, 0.1]);
    near(rates(&Step { lr: 0.8, every: 0, gamma: 0.5 }, &[99]), &[0.8]);
    let cosine = Cosine { lr: 1.0, last: 0.2, steps: 4 };
    let half = 0.4 * std::f64::consts::FRAC_1_SQRT_2;
    near(rates(&cosine, &[0, 1, 2, 3, 4, 50]), &[1.0, 0.6 + half, 0.6, 0.6 - half, 0.2, 0.2]);
    near(rates(&cosine.after_warm_up(3), &[0, 1, 2, 3, 5, 7]), &[0.25, 0.5, 0.75, 1.0, 0.6, 0.2]);
    near(rates(&Cosine { lr: 1.0, last: 0.2, steps: 0 }, &[0]), &[0.2]);
    // OneCycleLR(max_lr=1, total_steps=10): up to step 2, down to step 9.
    let cycle = OneCycle::new(1.0, 10);
    let down = |step: f64| 4e-6 + (1.0 - 4e-6) * (1.0 + (std::f64::consts::PI * (step - 2.0) / 7.0).cos()) / 2.0;
    near(rates(&cycle, &[0, 1, 2, 3, 6, 9, 10]), &[0.04, 0.52, 1.0, down(3.0), down(6.0), 4e-6, 4e-6]);
}

#[test]
fn the_learning_rate_falls_on_a_plateau() {
    let mut rate = ReduceOnPlateau::new(1.0).factor(0.5).patience(2).cooldown(1).least(0.2);
    let got: Vec<f64> = [3.0, 2.0, 2.0, f64::NAN, 2.5, 2.5, 2.5, 2.5, 2.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        .map(|measure| rate.observe(measure))
        .to_vec();
    // Three values without improvement; one in the cooldown; three more; an improvement; three; and so on.
    let want = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2];
    assert_eq!(got, want);
    assert_eq!(rate.lr(), 0.2);
    let mut negative = ReduceOnPlateau::new(1.0).patience(0);
    assert_eq!([-1.0, -2.0, -2.0].map(|measure| negative.observe(measure)), [1.0, 1.0, 0.1]);
}
