//! A regressor for a table in a CSV file, from the file to a prediction.
//!
//! ```text
//! cargo run --release --example regressor
//! ```
//!
//! Trains with validation, checkpoints, early stopping and a log in `runs/regressor`. Interrupt it with Ctrl-C and
//! start it again with `--resume`: it goes on as if it had never stopped.

mod common;

use clap::Parser;
use wgrad::data::{Scaler, Split, Table};
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};

/// Predicts a column of a CSV file from the others
#[derive(Parser)]
struct Options {
    /// Continue a run that was interrupted
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    common: common::Options,
}

fn network(nn: &Scope, x: &Value) -> Value {
    let x = nn.linear("fc1", x, 32).relu();
    nn.linear("fc2", &nn.dropout(&x, 0.1), 1)
}

fn main() -> wgrad::Result<()> {
    let Options { resume, common: options } = Options::parse();
    let table = Table::load(common::data("diabetes.csv"))?;
    let (x, y) = (table.floats(&table.names_without(&["target"]))?, table.floats(&["target"])?);
    let split = Split::random(table.len(), 0.2, options.seed)?;
    let (scale_x, scale_y) = (Scaler::standard(&x.rows(&split.train)?)?, Scaler::standard(&y.rows(&split.train)?)?);
    let rows = |rows: &[usize]| wgrad::Result::Ok((scale_x.apply(&x.rows(rows)?)?, scale_y.apply(&y.rows(rows)?)?));
    let (train, test) = (rows(&split.train)?, rows(&split.test)?);

    let mut model = Model::new([train.0.shape()[1]], network).seed(options.seed);
    let mut session = options.session()?;
    let trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean))
        .optimizer(AdamW::new().lr(3e-3))
        .epochs(60)
        .metrics([Metric::Mae, Metric::R2])
        .early_stopping(15)
        .restore_best()
        .folder("runs/regressor")
        .resume(resume)
        .seed(options.seed);
    let mut trainer = options.steps.inspect(trainer, &session, &train)?;
    let history = trainer.fit(&mut session, &train, Some(&test))?;

    let best = history.best_epoch().and_then(|epoch| epoch.validation.as_ref()).expect("at least one epoch");
    println!("best: {best}");
    let predicted = scale_y.invert(&model.predict(&mut session, &test.0.slice(0, 0..3)?)?)?;
    println!("predicted {:?}, true {:?}", predicted.to_f32(), scale_y.invert(&test.1.slice(0, 0..3)?)?.to_f32());
    assert!(best.get("r2").is_some_and(|r2| r2 > 0.3));
    model.save(&session, "regressor.safetensors")
}
