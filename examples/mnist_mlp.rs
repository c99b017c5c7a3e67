//! A two-layer perceptron learns handwritten digits; a single layer is the baseline.
//!
//! ```text
//! cargo run --release --example mnist_mlp
//! ```
//!
//! A multi-layer perceptron on the 784 pixels of a digit: `h = relu(x W1' + b1)`, `p = softmax(h W2' + b2)`, with the
//! cross-entropy loss `-mean(ln p[digit])` and Adam on batches of 50 digits. The baseline is `softmax(x W' + b)`, one
//! template per digit, which classifies about nine in ten correctly.

mod common;

use std::time::Instant;

use clap::Parser;
use common::plot::Plot;
use wgrad::data::{Batches, ConfusionMatrix, Mnist};
use wgrad::nn::Scope;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Device, Graph, Reduction, Result, Session, Value};

#[derive(Parser)]
#[command(about = "Trains a two-layer perceptron on handwritten digits, compared with a single layer.")]
struct Options {
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// Digits per step; divides the number of digits.
const BATCH: usize = 50;

type Model = fn(&Scope, &Value) -> Value;

/// Logits of one layer.
fn templates(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc1", &x.flatten(1), 10)
}

/// Logits of two layers.
fn perceptron(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 128).relu(), 10)
}

fn main() -> Result<()> {
    let Options { mut common, drawings } = Options::parse();
    let mut data = Mnist::load(common::data("mnist10k"))?;
    if common.quick {
        data = Mnist { train: data.train.first(3000)?, test: data.test };
    }
    println!("data: {} training digits, {} test digits", data.train.len(), data.test.len());
    let device = common.session()?.device().clone();

    let (one, _) = train(&mut common, &device, "one layer", templates, &data)?;
    let (two, matrix) = train(&mut common, &device, "two layers", perceptron, &data)?;
    println!("confusion matrix of two layers:\n{matrix}");
    let (one_last, two_last) = (one[one.len() - 1], two[two.len() - 1]);
    println!("test accuracy: one layer {:.1}%, two layers {:.1}%", 100.0 * one_last, 100.0 * two_last);
    let points = |accuracy: Vec<f64>| (1..).map(f64::from).zip(accuracy.iter().map(|a| 100.0 * a)).collect();
    let curves = vec![("two layers", points(two)), ("one layer", points(one))];
    Plot { title: "A perceptron on MNIST digits", x: "epochs", y: "test accuracy, %", log: false, curves }
        .save(&drawings.plots, "mnist_mlp")?;

    common.steps.summary();
    assert!(two_last > one_last, "two layers must be better than one");
    assert!(two_last >= if common.quick { 0.8 } else { 0.93 }, "two layers must reach the expected accuracy");
    Ok(())
}

/// Trains a model; returns the test accuracy after each epoch and the final confusion matrix.
fn train(
    options: &mut common::Options,
    device: &Device,
    name: &str,
    model: Model,
    data: &Mnist,
) -> Result<(Vec<f64>, ConfusionMatrix)> {
    let mut session = Session::new(device.clone());
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [BATCH, 1, 28, 28]);
    let labels = graph.input("labels", DType::I32, [BATCH]);
    let loss = model(&Scope::train(&graph, options.seed), &x).cross_entropy(&labels, Reduction::Mean);
    Adam::new().lr(3e-3).minimize(&graph, &loss);
    let step = session.compile(&graph, &[&loss])?;
    // Evaluation: the same parameters, all test digits at once.
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, data.test.images.shape().clone());
    let digit = model(&Scope::eval(&graph, options.seed), &x).argmax(1, false);
    let judge = session.compile(&graph, &[&digit])?;

    let batches = Batches::new(data.train.len(), BATCH)?.shuffled(options.seed);
    let started = Instant::now();
    let mut accuracies = Vec::new();
    let epochs = if options.quick { 1 } else { 10 };
    for epoch in 0.. {
        let mut sum = 0.0;
        for rows in batches.epoch(epoch) {
            let (x, labels) = (data.train.images.rows(&rows)?, data.train.labels.rows(&rows)?);
            sum += options.steps.run(&mut session, &step, &[("x", &x), ("labels", &labels)])?[0].item()?;
        }
        let predicted = options.steps.run(&mut session, &judge, &[("x", &data.test.images)])?.remove(0);
        let matrix = ConfusionMatrix::new(&predicted, &data.test.labels, 10)?;
        accuracies.push(matrix.accuracy());
        let loss = sum / batches.count() as f64;
        println!("{name}, epoch {}: loss {loss:.4}, test accuracy {:.1}%", epoch + 1, 100.0 * matrix.accuracy());
        if epoch + 1 == epochs {
            println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
            return Ok((accuracies, matrix));
        }
    }
    unreachable!("the last epoch returns")
}
