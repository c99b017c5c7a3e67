//! Importance: which measurements make a network call a tumour malignant?
//!
//! ```text
//! cargo run --release --example importance
//! ```
//!
//! `f(x)` is the logit of "malignant" for the measurements `x_1, ..., x_8` of a tumour.
//!
//! - **coefficients** of a logistic regression, `f(x) = w x + b`, for columns with mean 0 and deviation 1.
//! - **permutation importance**: by how much the loss on other tumours rises if a column is shuffled (Breiman 2001).
//! - **Shapley values** (Shapley 1953; Štrumbelj and Kononenko 2010): what each measurement adds to the logit of one
//!   tumour. `v(S)` is the mean logit if the measurements in the set S are the tumour's, and the others are those of
//!   random tumours z (the *background*). Then `phi_i` is the mean of `v(S with i) - v(S)` over all orders in which the
//!   measurements may be added:
//!
//!   `phi_i = sum over S without i of |S|! (7 - |S|)! / 8! (v(S with i) - v(S))`.
//!
//! What must hold: the sum of all `phi_i` is `f(x) - mean f(z)`, and for the logistic regression,
//! `phi_i = w_i (x_i - mean z_i)`. Eight measurements have 256 sets; for more, one samples: each random order and
//! random z gives an estimate of all `phi_i`. The error of the mean of n estimates falls like `1 / sqrt(n)`.

mod common;

use common::WithDrawings;
use common::plot::Plot;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use wgrad::Result;
use wgrad::data::{Scaler, Split, Table};
use wgrad::prelude::*;
use wgrad::train::{Model, Trainer};

const COLUMNS: [&str; 8] = [
    "worst_radius",
    "worst_texture",
    "worst_perimeter",
    "worst_area",
    "worst_smoothness",
    "worst_compactness",
    "worst_concavity",
    "worst_concave_points",
];
const FEATURES: usize = COLUMNS.len();
const SETS: usize = 1 << FEATURES;
/// Tumours whose measurements stand for unknown ones.
const BACKGROUND: usize = 32;
const SHUFFLES: usize = 20;
/// Numbers of orders that are sampled.
const ORDERS: [usize; 6] = [1, 4, 16, 64, 256, 1024];

/// Measurements of a tumour.
type Row = [f32; FEATURES];

fn logistic(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc", x, 1)
}

fn network(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc2", &nn.linear("fc1", x, 16).tanh(), 1)
}

/// A trained model.
struct Judge {
    model: Model,
    session: Session,
}

impl Judge {
    /// Trains with weight decay, since some columns are nearly collinear.
    fn train(options: &common::Options, device: &Device, model: Model, data: &(Tensor, Tensor)) -> Result<Judge> {
        let model = model.seed(options.seed).batch(SETS * BACKGROUND);
        let mut session = Session::new(device.clone());
        let trainer = Trainer::new(&model, |logits, y| logits.binary_cross_entropy_with_logits(y, Reduction::Mean))
            .optimizer(AdamW::new().weight_decay(0.1))
            .lr(0.02)
            .epochs(if options.quick { 10 } else { 40 })
            .quiet();
        options.steps.inspect(trainer, &session, data)?.fit(&mut session, data, None)?;
        Ok(Judge { model, session })
    }

    fn logits(&mut self, rows: &[Row]) -> Result<Vec<f64>> {
        let x = Tensor::new([rows.len(), FEATURES], rows.concat())?;
        Ok(self.model.predict(&mut self.session, &x)?.to_f64())
    }

    /// The cross-entropy of rows with labels.
    fn loss(&mut self, rows: &[Row], labels: &[f64]) -> Result<f64> {
        let losses =
            self.logits(rows)?.into_iter().zip(labels).map(|(z, y)| z.max(0.0) - z * y + (-z.abs()).exp().ln_1p());
        Ok(losses.sum::<f64>() / rows.len() as f64)
    }

    /// The mean rise of the loss if a column is shuffled.
    fn permutation_importance(&mut self, rows: &[Row], labels: &[f64], seed: u64) -> Result<[f64; FEATURES]> {
        let mut rng = StdRng::seed_from_u64(seed);
        let before = self.loss(rows, labels)?;
        let mut rise = [0.0; FEATURES];
        for (feature, rise) in rise.iter_mut().enumerate() {
            for _ in 0..SHUFFLES {
                let mut column: Vec<f32> = rows.iter().map(|row| row[feature]).collect();
                column.shuffle(&mut rng);
                let mut shuffled = rows.to_vec();
                shuffled.iter_mut().zip(column).for_each(|(row, value)| row[feature] = value);
                *rise += (self.loss(&shuffled, labels)? - before) / SHUFFLES as f64;
            }
        }
        Ok(rise)
    }

    /// The exact Shapley values of a tumour.
    fn shapley(&mut self, x: &Row, background: &[Row]) -> Result<[f64; FEATURES]> {
        let mixed =
            |set: usize, z: &Row| -> Row { std::array::from_fn(|i| if set >> i & 1 == 1 { x[i] } else { z[i] }) };
        let rows: Vec<Row> = (0..SETS).flat_map(|set| background.iter().map(move |z| mixed(set, z))).collect();
        let logits = self.logits(&rows)?;
        let v: Vec<f64> = logits.chunks(background.len()).map(mean).collect();
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        let all = FEATURES as u32;
        Ok(std::array::from_fn(|i| {
            let without = (0..SETS).filter(|set| set >> i & 1 == 0);
            let share =
                |set: usize| factorial(set.count_ones()) * factorial(all - 1 - set.count_ones()) / factorial(all);
            without.map(|set| share(set) * (v[set | 1 << i] - v[set])).sum()
        }))
    }

    /// An estimate of them from each of some random orders.
    fn sampled(&mut self, x: &Row, background: &[Row], rng: &mut StdRng, count: usize) -> Result<Vec<[f64; FEATURES]>> {
        let mut orders = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..count {
            let mut order: Vec<usize> = (0..FEATURES).collect();
            order.shuffle(rng);
            let mut row = background[rng.random_range(0..background.len())];
            rows.push(row);
            for &feature in &order {
                row[feature] = x[feature];
                rows.push(row);
            }
            orders.push(order);
        }
        let logits = self.logits(&rows)?;
        let estimate = |(order, logits): (&Vec<usize>, &[f64])| {
            let mut phi = [0.0; FEATURES];
            order.iter().zip(logits.windows(2)).for_each(|(&feature, pair)| phi[feature] = pair[1] - pair[0]);
            phi
        };
        Ok(orders.iter().zip(logits.chunks(FEATURES + 1)).map(estimate).collect())
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn rows(x: &Tensor) -> Vec<Row> {
    x.to_f32().as_chunks().0.to_vec()
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } = common::parse(
        "Measures which columns matter: coefficients, permutation importance and Shapley values, exact and sampled",
    );
    let device = options.session()?.device().clone();
    let table = Table::load(common::data("breast_cancer.csv"))?;
    let (x, benign) = (table.floats(&COLUMNS)?, table.integers("target")?);
    let split = Split::stratified(&benign, 0.2, options.seed)?;
    let scaler = Scaler::standard(&x.rows(&split.train)?)?;
    let malignant: Vec<f32> = benign.to_f32().into_iter().map(|benign| 1.0 - benign).collect();
    let malignant = Tensor::new([malignant.len(), 1], malignant)?;
    let part = |rows: &[usize]| Ok((scaler.apply(&x.rows(rows)?)?, malignant.rows(rows)?));
    let (train, test): (_, (Tensor, Tensor)) = (part(&split.train)?, part(&split.test)?);
    let (known, others, labels) = (rows(&train.0), rows(&test.0), test.1.to_f64());
    let (background, explained) = (&known[..BACKGROUND], &others[..if options.quick { 20 } else { 40 }]);

    let mut judges = [
        Judge::train(&options, &device, Model::new([FEATURES], logistic), &train)?,
        Judge::train(&options, &device, Model::new([FEATURES], network), &train)?,
    ];
    let mut importance = Vec::new(); // of both models: by permutations, and the mean size of Shapley values
    let mut unequal: f64 = 0.0; // the largest difference between a sum of Shapley values and what it must be
    let mut exact = Vec::new();
    for judge in &mut judges {
        let phi: Vec<_> = explained.iter().map(|x| judge.shapley(x, background)).collect::<Result<_>>()?;
        let usual = mean(&judge.logits(background)?);
        for (phi, logit) in phi.iter().zip(judge.logits(explained)?) {
            unequal = unequal.max((phi.iter().sum::<f64>() - (logit - usual)).abs());
        }
        importance.push(judge.permutation_importance(&others, &labels, options.seed)?);
        importance.push(std::array::from_fn(|i| mean(&phi.iter().map(|phi| phi[i].abs()).collect::<Vec<_>>())));
        exact.push(phi);
    }
    let [logistic, network] = &mut judges;
    let [loss, network_loss] = [logistic.loss(&others, &labels)?, network.loss(&others, &labels)?];
    println!("loss on {} other tumours: logistic regression {loss:.4}, network {network_loss:.4}", others.len());
    let w = logistic.session.get("fc.weight")?.to_f64();
    println!("{:<24}{:>20}{:>24}{:>24}", "", "logistic regression", "if shuffled: loss", "mean |Shapley value|");
    println!("{:<24}{:>20}{:>12}{:>12}{:>12}{:>12}", "", "coefficient", "logistic", "network", "logistic", "network");
    for (i, name) in COLUMNS.iter().enumerate() {
        let [l_shuffled, l_shapley, n_shuffled, n_shapley] = [0, 1, 2, 3].map(|which: usize| importance[which][i]);
        println!("{name:<24}{:20.3}{l_shuffled:12.4}{n_shuffled:12.4}{l_shapley:12.3}{n_shapley:12.3}", w[i]);
    }
    println!("the sums of Shapley values differ from the differences of logits by at most {unequal:.1e}");
    let usual = |i: usize| mean(&background.iter().map(|z| f64::from(z[i])).collect::<Vec<_>>());
    let linear = |i: usize, x: &Row| w[i] * (f64::from(x[i]) - usual(i));
    let pairs = explained.iter().zip(&exact[0]).flat_map(|(x, phi)| (0..FEATURES).map(move |i| (i, x, phi[i])));
    let apart = pairs.map(|(i, x, phi)| (phi - linear(i, x)).abs()).fold(0.0, f64::max);
    println!("those of the logistic regression differ from w (x - mean z) by at most {apart:.1e}");

    // Sampled Shapley values of the network.
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut squares = [0.0; ORDERS.len()];
    for (x, exact) in explained.iter().zip(&exact[1]) {
        let estimates = network.sampled(x, background, &mut rng, ORDERS[ORDERS.len() - 1])?;
        for (squares, orders) in squares.iter_mut().zip(ORDERS) {
            let count = (estimates.len() / orders * FEATURES * explained.len()) as f64;
            for (group, i) in estimates.chunks(orders).flat_map(|group| (0..FEATURES).map(move |i| (group, i))) {
                let estimate = group.iter().map(|phi| phi[i]).sum::<f64>() / orders as f64;
                *squares += (estimate - exact[i]).powi(2) / count;
            }
        }
    }
    let errors = squares.map(f64::sqrt);
    println!("orders {}", ORDERS.map(|orders| format!("{orders:8}")).concat());
    println!("error  {}", errors.map(|error| format!("{error:8.4}")).concat());
    let curve = |of: &dyn Fn(usize) -> f64| (0..ORDERS.len()).map(|at| ((ORDERS[at] as f64).log2(), of(at))).collect();
    let curves = vec![
        ("measured", curve(&|at| errors[at])),
        ("1 / sqrt(n)", curve(&|at| errors[0] / (ORDERS[at] as f64).sqrt())),
    ];
    let (title, x, y) = ("Sampled Shapley values", "log2 of the number of orders n", "error");
    Plot { title, x, y, log: true, curves }.save(&drawings.plots, "importance")?;

    assert!(unequal < 1e-3, "Shapley values must sum to the difference of the logits");
    assert!(apart < 1e-3, "for a linear model, Shapley values are known");
    let (fall, wanted) = (errors[0] / errors[5], (ORDERS[5] as f64).sqrt());
    assert!((0.6..1.6).contains(&(fall / wanted)), "the error must fall like 1 / sqrt(n), not by {fall}");
    Ok(())
}
