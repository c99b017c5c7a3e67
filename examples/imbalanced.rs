//! Imbalanced data with gaps: few malignant tumours among many benign ones, and measurements that are missing.
//!
//! ```text
//! cargo run --release --example imbalanced
//! ```
//!
//! Logistic regression, `p = sigmoid(x w + b)`, minimises `sum of c_i l_i / sum of c_i + A |w|^2`, where `l_i` is the
//! cross-entropy of row i and `c_i` its weight. What can be done if one tumour in ten is malignant:
//!
//! - **class weights**: `c_i = W` for malignant tumours (King and Zeng 2001). For a whole number W this is the same as
//!   `W` copies of each, which the example checks;
//! - **sampling**: malignant tumours are drawn repeatedly until there are as many as benign ones, or benign ones are
//!   left out (Chawla, Bowyer, Hall and Kegelmeyer 2002 compare both);
//! - **threshold**: the model stays as it is, but `p > 1 / (1 + W)` counts as malignant. This is the best decision if a
//!   malignant tumour that is missed costs W times as much as a false alarm (Elkan 2001).
//!
//! For missing measurements: leave out their rows, or fill in the mean or median of the column (*imputation*).
//!
//! Accuracy says little here, since "always benign" is right nine times in ten. *Precision* is the share of alarms that
//! are right, *recall* the share of malignant tumours that are found; the threshold trades one for the other. The area
//! under their curve is the share of malignant tumours if the score is random, and 1 if it is perfect.
//!
//! Each tumour is judged by a model that was fitted to the other parts of the data (cross-validation in five parts).

mod common;

use common::WithDrawings;
use common::plot::Plot;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::Result;
use wgrad::data::{
    Batches, Imputer, Scaler, Table, average_precision, over_sample, precision_recall_curve, under_sample,
};
use wgrad::prelude::*;

/// Malignant tumours that are kept, of 212; there are 357 benign ones.
const MALIGNANT: usize = 40;
/// The weight of a malignant tumour: approximately the ratio of the classes.
const WEIGHT: usize = 9;
/// The share of measurements that are removed.
const MISSING: f64 = 0.05;
const PARTS: usize = 5;
/// The strength `A` of the penalty.
const PENALTY: f64 = 0.01;

/// What is done about gaps.
#[derive(Clone, Copy)]
enum Gaps {
    LeaveOut,
    Mean,
    Median,
}

/// What is done about the rare class.
#[derive(Clone, Copy)]
enum Balance {
    Nothing,
    Weights,
    OverSample,
    UnderSample,
}

/// The measurements and whether a tumour is malignant (1) or not (0), with few malignant ones.
fn tumours(seed: u64) -> Result<(Tensor, Tensor)> {
    let table = Table::load(common::data("breast_cancer.csv"))?;
    let (x, benign) = (table.floats(&table.names_without(&["target"]))?, table.integers("target")?.to_f64());
    let order = Batches::new(benign.len(), benign.len())?.shuffled(seed).epoch(0).next().unwrap_or_default();
    let (benign_rows, mut rows): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|&row| benign[row] == 1.0);
    rows.truncate(MALIGNANT);
    let labels: Vec<i32> = rows.iter().map(|_| 1).chain(benign_rows.iter().map(|_| 0)).collect();
    rows.extend(benign_rows);
    Ok((x.rows(&rows)?, Tensor::new([labels.len()], labels)?))
}

/// The same with gaps (NaN) at random places.
fn with_gaps(x: &Tensor, seed: u64) -> Result<Tensor> {
    let mut rng = StdRng::seed_from_u64(seed);
    let gappy = x.to_f32().into_iter().map(|x| if rng.random_bool(MISSING) { f32::NAN } else { x });
    Tensor::new(x.shape().clone(), gappy.collect::<Vec<_>>())
}

/// Weights and bias of the logistic regression, by gradient descent with momentum over all rows.
fn fit(options: &mut common::Options, device: &Device, x: &Tensor, labels: &Tensor, weight: usize) -> Result<Vec<f64>> {
    let (&[rows, features], malignant) = (&x.shape()[..], labels.to_f64().iter().sum::<f64>()) else { unreachable!() };
    let graph = Graph::new();
    let y = graph.input("y", DType::F32, [rows, 1]);
    let w = graph.parameter("w", Tensor::new([features, 1], vec![0f32; features])?);
    let b = graph.parameter("b", Tensor::new([1], [0f32])?);
    let logits = graph.input("x", DType::F32, [rows, features]).matmul(&w) + b;
    let losses = logits.binary_cross_entropy_with_pos_weight(&y, &y.full_like(weight as f64), Reduction::Sum);
    let sum = rows as f64 + (weight as f64 - 1.0) * malignant;
    Sgd::new().lr(0.2).momentum(0.9).minimize(&graph, &(losses / sum + graph.l2_penalty(PENALTY, |name| name == "w")));
    let mut session = Session::new(device.clone());
    let step = session.compile(&graph, &[])?;
    let y = Tensor::new([rows, 1], labels.to_f32())?;
    for _ in 0..if options.quick { 50 } else { 400 } {
        options.steps.run(&mut session, &step, &[("x", x), ("y", &y)])?;
    }
    Ok([session.get("w")?.to_f64(), session.get("b")?.to_f64()].concat())
}

/// The probability that each tumour is malignant, from a model that was fitted to the other parts of the data.
fn judge(
    options: &mut common::Options,
    device: &Device,
    (x, labels): (&Tensor, &Tensor),
    gaps: Gaps,
    balance: Balance,
) -> Result<Tensor> {
    let rows = labels.numel();
    let mut probabilities = vec![0.0; rows];
    for test in Batches::new(rows, rows.div_ceil(PARTS))?.shuffled(options.seed).epoch(0) {
        let features = x.shape()[1];
        let complete = |row: usize| x.rows(&[row]).is_ok_and(|x| x.to_f64().iter().all(|x| !x.is_nan()));
        let kept = |row: &usize| !test.contains(row) && (!matches!(gaps, Gaps::LeaveOut) || complete(*row));
        let train: Vec<usize> = (0..rows).filter(kept).collect();
        let (x_train, y_train) = (x.rows(&train)?, labels.rows(&train)?);
        let imputer = match gaps {
            Gaps::Median => Imputer::median(&x_train)?,
            Gaps::Mean | Gaps::LeaveOut => Imputer::mean(&x_train)?,
        };
        let x_train = imputer.apply(&x_train)?;
        let scaler = Scaler::standard(&x_train)?;
        let sample = match balance {
            Balance::Nothing | Balance::Weights => (0..train.len()).collect(),
            Balance::OverSample => over_sample(&y_train, options.seed)?,
            Balance::UnderSample => under_sample(&y_train, options.seed)?,
        };
        let weight = if matches!(balance, Balance::Weights) { WEIGHT } else { 1 };
        let (x_train, y_train) = (scaler.apply(&x_train)?.rows(&sample)?, y_train.rows(&sample)?);
        let w = fit(options, device, &x_train, &y_train, weight)?;
        let x_test = scaler.apply(&imputer.apply(&x.rows(&test)?)?)?.to_f64();
        for (row, x) in test.iter().zip(x_test.chunks(features)) {
            let logit = x.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() + w[features];
            probabilities[*row] = 1.0 / (1.0 + (-logit).exp());
        }
    }
    Tensor::new([rows], probabilities)
}

/// Recall, precision, and cost (WEIGHT for each malignant tumour that is missed, 1 for each false alarm) at a
/// threshold.
fn at(threshold: f64, probabilities: &Tensor, labels: &Tensor) -> (f64, f64, f64) {
    let pairs = probabilities.to_f64().into_iter().zip(labels.to_f64());
    let (mut found, mut missed, mut alarms) = (0.0, 0.0, 0.0);
    for (p, malignant) in pairs {
        match (p > threshold, malignant == 1.0) {
            (true, true) => found += 1.0,
            (false, true) => missed += 1.0,
            (true, false) => alarms += 1.0,
            (false, false) => {}
        }
    }
    (found / (found + missed), found / (found + alarms), WEIGHT as f64 * missed + alarms)
}

/// The largest difference between the coefficients with weights, and with copies of the malignant tumours instead.
fn weights_and_copies(options: &mut common::Options, device: &Device, x: &Tensor, labels: &Tensor) -> Result<f64> {
    let x = Scaler::standard(x)?.apply(x)?;
    let malignant = labels.to_f64();
    let copies = |row: usize| if malignant[row] == 1.0 { WEIGHT } else { 1 };
    let rows: Vec<usize> = (0..malignant.len()).flat_map(|row| vec![row; copies(row)]).collect();
    let weighted = fit(options, device, &x, labels, WEIGHT)?;
    let copied = fit(options, device, &x.rows(&rows)?, &labels.rows(&rows)?, 1)?;
    Ok(weighted.iter().zip(copied).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

fn main() -> Result<()> {
    let WithDrawings { common: mut options, drawings } =
        common::parse("Finds rare malignant tumours in data with gaps: weights, sampling, thresholds, imputation");
    let device = options.session()?.device().clone();
    let (x, labels) = tumours(options.seed)?;
    let gappy = with_gaps(&x, options.seed)?;
    let rows = labels.numel();
    let (share, complete) = (MALIGNANT as f64 / rows as f64, (1.0 - MISSING).powi(x.shape()[1] as i32));
    let whole = gappy.to_f64().chunks(x.shape()[1]).filter(|row| row.iter().all(|x| !x.is_nan())).count();
    println!("{rows} tumours, {MALIGNANT} malignant; {whole} without gaps, {:.0} expected", complete * rows as f64);

    let apart = weights_and_copies(&mut options, &device, &x, &labels)?;
    println!("coefficients with weights and with copies differ by {apart:.1e}");
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut random = || Tensor::new([rows], (0..rows).map(|_| rng.random::<f64>()).collect::<Vec<_>>());
    let areas = (0..200).map(|_| average_precision(&random()?, &labels)).collect::<Result<Vec<_>>>()?;
    let guessed = areas.iter().sum::<f64>() / areas.len() as f64;
    println!("random scores: area {guessed:.3}, malignant tumours {share:.3}");

    println!("{:<34}   area  threshold  recall  precision   cost", "");
    let mut curves = Vec::new();
    let mut found = Vec::new();
    for (name, x, gaps, balance, threshold) in [
        ("all measurements", &x, Gaps::Mean, Balance::Nothing, 0.5),
        ("gaps: rows left out", &gappy, Gaps::LeaveOut, Balance::Nothing, 0.5),
        ("gaps: mean", &gappy, Gaps::Mean, Balance::Nothing, 0.5),
        ("gaps: median", &gappy, Gaps::Median, Balance::Nothing, 0.5),
        ("mean, lower threshold", &gappy, Gaps::Mean, Balance::Nothing, 1.0 / (1.0 + WEIGHT as f64)),
        ("mean, class weights", &gappy, Gaps::Mean, Balance::Weights, 0.5),
        ("mean, malignant repeated", &gappy, Gaps::Mean, Balance::OverSample, 0.5),
        ("mean, benign left out", &gappy, Gaps::Mean, Balance::UnderSample, 0.5),
    ] {
        let p = judge(&mut options, &device, (x, &labels), gaps, balance)?;
        let (area, (recall, precision, cost)) = (average_precision(&p, &labels)?, at(threshold, &p, &labels));
        println!("{name:<34}{area:7.3}{threshold:11.1}{recall:8.3}{precision:11.3}{cost:7.0}");
        curves.push((name, precision_recall_curve(&p, &labels)?));
        found.push((area, recall, cost));
    }
    curves.push(("random", vec![(0.0, share), (1.0, share)]));
    let title = "breast_cancer.csv, one in ten malignant";
    let curves = [0, 1, 2, 5, 8].map(|curve| curves[curve].clone()).to_vec();
    Plot { title, x: "recall", y: "precision", log: false, curves }.save(&drawings.plots, "imbalanced")?;

    options.steps.summary();
    assert!(apart < 1e-4, "a weight must have the effect of copies");
    assert!((guessed - share).abs() < 0.03, "random scores must have the area of the malignant tumours' share");
    assert!(found.iter().all(|(area, ..)| *area > 5.0 * share), "malignant tumours must be recognised");
    let [(_, plain, plain_cost), lower, weighted] = [found[2], found[4], found[5]];
    assert!(lower.1 > plain && weighted.1 > plain, "thresholds and weights must find more malignant tumours");
    assert!(lower.2.max(weighted.2) < plain_cost, "if misses are expensive, both must be worth it");
    Ok(())
}
