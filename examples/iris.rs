//! Classifies three species of iris by four measurements, with three ways to reduce overfitting.
//!
//! ```text
//! cargo run --release --example iris
//! ```
//!
//! The network is `h = tanh(x W1' + b1)`, `p = softmax(h W2' + b2)`; the loss is the cross-entropy `-mean(ln p[kind])`.
//! It has far more weights than there are training flowers, so it eventually fits the noise: the loss on held-out
//! flowers, the *validation* loss, falls and then rises. Early stopping keeps the weights with the minimum validation
//! loss. An L2 penalty `c sum w^2` keeps the weights small, and the predictions less certain. Dropout zeroes half of
//! `h` at random in each step, so that no unit can rely on another. The test flowers are used for neither training nor
//! early stopping.

mod common;

use clap::Parser;
use common::plot::Plot;
use wgrad::data::{ConfusionMatrix, Scaler, Split, Table};
use wgrad::nn::Scope;
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Device, Graph, Program, Reduction, Result, Session, Tensor, Value};

#[derive(Parser)]
#[command(about = "Classifies three species of iris, and compares early stopping, L2 penalty and dropout.")]
struct Options {
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// Measurements `[rows, 4]` and species `[rows]`.
struct Flowers {
    x: Tensor,
    kinds: Tensor,
}

/// The regularisation of a run.
#[derive(Clone, Copy, Default)]
struct Restraint {
    /// Strength of the L2 penalty on the weights.
    l2: f64,
    /// Share of hidden units that are zeroed.
    dropout: f64,
    /// Steps without a smaller validation loss after which to stop and restore the weights with the minimum.
    patience: Option<usize>,
}

fn main() -> Result<()> {
    let Options { mut common, drawings } = Options::parse();
    let table = Table::load(common::data("iris.csv"))?;
    let (x, kinds) = (table.floats(&table.names_without(&["target"]))?, table.integers("target")?);
    let first = Split::stratified(&kinds, 0.4, common.seed)?;
    let second = Split::stratified(&kinds.rows(&first.train)?, 0.5, common.seed)?;
    let of_first = |rows: &[usize]| rows.iter().map(|&row| first.train[row]).collect::<Vec<_>>();
    let scaler = Scaler::standard(&x.rows(&of_first(&second.train))?)?;
    let part = |rows: &[usize]| -> Result<Flowers> {
        Ok(Flowers { x: scaler.apply(&x.rows(rows)?)?, kinds: kinds.rows(rows)? })
    };
    let (train, validation, test) =
        (part(&of_first(&second.train))?, part(&of_first(&second.test))?, part(&first.test)?);
    let count = |flowers: &Flowers| flowers.kinds.numel();
    println!("data: {} training, {} validation and {} test flowers", count(&train), count(&validation), count(&test));
    let device = common.session()?.device().clone();

    let runs = [
        ("unregularised", Restraint::default()),
        ("early stopping", Restraint { patience: Some(100), ..Restraint::default() }),
        ("L2 penalty", Restraint { l2: 0.003, ..Restraint::default() }),
        ("dropout", Restraint { dropout: 0.5, ..Restraint::default() }),
    ];
    println!("{:>15} {:>6} {:>11} {:>11} {:>9}", "", "steps", "validation", "minimum", "test");
    let (mut curves, mut last, mut matrices) = (Vec::new(), Vec::new(), Vec::new());
    for (name, restraint) in runs {
        let (losses, matrix) = train_and_judge(&mut common, &device, restraint, &train, &validation, &test)?;
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let end = if restraint.patience.is_some() { least } else { losses[losses.len() - 1] };
        println!("{name:>15} {:>6} {end:>11.4} {least:>11.4} {:>8.1}%", losses.len(), 100.0 * matrix.accuracy());
        curves.push((name, (0..).map(f64::from).zip(losses).step_by(5).collect()));
        last.push(end);
        matrices.push(matrix);
    }
    println!("with early stopping; 0 setosa, 1 versicolor, 2 virginica:\n{}", matrices[1]);
    let title = "iris.csv: loss on held-out flowers";
    Plot { title, x: "steps", y: "validation loss", log: true, curves }.save(&drawings.plots, "iris")?;

    common.steps.summary();
    assert!(matrices[1].accuracy() >= 0.9, "at least 90% of the test flowers must be classified correctly");
    // Dropout helps little in such a small network. With other seeds, the data may be too easy to overfit.
    let other = common.quick || common.seed != 0;
    assert!(other || last[1].max(last[2]) < 0.5 * last[0], "early stopping and L2 must help");
    Ok(())
}

/// The logits of the network.
fn model(nn: &Scope, x: &Value, dropout: f64) -> Value {
    let h = nn.linear("fc1", x, 32).tanh();
    nn.linear("fc2", &nn.dropout(&h, dropout), 3)
}

/// Trains a network; returns the validation loss before each step and the confusion matrix of the test flowers.
fn train_and_judge(
    options: &mut common::Options,
    device: &Device,
    restraint: Restraint,
    train: &Flowers,
    validation: &Flowers,
    test: &Flowers,
) -> Result<(Vec<f64>, ConfusionMatrix)> {
    let mut session = Session::new(device.clone());
    let step = training_step(&mut session, options.seed, restraint, train.kinds.numel())?;
    let graph = Graph::new();
    let logits = model(&Scope::eval(&graph, options.seed), &inputs(&graph, validation), 0.0);
    let kinds = graph.input("kinds", DType::I32, [validation.kinds.numel()]);
    let validate = session.compile(&graph, &[&logits.cross_entropy(&kinds, Reduction::Mean)])?;
    let graph = Graph::new();
    let logits = model(&Scope::eval(&graph, options.seed), &inputs(&graph, test), 0.0);
    let judge = session.compile(&graph, &[&logits.argmax(1, false)])?;

    let names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];
    let weights = |session: &Session| names.iter().map(|name| session.get(name)).collect::<Result<Vec<_>>>();
    let (mut losses, mut best, mut since) = (Vec::new(), (f64::INFINITY, weights(&session)?), 0);
    for _ in 0..if options.quick { 300 } else { 1500 } {
        let feeds = [("x", &validation.x), ("kinds", &validation.kinds)];
        let loss = options.steps.run(&mut session, &validate, &feeds)?[0].item()?;
        losses.push(loss);
        if let Some(patience) = restraint.patience {
            since += 1;
            if loss < best.0 {
                (best, since) = ((loss, weights(&session)?), 0);
            } else if since == patience {
                break;
            }
        }
        options.steps.run(&mut session, &step, &[("x", &train.x), ("kinds", &train.kinds)])?;
    }
    if restraint.patience.is_some() {
        names.iter().zip(&best.1).try_for_each(|(name, weight)| session.set(name, weight))?;
    }
    let predicted = options.steps.run(&mut session, &judge, &[("x", &test.x)])?.remove(0);
    Ok((losses, ConfusionMatrix::new(&predicted, &test.kinds, 3)?))
}

fn inputs(graph: &Graph, flowers: &Flowers) -> Value {
    graph.input("x", DType::F32, [flowers.kinds.numel(), 4])
}

/// A step of Adam on all rows.
fn training_step(session: &mut Session, seed: u64, restraint: Restraint, rows: usize) -> Result<Program> {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [rows, 4]);
    let kinds = graph.input("kinds", DType::I32, [rows]);
    let logits = model(&Scope::train(&graph, seed), &x, restraint.dropout);
    let mut loss = logits.cross_entropy(&kinds, Reduction::Mean);
    if restraint.l2 > 0.0 {
        loss = loss + graph.l2_penalty(restraint.l2, |name| name.ends_with(".weight"));
    }
    Adam::new().lr(0.01).minimize(&graph, &loss);
    session.compile(&graph, &[&loss])
}
