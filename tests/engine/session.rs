//! Sessions: variables shared by programs, the order of reads and assignments, valid and invalid
//! feeds. On the reference, and on the GPU if there is one.

use wgrad::{DType, Device, Error, Graph, Session, Tensor, gradients};

use crate::common;

fn tensor(values: &[f32]) -> Tensor {
    Tensor::new([values.len()], values).expect("a vector")
}

#[test]
fn assignments_commit_at_the_end_of_the_step() {
    for device in common::devices() {
        let graph = Graph::new();
        let a = graph.variable("a", tensor(&[1.0, 2.0, 3.0]));
        let b = graph.variable("b", tensor(&[10.0, 20.0, 30.0]));
        graph.assign(&a, &b); // a swap: both read the start of the step
        graph.assign(&b, &a);
        let sum = &a + &b * 2.0;
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&sum, &a]).expect("compiles");
        let first = session.run(&program, &[]).expect("runs");
        assert_eq!(first[0].to_f32(), [21.0, 42.0, 63.0]);
        assert_eq!(first[1].to_f32(), [1.0, 2.0, 3.0], "a fetched variable has its old value");
        assert_eq!(session.get("a").expect("a").to_f32(), [10.0, 20.0, 30.0]);
        assert_eq!(session.get("b").expect("b").to_f32(), [1.0, 2.0, 3.0]);
        let second = session.run(&program, &[]).expect("runs");
        assert_eq!(second[0].to_f32(), [12.0, 24.0, 36.0]);
    }
}

#[test]
fn later_readers_of_an_updated_variable_see_the_old_value() {
    for device in common::devices() {
        let graph = Graph::new();
        let w = graph.variable("w", tensor(&[1.0, 2.0]));
        let x = graph.input("x", DType::F32, [2]);
        let new = &w + &x;
        graph.assign(&w, &new);
        // One reader needs the new value, the other the old one, in any execution order.
        let y = (&w * 100.0 + &new).sum_all();
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&y]).expect("compiles");
        let out = session.run(&program, &[("x", &tensor(&[0.5, 0.25]))]).expect("runs");
        assert_eq!(out[0].item().expect("scalar"), 300.0 + 1.5 + 2.25);
        assert_eq!(session.get("w").expect("w").to_f32(), [1.5, 2.25]);
    }
}

#[test]
fn programs_share_variables_and_counters() {
    for device in common::devices() {
        let mut session = Session::new(device);
        let train = Graph::new();
        let w = train.parameter("w", tensor(&[0.0, 0.0]));
        let count = train.step_scalar("steps", DType::F32, |n| n as f64 + 1.0);
        let lr = train.scalar("lr", 0.5);
        train.assign(&w, &(&w + &lr.broadcast_to(w.shape()) * &count.broadcast_to(w.shape())));
        let train = session.compile(&train, &[]).expect("compiles");

        let eval = Graph::new();
        let w = eval.parameter("w", tensor(&[7.0, 7.0])); // already known: the initial value is unused
        let doubled = &w * 2.0;
        let eval = session.compile(&eval, &[&doubled]).expect("compiles");

        session.run(&train, &[]).expect("runs");
        session.run(&train, &[("lr", &Tensor::scalar(10.0))]).expect("runs");
        let out = session.run(&eval, &[]).expect("runs");
        assert_eq!(out[0].to_f32(), [41.0, 41.0]); // 2 (0.5 * 1 + 10 * 2)
        assert_eq!(session.counter("steps"), 2);
        session.set("w", &tensor(&[1.0, -1.0])).expect("sets");
        session.set_counter("steps", 99);
        session.run(&train, &[("lr", &Tensor::scalar(1.0))]).expect("runs");
        assert_eq!(session.get("w").expect("w").to_f32(), [101.0, 99.0]);

        let other = Graph::new();
        other.parameter("w", tensor(&[1.0]));
        let error = session.compile(&other, &[]).err().expect("another type").to_string();
        assert!(error.contains("`w`") && error.contains("f32[1]") && error.contains("f32[2]"), "{error}");
    }
}

#[test]
fn submitted_steps_take_effect_in_order() {
    for device in common::devices() {
        let graph = Graph::new();
        let w = graph.variable("w", tensor(&[1.0, 2.0]));
        let x = graph.input("x", DType::F32, [2]);
        let count = graph.step_scalar("steps", DType::F32, |n| n as f64 + 1.0);
        graph.assign(&w, &(&w * 2.0 + &x * &count.broadcast_to(x.shape())));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&w]).expect("compiles");
        session.submit(&program, &[("x", &tensor(&[1.0, 0.0]))]).expect("starts");
        session.submit(&program, &[("x", &tensor(&[0.0, 1.0]))]).expect("starts");
        session.wait().expect("waits");
        assert_eq!(session.counter("steps"), 2);
        let read = session.run(&program, &[("x", &tensor(&[0.0, 0.0]))]).expect("runs");
        assert_eq!(read[0].to_f32(), [6.0, 10.0]);
        assert_eq!(session.get("w").expect("w").to_f32(), [12.0, 20.0]);
        let missing = session.submit(&program, &[]).expect_err("no x").to_string();
        assert_eq!(missing, "input `x` (f32[2]) is not fed, nothing is");
        assert_eq!(session.counter("steps"), 3, "nothing ran");
    }
}

#[test]
fn pending_outputs_can_be_read_in_any_order() {
    for device in common::devices() {
        let graph = Graph::new();
        let total = graph.variable("total", Tensor::scalar(0.0));
        let x = graph.input("x", DType::F32, [3]);
        let sum = &total + &x.sum_all();
        graph.assign(&total, &sum);
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&sum, &(&x * 2.0)]).expect("compiles");
        let mut feed = |x: f32| session.start(&program, &[("x", &tensor(&[x, 0.0, 1.0]))]).expect("starts");
        let [first, second, lost, third] = [feed(1.0), feed(10.0), feed(100.0), feed(1000.0)];
        drop(lost);
        let read = |pending: wgrad::Pending| {
            let outputs = pending.outputs().expect("outputs");
            (outputs[0].item().expect("one"), outputs[1].to_f32())
        };
        assert_eq!(read(third), (1115.0, vec![2000.0, 0.0, 2.0]));
        assert_eq!(read(first), (2.0, vec![2.0, 0.0, 2.0]));
        assert_eq!(read(second), (13.0, vec![20.0, 0.0, 2.0]));
        assert_eq!(session.get("total").expect("total").item().expect("one"), 1115.0);
    }
}

#[test]
fn feeds_are_checked_before_anything_runs() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2]);
        let unused = graph.input("unused", DType::F32, [1]);
        let w = graph.variable("w", tensor(&[0.0, 0.0]));
        graph.assign(&w, &(&w + &x));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[]).expect("compiles");
        let complaint = |session: &mut Session, feeds: &[(&str, &Tensor)]| {
            session.run(&program, feeds).expect_err("must fail").to_string()
        };
        let x = tensor(&[1.0, 2.0]);
        let wrong = tensor(&[1.0]);
        assert_eq!(complaint(&mut session, &[]), "input `x` (f32[2]) is not fed, nothing is");
        complaint(&mut session, &[("x", &wrong)]);
        complaint(&mut session, &[("x", &x), ("x", &x)]);
        complaint(&mut session, &[("x", &x), ("z", &x)]);
        assert_eq!(session.get("w").expect("w").to_f32(), [0.0, 0.0], "nothing ran");
        assert!(session.get("v").expect_err("unknown").to_string().contains("no variable `v`"));
        assert!(session.set("w", &wrong).is_err());
        session.run(&program, &[("x", &x), ("unused", &wrong)]).expect("an unused input may be fed");
        assert_eq!(session.get("w").expect("w").to_f32(), [1.0, 2.0]);
        drop(unused);
    }
}

#[test]
fn graph_errors_are_reported_together_with_their_lines() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3]);
    let labels = graph.input("labels", DType::I32, [2]);
    let first = line!() + 1;
    let bad = &x + &graph.input("y", DType::F32, [4]);
    let chained = bad.relu().sum_all().exp(); // reports no further error
    let second = line!() + 1;
    let mixed = x.slice(0, 0, 1, 1).reshape(&[3]) + &graph.input("z", DType::I32, [3]);
    let loss = gradients(&x, &[&x]);
    graph.assign(&x, &x);
    let mut session = Session::new(Device::cpu());
    let Err(Error::Graph(errors)) = session.compile(&graph, &[&chained, &mixed, &loss[0], &labels]) else {
        panic!("expected four errors")
    };
    let text = Error::Graph(errors.clone()).to_string();
    assert_eq!(errors.len(), 4, "{text}");
    assert!(text.starts_with("the graph has 4 errors:\nadd(f32[2, 3], f32[4]): the shapes do not broadcast"), "{text}");
    assert!(
        text.contains(&format!("{}:{first}:", file!())) && text.contains(&format!("{}:{second}:", file!())),
        "{text}"
    );
    assert_eq!(errors[1].op, "add");
    assert!(errors[1].message.contains("numbers of one type"), "{text}");
    assert!(errors[2].message.contains("one float"), "{text}");
    assert!(errors[3].message.contains("only a parameter or variable"), "{text}");
}

#[test]
fn a_step_computes_the_same_bits_every_time() {
    let Some(device) = common::device() else { return };
    let run = || {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [300, 70]);
        let w =
            graph.parameter("w", Tensor::new([70], (0..70).map(|i| i as f32 / 70.0).collect::<Vec<_>>()).expect("w"));
        let loss = (&x * &w).tanh().square().sum_all();
        let dw = &gradients(&loss, &[&w])[0];
        graph.assign(&w, &(&w - dw * 1e-3));
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        let x = Tensor::new([300, 70], (0..21_000).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>()).expect("x");
        let losses: Vec<_> =
            (0..5).map(|_| session.run(&program, &[("x", &x)]).expect("runs")[0].to_f32()[0].to_bits()).collect();
        (losses, session.get("w").expect("w").to_f32().iter().map(|w| w.to_bits()).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn programs_of_one_device_share_pipelines() {
    let Some(device) = common::device() else { return };
    assert_eq!(device.pipelines(), 0, "nothing has been compiled");
    let step = |batch: usize| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [batch, 12]);
        let w = graph.parameter("w", tensor(&[0.5; 60]));
        let loss = x.matmul(&w.reshape(&[12, 5])).relu().square().sum_all();
        let dw = &gradients(&loss, &[&w])[0];
        graph.assign(&w, &(&w - dw * 1e-3));
        (graph, loss)
    };
    let mut session = Session::new(device.clone());
    let compiled = |session: &mut Session, (graph, loss): (Graph, wgrad::Value)| {
        let program = session.compile(&graph, &[&loss]).expect("compiles");
        let dispatches = program.plan().calls.iter().flat_map(|call| &call.dispatches);
        let texts = dispatches.map(|dispatch| &*dispatch.wgsl.text).collect::<std::collections::HashSet<&str>>().len();
        (program, texts)
    };
    let (first, texts) = compiled(&mut session, step(8));
    let made = device.pipelines();
    // One per distinct WGSL text, though several dispatches may share a text.
    assert!(made == texts && made >= 2, "{made} pipelines for {texts} texts");
    // The same graph again, another batch size, and another session add no pipelines.
    let (second, _) = compiled(&mut session, step(8));
    let (other_batch, _) = compiled(&mut session, step(16));
    let (elsewhere, _) = compiled(&mut Session::new(device.clone()), step(8));
    assert_eq!(device.pipelines(), made);
    for (program, batch) in [(&first, 8), (&second, 8), (&other_batch, 16)] {
        let x = Tensor::new([batch, 12], vec![1.0f32; batch * 12]).expect("x");
        assert!(session.run(program, &[("x", &x)]).expect("runs")[0].to_f32()[0] > 0.0);
    }
    drop(elsewhere);
    assert_eq!(device.pipelines(), made, "running creates none");

    // A new WGSL text adds one; the reference has none.
    let graph = Graph::new();
    let y = graph.input("x", DType::F32, [9]).tanh();
    session.compile(&graph, &[&y]).expect("compiles");
    assert_eq!((device.pipelines(), Device::cpu().pipelines()), (made + 1, 0));
}

/// Device time is positive and no longer than the host time around the call.
#[test]
fn steps_are_timed_by_the_device() {
    let Some(device) = common::device() else { return };
    let timestamps = device.profile().timestamps;
    let graph = Graph::new();
    let w = graph.variable("w", Tensor::new([1 << 20], vec![1.0f32; 1 << 20]).expect("a tensor"));
    graph.assign(&w, &(&w * 1.5));
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[]).expect("compiles");
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        let seconds = session.submit_timed(&program, &[]).expect("runs");
        let around = begin.elapsed().as_secs_f64();
        assert_eq!(seconds.is_some(), timestamps);
        assert!(seconds.is_none_or(|inside| inside > 0.0 && inside <= around), "{seconds:?} of {around}");
    }
    assert_eq!(session.get("w").expect("w").to_f32()[9], 1.5 * 1.5 * 1.5);
}

/// Inputs and scalars are fed by name and share one namespace. Several scalars may share a name.
#[test]
fn inputs_and_scalars_share_one_namespace() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2]);
    let [first, second] = [0.5, 2.0].map(|default| graph.scalar("rate", default));
    assert!(graph.errors().is_empty());
    assert!(!graph.scalar("x", 1.0).is_valid());
    assert!(!graph.input("rate", DType::F32, []).is_valid());
    assert!(!graph.input("x", DType::F32, [3]).is_valid());
    let errors = graph.errors();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, name) in errors.iter().zip(["`x`", "`rate`", "`x`"]) {
        assert!(error.message.contains(name) && error.location.file().ends_with("session.rs"), "{error}");
    }

    assert!([x, first, second].iter().all(|value| value.is_valid()));

    // A fed value goes to every scalar with that name; otherwise each uses its own default.
    for device in common::devices() {
        let sound = Graph::new();
        let x = sound.input("x", DType::F32, [2]);
        let [first, second] = [0.5, 2.0].map(|default| sound.scalar("rate", default));
        let y = &x * &first + &second;
        let mut session = Session::new(device);
        let program = session.compile(&sound, &[&y]).expect("compiles");
        let x = tensor(&[1.0, 4.0]);
        let run =
            |session: &mut Session, feeds: &[(&str, &Tensor)]| session.run(&program, feeds).expect("runs")[0].to_f32();
        assert_eq!(run(&mut session, &[("x", &x)]), [2.5, 4.0]);
        assert_eq!(run(&mut session, &[("x", &x), ("rate", &Tensor::scalar(3.0))]), [6.0, 15.0]);
    }
}

#[test]
fn empty_names_match_no_device() {
    for name in ["", " ", "\t", "gl: ", "vulkan:", ":"] {
        let error = Device::open(Some(name)).expect_err("no adapter has this name");
        let reported = matches!(&error, Error::Device(why) if why.contains("give an index, part of a name, a backend"));
        assert!(reported, "{name:?}: {error}");
    }
}
