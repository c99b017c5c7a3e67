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
//! - *in blocks*: one step for 32 neighbours in a row of a dense layer's weight; convolutions have a step per channel.
//!   The integers are packed into words, and products unpack them as they load them;
//! - *dynamic*: the inputs of the dense layers are integers, too. Their step follows from each row when it is computed,
//!   and the sums of products are exact, in integers;
//! - *static*: the inputs of all layers are integers, and their steps are fixed. They follow from 1,000 training
//!   digits, so that the network need not search the largest input of each row.
//!
//! Rounding to 4 bits is an error of up to 7% of the largest weight. *Quantisation-aware training* lets the network
//! adapt: it is trained for another epoch with rounded weights. Rounding has derivative 0, so the gradient passes
//! through it as if it were not there (the *straight-through* estimator).
//!
//! The plot shows accuracy over size.

mod common;

use std::time::Instant;

use clap::Parser;
use wgrad::data::{Batches, Digits, Mnist};
use wgrad::nn::{Conv2d, Layer, Linear, Scope};
use wgrad::optim::{Adam, Optimizer};
use wgrad::quant::{ActivationRange, Calibration, Granularity, Observer, Quantized, Scheme};
use wgrad::{DType, Graph, Reduction, Result, Session, Tensor, Value, ops};

const LAYERS: [&str; 4] = ["conv1", "conv2", "fc1", "fc2"];
const BATCH: usize = 64;
const TEST: usize = 100;

#[derive(Parser)]
#[command(about = "Trains a network on handwritten digits, and stores its weights as integers.")]
struct Options {
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

fn main() -> Result<()> {
    let Options { common: mut options, drawings } = Options::parse();
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
    let exact = plain.report(&mut options, &session, &data.test, "f32", &Inputs::Floats)?;
    let report = |options: &mut common::Options, session: &Session, name: &str, scheme: Scheme, inputs: &Inputs| {
        Network::of(session, Some(scheme))?.report(options, session, &data.test, name, inputs)
    };
    let ranges = plain.calibrate(&mut options, &session, &data.train.first(10 * TEST)?)?;
    let channels = |bits| Scheme::int8().bits(bits).per_channel(0);
    let (eight, four, three) = (channels(8), channels(4), channels(3));
    let (blocks8, blocks4) = (Scheme::int8().per_block(), Scheme::int4().per_block());
    let tensor = report(&mut options, &session, "8 bits, per tensor", Scheme::int8(), &Inputs::Floats)?;
    let channel = report(&mut options, &session, "8 bits, per channel", eight, &Inputs::Floats)?;
    let dynamic = report(&mut options, &session, "8 bits, dynamic inputs", eight, &Inputs::Dynamic)?;
    let fixed = report(&mut options, &session, "8 bits, static inputs", eight, &Inputs::Static(ranges))?;
    let fine = report(&mut options, &session, "8 bits, in blocks", blocks8, &Inputs::Floats)?;
    let coarse = report(&mut options, &session, "4 bits, per channel", four, &Inputs::Floats)?;
    let packed = report(&mut options, &session, "4 bits, in blocks", blocks4, &Inputs::Floats)?;
    let rough = report(&mut options, &session, "3 bits, per channel", three, &Inputs::Floats)?;

    // Both from the same weights.
    let names: Vec<String> =
        LAYERS.iter().flat_map(|layer| [format!("{layer}.weight"), format!("{layer}.bias")]).collect();
    let trained: Vec<Tensor> = names.iter().map(|name| session.get(name)).collect::<Result<_>>()?;
    let mut aware = Vec::new();
    for (name, scheme) in [("4 bits in blocks, trained", blocks4), ("3 bits, trained", three)] {
        names.iter().zip(&trained).try_for_each(|(name, tensor)| session.set(name, tensor))?;
        train(&mut options, &mut session, &data.train, 1, 5e-4, Some(scheme))?;
        aware.push(report(&mut options, &session, name, scheme, &Inputs::Floats)?);
    }

    let curve = |points: &[Found]| points.iter().map(|found| (found.kib, 100.0 * found.accuracy)).collect::<Vec<_>>();
    common::plot::Plot {
        title: "Accuracy of integer weights",
        x: "KiB",
        y: "percent of test digits",
        log: false,
        curves: vec![
            ("per channel", curve(&[rough, coarse, channel])),
            ("in blocks", curve(&[packed, fine])),
            ("trained for that", curve(&[aware[1], aware[0]])),
            ("f32, 221 KiB", curve(&[Found { kib: rough.kib, ..exact }, Found { kib: fine.kib, ..exact }])),
        ],
    }
    .save(&drawings.plots, "quantize")?;

    options.steps.summary();
    let exact = exact.accuracy;
    let same = |found: &Found| (found.accuracy - exact).abs() <= 0.01;
    assert!([tensor, channel, dynamic, fixed, fine].iter().all(same), "8 bits must suffice");
    assert!([coarse, packed].iter().all(|found| found.accuracy > exact - 0.05), "4 bits lose little");
    let [four, three] = [aware[0].accuracy, aware[1].accuracy];
    assert!(four > packed.accuracy - 0.01 && four > exact - 0.02, "training must make up for rounding to 4 bits");
    assert!(three > rough.accuracy - 0.002 && three > exact - 0.03, "training must make up for rounding to 3 bits");
    Ok(())
}

/// What was measured of a network.
#[derive(Clone, Copy)]
struct Found {
    accuracy: f64,
    /// The size of the weights.
    kib: f64,
}

/// The scheme of a weight of so many axes: blocks are those of dense layers.
fn scheme_of(scheme: Scheme, rank: usize) -> Scheme {
    if scheme.granularity == Granularity::Block && rank != 2 { scheme.per_channel(0) } else { scheme }
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

/// The weight as its integers represent it: a step per output or block, from the largest weight.
fn rounded(weight: &Value, scheme: Scheme) -> Value {
    let scheme = scheme_of(scheme, weight.shape().rank());
    let (parts, axes): (Value, Vec<isize>) = match scheme.granularity {
        // The rows of the dense layers are whole blocks.
        Granularity::Block => (weight.reshape(&[weight.dim(0) as isize, -1, 32]), vec![2]),
        _ => (weight.clone(), (1..weight.shape().rank() as isize).collect()),
    };
    let scale = parts.abs().max(&axes, true).stop_gradient() * (1.0 / scheme.limits().1);
    let sizes: Vec<isize> = weight.shape().iter().map(|&size| size as isize).collect();
    parts.fake_quantize(scheme, &scale, &scale.zeros_like()).reshape(&sizes)
}

/// A layer's weight, in f32 or quantised.
enum Weight {
    Float(Tensor),
    Integers(Quantized),
}

/// How the inputs of layers are represented.
enum Inputs {
    Floats,
    /// As integers in dense layers, each row with a step of its own.
    Dynamic,
    /// As integers with a range per layer.
    Static(Vec<ActivationRange>),
}

/// The trained network.
struct Network {
    weights: Vec<Weight>,
    biases: Vec<Tensor>,
}

impl Network {
    fn of(session: &Session, scheme: Option<Scheme>) -> Result<Network> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for layer in LAYERS {
            let weight = session.get(&format!("{layer}.weight"))?;
            weights.push(match scheme {
                Some(scheme) => {
                    let scheme = scheme_of(scheme, weight.shape().rank());
                    Weight::Integers(scheme.quantize(&weight, Calibration::MinMax)?)
                }
                None => Weight::Float(weight),
            });
            biases.push(session.get(&format!("{layer}.bias"))?);
        }
        Ok(Network { weights, biases })
    }

    /// Bytes of the weights with the steps, as if all bits were packed.
    fn bytes(&self) -> usize {
        let of = |weight: &Weight| match weight {
            Weight::Float(tensor) => 4 * tensor.numel(),
            Weight::Integers(q) if q.scheme.granularity == Granularity::Block => q.bytes(),
            Weight::Integers(q) => (q.values.numel() * q.scheme.bits as usize).div_ceil(8) + 4 * q.scale.numel(),
        };
        self.weights.iter().map(of).sum()
    }

    /// The logits, and the inputs of the layers.
    fn logits(&self, graph: &Graph, x: &Value, inputs: &Inputs) -> (Value, Vec<Value>) {
        let (mut x, mut seen) = (x.clone(), Vec::new());
        for (number, layer) in LAYERS.iter().enumerate() {
            seen.push(x.clone());
            let (weight, bias) = (&self.weights[number], graph.constant(self.biases[number].clone()));
            let convolution = number < 2;
            let options = ops::conv2d::Conv2d::default();
            let y = match (weight, inputs) {
                (Weight::Float(w), _) if convolution => x.conv2d(&graph.variable(layer, w.clone()), None, options),
                (Weight::Float(w), _) => x.matmul(&graph.variable(layer, w.clone()).t()),
                (Weight::Integers(q), Inputs::Static(ranges)) => {
                    let range = ranges[number].declare(graph, &format!("{layer}.input"));
                    let q = q.declare(graph, layer);
                    if convolution { x.conv2d_static(&range, &q, options) } else { x.matmul_static(&range, &q) }
                }
                (Weight::Integers(q), _) if convolution => x.conv2d_quantized(&q.declare(graph, layer), options),
                (Weight::Integers(q), Inputs::Dynamic) => x.matmul_dynamic(&q.declare(graph, layer)),
                (Weight::Integers(q), Inputs::Floats) => x.matmul_quantized(&q.declare(graph, layer)),
            };
            x = match number {
                0 => (y + bias.reshape(&[-1, 1, 1])).relu().max_pool2d(2),
                1 => (y + bias.reshape(&[-1, 1, 1])).relu().max_pool2d(2).flatten(1),
                2 => (y + bias).relu(),
                _ => y + bias,
            };
        }
        (x, seen)
    }

    /// The ranges of the layers' inputs, from examples.
    fn calibrate(
        &self,
        options: &mut common::Options,
        trained: &Session,
        digits: &Digits,
    ) -> Result<Vec<ActivationRange>> {
        let mut session = Session::new(trained.device().clone());
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [TEST, 1, 28, 28]);
        let (_, inputs) = self.logits(&graph, &x, &Inputs::Floats);
        let program = session.compile(&graph, &inputs.iter().collect::<Vec<_>>())?;
        let mut observers = vec![Observer::new(); LAYERS.len()];
        for rows in Batches::new(digits.len(), TEST)?.epoch(0) {
            let seen = options.steps.run(&mut session, &program, &[("x", &digits.images.rows(&rows)?)])?;
            observers.iter_mut().zip(&seen).try_for_each(|(observer, x)| observer.observe(x))?;
        }
        observers.iter().map(|observer| observer.range(Scheme::int8().affine(), Calibration::Mse)).collect()
    }

    /// Prints accuracy, size, and the median time of a batch.
    fn report(
        &self,
        options: &mut common::Options,
        trained: &Session,
        digits: &Digits,
        name: &str,
        inputs: &Inputs,
    ) -> Result<Found> {
        let mut session = Session::new(trained.device().clone());
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [TEST, 1, 28, 28]);
        let digit = self.logits(&graph, &x, inputs).0.argmax(1, false);
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
        // Only blocks are stored as packed bits, all others as bytes.
        let (percent, kib, median) = (100.0 * accuracy, self.bytes() as f64 / 1024.0, times[times.len() / 2]);
        println!("{name:<30} {percent:6.1} % {kib:5.1} KiB {median:4.1} ms");
        Ok(Found { accuracy, kib })
    }
}
