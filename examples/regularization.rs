//! Regularisation: five ways to keep a network from learning its drawings by heart.
//!
//! ```text
//! cargo run --release --example regularization
//! ```
//!
//! A network of convolutions has far more parameters than there are drawings of emoji, so it learns noise as well: the
//! loss on other drawings falls and then rises. Each remedy minimises something else:
//!
//! - **L1**: `loss + c sum |w|` (Tibshirani 1996). The gradient of the penalty is c whatever the size of a weight, so
//!   that unimportant weights become 0.
//! - **L2**: `loss + c sum w^2` (Hoerl and Kennard 1970). The gradient is `2 c w`, so each step of gradient descent
//!   multiplies weights by `1 - 2 c lr`. This is *weight decay* of `2 c`, as the example checks.
//! - **dropout**: the loss with units that are set to 0 at random, and the others divided by the probability to stay
//!   (Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014).
//! - **early stopping**: the same training, but the weights of the epoch with the lowest loss on validation drawings,
//!   which are not trained on (Prechelt 1998).
//! - **augmentation**: the loss of drawings that are shifted, rotated and mirrored at random (Simard, Steinkraus and
//!   Platt 2003).
//!
//! The test drawings are used for the last column only.

mod common;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::{Augment, Split, idx};
use wgrad::ops::conv2d::Conv2d;
use wgrad::prelude::*;
use wgrad::train::{Dataset, Inputs, Metric, Step, Trainer};

const CLASSES: usize = 9;
/// Drawings that are learned.
const TRAINING: usize = 500;
/// Weights below this size count as 0.
const SMALL: f64 = 1e-3;

type Drawings = (Tensor, Tensor);

/// What is done against overfitting.
#[derive(Clone, Copy, Default)]
struct Restraint {
    l1: f64,
    l2: f64,
    /// The probability that a unit is set to 0.
    dropout: f64,
    early_stopping: bool,
    augmentation: bool,
}

/// What a training gave.
struct Found {
    name: &'static str,
    /// Validation losses by epoch.
    losses: Vec<(f64, f64)>,
    /// The losses of the final weights.
    training: f64,
    validation: f64,
    /// Share of weights that are nearly 0, and the root of the sum of their squares.
    zeros: f64,
    norm: f64,
    /// Test drawings that are classified correctly, in percent.
    percent: f64,
}

/// Drawings `[n, 3, 32, 32]` from 0 (the white ground) to 1, and their classes.
fn drawings(part: &str) -> Result<Drawings> {
    let (shape, bytes) = idx::read(common::data(&format!("emoji/{part}-images-idx4-ubyte.gz")), 4)?;
    let (_, labels) = idx::read(common::data(&format!("emoji/{part}-labels-idx1-ubyte.gz")), 1)?;
    let pixels: Vec<f32> = bytes.into_iter().map(|byte| 1.0 - f32::from(byte) / 255.0).collect();
    let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
    Ok((Tensor::new(shape, pixels)?, Tensor::new([labels.len()], labels)?))
}

/// The logits of a network that sees drawings at half of their size.
fn network(nn: &Scope, x: &Value, dropout: f64) -> Value {
    let conv = |name, x: &Value, channels| nn.conv2d(name, x, channels, 3, Conv2d::same(3)).relu().max_pool2d(2);
    let x = conv("conv2", &conv("conv1", &x.avg_pool2d(2), 16), 32).flatten(1);
    let x = nn.linear("fc1", &nn.dropout(&x, dropout), 128).relu();
    nn.linear("fc2", &nn.dropout(&x, dropout), CLASSES)
}

fn is_weight(name: &str) -> bool {
    name.ends_with(".weight")
}

/// The loss and logits of a batch; the penalties belong to the training only.
fn step(restraint: Restraint, nn: &Scope, batch: &Inputs) -> Step {
    let logits = network(nn, &batch.get("x"), restraint.dropout);
    let mut loss = logits.cross_entropy(&batch.get("y"), Reduction::Mean);
    if nn.is_training() && restraint.l1 > 0.0 {
        loss = loss + nn.graph().l1_penalty(restraint.l1, is_weight);
    }
    if nn.is_training() && restraint.l2 > 0.0 {
        loss = loss + nn.graph().l2_penalty(restraint.l2, is_weight);
    }
    Step { loss, prediction: Some(logits) }
}

/// Trains a network, and looks at the result.
fn train(
    options: &common::Options,
    device: &Device,
    (name, restraint): (&'static str, Restraint),
    epochs: u64,
    [data, validation, test]: [&Drawings; 3],
) -> Result<Found> {
    let mut trainer = Trainer::of(move |nn, batch| step(restraint, nn, batch))
        .seed(options.seed)
        .lr(3e-3)
        .epochs(epochs)
        .metrics([Metric::Accuracy])
        .quiet();
    if restraint.early_stopping {
        trainer = trainer.early_stopping(3).restore_best();
    }
    let mut session = Session::new(device.clone());
    let mut trainer = options.steps.inspect(trainer, &session, data)?;
    let history = match restraint.augmentation {
        true => {
            let augment = Augment::new(options.seed).shift(2).rotate(10.0).flip();
            trainer.fit(&mut session, &data.clone().augment(augment), Some(validation))?
        }
        false => trainer.fit(&mut session, data, Some(validation))?,
    };
    let mut weights = Vec::new();
    for name in session.names().into_iter().filter(|name| is_weight(name)) {
        weights.extend(session.get(&name)?.to_f64());
    }
    let judged = trainer.evaluate(&mut session, test)?;
    let losses = history.epochs.iter().filter_map(|epoch| Some((epoch.number as f64, epoch.validation.as_ref()?.loss)));
    Ok(Found {
        name,
        losses: losses.collect(),
        training: trainer.evaluate(&mut session, data)?.loss,
        validation: trainer.evaluate(&mut session, validation)?.loss,
        zeros: weights.iter().filter(|w| w.abs() < SMALL).count() as f64 / weights.len() as f64,
        norm: weights.iter().map(|w| w * w).sum::<f64>().sqrt(),
        percent: 100.0 * judged.get("accuracy").unwrap_or(0.0),
    })
}

/// The largest difference between weights after steps of gradient descent with an L2 penalty c, and with a weight decay
/// of 2 c.
fn penalty_and_decay(device: &Device) -> Result<f64> {
    let c = 0.05;
    let descend = |penalty: f64, decay: f64| -> Result<Vec<f64>> {
        let graph = Graph::new();
        let w = graph.parameter("fc.weight", Tensor::new([3], [1.0f32, -2.0, 0.5])?);
        let loss = (&w - 1.0).square().sum_all() + graph.l2_penalty(penalty, is_weight);
        Sgd::new().lr(0.1).weight_decay(decay).minimize(&graph, &loss);
        let mut session = Session::new(device.clone());
        let step = session.compile(&graph, &[])?;
        (0..20).try_for_each(|_| session.run(&step, &[]).map(drop))?;
        Ok(session.get("fc.weight")?.to_f64())
    };
    let pairs = descend(c, 0.0)?.into_iter().zip(descend(0.0, 2.0 * c)?);
    Ok(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings: plots } =
        common::parse("Compares five ways to reduce overfitting, on drawings of emoji");
    let device = options.session()?.device().clone();
    let (all, test) = (drawings("train")?, drawings("test")?);
    let split = Split::stratified(&all.1, 0.2, options.seed)?;
    let part = |rows: &[usize]| -> Result<Drawings> { Ok((all.0.rows(rows)?, all.1.rows(rows)?)) };
    let (data, validation) = (part(&split.train[..TRAINING])?, part(&split.test)?);
    println!("{} training, {} validation and {} test drawings", data.len(), validation.len(), test.len());
    let apart = penalty_and_decay(&device)?;
    println!("an L2 penalty c and a weight decay of 2 c differ by {apart:.1e}");

    let epochs = if options.quick { 2 } else { 30 };
    let none = Restraint::default();
    println!("                  epochs   loss: training  validation   zeros    norm    test");
    let mut found = Vec::new();
    for run in [
        ("nothing", none),
        ("L1", Restraint { l1: 1e-3, ..none }),
        ("L2", Restraint { l2: 5e-3, ..none }),
        ("dropout", Restraint { dropout: 0.5, ..none }),
        ("early stopping", Restraint { early_stopping: true, ..none }),
        ("augmentation", Restraint { augmentation: true, ..none }),
    ] {
        let run = train(&options, &device, run, epochs, [&data, &validation, &test])?;
        let Found { name, training, validation, zeros, norm, percent, .. } = run;
        let epochs = run.losses.len();
        println!("{name:<16}{epochs:8}{training:17.3}{validation:12.3}{zeros:8.2}{norm:8.1}{percent:7.1}%");
        found.push(run);
    }
    let curves = found.iter().map(|run| (run.name, run.losses.clone())).collect();
    let (title, y) = ("Overfitting to 500 drawings", "loss on validation drawings");
    Plot { title, x: "epoch", y, log: false, curves }.save(&plots.plots, "regularization")?;

    let [nothing, l1, l2, ..] = &found[..] else { unreachable!("there are six runs") };
    assert!(apart < 1e-6, "an L2 penalty must be the same as weight decay");
    assert!(l1.zeros > 2.0 * nothing.zeros, "L1 must make weights 0");
    assert!(l1.norm < nothing.norm && l2.norm < nothing.norm, "penalties must make weights smaller");
    if !options.quick {
        let least = nothing.losses.iter().map(|loss| loss.1).fold(f64::INFINITY, f64::min);
        assert!(nothing.validation > 1.3 * least, "the network must learn its drawings by heart");
        let better = |run: &Found| run.validation < nothing.validation && run.training > nothing.training;
        assert!(found[1..].iter().all(better), "each restraint must prevent some of that");
    }
    Ok(())
}
