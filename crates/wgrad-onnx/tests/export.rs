//! Exported graphs have the same numbers when they are imported again.

use std::collections::BTreeMap;

use wgrad::check::CaseGraph;
use wgrad::nn::{Recurrent, RecurrentOptions, TransformerEncoderLayer};
use wgrad::ops::{self, recurrent::Cell};
use wgrad::prelude::*;
use wgrad::quant::{Calibration, Scheme};
use wgrad_onnx::{BuildOptions, Constant, Export, Model};

/// Imports a file and computes its outputs on the reference.
fn imported(file: Vec<u8>, inputs: &[(&str, &Tensor)], options: &BuildOptions) -> Result<Vec<Tensor>, String> {
    let model = Model::from_bytes(file, ".").map_err(|e| e.to_string())?;
    let mut given = BTreeMap::new();
    for port in model.inputs() {
        let (_, tensor) = inputs.iter().find(|(name, _)| *name == port.name).expect("an input of the case");
        given.insert(port.name, Constant::of_tensor(port.elem_type?, (*tensor).clone()));
    }
    let prepared = model.prepare(&given, options).map_err(|e| e.to_string())?;
    let mut session = Session::new(Device::cpu());
    let program = prepared.compile(&mut session).map_err(|e| e.to_string())?;
    let outputs = prepared.run(&mut session, &program).map_err(|e| e.to_string())?;
    outputs.into_iter().map(|(_, output)| Ok((*output.to_tensor()?).clone())).collect()
}

/// The largest difference, relative to 1 + the number; NaN agrees with NaN only.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    if a.shape() != b.shape() {
        return f64::INFINITY;
    }
    // The reference computes in f64; ONNX has f32.
    let pairs = a.to_f32().into_iter().zip(b.to_f32()).map(|(a, b)| (f64::from(a), f64::from(b)));
    let off = |(a, b): (f64, f64)| match a == b || (a.is_nan() && b.is_nan()) {
        true => 0.0,
        false if (a - b).is_nan() => f64::INFINITY,
        false => (a - b).abs() / (1.0 + b.abs()),
    };
    pairs.map(off).fold(0.0, f64::max)
}

/// Why a case is not exported: ops that have no operator in ONNX.
const REFUSED: &[&str] = &[
    "all_reduce): a sum over ranks has no operator in ONNX; export the graph of an evaluation",
    "attention_grad): it has no operator in ONNX",
    "avg_pool2d_grad): it has no operator in ONNX",
    "conv2d_weight_grad): it has no operator in ONNX",
    "cross_entropy_grad): it has no operator in ONNX",
    "cross_entropy_with_grad): it has no operator in ONNX",
    "log_softmax_grad): it has no operator in ONNX",
    "max_pool2d_grad): it has no operator in ONNX",
    "max_pool2d_pick): it has no operator in ONNX",
    "normalize_grad): it has no operator in ONNX",
    "quantized_matmul): its matrix is computed; only weights and constants in blocks can be exported",
    "random_bits): random numbers have no operator in ONNX; export the graph of an evaluation",
    "rms_normalize_grad): it has no operator in ONNX",
    "shift_left): ONNX shifts unsigned integers only, not i32",
    "shift_right): ONNX shifts unsigned integers only, not i32",
    "softmax_grad): it has no operator in ONNX",
    "lstm): the values of its gates have no output in ONNX",
    "lstm_grad): it has no operator in ONNX",
    "rnn_grad): it has no operator in ONNX",
];

/// Every case of every op.
#[test]
fn all_ops_that_onnx_has_compute_the_same_after_export_and_import() {
    let (mut compared, mut wrong) = (0, Vec::new());
    let session = Session::new(Device::cpu());
    for mut case in ops::families().iter().flat_map(|family| (family.cases)()) {
        let name = format!("{}: {}", case.op, case.name);
        // Resize multiplies infinity by a weight of 0; whether a convolution multiplies it by padding is open.
        if name == "interpolate: NaN and infinity, LinearAligned" || name.ends_with("NaN and infinity by padding") {
            continue;
        }
        case.differentiable = false;
        let built = CaseGraph::new(&case).expect("a case");
        let outputs: Vec<(&str, &Value)> = built.outputs.iter().map(|(name, value)| (&name[..], value)).collect();
        let file = match Export::new(&built.graph, &outputs).to_bytes(&session) {
            Ok(file) => file,
            Err(why) => {
                let why = why.to_string();
                if !why.lines().skip(1).all(|line| REFUSED.iter().any(|reason| line.ends_with(reason))) {
                    wrong.push(format!("{name}: {why}"));
                }
                continue;
            }
        };
        let inputs = built.sample(1);
        let expected = built.reference(&inputs).expect("numbers");
        let feeds: Vec<(&str, &Tensor)> = built.inputs.iter().zip(&inputs).map(|((n, ..), x)| (&n[..], x)).collect();
        match imported(file, &feeds, &BuildOptions::new()) {
            Err(why) => wrong.push(format!("{name}: {why}")),
            Ok(found) => {
                compared += 1;
                let types = built.outputs.iter().map(|(_, value)| value.dtype());
                let off = found.iter().zip(&expected).map(|(a, b)| difference(a, b)).fold(0.0, f64::max);
                if !(off <= 2e-6) || found.len() != expected.len() {
                    wrong.push(format!("{name}: differs by {off:.1e}"));
                }
                if found.iter().zip(types).any(|(tensor, dtype)| tensor.dtype() != dtype) {
                    wrong.push(format!("{name}: other types"));
                }
            }
        }
    }
    println!("{compared} cases compared");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 1200, "only {compared}");
}

/// Exports a network for any number of rows, and compares the file with the network for 1 and 5 rows.
fn any_rows(name: &str, input: DType, row: &[usize], network: impl Fn(&Scope, &Value) -> Value) {
    let graph_of = |rows: usize| {
        let graph = Graph::new();
        let shape: Vec<usize> = [&[rows][..], row].concat();
        let y = network(&Scope::eval(&graph, 3), &graph.input("x", input, shape));
        (graph, y)
    };
    let mut session = Session::new(Device::cpu());
    let mut file = Vec::new();
    for rows in [1, 5] {
        let (graph, y) = graph_of(rows);
        let program = session.compile(&graph, &[&y]).expect("a network");
        if file.is_empty() {
            let batched = Export::batched(|rows| {
                let (graph, y) = graph_of(rows);
                (graph, vec![("y".to_owned(), y)])
            });
            file = batched.to_bytes(&session).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let count = rows * row.iter().product::<usize>();
        let numbers: Vec<f64> = (0..count).map(|i| ((i * 37 + 11) % 101) as f64).collect();
        let shape: Vec<usize> = [&[rows][..], row].concat();
        let x = match input {
            DType::F32 => Tensor::new(shape, numbers.iter().map(|n| n / 50.0 - 1.0).collect::<Vec<f64>>()),
            _ => Tensor::new(shape, numbers.iter().map(|n| (*n as i32) % 20).collect::<Vec<i32>>()),
        };
        let x = x.expect("numbers");
        let expected = session.run(&program, &[("x", &x)]).expect("a run");
        let found = imported(file.clone(), &[("x", &x)], &BuildOptions::new().dim("batch", rows));
        let found = found.unwrap_or_else(|e| panic!("{name} with {rows} rows: {e}"));
        let off = difference(&found[0], &expected[0]);
        assert!(off <= 1e-5, "{name} with {rows} rows differs by {off:.1e}");
    }
}

#[test]
fn networks_are_exported_for_any_number_of_rows() {
    let f32 = DType::F32;
    any_rows("perceptron", f32, &[4], |nn, x| nn.linear("fc2", &nn.linear("fc1", x, 16).gelu(), 3));
    any_rows("convolutions", f32, &[1, 12, 12], |nn, x| {
        let padded = ops::conv2d::Conv2d { padding: [1, 1], ..Default::default() };
        let x = nn.conv2d("conv1", x, 4, 3, padded).relu().max_pool2d(2);
        let x = nn.batch_norm("norm", &nn.conv2d("conv2", &x, 6, 3, padded)).silu().global_avg_pool2d();
        nn.linear("fc", &x.flatten(1), 5).log_softmax(-1)
    });
    any_rows("ResNet-18", f32, &[3, 32, 32], |nn, x| wgrad::models::resnet18(nn, x, 10));
    any_rows("upsampling", f32, &[2, 5, 4], |_, x| {
        let x = x.group_norm(2, None, None, 1e-5).interpolate(&[10, 7], ops::interpolate::Interpolation::Linear);
        x.pad(&[(0, 0), (0, 0), (1, 0), (0, 2)], 0.5).mean(&[2], true)
    });
    for (name, cell) in [("RNN", Cell::Rnn), ("LSTM", Cell::Lstm), ("GRU", Cell::Gru)] {
        any_rows(name, f32, &[7, 3], move |nn, x| {
            let options = RecurrentOptions::default().layers(2).bidirectional();
            let states = Recurrent::new(cell, nn, "layers", 3, 6, options).states(x, None);
            nn.linear("fc", &states.y, 2)
        });
    }
    any_rows("transformer", DType::I32, &[9], |nn, tokens| {
        let x = nn.embedding("tokens", tokens, 20, 8);
        let places = tokens.graph().iota(DType::I32, [9], 0);
        let x = x + nn.embedding("places", &places, 9, 8);
        let layer = TransformerEncoderLayer::new(nn, "layer", 8, 2, 16, 0.1).causal();
        nn.linear("head", &layer.forward(&x), 20)
    });
}

#[test]
fn convolutions_and_norms_are_one_operator_each() {
    let graph = Graph::new();
    let nn = Scope::eval(&graph, 0);
    let x = graph.input("x", DType::F32, [2, 3, 8, 8]);
    let x = nn.batch_norm("norm", &nn.conv2d("conv", &x, 4, 3, ops::conv2d::Conv2d::default())).relu();
    let bare = nn.without_bias().conv2d("bare", &x, 4, 1, ops::conv2d::Conv2d::default());
    // A bias that is shared, and one along another axis.
    let other = &bare + graph.parameter("columns", Tensor::new([6], vec![0.5f32; 6]).expect("a row"));
    let file = Export::new(&graph, &[("y", &other), ("bare", &bare)]).to_bytes(&Session::new(Device::cpu()));
    let model = Model::from_bytes(file.expect("a file"), ".").expect("a model");
    let nodes = model.nodes();
    let operators: Vec<String> = nodes.iter().map(|node| node.operator.clone()).collect();
    assert_eq!(operators, ["Conv", "BatchNormalization", "Relu", "Conv", "Add"]);
    assert_eq!(nodes[0].inputs[1..], ["conv.weight", "conv.bias"]);
    assert_eq!(nodes[1].inputs[1..], ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]);
}

#[test]
fn weights_of_four_and_eight_bits_are_exported_in_blocks() {
    for scheme in [Scheme::int4(), Scheme::int8(), Scheme::int4().affine(), Scheme::int8().affine()] {
        let weight: Vec<f32> = (0..7 * 45).map(|i| ((i * 29) % 53) as f32 / 20.0 - 1.0).collect();
        let weight = Tensor::new([7, 45], weight).expect("a weight");
        let packed = scheme.per_block().quantize(&weight, Calibration::MinMax).expect("blocks");
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [3, 45]);
        let y = x.matmul_quantized(&packed.declare(&graph, "w"));
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&y]).expect("a product");
        let numbers = Tensor::new([3, 45], (0..135).map(|i| (i % 17) as f32 - 8.0).collect::<Vec<_>>()).expect("x");
        let expected = session.run(&program, &[("x", &numbers)]).expect("a run");
        let file = Export::new(&graph, &[("y", &y)]).to_bytes(&session).expect("a file");
        let found = imported(file, &[("x", &numbers)], &BuildOptions::new()).expect("a model");
        assert!(difference(&found[0], &expected[0]) <= 1e-6);
    }
}

#[test]
fn files_have_the_names_and_values_of_the_session() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2]);
    let w = graph.parameter("w", Tensor::new([2], [1.0f32, 2.0]).expect("w"));
    let scale = graph.scalar("scale", 3.0);
    let y = &x * &w * &scale;
    let outputs = [("y", &y), ("again", &y), ("weight", &w), ("input", &x)];
    let mut session = Session::new(Device::cpu());
    // Before the session has the variable: the initial value.
    let file = Export::new(&graph, &outputs).to_bytes(&session).expect("a file");
    let model = Model::from_bytes(file.clone(), ".").expect("a model");
    let names: Vec<String> = model.outputs().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["y: float[2]", "again: float[2]", "weight: float[2]", "input: float[2]"]);
    let numbers = Tensor::new([2], [10.0f32, 100.0]).expect("x");
    let run = |file| -> Vec<Vec<f32>> {
        let (x, scale) = (("x", &numbers), Tensor::scalar(3.0));
        let found = imported(file, &[x, ("scale", &scale)], &BuildOptions::new()).expect("numbers");
        found.iter().map(Tensor::to_f32).collect()
    };
    assert_eq!(run(file), [vec![30.0, 600.0], vec![30.0, 600.0], vec![1.0, 2.0], vec![10.0, 100.0]]);
    // Afterwards that of the session.
    session.compile(&graph, &[&y]).expect("a program");
    session.set("w", &Tensor::new([2], [5.0f32, 7.0]).expect("w")).expect("set");
    let file = Export::new(&graph, &outputs).to_bytes(&session).expect("a file");
    assert_eq!(run(file)[0], [150.0, 2100.0]);
}

#[test]
fn external_data_is_beside_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    let weight: Vec<f32> = (0..1200).map(|i| i as f32).collect();
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [1, 30]);
    let w = graph.parameter("w", Tensor::new([30, 40], weight).expect("w"));
    let y = x.matmul(&w);
    let session = Session::new(Device::cpu());
    Export::new(&graph, &[("y", &y)]).external_data(true).save(&session, &path).expect("files");
    assert_eq!(std::fs::metadata(folder.path().join("model.onnx.data")).expect("data").len(), 4800);
    assert!(std::fs::metadata(&path).expect("a model").len() < 1000);
    let model = Model::load(&path).expect("a model");
    let graph = Graph::new();
    let built = model.build(&graph, &BuildOptions::new()).expect("a graph");
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &built.values()).expect("a program");
    let ones = Tensor::new([1, 30], vec![1.0f32; 30]).expect("x");
    let sums = session.run(&program, &[("x", &ones)]).expect("a run").remove(0);
    let expected: Vec<f32> = (0..40).map(|j| (0..30).map(|i| (i * 40 + j) as f32).sum()).collect();
    assert_eq!(sums.to_f32(), expected);
}

#[test]
fn what_cannot_be_exported_is_listed_with_its_lines() {
    let session = Session::new(Device::cpu());
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 3]);
    let dropped = Scope::train(&graph, 1).dropout(&x, 0.5);
    let shifted = graph.input("i", DType::I32, [2]).shift_left(&graph.input("j", DType::I32, [2]));
    let error = |export: Export| export.to_bytes(&session).expect_err("an error").to_string();
    let text = error(Export::new(&graph, &[("dropped", &dropped), ("shifted", &shifted)]));
    assert!(text.starts_with("the graph cannot be exported to ONNX: 2 problems\n"), "{text}");
    assert!(text.contains("export.rs:") && text.contains("(random_bits): random numbers have no operator"), "{text}");
    assert!(text.contains("(shift_left): ONNX shifts unsigned integers only"), "{text}");

    // An error of the graph, a value of another graph, names that are used twice.
    let other = Graph::new();
    let wrong = other.input("a", DType::F32, [2]) + other.input("b", DType::F32, [3]);
    assert!(error(Export::new(&other, &[("y", &wrong)])).contains("add"));
    let foreign = Graph::new();
    let z = foreign.input("x", DType::F32, [1]);
    assert!(error(Export::new(&graph, &[("y", &z)])).contains("output `y` is not a value of the graph"));
    let twice = error(Export::new(&foreign, &[("x", &z.exp())]));
    assert!(twice.contains("the name `x` is used twice"), "{twice}");
    assert!(error(Export::new(&foreign, &[])).contains("no outputs"));

    // Sizes that are not linear in the number of rows, and graphs that differ.
    let square = |rows: usize| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [rows, rows]);
        (graph.clone(), vec![("y".to_owned(), x.reshape(&[-1]).exp())])
    };
    assert!(error(Export::batched(square)).contains("does not grow linearly"));
    let varying = |rows: usize| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [rows, 2]);
        (graph.clone(), vec![("y".to_owned(), if rows == 2 { x.exp() } else { x.exp().sin() })])
    };
    assert!(error(Export::batched(varying)).contains("different nodes"));
    let constant = |rows: usize| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [rows]);
        let y = x * graph.constant(Tensor::new([rows], vec![1.5f32; rows]).expect("a constant"));
        (graph.clone(), vec![("y".to_owned(), y)])
    };
    assert!(error(Export::batched(constant)).contains("depends on the number of rows"));
}
