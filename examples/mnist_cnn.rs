//! A convolutional network learns handwritten digits.
//!
//! ```text
//! cargo run --release --example mnist_cnn
//! cargo run --release --example mnist_cnn -- --weights mnist_cnn.safetensors --predict digit.png
//! ```
//!
//! The network is [`wgrad::models::mnist_cnn`], the loss is cross-entropy, the optimiser is Adam. Before training, one
//! step is compared with the CPU reference, kernel call by kernel call; with `--shadow`, every step is.
//!
//! Without a GPU, or with `--device cpu`, the CPU reference trains it, in a minute and a half on two cores.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use wgrad::data::{Augment, Batches, Digits, Mnist};
use wgrad::nn::Scope;
use wgrad::{DType, Error, Graph, Program, Result, Session, Tensor, models};

#[derive(Parser)]
#[command(about = "Trains a convolutional network on handwritten digits, or classifies an image with it.")]
struct Options {
    /// Folder with the four MNIST files, gzipped or not [default: the 9,000 included digits]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Number of passes over the training digits
    #[arg(long, default_value_t = 4)]
    epochs: u64,
    /// Digits per step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// Initial learning rate; decays linearly to a tenth
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Randomly shift each digit by up to 2 pixels and rotate it by up to 10 degrees
    #[arg(long)]
    augment: bool,
    /// Dropout probability for the inputs of the dense layers
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f64,
    /// Store activations as f16, or as the given type (f16, bf16, f32)
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "f16",
        default_value = "f32")]
    mixed: DType,
    /// File to write the weights to, or to read them from with --predict
    #[arg(long, default_value = "mnist_cnn.safetensors")]
    weights: PathBuf,
    /// Classify this image (PNG, JPEG or PNM) instead of training
    #[arg(long, value_name = "IMAGE")]
    predict: Option<PathBuf>,
    /// Before training, measure kernel variants for at most this time and use the fastest; the results are cached
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "30",
        value_parser = clap::value_parser!(u32).range(..=86_400))]
    tune: Option<u32>,
    #[command(flatten)]
    common: common::Options,
}

fn main() {
    let mut options = Options::parse();
    let result = match options.predict.take() {
        Some(image) => predict(&mut options, &image),
        None => train(&mut options),
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn train(options: &mut Options) -> Result<()> {
    let mut data = Mnist::load(options.data.take().unwrap_or_else(|| common::data("mnist10k")))?;
    if options.common.quick {
        options.epochs = 1;
        data = Mnist { train: data.train.first(2000)?, test: data.test.first(500)? };
    }
    println!("data: {} training digits, {} test digits", data.train.len(), data.test.len());
    let mut session = options.common.session()?;
    if let Some(seconds) = options.tune {
        let graph = Graph::new();
        let nn = Scope::train(&graph, options.common.seed).mixed(options.mixed);
        let loss = models::mnist_cnn_training_in(&graph, &nn, options.batch as usize, options.dropout);
        println!("{}", session.tune(&graph, &[&loss], Duration::from_secs(seconds.into()))?);
    }
    if !session.device().is_cpu() && !options.common.steps.shadow {
        check_one_step(options, &session, &data.train)?;
    }
    let batches = Batches::new(data.train.len(), options.batch as usize)?.shuffled(options.common.seed);
    let augment = options.augment.then(|| Augment::new(options.common.seed).shift(2).rotate(10.0));
    let (seed, dropout, mixed) = (options.common.seed, options.dropout, options.mixed);
    let mut programs = Programs { seed, dropout, mixed, training: HashMap::new(), inference: HashMap::new() };
    let total = options.epochs * batches.count() as u64;
    let mut correct = 0;
    for epoch in 0..options.epochs {
        let bar = progress_bar(batches.count() as u64, &format!("epoch {}/{}", epoch + 1, options.epochs));
        let started = Instant::now();
        let mut loss_sum = 0.0;
        for (number, rows) in batches.epoch(epoch).enumerate() {
            let step = programs.training(&mut session, rows.len())?;
            let done = epoch * batches.count() as u64 + number as u64;
            let lr = Tensor::scalar(options.lr * (1.0 - 0.9 * done as f64 / total as f64));
            let (mut x, labels) = (data.train.images.rows(&rows)?, data.train.labels.rows(&rows)?);
            if let Some(augment) = &augment {
                x = augment.apply(&x, done)?;
            }
            let loss = options.common.steps.run(&mut session, step, &[("x", &x), ("labels", &labels), ("lr", &lr)])?[0]
                .item()?;
            loss_sum += loss * rows.len() as f64;
            let rate = (number * options.batch as usize + rows.len()) as f64 / started.elapsed().as_secs_f64();
            bar.set_message(format!("loss {loss:.4}, {rate:.0} images/s"));
            bar.inc(1);
        }
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        correct = count_correct(&mut session, &mut programs, &mut options.common.steps, &data.test)?;
        println!(
            "epoch {}: loss {:.4}, {:.0} images/s, {seconds:.1} s, test accuracy {:.1}%",
            epoch + 1,
            loss_sum / data.train.len() as f64,
            data.train.len() as f64 / seconds,
            100.0 * correct as f64 / data.test.len() as f64,
        );
    }
    let graph = Graph::new();
    models::mnist_cnn_inference(&graph, 1, options.common.seed);
    session.save_weights(&options.weights, &graph)?;
    println!("weights: {}", options.weights.display());
    options.common.steps.summary();
    let percent = 100.0 * correct as f64 / data.test.len() as f64;
    println!("test accuracy {percent:.1}% ({correct} of {})", data.test.len());
    assert!(options.epochs == 0 || percent > 60.0, "the test accuracy must exceed 60%");
    Ok(())
}

/// Programs by batch size, as the last batch of an epoch may be smaller.
struct Programs {
    seed: u64,
    dropout: f64,
    mixed: DType,
    training: HashMap<usize, Program>,
    inference: HashMap<usize, Program>,
}

impl Programs {
    fn training(&mut self, session: &mut Session, batch: usize) -> Result<&Program> {
        if !self.training.contains_key(&batch) {
            let graph = Graph::new();
            let nn = Scope::train(&graph, self.seed).mixed(self.mixed);
            let loss = models::mnist_cnn_training_in(&graph, &nn, batch, self.dropout);
            self.training.insert(batch, session.compile(&graph, &[&loss])?);
        }
        Ok(&self.training[&batch])
    }

    fn inference(&mut self, session: &mut Session, batch: usize) -> Result<&Program> {
        if !self.inference.contains_key(&batch) {
            let graph = Graph::new();
            let (logits, digit) = models::mnist_cnn_inference(&graph, batch, self.seed);
            self.inference.insert(batch, session.compile(&graph, &[&logits, &digit])?);
        }
        Ok(&self.inference[&batch])
    }
}

/// Runs one training step in a separate session, comparing every kernel call with the reference.
fn check_one_step(options: &Options, training: &Session, digits: &Digits) -> Result<()> {
    let batch = (options.batch as usize).min(digits.len());
    let graph = Graph::new();
    let nn = Scope::train(&graph, options.common.seed).mixed(options.mixed);
    let loss = models::mnist_cnn_training_in(&graph, &nn, batch, options.dropout);
    let device = training.device();
    let mut session = Session::new(device.clone());
    session.set_choices(training.choices().clone());
    let program = session.compile(&graph, &[&loss])?;
    let rows: Vec<usize> = (0..batch).collect();
    let (x, labels) = (digits.images.rows(&rows)?, digits.labels.rows(&rows)?);
    let (_, report) = session.run_checked(&program, &[("x", &x), ("labels", &labels)])?;
    let plan = program.plan();
    println!(
        "plan: {} dispatches a step, {:.1} MiB on the device",
        plan.dispatches(),
        plan.total_bytes() as f64 / f64::from(1 << 20)
    );
    println!(
        "check: {} kernel calls of one step against the reference, {} elements",
        report.calls.len(),
        report.compared()
    );
    if let Some((call, worst)) = report.worst() {
        println!("       worst: {} at {:.2} of its error bound, {worst}", call.label, worst.ratio());
    }
    if report.passed() {
        return Ok(());
    }
    if let Some(divergence) = &report.divergence {
        eprintln!("{divergence}");
    }
    Err(Error::Device(format!("{device} computes wrong results; try --device cpu, and run `wgrad check`")))
}

fn count_correct(
    session: &mut Session,
    programs: &mut Programs,
    steps: &mut common::Steps,
    digits: &Digits,
) -> Result<usize> {
    let mut correct = 0;
    for rows in Batches::new(digits.len(), 100)?.epoch(0) {
        let program = programs.inference(session, rows.len())?;
        let outputs = steps.run(session, program, &[("x", &digits.images.rows(&rows)?)])?;
        let labels = digits.labels.rows(&rows)?.to_f64();
        correct += outputs[1].to_f64().iter().zip(&labels).filter(|(digit, label)| digit == label).count();
    }
    Ok(correct)
}

fn progress_bar(steps: u64, name: &str) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_prefix(name.to_owned());
    let template = "{prefix} {bar:30} {pos}/{len}, {msg}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Loads the weights and classifies an image.
fn predict(options: &mut Options, path: &Path) -> Result<()> {
    let mut session = options.common.session()?;
    let graph = Graph::new();
    let (logits, digit) = models::mnist_cnn_inference(&graph, 1, options.common.seed);
    let probabilities = logits.softmax(1);
    let program = session.compile(&graph, &[&probabilities, &digit])?;
    session.load_weights(&options.weights, &graph)?;
    let outputs = options.common.steps.run(&mut session, &program, &[("x", &picture(path)?)])?;
    for (digit, p) in outputs[0].to_f32().iter().enumerate() {
        println!("{digit}  {:5.1}%  {}", 100.0 * p, "#".repeat((p * 40.0).round() as usize));
    }
    println!("{} shows a {}", path.display(), outputs[1].item()?);
    options.common.steps.summary();
    Ok(())
}

/// An image in the format of MNIST: 28 by 28, light on dark.
fn picture(path: &Path) -> Result<Tensor> {
    let image = image::open(path).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?;
    let grey = image.resize_exact(28, 28, image::imageops::FilterType::Triangle).to_luma8();
    let pixels: Vec<f32> = grey.pixels().map(|p| f32::from(p.0[0]) / 255.0).collect();
    let dark_on_light = pixels.iter().sum::<f32>() > 0.5 * pixels.len() as f32;
    let pixels: Vec<f32> = pixels.into_iter().map(|p| if dark_on_light { 1.0 - p } else { p }).collect();
    Tensor::new([1, 1, 28, 28], pixels)
}
