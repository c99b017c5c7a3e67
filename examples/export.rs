//! Writes a trained network as an ONNX file, and runs the file.
//!
//! ```text
//! cargo run --release --example export
//! ```
//!
//! A convolutional network learns handwritten digits for an epoch. [`Export::model`] writes it in evaluation mode, for any
//! number of images: the operators, and the session's weights under their names. The file is then read as any other ONNX
//! file, and must classify the test digits as the network does. ONNX Runtime reads it, too:
//!
//! ```python
//! import onnxruntime
//! network = onnxruntime.InferenceSession("digits.onnx")
//! (logits,) = network.run(["y"], {"x": images})  # float32 [n, 1, 28, 28]
//! ```

mod common;

use std::path::PathBuf;

use clap::Parser;
use wgrad::Result;
use wgrad::data::Mnist;
use wgrad::ops::conv2d::Conv2d;
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};
use wgrad_onnx::{BuildOptions, Export};

/// Trains a small network, writes it as an ONNX file, and compares the file with the network.
#[derive(Parser)]
struct Options {
    /// The file to write
    #[arg(long, default_value = "digits.onnx")]
    onnx: PathBuf,
    #[command(flatten)]
    common: common::Options,
}

/// Logits `[n, 10]` for images `[n, 1, 28, 28]`.
fn network(nn: &Scope, x: &Value) -> Value {
    let x = nn.batch_norm("norm1", &nn.conv2d("conv1", x, 8, 3, Conv2d::default())).relu().max_pool2d(2);
    let x = nn.batch_norm("norm2", &nn.conv2d("conv2", &x, 16, 3, Conv2d::default())).relu().max_pool2d(2);
    nn.linear("fc", &x.flatten(1), 10)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut digits = Mnist::load(common::data("mnist10k"))?;
    if options.common.quick {
        digits.train = digits.train.first(2000)?;
    }
    let mut session = options.common.session()?;
    let mut model = Model::new([1, 28, 28], network).seed(options.common.seed);
    let trainer = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .optimizer(AdamW::new().lr(5e-3))
        .epochs(1)
        .batch(50)
        .metrics([Metric::Accuracy]);
    let mut trainer = options.common.steps.inspect(trainer, &session, &digits.train)?;
    trainer.fit(&mut session, &digits.train, Some(&digits.test))?;
    let images = &digits.test.images;
    let expected = model.predict(&mut session, images)?;
    Export::model(&model).save(&session, &options.onnx)?;

    // A reader knows the file alone: its variables come from the initializers.
    let file = wgrad_onnx::Model::load(&options.onnx)?;
    for port in file.inputs().iter().chain(&file.outputs()) {
        println!("{port}");
    }
    let graph = Graph::new();
    let built = file.build(&graph, &BuildOptions::new().dim("batch", images.shape()[0]))?;
    let mut reader = Session::new(session.device().clone());
    let program = reader.compile(&graph, &[built.output("y")?])?;
    let found = reader.run(&program, &[("x", images)])?.remove(0);

    let largest = |x: &Tensor| x.to_f64().into_iter().map(f64::abs).fold(0.0, f64::max);
    let differences = found.to_f64().into_iter().zip(expected.to_f64()).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let off = largest(&Tensor::new([differences.len()], differences)?) / largest(&expected);
    println!("{}: logits of {} digits differ by {off:.1e} of the largest", options.onnx.display(), images.shape()[0]);
    assert!(off < 1e-5, "the file must compute the same");
    Ok(())
}
