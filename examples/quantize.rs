//! How many bits does a weight need?
//!
//! ```text
//! cargo run --release --example quantize
//! ```
//!
//! A convolutional network is trained on handwritten digits in f32. Then its weights `w` are stored as integers
//! `q = round(w / s)` of 8 bits, 4 and 3; the network computes with `s q`. The step `s` follows from the largest
//! weight, `s = max |w| / (2^(bits - 1) - 1)`:
//! - *per tensor*: one step for a layer, so a channel with small weights has few different values;
//! - *per channel*: one step for each output of the layer. The product is scaled after the sum, so this costs nothing;
//! - *dynamic*: the inputs of the dense layers are integers, too. Their step follows from each row when it is computed,
//!   and the sums of products are exact, in integers.
//!
//! Rounding to 4 bits is an error of up to 7% of the largest weight. *Quantisation-aware training* lets the network
//! adapt: it is trained for another epoch with rounded weights. Rounding has derivative 0, so the gradient passes
//! through it as if it were not there (the *straight-through* estimator).

mod common;

use std::time::Instant;

use clap::Parser;
use wgrad::data::{Batches, Digits, Mnist};
use wgrad::nn::{Conv2d, Layer, Linear, Scope};
use wgrad::optim::{Adam, Optimizer};
use wgrad::quant::{Calibration, Quantized, Scheme};
use wgrad::{DType, Graph, Reduction, Result, Session, Tensor, Value, ops};

const LAYERS: [&str; 4] = ["conv1", "conv2", "fc1", "fc2"];
const BATCH: usize = 64;
const TEST: usize = 100;

fn main() -> Result<()> {
    let mut options = common::Options::parse();
    let mut data = Mnist::load(common::data("mnist10k"))?;
    let mut epochs = 2;
    if options.quick {
        epochs = 1;
        data = Mnist { train: data.train.first(2000)?, test: data.test.first(500)? };
    }
    let mut session = options.session()?;
    train(&mut options, &mut session, &data.train, epochs, 2e-3, None)?;

    println!("weights                        accuracy      size    time");
    let plain = Network::of(&session, None)?;
    let exact = plain.report(&mut options, &session, &data.test, "f32", false)?;
    let report = |options: &mut common::Options, session: &Session, name: &str, scheme: Scheme, dynamic: bool| {
        Network::of(session, Some(scheme))?.report(options, session, &data.test, name, dynamic)
    };
    let tensor = report(&mut options, &session, "8 bits, per tensor", Scheme::int8(), false)?;
    let channel = report(&mut options, &session, "8 bits, per channel", Scheme::int8().per_channel(0), false)?;
    let dynamic = report(&mut options, &session, "8 bits, dynamic inputs", Scheme::int8().per_channel(0), true)?;
    let four = Scheme::int8().bits(4).per_channel(0);
    let coarse = report(&mut options, &session, "4 bits, per channel", four, false)?;
    let three = Scheme::int8().bits(3).per_channel(0);
    let rough = report(&mut options, &session, "3 bits, per channel", three, false)?;

    train(&mut options, &mut session, &data.train, 1, 5e-4, Some(three))?;
    let aware = report(&mut options, &session, "3 bits, trained for that", three, false)?;

    options.steps.summary();
    let most = 0.01;
    assert!([tensor, channel, dynamic].iter().all(|accuracy| (accuracy - exact).abs() <= most), "8 bits must suffice");
    assert!(coarse > exact - 0.05, "4 bits per channel lose little");
    assert!(aware > rough - 0.002 && aware > exact - 0.03, "training must make up for rounding");
    Ok(())
}

/// Trains the network, with weights rounded by `scheme` if there is one.
fn train(
    options: &mut common::Options,
    session: &mut Session,
    digits: &Digits,
    epochs: u64,
    lr: f64,
    scheme: Option<Scheme>,
) -> Result<()> {
    let graph = Graph::new();
    let nn = Scope::train(&graph, options.seed);
    let x = graph.input("x", DType::F32, [BATCH, 1, 28, 28]);
    let labels = graph.input("labels", DType::I32, [BATCH]);
    let rounded = |weight: &Value| scheme.map_or(weight.clone(), |scheme| rounded(weight, scheme));
    let conv = |name: &str, x: &Value, outputs| {
        let layer = Conv2d::new(&nn, name, x.dim(1), outputs, 3, ops::conv2d::Conv2d::default());
        Conv2d { weight: rounded(&layer.weight), ..layer }.forward(x).relu().max_pool2d(2)
    };
    let dense = |name: &str, x: &Value, outputs| {
        let layer = Linear::new(&nn, name, x.dim(1), outputs);
        Linear { weight: rounded(&layer.weight), ..layer }.forward(x)
    };
    let features = conv("conv2", &conv("conv1", &x, 16), 32).flatten(1);
    let logits = dense("fc2", &dense("fc1", &features, 64).relu(), 10);
    let loss = logits.cross_entropy(&labels, Reduction::Mean);
    Adam::new().lr(lr).minimize(&graph, &loss);
    let step = session.compile(&graph, &[&loss])?;
    let batches = Batches::new(digits.len(), BATCH)?.shuffled(options.seed);
    for epoch in 0..epochs {
        let (mut sum, mut count) = (0.0, 0);
        for rows in batches.epoch(epoch).filter(|rows| rows.len() == BATCH) {
            let (x, labels) = (digits.images.rows(&rows)?, digits.labels.rows(&rows)?);
            sum += options.steps.run(session, &step, &[("x", &x), ("labels", &labels)])?[0].item()?;
            count += 1;
        }
        let how = if scheme.is_some() { "with rounded weights" } else { "in f32" };
        println!("training {how}: loss {:.4}", sum / f64::from(count));
    }
    Ok(())
}

/// The weight as its integers represent it: a step per output, from the largest weight.
fn rounded(weight: &Value, scheme: Scheme) -> Value {
    let axes: Vec<isize> = (1..weight.shape().rank() as isize).collect();
    let scale = weight.abs().max(&axes, true).stop_gradient() * (1.0 / scheme.limits().1);
    weight.fake_quantize(scheme, &scale, &scale.zeros_like())
}

/// A layer's weight, in f32 or quantised.
enum Weight {
    Float(Tensor),
    Integers(Quantized),
}

/// The trained network.
struct Network {
    weights: Vec<Weight>,
    biases: Vec<Tensor>,
    bits: u32,
}

impl Network {
    fn of(session: &Session, scheme: Option<Scheme>) -> Result<Network> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for layer in LAYERS {
            let weight = session.get(&format!("{layer}.weight"))?;
            weights.push(match scheme {
                Some(scheme) => Weight::Integers(scheme.quantize(&weight, Calibration::MinMax)?),
                None => Weight::Float(weight),
            });
            biases.push(session.get(&format!("{layer}.bias"))?);
        }
        Ok(Network { weights, biases, bits: scheme.map_or(32, |scheme| scheme.bits) })
    }

    /// Bytes of the weights if their bits are packed, with the steps.
    fn bytes(&self) -> usize {
        let of = |weight: &Weight| match weight {
            Weight::Float(tensor) => 4 * tensor.numel(),
            Weight::Integers(q) => (q.values.numel() * self.bits as usize).div_ceil(8) + 4 * q.scale.numel(),
        };
        self.weights.iter().map(of).sum()
    }

    fn logits(&self, graph: &Graph, x: &Value, dynamic: bool) -> Value {
        let mut x = x.clone();
        for (number, layer) in LAYERS.iter().enumerate() {
            let (weight, bias) = (&self.weights[number], graph.constant(self.biases[number].clone()));
            let convolution = number < 2;
            let options = ops::conv2d::Conv2d::default();
            let y = match weight {
                Weight::Float(w) if convolution => x.conv2d(&graph.variable(layer, w.clone()), None, options),
                Weight::Float(w) => x.matmul(&graph.variable(layer, w.clone()).t()),
                Weight::Integers(q) if convolution => x.conv2d_quantized(&q.declare(graph, layer), options),
                Weight::Integers(q) if dynamic => x.matmul_dynamic(&q.declare(graph, layer)),
                Weight::Integers(q) => x.matmul_quantized(&q.declare(graph, layer)),
            };
            x = match number {
                0 => (y + bias.reshape(&[-1, 1, 1])).relu().max_pool2d(2),
                1 => (y + bias.reshape(&[-1, 1, 1])).relu().max_pool2d(2).flatten(1),
                2 => (y + bias).relu(),
                _ => y + bias,
            };
        }
        x
    }

    /// Prints accuracy, size, and the median time of a batch; returns the accuracy.
    fn report(
        &self,
        options: &mut common::Options,
        trained: &Session,
        digits: &Digits,
        name: &str,
        dynamic: bool,
    ) -> Result<f64> {
        let mut session = Session::new(trained.device().clone());
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [TEST, 1, 28, 28]);
        let digit = self.logits(&graph, &x, dynamic).argmax(1, false);
        let program = session.compile(&graph, &[&digit])?;
        let (mut correct, mut times) = (0, Vec::new());
        for rows in Batches::new(digits.len(), TEST)?.epoch(0) {
            let images = digits.images.rows(&rows)?;
            let started = Instant::now();
            let found = options.steps.run(&mut session, &program, &[("x", &images)])?[0].to_f64();
            times.push(started.elapsed().as_secs_f64() * 1e3);
            let labels = digits.labels.rows(&rows)?.to_f64();
            correct += found.iter().zip(&labels).filter(|(found, label)| found == label).count();
        }
        times.sort_by(f64::total_cmp);
        let accuracy = correct as f64 / digits.len() as f64;
        // Sizes as if the bits were packed; they are stored as bytes.
        let (percent, kib, median) = (100.0 * accuracy, self.bytes() as f64 / 1024.0, times[times.len() / 2]);
        println!("{name:<30} {percent:6.1} % {kib:5.1} KiB {median:4.1} ms");
        Ok(accuracy)
    }
}
