//! Distillation: a large network teaches a small one.
//!
//! ```text
//! cargo run --release --example distillation
//! ```
//!
//! The teacher's logits `t` say more than a label: which other digits a picture resembles. The student's logits `z`
//! learn both (Hinton, Vinyals and Dean, *Distilling the knowledge in a neural network*, 2015):
//!
//! `loss = (1 - A) CE(label, softmax(z)) + A T^2 CE(softmax(t / T), softmax(z / T))`.
//!
//! A temperature `T > 1` softens the probabilities, so that the small ones count, too. The gradient of the second
//! cross-entropy is `(softmax(z / T) - softmax(t / T)) / T`, and the difference itself falls like `1 / T` if T is
//! large. The factor `T^2` makes up for both, so that A means the same at all temperatures. In the limit of large T,
//! the gradient is `(z - t) / C` for C classes, if the logits of both are shifted to mean 0: the student then learns
//! the logits themselves. The example checks this limit.
//!
//! It also trains
//! - a student with labels for half of the digits, alone and with the teacher's logits for all of them;
//! - a *born-again* network (Furlanello, Lipton, Tschannen, Itti and Anandkumar, 2018): as large as its teacher.

mod common;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::data::{Digits, Mnist};
use wgrad::nn::init;
use wgrad::ops::conv2d::Conv2d;
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{Batch, Inputs, Metric, Model, Step, Trainer};
use wgrad::{Result, gradients};

const CLASSES: usize = 10;
/// Digits from which the students learn.
const FEW: usize = 1000;
const TEMPERATURES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];
/// The temperature in the other comparisons.
const MIDDLE: f64 = 4.0;
/// The share `A` of the teacher in the loss.
const SHARE: f64 = 0.9;

type Network = fn(&Scope, &Value) -> Value;

/// The teacher, with convolutions.
fn large(nn: &Scope, x: &Value) -> Value {
    let conv = |name, x: &Value, channels| nn.conv2d(name, x, channels, 3, Conv2d::default()).relu().max_pool2d(2);
    let x = conv("conv2", &conv("conv1", x, 8), 16);
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 64).relu(), CLASSES)
}

/// The student:
fn small(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 32).relu(), CLASSES)
}

/// The cross-entropy with the teacher's probabilities at a temperature, times its square.
fn distillation(student: &Value, teacher: &Value, temperature: f64) -> Value {
    let soft = (teacher / temperature).softmax(1);
    (student / temperature).cross_entropy(&soft, Reduction::Mean) * temperature.powi(2)
}

/// Digits with pictures `x`, labels `y`, whether a label may be used (1) or not (0), and the teacher's logits.
fn batch(digits: &Digits, labelled: usize, logits: &Tensor) -> Result<Batch> {
    let known: Vec<f32> = (0..digits.len()).map(|row| if row < labelled { 1.0 } else { 0.0 }).collect();
    Ok(Batch::from([
        ("x".into(), digits.images.clone()),
        ("y".into(), digits.labels.clone()),
        ("known".into(), Tensor::new([digits.len()], known)?),
        ("teacher".into(), logits.clone()),
    ]))
}

/// The loss and logits of a batch. There is no teacher without a temperature.
fn step(network: Network, temperature: Option<f64>, nn: &Scope, batch: &Inputs) -> Step {
    let logits = network(nn, &batch.get("x"));
    let losses = logits.cross_entropy_losses(&batch.get("y"));
    let loss = match temperature.filter(|_| nn.is_training()) {
        None => losses.mean_all(),
        Some(temperature) => {
            let labels = (losses * batch.get("known")).mean_all();
            labels * (1.0 - SHARE) + distillation(&logits, &batch.get("teacher"), temperature) * SHARE
        }
    };
    Step { loss, prediction: Some(logits) }
}

/// Trains a network; returns its accuracy on the test digits in percent.
fn train(
    options: &common::Options,
    session: &mut Session,
    (network, temperature): (Network, Option<f64>),
    epochs: u64,
    data: &Batch,
    test: &Digits,
) -> Result<f64> {
    let trainer = Trainer::of(move |nn, batch| step(network, temperature, nn, batch))
        .seed(options.seed)
        .schedule(|steps| Cosine { lr: 4e-3, last: 0.0, steps })
        .epochs(epochs)
        .metrics([Metric::Accuracy])
        .quiet();
    let mut trainer = options.steps.inspect(trainer, session, data)?;
    trainer.fit(session, data, None)?;
    Ok(100.0 * trainer.evaluate(session, test)?.get("accuracy").unwrap_or(0.0))
}

/// How far the gradient of the distillation loss at a high temperature is from `(z - t) / C`, in parts of the largest
/// element, for random logits with mean 0.
fn distance_from_limit(session: &mut Session, temperature: f64) -> Result<f64> {
    let graph = Graph::new();
    let logits = |name: &str| graph.variable(name, init::normal(0.0, 3.0).draw([1, CLASSES], 0, name));
    let centred = |x: &Value| x - x.mean(&[1], true);
    let (z, t) = (logits("student"), logits("teacher"));
    let gradient = gradients(&distillation(&z, &t, temperature), &[&z]).remove(0);
    let limit = (centred(&z) - centred(&t)) / CLASSES as f64;
    let apart = (gradient - &limit).abs().max(&[0, 1], false) / limit.abs().max(&[0, 1], false);
    let program = session.compile(&graph, &[&apart])?;
    session.run(&program, &[])?[0].item()
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } =
        common::parse("Trains a small network on digits, with and without a large one as its teacher");
    let Mnist { train: mut digits, test } = Mnist::load(common::data("mnist10k"))?;
    let (mut large_epochs, mut small_epochs) = (5, 60);
    if options.quick {
        (large_epochs, small_epochs, digits) = (2, 8, digits.first(1500)?);
    }
    let mut session = options.session()?;
    let (warm, hot) = (distance_from_limit(&mut session, 10.0)?, distance_from_limit(&mut session, 1000.0)?);
    println!("the gradient is (z - t) / {CLASSES} except for {warm:.1e} at T = 10, and {hot:.1e} at T = 1000");

    // The teacher learns from all digits, and so does the network that is born again.
    let all = digits.len();
    let unknown = Tensor::new([all, CLASSES], vec![0f32; all * CLASSES])?;
    let data = batch(&digits, all, &unknown)?;
    let teacher = train(&options, &mut session, (large, None), large_epochs, &data, &test)?;
    println!("{:<42}{teacher:6.1}%", format!("teacher: {all} labels"));
    let logits = Model::new([1, 28, 28], large).predict(&mut session, &digits.images)?;
    let mut fresh = Session::new(session.device().clone());
    let data = batch(&digits, all, &logits)?;
    let again = train(&options, &mut fresh, (large, Some(MIDDLE)), large_epochs, &data, &test)?;
    println!("{:<42}{again:6.1}%", format!("born again: {all} labels, T = {MIDDLE}"));

    // The students learn from a few digits.
    let student = |count: usize, labels: usize, temperature: Option<f64>| -> Result<f64> {
        let mut fresh = Session::new(session.device().clone());
        let data = batch(&digits.first(count)?, labels, &logits.slice(0, 0..count)?)?;
        let percent = train(&options, &mut fresh, (small, temperature), small_epochs, &data, &test)?;
        let taught = temperature.map_or("alone".to_owned(), |t| format!("{count} logits, T = {t}"));
        println!("{:<42}{percent:6.1}%", format!("student: {labels} labels, {taught}"));
        Ok(percent)
    };
    let alone = student(FEW, FEW, None)?;
    let taught: Vec<f64> = TEMPERATURES.iter().map(|&t| student(FEW, FEW, Some(t))).collect::<Result<_>>()?;
    let half_alone = student(FEW / 2, FEW / 2, None)?;
    let half_taught = student(FEW, FEW / 2, Some(MIDDLE))?;

    let level = |percent: f64| TEMPERATURES.map(|t| (t, percent)).to_vec();
    let curves = vec![
        ("teacher", level(teacher)),
        ("student with teacher", TEMPERATURES.into_iter().zip(taught.clone()).collect()),
        ("student alone", level(alone)),
        ("teacher, half the labels", level(half_taught)),
        ("alone, half the labels", level(half_alone)),
    ];
    let (title, y) = ("What a student learns from a thousand digits", "percent of test digits");
    Plot { title, x: "temperature", y, log: false, curves }.save(&drawings.plots, "distillation")?;

    assert!(hot < 0.01 && hot < 0.1 * warm, "at high temperatures, the student must learn the logits");
    assert!(options.quick || taught[2] > alone, "a teacher must help");
    assert!(options.quick || half_taught > half_alone + 1.0, "logits must make up for missing labels");
    assert!(options.quick || again > teacher - 1.5, "a network must be able to teach one like itself");
    Ok(())
}
