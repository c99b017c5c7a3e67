//! A variational autoencoder learns to draw digits, and a lower bound of the probability of each.
//!
//! ```text
//! cargo run --release --example variational_autoencoder
//! ```
//!
//! A digit `x` of black and white pixels is thought to come from hidden numbers `z ~ N(0, I)` through a decoder, which
//! gives the probability of each pixel to be white, `p(x | z)`. Its probability `p(x)`, an integral over all `z`,
//! cannot be computed. But with any other distribution `q(z | x)` in the place of `p(z | x)` there is a lower bound,
//! the *evidence lower bound* (D. P. Kingma, M. Welling, *Auto-encoding variational Bayes*, 2013):
//!
//! ```text
//! ln p(x) >= E_q[ln p(x | z)] - KL(q(z | x) || p(z))
//! q(z | x) = N(mu, sigma^2), with mu and ln sigma^2 from an encoder
//! KL       = 1/2 sum (mu^2 + sigma^2 - ln sigma^2 - 1)
//! z        = mu + sigma e, with e ~ N(0, I)
//! ```
//!
//! The last line is the *reparameterisation*: noise `e` from outside makes `z` a differentiable function of `mu` and
//! `sigma`. So encoder and decoder are trained together to raise the bound, with noise that the device draws.
//!
//! Two known answers check the result. The divergence in closed form must agree with its Monte Carlo estimate, the mean
//! of `ln q(z | x) - ln p(z)`. And the bound must be above `ln p(x)` of independent pixels, each with its own
//! probability. How far it is below `ln p(x)` is not known, but the mean of `K` weights inside the logarithm comes
//! closer: `ln (1/K sum_k p(x | z_k) p(z_k) / q(z_k | x))` (Y. Burda et al., *Importance weighted autoencoders*, 2015).

mod common;

use clap::Parser;
use common::picture;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::{Digits, Mnist};
use wgrad::nn::init;
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{Batch, Epoch, Model, Programs, Step, Trainer};

const PIXELS: usize = 784;
/// Hidden numbers.
const HIDDEN: usize = 16;
const WIDTH: usize = 256;
/// Draws of `z` for each test digit.
const DRAWS: usize = 50;
/// Samples in a row of the picture.
const SIDE: usize = 8;

/// Trains a variational autoencoder on digits, checks its bound, and draws samples.
#[derive(Parser)]
struct Options {
    /// Passes over the training digits
    #[arg(long, default_value_t = 30)]
    epochs: u64,
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// `mu` and `ln sigma^2`, `[n, HIDDEN]` each, for digits `[n, PIXELS]`.
fn encoder(nn: &Scope, x: &Value) -> [Value; 2] {
    let x = nn.linear("encode1", x, WIDTH).relu();
    [nn.linear("mean", &x, HIDDEN), nn.linear("log_variance", &x, HIDDEN)]
}

/// The logits of white pixels.
fn decoder(nn: &Scope, z: &Value) -> Value {
    nn.linear("decode2", &nn.linear("decode1", z, WIDTH).relu(), PIXELS)
}

/// What follows from a random `z` for each row, `[n]`.
struct Draw {
    /// `ln p(x | z)`.
    reconstruction: Value,
    /// `KL(q(z | x) || p(z))` in closed form.
    divergence: Value,
    /// `ln q(z | x) - ln p(z)`, whose expectation is the divergence.
    log_ratio: Value,
}

fn draw(nn: &Scope, x: &Value) -> Draw {
    let [mean, log_variance] = encoder(nn, x);
    let noise = nn.random_normal(mean.shape());
    let z = &mean + (&log_variance * 0.5).exp() * &noise;
    let logits = decoder(nn, &z);
    let sum = |x: Value| x.sum(&[1], false);
    // ln N(z; m, s^2) = -1/2 (ln (2 pi s^2) + ((z - m) / s)^2); 2 pi cancels.
    let log_ratio = sum((z.square() - &log_variance - noise.square()) * 0.5);
    let divergence = sum((mean.square() + log_variance.exp() - &log_variance - 1.0) * 0.5);
    Draw { reconstruction: sum(x * &logits - logits.softplus()), divergence, log_ratio }
}

/// Digits `[n, PIXELS]` with black (0) and white (1) pixels.
fn binary(digits: &Digits) -> Result<Tensor> {
    let pixels = digits.images.to_f32().iter().map(|&x| if x > 0.5 { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    Tensor::new([digits.len(), PIXELS], pixels)
}

/// Mean `ln p(x)` of test digits if pixels are independent, with probabilities from the training digits.
fn independent_pixels(train: &Tensor, test: &Tensor) -> f64 {
    let mut white = vec![1.0; PIXELS];
    for row in train.to_f64().chunks(PIXELS) {
        white.iter_mut().zip(row).for_each(|(white, x)| *white += x);
    }
    let all = train.shape()[0] as f64 + 2.0; // each pixel was seen in both colours once more
    let log = |(x, white): (&f64, &f64)| (if *x == 1.0 { *white } else { all - white } / all).ln();
    let rows = test.to_f64();
    let logs: Vec<f64> = rows.chunks(PIXELS).map(|row| row.iter().zip(&white).map(log).sum()).collect();
    mean(&logs)
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Trains encoder and decoder; returns the bound per training and test digit after each epoch.
fn train(options: &Options, session: &mut Session, train: &Tensor, test: &Tensor) -> Result<[Vec<(f64, f64)>; 2]> {
    let trainer = Trainer::of(|nn, batch| {
        let Draw { reconstruction, divergence, .. } = draw(nn, &batch.get("x"));
        Step { loss: (divergence - reconstruction).mean_all(), prediction: None }
    })
    .schedule(|steps| Cosine { lr: 2e-3, last: 1e-5, steps })
    .epochs(options.epochs)
    .batch(64)
    .seed(options.common.seed)
    .quiet();
    let history = options.common.steps.inspect(trainer, session, train)?.fit(session, train, Some(test))?;
    let curve = |bound: &dyn Fn(&Epoch) -> f64| history.epochs.iter().map(|e| (e.number as f64, -bound(e))).collect();
    Ok([curve(&|epoch| epoch.loss), curve(&|epoch| epoch.validation.as_ref().map_or(f64::NAN, |v| v.loss))])
}

/// The quantities of [`Draw`] for `draws` of each digit, `[draw][quantity][digit]`.
fn draws(options: &Options, session: &mut Session, test: &Tensor, draws: usize) -> Result<Vec<Vec<Vec<f64>>>> {
    let seed = options.common.seed;
    let mut program = Programs::new(move |graph, batch| {
        let Draw { reconstruction, divergence, log_ratio } = draw(&Scope::eval(graph, seed), &batch.get("x"));
        vec![reconstruction, divergence, log_ratio]
    });
    let batch = Batch::from([("x".to_owned(), test.clone())]);
    let one = |_| Ok(program.run(session, &batch, &[])?.iter().map(Tensor::to_f64).collect());
    (0..draws).map(one).collect()
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    let mut digits = Mnist::load(common::data("mnist10k"))?;
    let mut count = DRAWS;
    if options.common.quick {
        (options.epochs, count, digits.train) = (3, 5, digits.train.first(6000)?);
    }
    let (train_digits, test) = (binary(&digits.train)?, binary(&digits.test)?);
    let mut session = options.common.session()?;
    let curves = train(&options, &mut session, &train_digits, &test)?;
    for epoch in (0..curves[0].len()).filter(|epoch| (epoch + 1) % 5 == 0) {
        let [train, test] = [0, 1].map(|curve| curves[curve][epoch].1);
        println!(
            "epoch {:>2}: bound of ln p(x) {train:7.1} nats per training digit, {test:7.1} per test digit",
            epoch + 1
        );
    }

    // Each draw has its own noise.
    let draws = draws(&options, &mut session, &test, count)?;
    let of_all = |f: &dyn Fn(&[Vec<f64>], usize) -> f64| -> Vec<f64> {
        draws.iter().flat_map(|draw| (0..test.shape()[0]).map(move |digit| f(draw, digit))).collect()
    };
    let bound = mean(&of_all(&|draw, digit| draw[0][digit] - draw[1][digit]));
    let divergence = mean(&draws[0][1]);
    let differences = of_all(&|draw, digit| draw[2][digit] - draw[1][digit]);
    let difference = mean(&differences);
    let squares: Vec<f64> = differences.iter().map(|x| (x - difference).powi(2)).collect();
    let standard_error = (mean(&squares) / differences.len() as f64).sqrt();
    let weighted = |digit: usize| {
        let weights: Vec<f64> = draws.iter().map(|draw| draw[0][digit] - draw[2][digit]).collect();
        let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + mean(&weights.iter().map(|weight| (weight - most).exp()).collect::<Vec<_>>()).ln()
    };
    let weighted = mean(&(0..test.shape()[0]).map(weighted).collect::<Vec<_>>());
    let independent = independent_pixels(&train_digits, &test);
    println!(
        "divergence: closed form {divergence:.3}, Monte Carlo {:.3} +- {standard_error:.3}",
        divergence + difference
    );
    println!("ln p(x) of a test digit, in nats:");
    println!("  independent pixels           {independent:8.1}");
    println!("  evidence lower bound         {bound:8.1}");
    println!("  lower bound of {count:>2} weights   {weighted:8.1}");

    let [train_curve, test_curve] = curves;
    let level = [0, test_curve.len() - 1].map(|epoch| (test_curve[epoch].0, independent)).to_vec();
    let curves = vec![("training digits", train_curve), ("test digits", test_curve), ("independent pixels", level)];
    let (title, x, y) = ("Lower bound of the probability of a digit", "epoch", "nats per digit");
    Plot { title, x, y, log: false, curves }.save(&options.drawings.plots, "variational_autoencoder")?;
    let z = init::normal(0.0, 1.0).draw([SIDE * SIDE, HIDDEN], options.common.seed, "z");
    let samples = Model::new([HIDDEN], |nn, z| decoder(nn, z).sigmoid()).predict(&mut session, &z)?;
    let samples = samples.reshape([SIDE * SIDE, 1, 28, 28])?;
    picture::save(&samples, SIDE, &options.drawings.plots, "variational_autoencoder")?;

    assert!(difference.abs() <= 4.0 * standard_error, "the divergence must agree with its Monte Carlo estimate");
    let gain = if options.common.quick { 20.0 } else { 80.0 };
    assert!(bound > independent + gain, "the bound must be far above independent pixels");
    Ok(())
}
