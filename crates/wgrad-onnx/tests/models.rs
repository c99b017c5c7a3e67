//! Real models: their outputs, every kernel call, and gradients.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wgrad::io::safetensors;
use wgrad::optim::{Optimizer, Sgd};
use wgrad::{DType, Device, Graph, Reduction, Session, Tensor};
use wgrad_onnx::{BuildOptions, Constant, ElemType, Model, Prepared};

mod common;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/onnx").join(name)
}

/// The model, ready for the inputs that ONNX Runtime was run with, and its outputs.
fn prepared(name: &str) -> (Prepared, BTreeMap<String, Tensor>) {
    let model = Model::load(file(&format!("{name}.onnx"))).expect("a model");
    let mut tensors = safetensors::load(file(&format!("{name}.safetensors"))).expect("tensors");
    let mut inputs = BTreeMap::new();
    for port in model.inputs() {
        let tensor = tensors.remove(&format!("input.{}", port.name)).expect("an input");
        inputs.insert(port.name, Constant::of_tensor(port.elem_type.expect("a known type"), tensor));
    }
    let prepared = model.prepare(&inputs, &BuildOptions::new()).expect("it is supported");
    (prepared, tensors)
}

/// The outputs agree with those of ONNX Runtime in f32: to 1e-4 of the largest number, which allows for the different
/// order of their sums over up to 50 layers.
#[test]
fn outputs_are_those_of_onnx_runtime() {
    for device in common::devices() {
        for name in ["basic_pitch", "dnsmos", "ppocr_cls", "silero_vad"] {
            if name == "dnsmos" && device.is_cpu() {
                continue; // 19 G multiply-adds
            }
            let (prepared, expected) = prepared(name);
            let mut session = Session::new(device.clone());
            let program = prepared.compile(&mut session).expect("compiles");
            let outputs = prepared.run(&mut session, &program).expect("runs");
            assert_eq!(outputs.len(), expected.len());
            for (output, found) in outputs {
                let wanted = expected[&format!("output.{output}")].to_f64();
                let largest = wanted.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
                let found = found.to_floats();
                assert_eq!(found.len(), wanted.len());
                for (x, y) in found.iter().zip(&wanted) {
                    assert!((x - y).abs() <= 1e-4 * largest, "{name} on {device}, {output}: {x}, expected {y}");
                }
            }
        }
    }
}

#[test]
fn every_kernel_call_of_a_model_is_correct() {
    for device in common::devices().into_iter().filter(|device| !device.is_cpu()) {
        for name in ["ppocr_cls", "silero_vad"] {
            let (prepared, _) = prepared(name);
            let mut session = Session::new(device.clone());
            let program = prepared.compile(&mut session).expect("compiles");
            let (_, report) = session.run_checked(&program, &prepared.feeds()).expect("runs");
            assert!(
                report.passed() && report.compared() > 100_000,
                "{name}: {:?}",
                report.divergence.map(|d| d.to_string())
            );
            // Each kernel call belongs to a node of the model.
            for call in &program.plan().calls {
                let node = call.writes[0].value.node;
                assert!(prepared.built.origin(node).is_some_and(|name| !name.is_empty()), "{}", call.label);
            }
        }
    }
}

/// A step of gradient descent on an imported network, whose weights have their names, on the reference and the device;
/// frozen weights and running statistics stay as they are.
#[test]
fn an_imported_network_learns() {
    let model = Model::load(file("ppocr_cls.onnx")).expect("a model");
    let mut losses = Vec::new();
    for device in common::devices() {
        for training in [false, true] {
            let graph = Graph::new();
            let x = graph.input("x", DType::F32, [2, 3, 64, 64]);
            let mut options = BuildOptions::new().input("x", &x).output("linear_1.tmp_1").freeze("conv1*");
            if training {
                options = options.training();
            }
            let built = model.build(&graph, &options).expect("it is supported");
            let labels = graph.input("labels", DType::I32, [2]);
            let logits = built.output("linear_1.tmp_1").expect("an output");
            let loss = logits.cross_entropy(&labels, Reduction::Mean);
            Sgd::new().lr(1e-3).minimize(&graph, &loss);
            let mut session = Session::new(device.clone());
            let program = session.compile(&graph, &[&loss]).expect("compiles");
            let names: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
            assert!(names.contains(&"fc_0.w_0".to_owned()) && !names.iter().any(|name| name.starts_with("conv1")));
            assert!(names.iter().all(|name| !name.ends_with("_mean") && !name.ends_with("_variance")));
            let before = session.get("conv_last_bn_mean").expect("a variable");
            let frozen = session.get("conv1_weights").expect("a variable");
            let pixels: Vec<f32> = (0..2 * 3 * 64 * 64).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
            let x = Tensor::new([2, 3, 64, 64], pixels).expect("a tensor");
            let feeds = [("x", &x), ("labels", &Tensor::new([2], [0, 1]).expect("a tensor"))];
            let own: Vec<f64> =
                (0..4).map(|_| session.run(&program, &feeds).expect("runs")[0].item().unwrap()).collect();
            assert!(own[3] < own[0], "{own:?}");
            assert_eq!(session.get("conv1_weights").expect("a variable"), frozen);
            assert_eq!(session.get("conv_last_bn_mean").expect("a variable") == before, !training);
            losses.push(own);
        }
    }
    // The reference and the device agree.
    for pair in losses.chunks(2).collect::<Vec<_>>().windows(2) {
        for (a, b) in pair[0].iter().flatten().zip(pair[1].iter().flatten()) {
            assert!((a - b).abs() < 1e-3 * a.abs(), "{losses:?}");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let model = Model::load(file("silero_vad.onnx")).expect("a model");
    let graph = Graph::new();
    let error = model.build(&graph, &BuildOptions::new()).err().expect("open sizes").to_string();
    for text in
        ["2 problems", "open sizes `batch`, `sequence`; set them, for example batch=1", "`state: float[2, batch, 128]`"]
    {
        assert!(error.contains(text), "{error}");
    }
    let large = BuildOptions::new().dim("batch", 1 << 40).dim("sequence", 1 << 40);
    let error = model.build(&Graph::new(), &large).err().expect("too large").to_string();
    assert!(error.contains("`input`") && error.contains("too many"), "{error}");
    let options = BuildOptions::new().dim("batch", 1).dim("sequence", 576);
    assert!(model.try_build(&Graph::new(), &options).is_ok());
    // The new shape of a reshape must be known.
    let name = "test_reshape_extended_dims";
    let model = Model::load(common::node_tests().join(name).join("model.onnx")).expect("a model");
    let problems = model.try_build(&Graph::new(), &BuildOptions::new()).err().expect("the shape decides");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].needs.contains("shape") && problems[0].to_string().contains("set that as a constant"));
    let shape = Constant::from_ints(ElemType::I64, vec![4], vec![2, 3, 2, 2]).expect("a constant");
    assert!(model.try_build(&Graph::new(), &BuildOptions::new().constant("shape", shape)).is_ok());
    let missing = Model::load(file("missing.onnx")).err().expect("no file").to_string();
    assert!(missing.contains("missing.onnx"), "{missing}");
    let other = Model::load(file("silero_vad.safetensors")).err().expect("no model").to_string();
    assert!(other.contains("is no ONNX model"), "{other}");
}

fn small(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn run(model: &Model, inputs: &[(&str, Tensor)]) -> Vec<f64> {
    let named = inputs.iter().map(|(name, x)| ((*name).to_owned(), Constant::of_tensor(ElemType::F32, x.clone())));
    let prepared = model.prepare(&named.collect(), &BuildOptions::new()).expect("it is supported");
    let mut session = Session::new(Device::cpu());
    let program = prepared.compile(&mut session).expect("compiles");
    prepared.run(&mut session, &program).expect("runs")[0].1.to_floats()
}

#[test]
fn functions_of_a_file_are_inlined() {
    // c = -0.5 (3 a), by two calls of a function with an attribute.
    let model = Model::load(small("function.onnx")).expect("a model");
    let x = Tensor::new([2, 2], [1.0f32, 2.0, -4.0, 0.5]).expect("a tensor");
    assert_eq!(run(&model, &[("a", x)]), [-1.5, -3.0, 6.0, -0.75]);
}

#[test]
fn weights_in_another_file_are_read_within_its_bounds() {
    let model = Model::load(small("external.onnx")).expect("a model");
    let x = Tensor::new([1, 3], [1.0f32, 10.0, 100.0]).expect("a tensor");
    assert_eq!(run(&model, &[("x", x)]), [531.0, 642.0]);
    for (name, why) in [("outside.onnx", "outside of the model's folder"), ("too_long.onnx", "which has only 32 bytes")]
    {
        let error = Model::load(small(name)).err().expect("refused").to_string();
        assert!(error.contains("tensor `w`") && error.contains(why), "{error}");
    }
}
