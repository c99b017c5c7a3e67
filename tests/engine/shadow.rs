//! Shadow runs: the first wrong kernel call is reported with the user's line, its case file can be
//! replayed alone, and the first NaN is found. Training resumes from a checkpoint after a device loss.

use wgrad::check::KernelCase;
use wgrad::optim::{Adam, Optimizer};
use wgrad::plan::Bound;
use wgrad::{DType, Device, Error, Graph, Reduction, Session, Tensor, Value, models};

use crate::common;
use crate::my_square::{MySquare, RIGHT};

/// Checks a training step that contains the op. Returns the line that added the op, and the report.
fn shadow(device: &Device, op: MySquare) -> (u32, wgrad::check::Report) {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [10, 7]);
    let w = graph.parameter("w", Tensor::new([7], vec![0.5f32; 7]).expect("w"));
    let line = line!() + 1;
    let squares = graph.apply1(op, &[&(&x * &w).tanh()]);
    let loss = (squares * 3.0 + 1.0).sum_all();
    Adam::new().lr(0.1).minimize(&graph, &loss);
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    let x = Tensor::new([10, 7], (0..70).map(|i| i as f32 / 35.0 - 1.0).collect::<Vec<_>>()).expect("x");
    let (checked, report) = session.run_checked(&program, &[("x", &x)]).expect("runs");

    // The checked step has the same effect as a plain one.
    let mut twin = Session::new(device.clone());
    let program = twin.compile(&graph, &[&loss]).expect("compiles");
    assert_eq!(twin.run(&program, &[("x", &x)]).expect("runs"), checked);
    assert_eq!(twin.get("w").expect("w"), session.get("w").expect("w"));
    assert_eq!(twin.counters(), session.counters());
    (line, report)
}

#[test]
fn a_step_that_returns_its_own_scalar_is_checked() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let rate = graph.scalar("rate", 0.5);
    let last = graph.variable("last", Tensor::scalar(0.0));
    graph.assign(&last, &rate);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&rate]).expect("compiles");
    let (outputs, report) = session.run_checked(&program, &[("rate", &Tensor::scalar(0.25))]).expect("runs");
    assert!(report.passed() && report.compared() > 0, "{report:?}");
    assert_eq!(outputs[0].item().expect("a number"), 0.25);
    assert_eq!(session.get("last").and_then(|last| last.item()).expect("a number"), 0.25);
}

#[test]
fn a_wrong_kernel_call_is_reported_and_its_case_can_be_replayed() {
    let Some(device) = common::device() else { return };
    let (line, report) = shadow(&device, MySquare::wrong());
    assert!(!report.passed());
    let divergence = report.divergence.expect("a divergence");
    let path = divergence.file.clone().expect("saved").expect("saved");
    let text = divergence.to_string();
    let here = format!("{}:{line}:", file!());
    for part in ["my_square.only", "kernel: my_square, variant only", "f32[10, 7]", "wrong: 70 of 70", "got ", &here] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(text.contains(&format!("wgrad check --replay {}", path.display())), "{text}");
    assert_eq!(divergence.nodes.len(), 1, "only the op: {text}");
    assert_eq!(report.calls.iter().filter(|call| !call.passed()).count(), 1, "errors do not propagate");

    // Replay the case from its file.
    let mut case = KernelCase::load(&path).expect("a case file");
    let again = case.replay(&device).expect("runs");
    assert_eq!((again.wrong, again.compared), (70, 70));
    let (found, worst) = (&divergence.found.worst, again.worst.expect("worst"));
    assert_eq!(found.as_ref().expect("worst").to_string(), worst.to_string());

    // Replay with the corrected kernel.
    case.dispatches[0].wgsl.text = RIGHT.into();
    let mended = case.replay(&device).expect("runs");
    assert!(mended.passed() && mended.compared == 70, "{mended:?}");
    let error = case.replay(&Device::cpu()).expect_err("the reference").to_string();
    assert!(error.contains("nothing to replay"), "{error}");

    // Out-of-bounds accesses have no effect, and dispatches beyond the limits are refused.
    case.dispatches[0].bindings[2] = Bound::Uniform(vec![1 << 20, 0, 0, 0]);
    case.dispatches[0].workgroups = [1 << 14, 1, 1];
    case.replay(&device).expect("bounds are checked");
    case.dispatches[0].workgroups = [u32::MAX, 1, 1];
    assert!(matches!(case.replay(&device), Err(Error::Limit(_))));
    case.dispatches[0].workgroups = [1, 1, 1];
    case.dispatches[0].entry = "another".into();
    let error = case.replay(&device).expect_err("no such entry point").to_string();
    assert!(error.contains("kernel my_square"), "{error}");
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn every_kernel_call_of_a_correct_step_passes() {
    let Some(device) = common::device() else { return };
    let (_, report) = shadow(&device, MySquare(RIGHT.into()));
    assert!(report.passed() && report.divergence.is_none() && report.compared() > 70, "{report:?}");
}

#[test]
fn broken_case_files_are_errors() {
    let Some(device) = common::device() else { return };
    let (_, report) = shadow(&device, MySquare::wrong());
    let divergence = report.divergence.expect("a divergence");
    std::fs::remove_file(divergence.file.expect("saved").expect("saved")).expect("removed");
    let case = divergence.case;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("case.safetensors");
    let refused = |message: &str| {
        let error = KernelCase::load(&path).expect_err(message).to_string();
        assert!(error.contains(message) && error.contains("case.safetensors"), "`{message}`: {error}");
    };

    // Truncated anywhere, or with any header byte changed: an error or a consistent case, never a
    // panic.
    case.save(&path).expect("saved");
    let whole = std::fs::read(&path).expect("read");
    for length in (0..whole.len()).step_by(37) {
        std::fs::write(&path, &whole[..length]).expect("written");
        refused("");
    }
    for at in (0..whole.len().min(4000)).step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'9' { b'0' } else { b'9' };
        std::fs::write(&path, &bytes).expect("written");
        let _ = KernelCase::load(&path);
    }

    // Hostile descriptions.
    let spoil = |change: &dyn Fn(&mut KernelCase), message: &str| {
        let mut case = case.clone();
        change(&mut case);
        case.save(&path).expect("saved");
        refused(message);
    };
    spoil(&|case| case.buffers[0] = 1 << 62, "too large");
    spoil(&|case| case.buffers = vec![u64::MAX; 3], "too large");
    spoil(&|case| case.buffers[0] = 4, "in a buffer of 4 bytes");
    spoil(&|case| case.buffers[0] = 1001, "a buffer of 1001 bytes");
    spoil(&|case| case.buffers.truncate(1), "of 1");
    spoil(&|case| case.reads[0].0 = 99, "buffer 99 of 2");
    spoil(&|case| case.dispatches[0].bindings.push(Bound::Storage { buffer: 7, write: true }), "buffer 7 of 2");
    spoil(&|case| case.dispatches[0].bindings.push(Bound::Uniform(vec![])), "a uniform of 0 words");
    spoil(&|case| case.dispatches.clear(), "runs nothing");
    spoil(&|case| case.writes.clear(), "compares nothing");
    spoil(&|case| case.dispatches[0].bindings.push(Bound::Scalars(vec![])), "a uniform of 0 scalars");
    spoil(&|case| case.dispatches[0].bindings.push(Bound::Scalars(vec![9])), "scalar 9 of");

    // Other kinds of files.
    let tensors = std::collections::BTreeMap::from([("x".to_owned(), Tensor::scalar(1.0))]);
    let mut texts = std::collections::BTreeMap::new();
    wgrad::io::safetensors::save(&path, &tensors, &texts).expect("saved");
    refused("no `wgrad.case`");
    for (text, message) in [
        ("{", "its description"),
        ("[]", "`format` is missing"),
        (r#"{"format": 2}"#, "format 2"),
        (r#"{"format": 1, "kernel": null, "reads": [{"buffer": 0}]}"#, "tensor `read.0` is missing"),
        (r#"{"format": 1, "kernel": 3}"#, "`op` is missing"),
    ] {
        texts.insert("wgrad.case".to_owned(), text.to_owned());
        wgrad::io::safetensors::save(&path, &tensors, &texts).expect("saved");
        refused(message);
    }
}

#[test]
fn the_first_nan_is_found() {
    for device in std::iter::once(Device::cpu()).chain(common::device()) {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 3]);
        let w = graph.variable("w", Tensor::new([3], [1.0f32, 2.0, 3.0]).expect("w"));
        let shifted = (&x * &w) - 1.0;
        let line = line!() + 1;
        let y = shifted.log() * 2.0;
        let z = y.sum(&[1], false).exp();
        graph.assign(&w, &(&w * 0.5));
        let mut session = Session::new(device);
        let program = session.compile(&graph, &[&z]).expect("compiles");

        let good = Tensor::new([2, 3], vec![2.0f32; 6]).expect("x");
        let (outputs, found) = session.find_nan(&program, &[("x", &good)]).expect("runs");
        assert!(found.is_none(), "{found:?}");
        assert!((outputs[0].to_f64()[0] / 225.0 - 1.0).abs() < 1e-4, "{outputs:?}");
        assert_eq!(session.get("w").expect("w").to_f32(), [0.5, 1.0, 1.5], "the step takes effect as usual");

        let bad = Tensor::new([2, 3], [4.0f32, 4.0, 4.0, 3.0, -1.0, 8.0]).expect("x");
        let (_, found) = session.find_nan(&program, &[("x", &bad)]).expect("runs");
        let found = found.expect("a NaN");
        let text = found.to_string();
        assert!(found.node.starts_with("log f32[2, 3]"), "{text}");
        assert!(found.node.contains(&format!("{}:{line}:", file!())), "{text}");
        assert_eq!((found.output.nan, found.output.elements, found.confirmed), (1, 6, true), "{text}");
        assert_eq!(found.inputs.len(), 1, "{text}");
        let input = &found.inputs[0].1;
        assert_eq!((input.finite, input.nan), (Some((-2.0, 11.0)), 0), "{text}");
        assert_eq!(found.launch.is_some(), !session.device().is_cpu(), "{text}");

        // A fed infinity is reported at its input.
        let fed = Tensor::new([2, 3], [1.0, 1.0, f32::NEG_INFINITY, 1.0, 1.0, 1.0]).expect("x");
        let (_, found) = session.find_nan(&program, &[("x", &fed)]).expect("runs");
        let found = found.expect("an infinity");
        assert!(found.node.starts_with("input `x`") && found.output.infinite == 1, "{found}");
    }
}

type Hides = fn(&Graph, &Value) -> Value;

/// NaN and infinities that a later op in the same fused kernel hides, so that the stored result is finite: the
/// node that produces them, the input value, and the graph.
const HIDDEN: &[(&str, f32, Hides)] = &[
    ("log", -1.0, |_, x| x.log().maximum(&x.zeros_like())),
    ("sqrt", -1.0, |_, x| x.sqrt().relu() + 1.0),
    ("log", -1.0, |_, x| x.log().clamp(-1.0, 1.0)),
    ("log", -1.0, |_, x| x.gt(&x.log()).where_(&x.ones_like(), x)),
    ("reciprocal", 0.0, |_, x| x.reciprocal().reciprocal()),
    ("log", 0.0, |_, x| x.log().exp() + x),
    ("exp", 100.0, |_, x| x.exp().neg().exp()),
    // Only in f32, where tanh rounds to 1.
    ("log", 12.0, |_, x| (x.tanh().neg() + 1.0).log().exp()),
    // In a kernel's epilogue.
    ("matmul", 1e30, |_, x| x.reshape(&[2, 1]).matmul(&x.reshape(&[1, 2])).reciprocal()),
    // In place, overwriting the op's input.
    ("log", -1.0, |graph, x| {
        let w = graph.variable("w", Tensor::new([2], [-1.0f32, 2.0]).expect("fits"));
        let new = w.log().maximum(&w.zeros_like());
        graph.assign(&w, &new);
        x + 2.0
    }),
];

#[test]
fn a_nan_hidden_inside_a_fused_kernel_is_found() {
    let Some(device) = common::device() else { return };
    for (number, (name, bad, build)) in HIDDEN.iter().enumerate() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2]);
        let y = build(&graph, &x);
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&y]).expect("compiles");
        let feeds = [("x", &Tensor::new([2], [*bad, *bad]).expect("fits"))];
        let (_, found) = session.find_nan(&program, &feeds).expect("runs");
        let found = found.unwrap_or_else(|| panic!("{number}: {name} of {bad} is not found"));
        assert!(found.node.starts_with(&format!("{name} f32")) && found.confirmed, "{number}: {found}");
        assert!(found.launch.is_some() && !found.inputs.is_empty(), "{number}: {found}");
    }
}

#[test]
fn a_nan_is_found_in_scalars_but_not_in_unread_variables() {
    for device in common::devices() {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2]);
        let lr = graph.scalar("lr", 0.1);
        let w = graph.variable("w", Tensor::new([2], [f32::NAN, 1.0]).expect("fits"));
        let y = &x * &lr;
        graph.assign(&w, &y); // the old value is never read
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&y]).expect("compiles");
        let x = Tensor::new([2], [1.0f32, 2.0]).expect("fits");
        let (_, found) = session.find_nan(&program, &[("x", &x)]).expect("runs");
        assert!(found.is_none(), "{found:?} on {device}");
        let nan = Tensor::scalar(f64::NAN);
        let (_, found) = session.find_nan(&program, &[("x", &x), ("lr", &nan)]).expect("runs");
        let found = found.expect("a NaN");
        assert!(found.node.starts_with("scalar `lr` f32"), "{found} on {device}");
    }
}

#[test]
fn shadow_runs_refuse_what_a_plain_run_refuses() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3]);
    let labels = graph.input("t", DType::F32, [2]).cast(DType::I32);
    let loss = x.cross_entropy(&labels, Reduction::Sum);
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    let x = Tensor::new([2, 3], vec![0.0f32; 6]).expect("x");
    let t = Tensor::new([2], [0.0f32, 3.0]).expect("t");
    let feeds = [("x", &x), ("t", &t)];
    for error in [
        session.run_checked(&program, &feeds).expect_err("an index out of range"),
        session.find_nan(&program, &feeds).expect_err("an index out of range"),
    ] {
        assert!(matches!(&error, Error::Input(why) if why.contains("out of range")), "{error}");
    }
    let error = session.run_checked(&program, &feeds[..1]).expect_err("not fed").to_string();
    assert!(error.contains("input `t`"), "{error}");
}

#[test]
fn training_resumes_from_a_checkpoint_after_a_device_loss() {
    let Some(device) = common::device() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint.safetensors");
    let x = Tensor::new([4, 2], [0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).expect("x");
    let y = Tensor::new([4, 1], [0.0f32, 1.0, 1.0, 0.0]).expect("y");
    let graph = Graph::new();
    let (loss, _) = models::xor_training(&graph, 3);
    let start = |device: &Device| {
        let mut session = Session::new(device.clone());
        let step = session.compile(&graph, &[&loss]).expect("compiles");
        (session, step)
    };
    let (mut session, step) = start(&device);
    let undisturbed: Vec<Tensor> =
        (0..10).map(|_| session.run(&step, &[("x", &x), ("y", &y)]).expect("runs").remove(0)).collect();

    let lost = Device::gpu().expect("opens again");
    let (mut session, step) = start(&lost);
    let mut losses = Vec::new();
    let error = loop {
        match session.run(&step, &[("x", &x), ("y", &y)]) {
            Ok(mut outputs) => losses.push(outputs.remove(0)),
            Err(error) => break error,
        }
        match losses.len() {
            5 => session.save(&path).expect("saved"),
            7 => lost.destroy(),
            _ => {}
        }
    };
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    for part in ["lost", "remain", "new session"] {
        assert!(error.to_string().contains(part), "{error}");
    }

    let (mut session, step) = start(&Device::gpu().expect("opens again"));
    session.load(&path).expect("loads");
    losses.truncate(5);
    losses.extend((5..10).map(|_| session.run(&step, &[("x", &x), ("y", &y)]).expect("runs").remove(0)));
    assert_eq!(losses, undisturbed, "bitwise equal");
}

/// In-place updates, step scalars, scratch, several dispatches, status words: every kernel call of a plan can be
/// replayed from a file.
#[test]
fn every_kernel_call_of_a_training_step_replays() {
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let loss = models::mnist_cnn_training(&graph, 2, 0);
    let on_device = graph.input("on_device", DType::F32, [2]).cast(DType::I32);
    let other = graph.input("logits", DType::F32, [2, 3]).cross_entropy(&on_device, Reduction::Mean);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut scalar, mut in_place, mut status) = (0, 0, 0);
    // A step that may fail on the device updates nothing in place.
    for outputs in [&[&loss][..], &[&loss, &other]] {
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, outputs).expect("compiles");
        let feeds: Vec<(String, Tensor)> = program.plan().inputs.iter().map(ones).collect();
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let (results, cases) = session.kernel_cases(&program, &feeds).expect("runs");

        // The step has the same effect as a plain one.
        let mut twin = Session::new(device.clone());
        let twin_program = twin.compile(&graph, outputs).expect("compiles");
        assert_eq!(twin.run(&twin_program, &feeds).expect("runs"), results);
        assert_eq!(twin.get("conv1.weight").expect("a weight"), session.get("conv1.weight").expect("a weight"));

        assert_eq!(cases.len(), program.plan().calls.len());
        for (case, call) in cases.iter().zip(&program.plan().calls) {
            let path = folder.path().join("case.safetensors");
            case.save(&path).expect("saved");
            let found = KernelCase::load(&path).expect("a case file").replay(&device).expect("runs");
            assert!(found.passed() && found.compared > 0, "{found:?}");
            let bindings = || call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
            scalar += usize::from(bindings().any(|bound| matches!(bound, Bound::Scalars(_))));
            status += usize::from(bindings().any(|bound| *bound == Bound::Status));
            in_place += usize::from(call.writes.iter().any(|w| call.reads.iter().any(|r| r.buffer == w.buffer)));
        }
    }
    assert!(scalar > 0 && in_place > 0 && status > 0, "{scalar} {in_place} {status}");
}

fn ones(input: &wgrad::plan::Input) -> (String, Tensor) {
    let (shape, n) = (&input.ty.shape, input.ty.shape.numel());
    let tensor = match input.ty.dtype {
        DType::F32 => Tensor::new(shape, vec![1f32; n]),
        DType::I32 => Tensor::new(shape, vec![1i32; n]),
        DType::U32 => Tensor::new(shape, vec![1u32; n]),
        other => panic!("an input of type {other}"),
    };
    (input.name.clone(), tensor.expect("ones"))
}
