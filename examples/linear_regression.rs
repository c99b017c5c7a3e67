//! Linear regression on 442 patients: the progress of diabetes over a year, from ten measurements.
//!
//! ```text
//! cargo run --release --example linear_regression
//! ```
//!
//! The model is `p = x w + b`, the loss is the mean squared error `L = mean((p - y)^2)`. Where the gradient of `L` is
//! zero, the normal equations `X^T X w = X^T y` hold; solving them gives the exact answer. Gradient descent,
//! `w <- w - lr dL/dw`, approaches it step by step, and is compared with four variants.

mod common;

use clap::Parser;
use common::plot::Plot;
use wgrad::data::{Batches, Scaler, Split, Table, r2_score};
use wgrad::optim::{Adam, Optimizer, RmsProp, Sgd};
use wgrad::{DType, Device, Graph, Reduction, Result, Session, Tensor, TensorType, Value};

#[derive(Parser)]
#[command(about = "Linear regression on 442 patients: gradient descent and variants against the exact solution.")]
struct Options {
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// Features `[rows, 10]` and targets `[rows, 1]`.
struct Rows {
    x: Tensor,
    y: Tensor,
}

impl Rows {
    fn len(&self) -> usize {
        self.y.numel()
    }
}

fn main() -> Result<()> {
    let Options { mut common, drawings } = Options::parse();

    // The data is split first, then scaled by the statistics of the training split. With features and targets of
    // mean 0, the optimal b is 0.
    let table = Table::load(common::data("diabetes.csv"))?;
    let features = table.names_without(&["target"]);
    let (x, y) = (table.floats(&features)?, table.floats(&["target"])?);
    let split = Split::random(table.len(), 0.2, common.seed)?;
    let scale_x = Scaler::standard(&x.rows(&split.train)?)?;
    let scale_y = Scaler::standard(&y.rows(&split.train)?)?;
    let part = |rows: &[usize]| -> Result<Rows> {
        Ok(Rows { x: scale_x.apply(&x.rows(rows)?)?, y: scale_y.apply(&y.rows(rows)?)? })
    };
    let (train, test) = (part(&split.train)?, part(&split.test)?);
    println!("data: {} training patients, {} test patients", train.len(), test.len());
    let mut session = common.session()?;

    // The exact answer.
    let exact = normal_equations(&train);
    let least = mean_squared_error(&exact, &train);
    println!("normal equations: loss {least:.4}, R2 on the test patients {:.3}", r2(&exact, &test)?);

    // Gradient descent over all rows. Some features are nearly collinear, so the loss is a long, narrow valley with
    // an almost flat floor, which takes thousands of steps.
    let steps = if common.quick { 3000 } else { 6000 };
    let (graph, loss) = training(&Sgd::new().lr(0.2), train.len());
    let step = session.compile(&graph, &[&loss])?;
    for _ in 0..steps {
        common.steps.run(&mut session, &step, &[("x", &train.x), ("y", &train.y)])?;
    }
    let learned = session.get("line.weight")?.to_f64();
    println!("{:>8} {:>10} {:>10}", "feature", "exact", "descent");
    for ((name, w), g) in features.iter().zip(&exact).zip(&learned) {
        println!("{name:>8} {w:>10.5} {g:>10.5}");
    }
    let apart = exact.iter().zip(&learned).map(|(w, g)| (w - g).abs()).fold(0.0, f64::max);
    println!("after {steps} steps they differ by at most {apart:.1e}");
    println!("gradient descent: R2 on the test patients {:.3}", r2(&learned, &test)?);

    // The comparison. With 32 rows per step, an epoch has eleven full steps, each with a different loss.
    let all = train.len();
    let runs: [(&str, Box<dyn Optimizer>, usize); 5] = [
        ("gradient descent", Box::new(Sgd::new().lr(0.2)), all),
        ("SGD, 32 rows/step", Box::new(Sgd::new().lr(0.02)), 32),
        ("momentum 0.9", Box::new(Sgd::new().lr(0.1).momentum(0.9)), all),
        ("RMSprop", Box::new(RmsProp::new().lr(0.003)), all),
        ("Adam", Box::new(Adam::new().lr(0.03)), all),
    ];
    let epochs = if common.quick { 50 } else { 400 };
    let mut curves = Vec::new();
    for (name, optimizer, batch) in &runs {
        let losses = race(&mut common, session.device(), optimizer.as_ref(), &train, *batch, epochs)?;
        let above: Vec<f64> = losses.iter().map(|loss| (loss - least).max(1e-7)).collect(); // the resolution of f32
        println!("{name:>19}: {:.0e} above the minimum loss after {epochs} epochs", above[epochs as usize]);
        curves.push((*name, (0..).map(f64::from).zip(above).collect()));
    }
    let title = "diabetes.csv: training loss above its minimum";
    Plot { title, x: "epochs", y: "loss - minimum", log: true, curves }.save(&drawings.plots, "linear_regression")?;

    common.steps.summary();
    assert!(apart < 1e-3, "gradient descent must find the coefficients to 1e-3");
    Ok(())
}

/// `mean((x w + b - y)^2)`, with `w` and `b` initialised to 0.
fn loss(graph: &Graph, rows: usize) -> Value {
    let x = graph.input("x", DType::F32, [rows, 10]);
    let y = graph.input("y", DType::F32, [rows, 1]);
    let w = graph.parameter("line.weight", Tensor::zeros(&TensorType::new(DType::F32, [10, 1])));
    let b = graph.parameter("line.bias", Tensor::zeros(&TensorType::new(DType::F32, [1])));
    (x.matmul(&w) + b).mse_loss(&y, Reduction::Mean)
}

/// A training step on `rows` rows, which returns the loss before it.
fn training(optimizer: &dyn Optimizer, rows: usize) -> (Graph, Value) {
    let graph = Graph::new();
    let loss = loss(&graph, rows);
    optimizer.minimize(&graph, &loss);
    (graph, loss)
}

/// The loss over all training rows, before the first epoch and after each.
fn race(
    options: &mut common::Options,
    device: &Device,
    optimizer: &dyn Optimizer,
    train: &Rows,
    batch: usize,
    epochs: u64,
) -> Result<Vec<f64>> {
    let mut session = Session::new(device.clone());
    let (graph, step_loss) = training(optimizer, batch);
    let step = session.compile(&graph, &[&step_loss])?;
    let graph = Graph::new();
    let judge = session.compile(&graph, &[&loss(&graph, train.len())])?;
    let batches = Batches::new(train.len(), batch)?.shuffled(options.seed);
    let mut losses = Vec::new();
    for epoch in 0..=epochs {
        let feeds = [("x", &train.x), ("y", &train.y)];
        losses.push(options.steps.run(&mut session, &judge, &feeds)?[0].item()?);
        // The last batch has one row, a different one in each epoch.
        for rows in batches.epoch(epoch).filter(|rows| rows.len() == batch) {
            let (x, y) = (train.x.rows(&rows)?, train.y.rows(&rows)?);
            options.steps.run(&mut session, &step, &[("x", &x), ("y", &y)])?;
        }
    }
    Ok(losses)
}

/// Solves `X^T X w = X^T y` in f64 on the host.
fn normal_equations(rows: &Rows) -> Vec<f64> {
    let (x, y) = (rows.x.to_f64(), rows.y.to_f64());
    let (mut xx, mut xy) = (vec![0.0; 100], vec![0.0; 10]);
    for (row, y) in x.chunks(10).zip(&y) {
        for i in 0..10 {
            xy[i] += row[i] * y;
            for j in 0..10 {
                xx[i * 10 + j] += row[i] * row[j];
            }
        }
    }
    common::solve(&xx, &xy)
}

fn predictions(w: &[f64], rows: &Rows) -> Vec<f64> {
    rows.x.to_f64().chunks(10).map(|row| row.iter().zip(w).map(|(x, w)| x * w).sum()).collect()
}

fn mean_squared_error(w: &[f64], rows: &Rows) -> f64 {
    let squares = predictions(w, rows).into_iter().zip(rows.y.to_f64()).map(|(p, y)| (p - y).powi(2));
    squares.sum::<f64>() / rows.len() as f64
}

/// The fraction of explained variance.
fn r2(w: &[f64], rows: &Rows) -> Result<f64> {
    r2_score(&Tensor::new([rows.len(), 1], predictions(w, rows))?, &rows.y)
}
