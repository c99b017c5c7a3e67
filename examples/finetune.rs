//! Transfer learning: a network that was trained for something else learns to tell drawings apart.
//!
//! ```text
//! cargo run --release --example finetune
//! ```
//!
//! The network is the MobileNetV3 (Howard et al., 2019) with which PaddleOCR finds out whether a line of text is upside
//! down, from an ONNX file. Its last layer is replaced by a batch norm and a linear layer for nine classes of emoji.
//! Three ways to train it, with the same steps:
//!
//! - **features**: only the new layer learns; the network is frozen;
//! - **fine-tuned**: all weights learn, from where they were;
//! - **from scratch**: all weights learn, from random numbers.

mod common;

use std::rc::Rc;

use clap::Parser;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::{ConfusionMatrix, idx};
use wgrad::nn::init;
use wgrad::ops::interpolate::Interpolation;
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{History, Inputs, Metric, Step, Trainer};
use wgrad_onnx::{BuildOptions, Model};

/// Fine-tunes a network from an ONNX file on nine classes of drawings.
#[derive(Parser)]
struct Options {
    /// Passes over the drawings
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// The value before the layer that is replaced, `[n, 200]`.
const FEATURES: &str = "reshape2_0.tmp_0";
const CLASSES: usize = 9;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Features,
    FineTuned,
    Scratch,
}

/// Drawings `[n, 3, 32, 32]` from -1 to 1, as the network was trained, and their classes.
fn drawings(part: &str, options: &Options) -> Result<(Tensor, Tensor)> {
    let (shape, bytes) = idx::read(common::data(&format!("emoji/{part}-images-idx4-ubyte.gz")), 4)?;
    let (_, labels) = idx::read(common::data(&format!("emoji/{part}-labels-idx1-ubyte.gz")), 1)?;
    let pixels: Vec<f32> = bytes.into_iter().map(|byte| f32::from(byte) / 127.5 - 1.0).collect();
    let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
    let (x, y) = (Tensor::new(shape, pixels)?, Tensor::new([labels.len()], labels)?);
    let rows = match (options.common.quick, part) {
        (false, _) => return Ok((x, y)),
        (true, "train") => 0..64,
        (true, _) => 0..32,
    };
    Ok((x.slice(0, rows.clone())?, y.slice(0, rows)?))
}

/// The logits of drawings.
fn logits(model: &Model, way: Way, nn: &Scope, drawings: &Value) -> Value {
    let x = drawings.interpolate(&[64, 64], Interpolation::Linear);
    let mut options = BuildOptions::new().input("x", &x).output(FEATURES);
    if way == Way::Features {
        options = options.freeze("*");
    } else if nn.is_training() {
        options = options.training();
    }
    let built = model.build(nn.graph(), &options).expect("the file is part of the repository and supported");
    let features = built.output(FEATURES).expect("it depends on x");
    nn.linear("head", &nn.batch_norm("norm", features), CLASSES)
}

/// The loss and logits of a batch.
fn step(model: &Model, way: Way, nn: &Scope, batch: &Inputs) -> Step {
    let logits = logits(model, way, nn, &batch.get("x"));
    Step { loss: logits.cross_entropy(&batch.get("y"), Reduction::Mean), prediction: Some(logits) }
}

/// Random weights for the network: normal with variance 2 / inputs (He et al., 2015); norms of 1 and 0.
fn randomize(model: &Model, session: &mut Session) -> Result<()> {
    let graph = Graph::new();
    let built = model.build(&graph, &BuildOptions::new().shape("x", [1, 3, 64, 64]).output(FEATURES))?;
    session.compile(&graph, &built.values())?; // declares the variables
    for (name, value) in graph.parameters() {
        let shape = value.shape().to_vec();
        if shape.len() > 1 {
            session.set(&name, &init::kaiming_normal(0.0).draw(shape, 1, &name))?;
        } else {
            let fill = if name.ends_with("scale") { 1.0f32 } else { 0.0 };
            session.set(&name, &Tensor::new(shape.clone(), vec![fill; value.shape().numel()])?)?;
        }
    }
    Ok(())
}

fn train(model: &Rc<Model>, way: Way, options: &Options, epochs: u64) -> Result<(Session, History)> {
    let (data, test) = (drawings("train", options)?, drawings("test", options)?);
    let mut session = options.common.session()?;
    if way == Way::Scratch {
        randomize(model, &mut session)?;
    }
    let model = model.clone();
    let trainer = Trainer::of(move |nn, batch| step(&model, way, nn, batch))
        .seed(options.common.seed)
        .optimizer(AdamW::new())
        .schedule(|steps| Cosine { lr: 2e-3, last: 1e-5, steps })
        .epochs(epochs)
        .batch(32)
        .metrics([Metric::Accuracy]);
    let mut trainer = options.common.steps.inspect(trainer, &session, &data)?;
    let history = trainer.fit(&mut session, &data, Some(&test))?;
    Ok((session, history))
}

/// The accuracy on the test drawings of a network with the weights of a file.
fn accuracy_of(model: &Model, path: &str, options: &Options) -> Result<f64> {
    let (x, labels) = drawings("test", options)?;
    let graph = Graph::new();
    let pixels = graph.input("x", DType::F32, x.shape().clone());
    let logits = logits(model, Way::FineTuned, &Scope::eval(&graph, 0), &pixels);
    let mut session = Session::new(Device::open(options.common.device.as_deref())?);
    let program = session.compile(&graph, &[&logits.argmax(1, false)])?;
    session.load_weights(path, &graph)?;
    let found = session.run(&program, &[("x", &x)])?.remove(0);
    Ok(ConfusionMatrix::new(&found, &labels, CLASSES)?.accuracy())
}

fn main() -> Result<()> {
    let options = Options::parse();
    let model = Rc::new(Model::load(common::data("onnx/ppocr_cls.onnx"))?);
    let epochs = if options.common.quick { 1 } else { options.epochs };
    let mut curves = Vec::new();
    let mut last = Vec::new();
    for (name, way) in [("features", Way::Features), ("fine-tuned", Way::FineTuned), ("from scratch", Way::Scratch)] {
        println!("{name}:");
        let (session, history) = train(&model, way, &options, epochs)?;
        let accuracy = |epoch: &wgrad::train::Epoch| epoch.validation.as_ref()?.get("accuracy");
        let points: Vec<(f64, f64)> =
            history.epochs.iter().filter_map(|epoch| Some((epoch.number as f64, accuracy(epoch)?))).collect();
        if way == Way::FineTuned {
            let path = if options.common.quick { "finetune.quick.safetensors" } else { "finetune.safetensors" };
            session.save(path)?;
            let reloaded = accuracy_of(&model, path, &options)?;
            println!("{path}, loaded again: {:.1}% of the test drawings", 100.0 * reloaded);
            let trained = points.last().map_or(0.0, |point| point.1);
            assert!((reloaded - trained).abs() < 1e-9, "the weights in the file must be those that were trained");
        }
        last.push(points.last().map_or(0.0, |point| point.1));
        curves.push((name, points));
    }
    for ((name, _), accuracy) in curves.iter().zip(&last) {
        println!("{name:<12} {:.1}% of the test drawings", 100.0 * accuracy);
    }
    let (title, y) = ("Transfer to drawings", "accuracy on test drawings");
    Plot { title, x: "epoch", y, log: false, curves }.save(&options.drawings.plots, "finetune")?;
    if !options.common.quick {
        assert!(last[1] > last[0] && last[1] > 0.5, "fine-tuning must be better than frozen features");
    }
    Ok(())
}
