//! A program belongs to the session that compiled it, a value to the graph that created it. Mixing them is
//! refused and has no effect.

use std::time::Duration;

use wgrad::nn::{Embedding, Layer, Linear, MultiheadAttention, Recurrent, RecurrentOptions, Scope};
use wgrad::ops::attention::Attention;
use wgrad::optim::{Adam, Gradient, Optimizer, Sgd, accumulate, clip_norm, clip_value, parameter_gradients};
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Error, Graph, Profile, Program, Reduction, Session, Tensor, Value, gradients, gradients_of};

use crate::common;

type Entry = fn(&mut Session, &Program, &[(&str, &Tensor)]) -> wgrad::Result<()>;

/// Every method that runs a program.
const ENTRIES: &[(&str, Entry)] = &[
    ("run", |s, p, f| s.run(p, f).map(drop)),
    ("run_async", |s, p, f| pollster::block_on(s.run_async(p, f)).map(drop)),
    ("start", |s, p, f| s.start(p, f).map(drop)),
    ("submit", |s, p, f| s.submit(p, f)),
    ("submit_timed", |s, p, f| s.submit_timed(p, f).map(drop)),
    ("check", |s, p, f| s.check(p, f).map(drop)),
    ("run_checked", |s, p, f| s.run_checked(p, f).map(drop)),
    ("find_nan", |s, p, f| s.find_nan(p, f).map(drop)),
    ("time_calls", |s, p, f| s.time_calls(p, f).map(drop)),
];

#[test]
fn a_program_runs_only_in_its_own_session() {
    for device in common::devices() {
        let graph = Graph::new();
        let w = graph.parameter("w", Tensor::new([2], [1.0f32, 2.0]).expect("fits"));
        let x = graph.input("x", DType::F32, [2]);
        let count = graph.step_scalar("steps", DType::F32, |n| n as f64);
        graph.assign(&w, &(&w + &x + &count.broadcast_to(w.shape())));
        let mut first = Session::new(device.clone());
        let program = first.compile(&graph, &[&w]).expect("compiles");
        let mut alike = Session::new(device.clone());
        alike.compile(&graph, &[&w]).expect("compiles");
        // A session with the same variables, an empty one, and one on each kind of device.
        let mut others = vec![alike, Session::new(device.clone())];
        others.extend(common::devices().into_iter().map(Session::new));
        let x = Tensor::new([2], [1.0f32, 1.0]).expect("fits");
        for other in &mut others {
            for (name, entry) in ENTRIES {
                let error = entry(other, &program, &[("x", &x)]).expect_err(name);
                assert!(matches!(&error, Error::Input(why) if why.contains("another session")), "{name}: {error}");
                assert_eq!(other.counter("steps"), 0, "{name}");
            }
        }
        assert_eq!(others[0].get("w").expect("w").to_f32(), [1.0, 2.0]);
        assert_eq!(first.get("w").expect("w").to_f32(), [1.0, 2.0], "its own session's variables");
        assert_eq!(first.counter("steps"), 0);
        // It still runs in its own session, also after the others are dropped.
        drop(others);
        first.run(&program, &[("x", &x)]).expect("runs");
        assert_eq!(first.get("w").expect("w").to_f32(), [2.0, 3.0]);
        let findings = Session::new(device).lint(&program, &Profile::webgpu_defaults());
        assert!(findings.is_empty(), "a lint reads nothing of the session: {findings:?}");
    }
}

/// Two graphs with the same nodes, so that a node id of one is valid in the other.
fn twins() -> [(Graph, Value); 2] {
    [(); 2].map(|()| {
        let graph = Graph::new();
        let x = graph.parameter("x", Tensor::new([2, 2], [1.0f32, 2.0, 3.0, 4.0]).expect("fits"));
        let _ = x.square();
        (graph, x)
    })
}

/// For each op in the registry, takes each input in turn from another graph.
#[test]
fn no_op_accepts_inputs_from_different_graphs() {
    let (mut tried, mut failures) = (0, Vec::new());
    for case in wgrad::ops::cases().iter().filter(|case| case.inputs.len() > 1) {
        for foreign in 0..case.inputs.len() {
            let graphs = [Graph::new(), Graph::new()];
            let input = |(i, input): (usize, &wgrad::op::CaseInput)| {
                graphs[usize::from(i == foreign)].input(input.name, input.ty.dtype, &input.ty.shape)
            };
            let inputs: Vec<Value> = case.inputs.iter().enumerate().map(input).collect();
            let outputs = (case.build)(&inputs);
            // In a case with several outputs, one may depend on the foreign input only; no program can then
            // compute all of them.
            let apart = outputs.iter().any(|y| !y.graph().same(outputs[0].graph()));
            let refused = outputs.iter().any(|y| !y.is_valid()) && graphs.iter().any(|g| !g.errors().is_empty());
            tried += 1;
            if !refused && !apart {
                failures.push(format!("{} ({}), input {foreign}", case.op, case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(tried > 300, "only {tried} combinations were tried");
}

/// Calls other than single ops: takes a value of each graph and returns the results.
type Mix = fn(&Value, &Value) -> Vec<Value>;

const MIXES: &[(&str, Mix)] = &[
    ("gradients, wrt", |a, b| gradients(&a.square().sum_all(), &[a, b])),
    ("gradients, wrt alone", |a, b| gradients(&a.square().sum_all(), &[b])),
    ("gradients_of, seed", |a, b| gradients_of(&[(&a.square(), b)], &[a])),
    ("gradients_of, output", |a, b| gradients_of(&[(&a.square(), a), (&b.square(), b)], &[a])),
    ("assign, value", |a, b| {
        a.graph().assign(a, b);
        vec![]
    }),
    ("assign, variable", |a, b| {
        a.graph().assign(b, a);
        vec![]
    }),
    ("assign, both", |a, b| {
        a.graph().assign(b, b);
        vec![]
    }),
    ("assign, what came of a mix", |a, b| {
        b.graph().assign(b, &(a + b));
        vec![]
    }),
    ("a mix of a mix", |a, b| vec![b.matmul(&(a + b))]),
    ("minimize", |a, b| {
        Adam::new().minimize(a.graph(), &b.square().sum_all());
        vec![]
    }),
    ("minimize what came of a mix", |a, b| {
        Adam::new().minimize(a.graph(), &(b + a).sum_all());
        vec![]
    }),
    ("minimize of a graph's parameters", |a, b| {
        let of = parameter_gradients(a.graph(), &(b.square().sum_all()));
        assert!(of.is_empty());
        vec![]
    }),
    ("apply, parameter", |a, b| {
        Sgd::new().apply(a.graph(), &[Gradient { name: "x".into(), parameter: b.clone(), value: a.clone() }]);
        vec![]
    }),
    ("apply, gradient", |a, b| {
        Sgd::new().apply(a.graph(), &[Gradient { name: "x".into(), parameter: a.clone(), value: b.clone() }]);
        vec![]
    }),
    ("apply, both", |a, b| {
        Adam::new().apply(a.graph(), &parameter_gradients(b.graph(), &b.square().sum_all()));
        vec![]
    }),
    ("apply, what came of a mix", |a, b| {
        Sgd::new().apply(a.graph(), &[Gradient { name: "x".into(), parameter: a.clone(), value: b + a }]);
        vec![]
    }),
    ("accumulate", |a, b| {
        accumulate(a.graph(), &parameter_gradients(b.graph(), &b.square().sum_all()));
        vec![]
    }),
    ("clip_norm", |a, b| {
        let gradients = [a, b].map(|v| Gradient { name: "x".into(), parameter: v.clone(), value: v.clone() });
        clip_norm(&gradients, 1.0).into_iter().map(|g| g.value).collect()
    }),
    ("clip_value, then apply", |a, b| {
        let gradient = Gradient { name: "x".into(), parameter: b.clone(), value: b.clone() };
        Sgd::new().apply(a.graph(), &clip_value(&[gradient], 1.0));
        vec![]
    }),
    ("einsum, of another graph's", |a, b| vec![a.graph().einsum("ij,jk->ik", &[b, b])]),
    ("random_bits", |a, b| {
        let seed = |v: &Value| v.graph().step_scalar("seed", DType::U32, |n| n as f64);
        vec![a.graph().random_bits([3], &seed(a), &seed(b))]
    }),
    ("random_normal", |a, b| {
        let seed = |v: &Value| v.graph().step_scalar("seed", DType::U32, |n| n as f64);
        vec![a.graph().random_normal([3], &seed(a), &seed(b))]
    }),
    ("dropout", |a, b| {
        let seed = |v: &Value| v.graph().step_scalar("seed", DType::U32, |n| n as f64);
        vec![a.dropout(0.5, &seed(a), &seed(b))]
    }),
    ("dropout of 0", |a, b| {
        let seed = |v: &Value| v.graph().step_scalar("seed", DType::U32, |n| n as f64);
        vec![a.dropout(0.0, &seed(a), &seed(b))]
    }),
    ("concat of three", |a, b| vec![a.concat(&[a, b], 0)]),
    ("where_", |a, b| vec![a.gt(&a.zeros_like()).where_(a, b)]),
    ("mse_loss", |a, b| vec![a.mse_loss(b, Reduction::Mean)]),
    ("l1_loss", |a, b| vec![a.l1_loss(b, Reduction::Sum)]),
    ("huber_loss", |a, b| vec![a.huber_loss(b, 1.0, Reduction::Mean)]),
    ("smooth_l1_loss", |a, b| vec![a.smooth_l1_loss(b, 1.0, Reduction::Mean)]),
    ("hinge_loss", |a, b| vec![a.hinge_loss(b, Reduction::Mean)]),
    ("binary_cross_entropy", |a, b| vec![a.binary_cross_entropy(b, Reduction::Mean)]),
    ("bce with logits", |a, b| vec![a.binary_cross_entropy_with_logits(b, Reduction::Mean)]),
    ("kl_div", |a, b| vec![a.kl_div(b, Reduction::Mean)]),
    ("cosine_similarity", |a, b| vec![a.cosine_similarity(b, 1)]),
    ("cosine_embedding_loss", |a, b| vec![a.cosine_embedding_loss(a, &b.sum(&[1], false), 0.0, Reduction::Mean)]),
    ("cross_entropy", |a, b| vec![a.cross_entropy(&b.sum(&[1], false).cast(DType::I32), Reduction::Mean)]),
    ("cross_entropy_with, weight", |a, b| {
        let options = wgrad::loss::ClassLoss { weight: Some(b.sum(&[1], false)), ..Default::default() };
        vec![a.cross_entropy_with(&a.sum(&[1], false).cast(DType::I32), &options)]
    }),
    ("nll_loss", |a, b| vec![a.nll_loss(&b.sum(&[1], false).cast(DType::I32), &Default::default())]),
    ("scaled_dot_product_attention, mask", |a, b| {
        let options = Attention { attn_mask: Some(b.clone()), ..Attention::default() };
        vec![a.scaled_dot_product_attention(a, a, &options)]
    }),
    ("layer_norm", |a, b| vec![a.layer_norm(&[2], Some(&b.sum(&[0], false)), None, 1e-5)]),
    ("rms_norm", |a, b| vec![a.rms_norm(&[2], Some(&b.sum(&[0], false)), 1e-5)]),
    ("batch_norm", |a, b| vec![a.batch_norm(&a.sum(&[0], false), &b.sum(&[0], false), None, None, 1e-5)]),
    ("batch_norm_training", |a, b| vec![a.batch_norm_training(None, Some(&b.sum(&[0], false)), 1e-5).y]),
    ("running statistics", |a, b| {
        let (mean, var) = (a.sum(&[0], false), b.sum(&[0], false));
        vec![a.batch_norm_training(None, None, 1e-5).running(&mean, &var, 0.1).1]
    }),
    ("Linear", |a, b| vec![Linear::new(&Scope::train(a.graph(), 0), "fc", 2, 2).forward(b)]),
    ("Scope::linear", |a, b| vec![Scope::train(a.graph(), 0).linear("fc", b, 2)]),
    ("Embedding", |a, b| vec![Embedding::new(&Scope::train(a.graph(), 0), "e", 5, 2).forward(&b.cast(DType::I32))]),
    ("Scope::layer_norm", |a, b| vec![Scope::train(a.graph(), 0).layer_norm("n", b)]),
    ("Scope::batch_norm", |a, b| vec![Scope::train(a.graph(), 0).batch_norm("n", b)]),
    ("Scope::dropout", |a, b| vec![Scope::train(a.graph(), 0).dropout(b, 0.5)]),
    ("MultiheadAttention", |a, b| {
        vec![MultiheadAttention::new(&Scope::train(a.graph(), 0), "m", 2, 1).forward(&b.reshape(&[1, 2, 2]))]
    }),
    ("LSTM", |a, b| {
        let lstm = Recurrent::lstm(&Scope::train(a.graph(), 0), "l", 2, 2, RecurrentOptions::default());
        vec![lstm.forward(&b.reshape(&[1, 2, 2]))]
    }),
    ("LSTM, states", |a, b| {
        let lstm = Recurrent::lstm(&Scope::train(a.graph(), 0), "l", 2, 2, RecurrentOptions::default());
        let states = [a.slice(0, 0, 1, 1).reshape(&[1, 1, 2]), b.slice(0, 0, 1, 1).reshape(&[1, 1, 2])];
        vec![lstm.states(&a.reshape(&[1, 2, 2]), Some(&states)).y]
    }),
];

#[test]
fn values_of_another_graph_are_reported_at_the_users_line() {
    for (name, mix) in MIXES {
        let [(first, a), (second, b)] = twins();
        let given = mix(&a, &b);
        let errors: Vec<_> = [&first, &second].into_iter().flat_map(|graph| graph.errors()).collect();
        let reported = errors.iter().any(|error| error.message.contains("different graphs"));
        assert!(reported, "{name}: {errors:?}");
        for error in &errors {
            assert!(error.location.file().ends_with("ownership.rs"), "{name}: {error}");
        }
        for value in given {
            assert!(!value.is_valid(), "{name} returns {value:?}");
        }
        // The graph with the missing part does not compile.
        let compiled = [&first, &second].map(|g| Session::new(wgrad::Device::cpu()).compile(g, &[]).is_err());
        assert!(compiled[0] || compiled[1], "{name}");
        if name.starts_with("assign") || name.starts_with("apply") || name.starts_with("minimize") {
            let loses = if name.contains("assign, what") { compiled[1] } else { compiled[0] };
            assert!(loses, "{name}: the graph that lacks the update compiles");
        }
    }
}

#[test]
fn outputs_of_another_graph_are_refused() {
    for device in common::devices() {
        let [(first, a), (second, b)] = twins();
        let mut session = Session::new(device.clone());
        let outputs = [&a, &b];
        let refused = [
            session.compile(&first, &outputs).map(drop),
            session.compile_with(&first, &outputs, &Options::default()).map(drop),
            session.tune(&first, &outputs, Duration::ZERO).map(drop),
            wgrad::lint(&first, &outputs, &Profile::webgpu_defaults()).map(drop),
            Plan::of(&first, &outputs, device.profile(), &Options::default()).map(drop),
        ];
        for (number, result) in refused.into_iter().enumerate() {
            let error = result.expect_err("refused");
            let reported =
                matches!(&error, Error::Input(why) if why.contains("output 1, ") && why.contains("another graph"));
            assert!(reported, "{number}: {error}");
        }
        assert!(session.names().is_empty(), "nothing was created");
        session.compile(&second, &[&b]).expect("compiles in its own graph");
    }
}
