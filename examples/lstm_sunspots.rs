//! An LSTM predicts next year's sunspots from previous years, compared with two simple baselines.
//!
//! ```text
//! cargo run --release --example lstm_sunspots
//! ```
//!
//! The number of sunspots follows a cycle of about eleven years. From a window of w years `x[t-w], ..., x[t-1]`, the
//! models predict the year `x[t]`, in held-out decades.
//!
//! - **Persistence**: the same as the previous year, `x[t-1]`. A model must beat this to be useful.
//! - **Autoregression** (Yule 1927, on the same data): `a + sum over k of b[k] x[t-k]`, with a and b by least squares,
//!   `(X'X) b = X'y`, where a row of X is 1 and a window.
//! - **LSTM** (Hochreiter and Schmidhuber 1997): in each year, the gates `i, f, o = sigmoid(W x + U h + b)` control
//!   what enters the cell, what it keeps, and what it outputs: `c = f c + i tanh(W x + U h + b)`, `h = o tanh(c)`. The
//!   last h gives the prediction `v h + d`.
//!
//! The network is trained on the first windows with Adam and the mean squared error. The next forty years are the
//! validation set for early stopping: the weights that predict them best are kept.

mod common;

use clap::Parser;
use wgrad::data::{Scaler, Table, windows};
use wgrad::nn::{Recurrent, RecurrentOptions, Scope};
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Graph, Reduction, Result, Tensor, Value};

/// Years in a window: two cycles.
const WINDOW: usize = 22;
/// Hidden units.
const HIDDEN: usize = 24;
/// The first validation year and the first test year.
const VALIDATION: f64 = 1909.0;
const TEST: f64 = 1949.0;

#[derive(Parser)]
#[command(about = "Predicts next year's sunspots with an LSTM, compared with persistence and autoregression.")]
struct Arguments {
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// Maps windows `[batch, years, 1]` to the year after each, `[batch, 1]`.
fn model(nn: &Scope, x: &Value) -> Value {
    let states = Recurrent::lstm(nn, "lstm", 1, HIDDEN, RecurrentOptions::default()).states(x, None);
    nn.linear("out", &states.h.reshape(&[-1, HIDDEN as isize]), 1)
}

fn main() -> Result<()> {
    let Arguments { common: mut options, drawings } = Arguments::parse();
    let table = Table::load(common::data("sunspots.csv"))?;
    let years = table.floats(&["year"])?.to_f64();
    let spots = table.floats(&["sunspots"])?;

    // Scaled to mean 0 and standard deviation 1, by the statistics of the training years.
    let first = |year: f64| years.iter().take_while(|&&y| y < year).count();
    let (validation, test) = (first(VALIDATION), first(TEST));
    let scaler = Scaler::standard(&spots.rows(&(0..validation).collect::<Vec<_>>())?)?;
    let (x, y) = windows(&scaler.apply(&spots)?, WINDOW)?;
    // Window number i ends before year number i + WINDOW.
    let rows = |from: usize, to: usize| (from - WINDOW..to - WINDOW).collect::<Vec<_>>();
    let (train, kept, held_out) = (rows(WINDOW, validation), rows(validation, test), rows(test, years.len()));
    println!(
        "windows of {WINDOW} years: {} for training, {} for validation, {} held out ({TEST} to {})",
        train.len(),
        kept.len(),
        held_out.len(),
        years[years.len() - 1]
    );

    let lstm = learn(&mut options, [&x, &y], &train, &kept)?;
    let autoregression = autoregress(&x.to_f64(), &y.to_f64(), &rows(WINDOW, test));
    let persistence: Vec<f64> = x.to_f64().chunks(WINDOW).map(|window| window[WINDOW - 1]).collect();

    // Converted back to sunspot numbers, on the held-out years.
    let back = |v: &[f64]| v.iter().map(|v| v * scaler.scale()[0] + scaler.shift()[0]).collect::<Vec<f64>>();
    let truth: Vec<f64> = held_out.iter().map(|&row| y.to_f64()[row]).collect();
    let of = |predicted: &[f64]| held_out.iter().map(|&row| predicted[row]).collect::<Vec<f64>>();
    let error = |predicted: &[f64]| scaler.scale()[0] * root_mean_square(&of(predicted), &truth);
    let errors = [error(&persistence), error(&autoregression), error(&lstm)];
    println!("root mean square error on the held-out years, in sunspots:");
    for (name, error) in ["persistence", "autoregression", "LSTM"].iter().zip(errors) {
        println!("{name:>15} {error:6.2}");
    }
    let [persists, autoregresses, learned] = errors;
    let winner = if learned < autoregresses { "the LSTM" } else { "the autoregression" };
    println!("{winner} wins");

    let curve = |v: &[f64]| years[test..].iter().copied().zip(back(v)).collect::<Vec<_>>();
    common::plot::Plot {
        title: "Sunspots, predicted one year ahead",
        x: "year",
        y: "spots",
        log: false,
        curves: vec![
            ("seen", curve(&truth)),
            ("LSTM", curve(&of(&lstm))),
            ("autoregression", curve(&of(&autoregression))),
        ],
    }
    .save(&drawings.plots, "lstm_sunspots")?;
    options.steps.summary();
    assert!(learned < persists, "the LSTM must beat persistence: {learned} against {persists}");
    Ok(())
}

fn root_mean_square(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Trains the network; returns the predictions of its best weights for all windows.
fn learn(options: &mut common::Options, [x, y]: [&Tensor; 2], train: &[usize], kept: &[usize]) -> Result<Vec<f64>> {
    let mut session = options.session()?;
    let training = Graph::new();
    let input = training.input("x", DType::F32, [train.len(), WINDOW, 1]);
    let target = training.input("y", DType::F32, [train.len(), 1]);
    let loss = model(&Scope::train(&training, options.seed), &input).mse_loss(&target, Reduction::Mean);
    Adam::new().lr(0.01).minimize(&training, &loss);
    let step = session.compile(&training, &[&loss])?;

    let all = Graph::new();
    let input = all.input("x", DType::F32, x.shape());
    let predicted = model(&Scope::eval(&all, options.seed), &input);
    let predict = session.compile(&all, &[&predicted])?;

    let (train_x, train_y) = (x.rows(train)?, y.rows(train)?);
    let truth: Vec<f64> = kept.iter().map(|&row| y.to_f64()[row]).collect();
    let mut best = (f64::INFINITY, Vec::new());
    for number in 1..=if options.quick { 60 } else { 400 } {
        let outputs = options.steps.run(&mut session, &step, &[("x", &train_x), ("y", &train_y)])?;
        if number % 10 != 0 {
            continue;
        }
        let predicted = options.steps.run(&mut session, &predict, &[("x", x)])?[0].to_f64();
        let error = root_mean_square(&kept.iter().map(|&row| predicted[row]).collect::<Vec<_>>(), &truth);
        if number % 50 == 0 {
            println!("step {number:>3}: loss {:.4}, validation error {error:.4}", outputs[0].item()?);
        }
        if error < best.0 {
            best = (error, predicted);
        }
    }
    Ok(best.1)
}

/// Least squares on the training windows; returns the predictions for all windows.
fn autoregress(x: &[f64], y: &[f64], rows: &[usize]) -> Vec<f64> {
    const SIZE: usize = WINDOW + 1;
    let row = |row: usize| std::iter::once(1.0).chain(x[row * WINDOW..][..WINDOW].iter().copied()).collect::<Vec<_>>();
    // The augmented matrix (X'X | X'y).
    let mut system = vec![[0.0; SIZE + 1]; SIZE];
    for &number in rows {
        let x = row(number);
        for (line, a) in system.iter_mut().zip(&x) {
            line.iter_mut().zip(x.iter().chain([&y[number]])).for_each(|(sum, b)| *sum += a * b);
        }
    }
    // Gauss-Jordan elimination; X'X is positive definite, so no pivot is 0.
    for pivot in 0..SIZE {
        let line = system[pivot].map(|v| v / system[pivot][pivot]);
        system[pivot] = line;
        for other in (0..SIZE).filter(|&other| other != pivot) {
            let factor = system[other][pivot];
            system[other].iter_mut().zip(line).for_each(|(v, by)| *v -= factor * by);
        }
    }
    let predict = |number: usize| row(number).iter().zip(&system).map(|(x, line)| x * line[SIZE]).sum();
    (0..y.len()).map(predict).collect()
}
