//! Weights that load by name: parts, other names, reports; a ResNet-18 with torchvision's names.

use std::collections::BTreeMap;
use std::path::Path;

use wgrad::io::{Weights, safetensors};
use wgrad::nn::Scope;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Data, Device, Graph, Session, Tensor, Value, models};

use crate::common;
use crate::io::complaint;

/// Numbers that look random: of the mean `mean`, within `spread` of it.
fn numbers(name: &str, count: usize, mean: f64, spread: f64) -> Vec<f64> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    (0..count).map(|_| mean + spread * (2.0 * next() - 1.0)).collect()
}

/// The names and shapes of torchvision's `resnet18(num_classes=10).state_dict()`, written out by its rules.
fn resnet18_shapes() -> Vec<(String, Vec<usize>)> {
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    let norm = |all: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize| {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            all.push((format!("{name}.{part}"), vec![channels]));
        }
        all.push((format!("{name}.num_batches_tracked"), vec![]));
    };
    all.push(("conv1.weight".into(), vec![64, 3, 7, 7]));
    norm(&mut all, "bn1", 64);
    let mut inputs = 64;
    for (layer, channels) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let name = format!("layer{layer}.{block}");
            all.push((format!("{name}.conv1.weight"), vec![channels, inputs, 3, 3]));
            norm(&mut all, &format!("{name}.bn1"), channels);
            all.push((format!("{name}.conv2.weight"), vec![channels, channels, 3, 3]));
            norm(&mut all, &format!("{name}.bn2"), channels);
            if inputs != channels {
                all.push((format!("{name}.downsample.0.weight"), vec![channels, inputs, 1, 1]));
                norm(&mut all, &format!("{name}.downsample.1"), channels);
            }
            inputs = channels;
        }
    }
    all.push(("fc.weight".into(), vec![10, 512]));
    all.push(("fc.bias".into(), vec![10]));
    all
}

/// Writes a file of these names and shapes, as PyTorch would: counts as I64, floats as `dtype`. Returns the values that
/// a reader sees.
fn write(path: &Path, shapes: &[(String, Vec<usize>)], dtype: &str) -> BTreeMap<String, Vec<f64>> {
    let (mut entries, mut bytes, mut values) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (name, shape) in shapes {
        let (count, begin) = (shape.iter().product(), bytes.len());
        let fan_in: usize = shape.iter().skip(1).product();
        let (mean, spread) = match name.rsplit('.').next().unwrap() {
            "running_var" => (1.0, 0.5),
            "weight" if shape.len() == 1 => (0.8, 0.3),
            "weight" => (0.0, (3.0 / fan_in as f64).sqrt()),
            _ => (0.0, 0.2),
        };
        let is_count = name.ends_with("num_batches_tracked");
        let mut seen = Vec::new();
        for x in numbers(name, count, mean, spread) {
            if is_count {
                bytes.extend(1234i64.to_le_bytes());
                seen.push(1234.0);
            } else if dtype == "F16" {
                let x = half::f16::from_f64(x);
                bytes.extend(x.to_le_bytes());
                seen.push(x.to_f64());
            } else {
                bytes.extend((x as f32).to_le_bytes());
                seen.push(f64::from(x as f32));
            }
        }
        let dtype = if is_count { "I64" } else { dtype };
        let end = bytes.len();
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
        values.insert(name.clone(), seen);
    }
    std::fs::write(path, common::safetensors_bytes(&format!("{{{}}}", entries.join(",")), &bytes)).unwrap();
    values
}

/// ResNet-18 by another route: constants, and each norm folded into the convolution before it.
struct Folded<'a> {
    graph: &'a Graph,
    values: &'a BTreeMap<String, Vec<f64>>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Folded<'_> {
    fn constant(&self, shape: &[usize], values: Vec<f64>) -> Value {
        self.graph.constant(Tensor::new(shape, Data::F64(values)).unwrap())
    }

    fn conv(&self, x: &Value, conv: &str, norm: &str, stride: usize) -> Value {
        let of = |part: &str| &self.values[&format!("{norm}.{part}")];
        let shape = &self.shapes[&format!("{conv}.weight")];
        let factors: Vec<f64> =
            of("weight").iter().zip(of("running_var")).map(|(w, var)| w / (var + 1e-5).sqrt()).collect();
        let weight = self.values[&format!("{conv}.weight")].iter().enumerate();
        let size: usize = shape[1..].iter().product();
        let weight: Vec<f64> = weight.map(|(at, w)| w * factors[at / size]).collect();
        let shift: Vec<f64> = (0..factors.len()).map(|c| of("bias")[c] - of("running_mean")[c] * factors[c]).collect();
        let options = Conv2d { stride: [stride; 2], padding: [shape[2] / 2; 2], ..Conv2d::default() };
        x.conv2d(&self.constant(shape, weight), Some(&self.constant(&[shift.len()], shift)), options)
    }

    fn logits(&self, x: &Value) -> Value {
        let mut x = self.conv(x, "conv1", "bn1", 2).relu();
        x = x.max_pool2d(Pool2d { stride: [2; 2], padding: [1; 2], ..Pool2d::new(3) });
        for name in (1..=4).flat_map(|layer| (0..2).map(move |block| format!("layer{layer}.{block}"))) {
            let down = self.shapes.contains_key(&format!("{name}.downsample.0.weight"));
            let stride = if down { 2 } else { 1 };
            let [conv1, bn1, conv2, bn2] = ["conv1", "bn1", "conv2", "bn2"].map(|part| format!("{name}.{part}"));
            let y = self.conv(&self.conv(&x, &conv1, &bn1, stride).relu(), &conv2, &bn2, 1);
            let [conv, norm] = [0, 1].map(|number| format!("{name}.downsample.{number}"));
            x = (y + if down { self.conv(&x, &conv, &norm, 2) } else { x.clone() }).relu();
        }
        let weight = self.constant(&[10, 512], self.values["fc.weight"].clone());
        x.mean(&[2, 3], false).matmul(&weight.t()) + self.constant(&[10], self.values["fc.bias"].clone())
    }
}

#[test]
fn a_resnet18_loads_the_weights_of_torchvision() {
    let folder = tempfile::tempdir().unwrap();
    let shapes = resnet18_shapes();
    assert_eq!(shapes.len(), 122, "as many entries as the state dictionary of torchvision's resnet18");
    let picture: Vec<f32> = numbers("picture", 3 * 40 * 32, 0.0, 1.0).iter().map(|&x| x as f32).collect();
    let picture = Tensor::new([1, 3, 40, 32], picture).unwrap();
    for dtype in ["F32", "F16"] {
        let path = folder.path().join(format!("resnet18.{dtype}.safetensors"));
        let values = write(&path, &shapes, dtype);
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [1, 3, 40, 32]);
        let want = Folded { graph: &graph, values: &values, shapes: shapes.iter().cloned().collect() }.logits(&x);
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&want]).unwrap();
        let want = session.run(&program, &[("x", &picture)]).unwrap()[0].to_f64();
        let spread = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        assert!(want.iter().all(|x| x.is_finite()) && spread > 0.1, "{want:?}");
        for device in common::devices() {
            let graph = Graph::new();
            let x = graph.input("x", DType::F32, [1, 3, 40, 32]);
            let logits = models::resnet18(&Scope::eval(&graph, 0), &x, 10);
            let tolerance = if device.is_cpu() { 1e-9 } else { 1e-4 } * spread;
            let mut session = Session::new(device);
            let program = session.compile(&graph, &[&logits]).unwrap();
            let report = session.load_weights_with(&path, &graph, &Weights::new()).unwrap();
            assert_eq!(report.loaded.len(), 122);
            assert!(report.missing.is_empty() && report.unexpected.is_empty() && report.mismatched.is_empty());
            assert!(report.ignored.is_empty(), "{report}");
            assert_eq!(report.to_string(), "122 variables loaded");
            assert_eq!(session.get("layer4.1.bn2.num_batches_tracked").unwrap().to_f64(), [1234.0]);
            let got = session.run(&program, &[("x", &picture)]).unwrap()[0].to_f64();
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= tolerance, "{dtype}: {got} instead of {want}");
            }
        }
    }
}

/// A session with a small model, and its graph.
fn small(prefix: &str, head: &str, classes: usize) -> (Session, Graph) {
    let graph = Graph::new();
    let nn = Scope::train(&graph, 5);
    let nn = if prefix.is_empty() { nn } else { nn.part(prefix) };
    let x = nn.linear("layer1", &graph.input("x", DType::F32, [2, 4]), 6).relu();
    let x = nn.batch_norm("bn", &nn.linear("layer10", &x, 6));
    nn.linear(head, &x, classes);
    let mut session = Session::new(Device::cpu());
    session.compile(&graph, &[]).unwrap();
    (session, graph)
}

/// All variables of a session.
fn all(session: &Session) -> Vec<Tensor> {
    session.names().iter().map(|name| session.get(name).unwrap()).collect()
}

const SMALL: [&str; 11] = [
    "bn.bias",
    "bn.num_batches_tracked",
    "bn.running_mean",
    "bn.running_var",
    "bn.weight",
    "head.bias",
    "head.weight",
    "layer1.bias",
    "layer1.weight",
    "layer10.bias",
    "layer10.weight",
];

/// A file of `small("module", "fc", 3)` in which every number is 0.25, or 7 for the count.
fn trained(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("trained.safetensors");
    let (mut session, graph) = small("module", "fc", 3);
    for name in session.names() {
        let ty = session.variable_type(&name).unwrap().clone();
        let count = ty.shape.numel();
        let value = if ty.dtype == DType::I32 { Data::from(vec![7; count]) } else { vec![0.25f32; count].into() };
        session.set(&name, &Tensor::new(ty.shape, value).unwrap()).unwrap();
    }
    session.save_weights(&path, &graph).unwrap();
    path
}

#[test]
fn names_are_edited_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(folder.path());
    let (mut session, graph) = small("", "head", 3);
    let weights = Weights::new().strip_prefix("module.").rename("fc.", "head.");
    let report = session.load_weights_with(&path, &graph, &weights).unwrap();
    assert_eq!(report.loaded, SMALL);
    for name in SMALL {
        let value = if name.ends_with("tracked") { 7.0 } else { 0.25 };
        assert!(session.get(name).unwrap().to_f64().iter().all(|x| *x == value), "{name}");
    }
    // The other way: a prefix for all names.
    let (mut back, graph) = small("a.b", "c", 3);
    let weights = Weights::new().strip_prefix("module.").rename("", "a.b.").rename("a.b.fc", "a.b.c");
    assert_eq!(back.load_weights_with(&path, &graph, &weights).unwrap().loaded.len(), 11);
    // In another order, the second edit finds nothing to rename.
    let weights = Weights::new().rename("fc.", "head.").strip_prefix("module.");
    let why = complaint(session.load_weights_with(&path, &small("", "head", 3).1, &weights), &path);
    assert!(why.contains("`fc.bias` (f32[3]), `module.fc.bias` in the file, is unknown"), "{why}");
    // Two names that become one.
    let weights = Weights::new().rename("module.layer10.", "x.").rename("module.layer1.", "x.");
    let why = complaint(session.load_weights_with(&path, &graph, &weights.strict(false)), &path);
    assert!(why.contains("`module.layer1.bias` and `module.layer10.bias` both become `x.bias`"), "{why}");
}

#[test]
fn parts_are_loaded_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(folder.path());
    let strip = || Weights::new().strip_prefix("module.");
    for (weights, loaded) in [
        (strip().only("layer1"), vec!["layer1.bias", "layer1.weight"]),
        (strip().only("layer1.").only("bn.bias"), vec!["bn.bias", "layer1.bias", "layer1.weight"]),
        (strip().skip("head").skip("fc").skip("bn"), SMALL[7..].to_vec()),
        (strip().only("layer10").skip("layer10.bias"), vec!["layer10.weight"]),
    ] {
        let (mut session, graph) = small("", "head", 9);
        let before: BTreeMap<String, Tensor> =
            session.names().into_iter().map(|name| (name.clone(), session.get(&name).unwrap())).collect();
        let report = session.load_weights_with(&path, &graph, &weights).unwrap();
        assert_eq!(report.loaded, loaded);
        assert!(report.missing.is_empty() && report.unexpected.is_empty() && report.mismatched.is_empty());
        for (name, before) in before {
            let now = session.get(&name).unwrap();
            if loaded.contains(&name.as_str()) {
                assert!(now.to_f64().iter().all(|x| *x == 0.25));
            } else {
                assert_eq!(now, before, "{name}");
            }
        }
    }
}

#[test]
fn all_differences_are_reported_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(folder.path());
    let (mut session, graph) = small("", "head", 9);
    let before = all(&session);
    let why = complaint(session.load_weights(&path, &graph), &path);
    let names = SMALL.iter().filter(|name| !name.ends_with("tracked"));
    for name in names {
        assert!(why.contains(&format!("`{name}` (")), "{name} in {why}");
    }
    assert!(why.contains("Weights::new().strip_prefix(\"module.\") would match 8 of 10 missing names"), "{why}");
    let why = complaint(session.load_weights_with(&path, &graph, &Weights::new().strict(false)), &path);
    assert!(why.contains("strip_prefix(\"module.\")"), "an error, as nothing matches: {why}");
    let strip = Weights::new().strip_prefix("module.").rename("fc", "haed");
    let why = complaint(session.load_weights_with(&path, &graph, &strip), &path);
    assert!(why.contains("`head.weight` (f32[9, 6]) is missing; the file has `haed.weight`"), "{why}");
    let strip = Weights::new().strip_prefix("module.").rename("fc", "head");
    let why = complaint(session.load_weights_with(&path, &graph, &strip), &path);
    assert!(why.contains("`head.weight` is f32[3, 6], expected f32[9, 6]"), "{why}");
    assert_eq!(all(&session), before);
    // Not strict: what matches.
    let strip = Weights::new().strip_prefix("module.").rename("fc.weight", "head.weight").strict(false);
    let report = session.load_weights_with(&path, &graph, &strip).unwrap();
    assert_eq!(report.loaded.len(), 9);
    assert_eq!((report.missing.clone(), report.unexpected.clone()), (vec!["head.bias".into()], vec!["fc.bias".into()]));
    assert_eq!(
        report.to_string(),
        "9 variables loaded\n1 missing: `head.bias`\n1 unexpected: `fc.bias`\n\
         1 of another type: `head.weight` is f32[3, 6], expected f32[9, 6]"
    );
    // A file without the prefix of the graph.
    let (mut session, graph) = small("module", "fc", 3);
    let plain = folder.path().join("plain.safetensors");
    let tensors = safetensors::load(&path).unwrap();
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.replace("module.", ""), tensor)).collect();
    safetensors::save(&plain, &tensors, &BTreeMap::new()).unwrap();
    let why = complaint(session.load_weights(&plain, &graph), &plain);
    assert!(why.contains("Weights::new().rename(\"\", \"module.\") would match 10 of 10 missing names"), "{why}");
}

#[test]
fn counts_of_batches_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = trained(folder.path());
    let mut tensors = safetensors::load(&path).unwrap();
    tensors.remove("module.bn.num_batches_tracked").unwrap();
    safetensors::save(&path, &tensors, &BTreeMap::new()).unwrap();
    let (mut session, graph) = small("module", "fc", 3);
    let report = session.load_weights_with(&path, &graph, &Weights::new()).unwrap();
    assert_eq!((report.loaded.len(), report.ignored), (10, vec!["module.bn.num_batches_tracked".to_owned()]));
}

#[test]
fn files_for_another_call_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let [checkpoint, weights] = ["checkpoint", "weights"].map(|name| folder.path().join(name));
    let training = |classes: usize| {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [2, 4]);
        let loss = Scope::train(&graph, 0).linear("fc", &x, classes).square().mean_all();
        Adam::new().minimize(&graph, &loss);
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&loss]).unwrap();
        session.run(&program, &[("x", &Tensor::new([2, 4], vec![1.0f32; 8]).unwrap())]).unwrap();
        session
    };
    let model = |classes: usize| {
        let graph = Graph::new();
        Scope::eval(&graph, 0).linear("fc", &graph.input("x", DType::F32, [2, 4]), classes);
        graph
    };
    let session = training(3);
    session.save(&checkpoint).unwrap();
    session.save_weights(&weights, &model(3)).unwrap();
    // A checkpoint has all weights; what remains is optimiser state.
    let mut other = training(3);
    let report = other.load_weights_with(&checkpoint, &model(3), &Weights::new()).unwrap();
    assert_eq!(report.loaded, ["fc.bias", "fc.weight"]);
    assert_eq!(report.ignored, ["fc.bias.adam.m", "fc.bias.adam.v", "fc.weight.adam.m", "fc.weight.adam.v"]);
    let mut wrong = training(4);
    let why = complaint(wrong.load_weights(&checkpoint, &model(4)), &checkpoint);
    assert!(why.contains("training checkpoint") && why.contains("Session::load"), "{why}");
    let mut quantized = safetensors::load(&weights).unwrap();
    let weight = quantized.remove("fc.weight").unwrap();
    quantized.extend(["values", "scale"].map(|part| (format!("fc.weight.{part}"), weight.clone())));
    let path = folder.path().join("quantized");
    safetensors::save(&path, &quantized, &BTreeMap::new()).unwrap();
    let why = complaint(other.load_weights(&path, &model(3)), &path);
    assert!(why.contains("`fc.weight` (f32[3, 4]) is missing") && why.contains("QuantizedModel::load"), "{why}");
    let why = complaint(other.load(&weights), &weights);
    assert!(why.contains("only weights") && why.contains("Session::load_weights loads them"), "{why}");
}
