//! Initial weights and normalisation: why a deep network may not learn at all.
//!
//! ```text
//! cargo run --release --example normalization
//! ```
//!
//! A layer of n units computes `x' = relu(W x)`. If the weights have mean 0 and standard deviation s, then
//! `mean(x'^2) = n s^2 / 2 mean(x^2)`, since relu keeps half of the square. So per layer, activations grow by the
//! factor `s sqrt(n / 2)`, and so do the gradients on their way back. Over 20 layers, a factor of 0.7 leaves a
//! thousandth.
//!
//! - **too small**: `s = sqrt(1 / (3 n))`, the default of many libraries: a factor of 0.41;
//! - **Glorot** and Bengio (2010), for units without relu: `s = sqrt(2 / (inputs + outputs))`, a factor of 0.71;
//! - **He**, Zhang, Ren and Sun (2015): `s = sqrt(2 / inputs)`, a factor of 1;
//! - **too large**: `s = sqrt(4 / n)`, a factor of 1.41.
//!
//! Batch norm (Ioffe and Szegedy 2015) scales each sum to mean 0 and variance 1 over the rows of a batch, layer norm
//! (Ba, Kiros and Hinton 2016) each row over its sums. Both forget the scale of the weights, so the factor is 1. Only
//! on their way back through batch norm, gradients grow by `sqrt(pi / (pi - 1)) = 1.21` (Yang, Pennington, Rao,
//! Sohl-Dickstein and Schoenholz 2019): it does not replace shortcuts in deep networks.
//!
//! The example measures the factors, forward and back, and trains the networks on handwritten digits.

mod common;

use std::f64::consts::PI;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::data::{Digits, Mnist};
use wgrad::nn::init::{self, Init};
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};
use wgrad::{Result, gradients};

const DEPTH: usize = 20;
const WIDTH: usize = 128;

#[derive(Clone, Copy, PartialEq)]
enum Norm {
    Nothing,
    Batch,
    Layer,
}

/// Initial weights, and the factor by which they multiply activations in each layer.
#[derive(Clone, Copy)]
struct Beginning {
    name: &'static str,
    weights: Init,
    factor: f64,
}

fn beginnings() -> [Beginning; 4] {
    let large = init::normal(0.0, (4.0 / WIDTH as f64).sqrt());
    [
        Beginning { name: "too small", weights: init::kaiming_uniform(5f64.sqrt()), factor: (1f64 / 6.0).sqrt() },
        Beginning { name: "Glorot", weights: init::xavier_normal(1.0), factor: 0.5f64.sqrt() },
        Beginning { name: "He", weights: init::kaiming_normal(0.0), factor: 1.0 },
        Beginning { name: "too large", weights: large, factor: 2f64.sqrt() },
    ]
}

/// The sums `W x` of all layers, and the logits.
fn network(nn: &Scope, x: &Value, weights: Init, norm: Norm) -> (Vec<Value>, Value) {
    let mut x = x.flatten(1);
    let mut sums = Vec::new();
    for layer in 1..=DEPTH {
        let weight = nn.part(&format!("fc{layer}")).parameter("weight", [WIDTH, x.dim(1)], weights);
        let sum = x.matmul(&weight.t());
        let name = format!("norm{layer}");
        x = match norm {
            Norm::Nothing => sum.clone(),
            Norm::Batch => nn.batch_norm(&name, &sum),
            Norm::Layer => nn.layer_norm(&name, &sum),
        }
        .relu();
        sums.push(sum);
    }
    (sums, nn.linear("out", &x, 10))
}

/// The root mean squares of the sums in all layers, and of the gradients with respect to them.
fn spreads(
    options: &mut common::Options,
    session: &mut Session,
    (weights, norm): (Init, Norm),
    digits: &Digits,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, digits.images.shape().clone());
    let labels = graph.input("labels", DType::I32, [digits.len()]);
    let (sums, logits) = network(&Scope::train(&graph, options.seed), &x, weights, norm);
    let loss = logits.cross_entropy(&labels, Reduction::Mean);
    let slopes = gradients(&loss, &sums.iter().collect::<Vec<_>>());
    let outputs: Vec<Value> = sums.iter().chain(&slopes).map(|x| x.square().mean_all().sqrt()).collect();
    let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>())?;
    let outputs = options.steps.run(session, &program, &[("x", &digits.images), ("labels", &digits.labels)])?;
    let mut forward = outputs.iter().map(Tensor::item).collect::<Result<Vec<f64>>>()?;
    let back = forward.split_off(DEPTH);
    Ok((forward, back))
}

/// The mean factor from one number to the next.
fn growth(spreads: &[f64]) -> f64 {
    (spreads[spreads.len() - 1] / spreads[0]).powf(1.0 / (spreads.len() - 1) as f64)
}

/// Trains the network; returns the loss on the training digits by epoch, and the percentage of test digits that are
/// classified correctly.
fn train(
    options: &common::Options,
    session: &mut Session,
    (weights, norm): (Init, Norm),
    epochs: u64,
    data: &Mnist,
) -> Result<(Points, f64)> {
    let model = Model::new([1, 28, 28], move |nn, x| network(nn, x, weights, norm).1).seed(options.seed);
    let trainer = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .optimizer(Adam::new())
        .batch(50)
        .epochs(epochs)
        .metrics([Metric::Accuracy])
        .quiet();
    let mut trainer = options.steps.inspect(trainer, session, &data.train)?;
    let history = trainer.fit(session, &data.train, None)?;
    let percent = 100.0 * trainer.evaluate(session, &data.test)?.get("accuracy").unwrap_or(0.0);
    Ok((history.epochs.iter().map(|epoch| (epoch.number as f64, epoch.loss)).collect(), percent))
}

type Points = Vec<(f64, f64)>;

/// The curves without norm, and those with norms for weights that are too small and too large.
fn chosen(curves: &[(String, Points)]) -> Vec<(&str, Points)> {
    [0, 1, 2, 3, 4, 11].map(|at: usize| (curves[at].0.as_str(), curves[at].1.clone())).to_vec()
}

fn main() -> Result<()> {
    let WithDrawings { common: mut options, drawings } = common::parse(
        "Measures activations and gradients of a network with 20 layers, with several initial weights and norms, and trains it",
    );
    let device = options.session()?.device().clone();
    let (rows, epochs) = if options.quick { (500, 1) } else { (2000, 5) };
    let mut data = Mnist::load(common::data("mnist10k"))?;
    data.train = data.train.first(rows)?;
    let few = data.train.first(200)?;
    println!("growth per layer, theory and measured:     forward           back      loss  test digits");
    let exploding = (PI / (PI - 1.0)).sqrt();
    let (mut layers, mut losses, mut percents, mut apart) = (Vec::new(), Vec::new(), Vec::new(), 0f64);
    for (name, norm) in [("no norm", Norm::Nothing), ("batch norm", Norm::Batch), ("layer norm", Norm::Layer)] {
        for Beginning { name: beginning, weights, factor } in beginnings() {
            let name = format!("{name}, {beginning}");
            let way = (weights, norm);
            let (forward, mut back) = spreads(&mut options, &mut Session::new(device.clone()), way, &few)?;
            back.reverse();
            let (curve, percent) = train(&options, &mut Session::new(device.clone()), way, epochs, &data)?;
            let theory = match norm {
                Norm::Nothing => [factor, factor],
                Norm::Batch => [1.0, exploding],
                Norm::Layer => [1.0, 1.0],
            };
            let found = [growth(&forward), growth(&back)];
            let columns = [0, 1].map(|way| format!("{:9.3}{:7.3}", theory[way], found[way])).concat();
            println!("{name:<34}{columns}{:10.3}{percent:12.1}%", curve[curve.len() - 1].1);
            apart = [0, 1].map(|way: usize| (found[way] / theory[way] - 1.0).abs()).into_iter().fold(apart, f64::max);
            layers.push((name.clone(), (1..).map(f64::from).zip(forward).collect()));
            losses.push((name, curve));
            percents.push(percent);
        }
    }
    println!("theory and measurement differ by at most {:.1}%", 100.0 * apart);
    let title = "What the layers of a network do to a picture";
    Plot { title, x: "layer", y: "root mean square of the sums", log: true, curves: chosen(&layers) }
        .save(&drawings.plots, "normalization")?;
    Plot { title: "Training with 20 layers", x: "epoch", y: "loss", log: true, curves: chosen(&losses) }
        .save(&drawings.plots, "normalization_training")?;

    options.steps.summary();
    assert!(apart < 0.1, "activations and gradients must grow as the theory says");
    if !options.quick {
        let [small, glorot, he, large] = [0, 1, 2, 3].map(|run: usize| percents[run]);
        assert!(he > small.max(glorot).max(large) + 10.0, "without norms, 20 layers need the right weights");
        assert!(percents[4] > small + 10.0 && percents[11] > large + 10.0, "norms must make up for wrong weights");
    }
    Ok(())
}
