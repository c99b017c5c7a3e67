//! An autoencoder describes a digit by two numbers, better than principal components do.
//!
//! ```text
//! cargo run --release --example autoencoder
//! ```
//!
//! An encoder `z = f(x)` and a decoder `y = g(z)` with fewer numbers in the code `z` than in `x` are trained to
//! minimise the squared error (G. E. Hinton, R. R. Salakhutdinov, *Reducing the dimensionality of data with neural
//! networks*, Science 313, 2006; there, layers were trained one by one first):
//!
//! ```text
//! loss = mean (x - g(f(x)))^2
//! ```
//!
//! If `f` and `g` are linear, the best they can do is known: the code holds the coordinates along the `k` eigenvectors
//! `v` of the covariance `C` of the data with the largest eigenvalues, `y = mean + sum_k v (v . (x - mean))`. These
//! *principal components* are the baseline.
//!
//! A *denoising* autoencoder (P. Vincent et al., 2008) sees `x + s n` with normal noise `n`, and must return `x`. The
//! best linear map through `k` numbers is known here, too. It shrinks each coordinate by the share of the signal in its
//! variance: `y = mean + sum_k v (v . (x - mean)) c / (c + s^2)`, where `c` is the eigenvalue of `v`.

mod common;

use clap::Parser;
use common::picture;
use common::plot::Scatter;
use wgrad::Result;
use wgrad::data::{Digits, Mnist};
use wgrad::nn::init;
use wgrad::optim::schedule::OneCycle;
use wgrad::prelude::*;
use wgrad::train::{Dataset, Model, Trainer};

/// Pixels of a digit.
const PIXELS: usize = 784;
/// Numbers in the code of the plain and of the denoising autoencoder.
const PLANE: usize = 2;
const WIDE: usize = 16;
/// The standard deviation `s` of the noise; pixels are from 0 to 1.
const NOISE: f64 = 0.5;
const LR: f64 = 5e-3;
/// Digits in a row of the picture.
const SHOWN: usize = 12;

/// Reduces digits to two numbers with an autoencoder and with principal components, draws both planes, and removes
/// noise from digits with both.
#[derive(Parser)]
struct Options {
    /// Passes over the training digits
    #[arg(long, default_value_t = 20)]
    epochs: u64,
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// From digits `[n, 784]` to codes `[n, code]`. The batch norm gives each number of the code a standard deviation of 1
/// from the start; otherwise the network returns the mean digit for a long time, because the code hardly varies.
fn encoder(nn: &Scope, x: &Value, code: usize) -> Value {
    let x = nn.linear("encode1", x, 256).relu();
    let x = nn.linear("encode2", &x, 64).relu();
    nn.without_affine().batch_norm("code", &nn.linear("encode3", &x, code))
}

/// From codes to digits.
fn decoder(nn: &Scope, z: &Value) -> Value {
    let x = nn.linear("decode1", z, 64).relu();
    let x = nn.linear("decode2", &x, 256).relu();
    nn.linear("decode3", &x, PIXELS).sigmoid()
}

/// An autoencoder, trained to return the digits from digits with noise.
fn autoencoder(options: &Options, session: &mut Session, digits: &Tensor, code: usize, noise: f64) -> Result<Model> {
    let model = Model::new([PIXELS], move |nn, x| {
        let noisy = if nn.is_training() { x + nn.random_normal(x.shape()) * noise } else { x.clone() };
        decoder(nn, &encoder(nn, &noisy, code))
    });
    let model = model.seed(options.common.seed);
    let data = digits.clone().map(|mut batch, _step| {
        batch.insert("y".into(), batch["x"].clone());
        Ok(batch)
    });
    let trainer = Trainer::new(&model, |y, x| y.mse_loss(x, Reduction::Mean))
        .schedule(|steps| OneCycle::new(LR, steps))
        .epochs(options.epochs)
        .batch(64)
        .seed(options.common.seed)
        .quiet();
    let history = options.common.steps.inspect(trainer, session, &data)?.fit(session, &data, None)?;
    let losses: Vec<f64> = history.epochs.iter().map(|epoch| epoch.loss).collect();
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    println!("code of {code:>2}: training error {first:.4} in the first epoch, {last:.4} in the last");
    Ok(model)
}

/// The mean of the data, and the directions of largest variance with their variances, the largest first.
struct Principal {
    mean: Vec<f64>,
    components: Vec<(f64, Vec<f64>)>,
}

impl Principal {
    /// The `count` first principal components of rows `[n, d]` by orthogonal iteration in f64: all directions are
    /// multiplied by the covariance and made orthonormal again (Gram-Schmidt), until the variance that they capture
    /// stays the same to nine digits.
    fn of(rows: &Tensor, count: usize) -> Principal {
        let (n, d) = (rows.shape()[0] as f64, rows.shape()[1]);
        let rows = rows.to_f64();
        let mut mean = vec![0.0; d];
        let mut covariance = vec![vec![0.0; d]; d];
        for row in rows.chunks(d) {
            add(&mut mean, 1.0 / n, row);
            for i in (0..d).filter(|&i| row[i] != 0.0) {
                add(&mut covariance[i], row[i] / n, row);
            }
        }
        for i in 0..d {
            add(&mut covariance[i], -mean[i], &mean);
        }
        let start = init::normal(0.0, 1.0).draw([count, d], 0, "directions").to_f64();
        let mut components: Vec<(f64, Vec<f64>)> = start.chunks(d).map(|v| (0.0, v.to_vec())).collect();
        let mut captured = 0.0;
        loop {
            for k in 0..count {
                let mut product = vec![0.0; d];
                for (row, along) in covariance.iter().zip(&components[k].1) {
                    add(&mut product, *along, row);
                }
                for (_, other) in &components[..k] {
                    let along = dot(&product, other);
                    add(&mut product, -along, other);
                }
                let length = dot(&product, &product).sqrt();
                components[k] = (length, product.iter().map(|x| x / length).collect());
            }
            let before = std::mem::replace(&mut captured, components.iter().map(|(variance, _)| variance).sum());
            if (captured - before).abs() < 1e-9 * captured {
                return Principal { mean, components };
            }
        }
    }

    /// The coordinates of a row along the components.
    fn code(&self, row: &[f64]) -> Vec<f64> {
        let centred: Vec<f64> = row.iter().zip(&self.mean).map(|(x, mean)| x - mean).collect();
        self.components.iter().map(|(_, v)| dot(v, &centred)).collect()
    }

    /// Rows from `count` coordinates, shrunk as is best for noise of this standard deviation.
    fn reconstruct(&self, rows: &Tensor, count: usize, noise: f64) -> Result<Tensor> {
        let mut result = Vec::new();
        for row in rows.to_f64().chunks(self.mean.len()) {
            let mut y = self.mean.clone();
            for (z, (variance, v)) in self.code(row).iter().zip(&self.components).take(count) {
                add(&mut y, z * variance / (variance + noise * noise), v);
            }
            result.extend(y.iter().map(|&y| y as f32));
        }
        Tensor::new(rows.shape().clone(), result)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a += factor b`.
fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b);
}

/// The mean squared difference of two tensors.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64(), b.to_f64());
    a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// The points of a plane by class.
fn by_class(points: &[f64], labels: &Tensor) -> Vec<Vec<[f64; 2]>> {
    let mut classes = vec![Vec::new(); 10];
    for (point, label) in points.chunks(2).zip(labels.to_f64()) {
        classes[label as usize].push([point[0], point[1]]);
    }
    classes
}

/// The share of points whose nearest neighbour is of the same class.
fn beside_own(classes: &[Vec<[f64; 2]>]) -> f64 {
    let points: Vec<(usize, [f64; 2])> =
        classes.iter().enumerate().flat_map(|(class, points)| points.iter().map(move |p| (class, *p))).collect();
    let of_own = |&i: &usize| {
        let distance = |&j: &usize| (0..2).map(|axis| (points[i].1[axis] - points[j].1[axis]).powi(2)).sum::<f64>();
        let others = (0..points.len()).filter(|&j| j != i);
        let nearest = others.min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.is_some_and(|j| points[i].0 == points[j].0)
    };
    (0..points.len()).filter(of_own).count() as f64 / points.len() as f64
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    let mut digits = Mnist::load(common::data("mnist10k"))?;
    if options.common.quick {
        (options.epochs, digits.train) = (3, digits.train.first(6000)?);
    }
    let flat = |digits: &Digits| digits.images.reshape([digits.len(), PIXELS]);
    let (train, test) = (flat(&digits.train)?, flat(&digits.test)?);
    let noise = init::normal(0.0, NOISE).draw(test.shape().clone(), options.common.seed, "noise").to_f32();
    let noisy: Vec<f32> = test.to_f32().iter().zip(noise).map(|(x, n)| x + n).collect();
    let noisy = Tensor::new(test.shape().clone(), noisy)?;
    let device = options.common.session()?.device().clone();

    let principal = Principal::of(&train, WIDE);
    let mut session = Session::new(device.clone());
    let mut plain = autoencoder(&options, &mut session, &train, PLANE, 0.0)?;
    let plain = [plain.predict(&mut session, &test)?, principal.reconstruct(&test, PLANE, 0.0)?];
    let codes = Model::new([PIXELS], |nn, x| encoder(nn, x, PLANE)).predict(&mut session, &test)?.to_f64();
    let pixels = test.to_f64();
    let coordinates = pixels.chunks(PIXELS).flat_map(|row| principal.code(row)[..PLANE].to_vec()).collect();
    let mut session = Session::new(device);
    let mut denoising = autoencoder(&options, &mut session, &train, WIDE, NOISE)?;
    let denoised = [denoising.predict(&mut session, &noisy)?, principal.reconstruct(&noisy, WIDE, NOISE)?];

    let errors = [&plain, &denoised].map(|[network, linear]| [error(network, &test), error(linear, &test)]);
    let [codes, coordinates] = [codes, coordinates].map(|points| by_class(&points, &digits.test.labels));
    let (own, own_linear) = (beside_own(&codes), beside_own(&coordinates));
    println!("on {} test digits                      autoencoder  principal components", test.shape()[0]);
    println!("squared error, code of {PLANE:>2}               {:8.4}    {:8.4}", errors[0][0], errors[0][1]);
    println!("squared error from noise, code of {WIDE:>2}    {:8.4}    {:8.4}", errors[1][0], errors[1][1]);
    println!("nearest neighbour of the same class     {:7.1}%    {:7.1}%", 100.0 * own, 100.0 * own_linear);

    let classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let planes = vec![("two principal components", coordinates), ("code of the autoencoder", codes)];
    Scatter { classes: &classes, planes }.save(&options.drawings.plots, "autoencoder")?;
    let rows = [&test, &plain[0], &plain[1], &noisy, &denoised[0], &denoised[1]].map(|rows| rows.slice(0, 0..SHOWN));
    let rows: Vec<Tensor> = rows.into_iter().collect::<Result<_>>()?;
    let images = Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)?.reshape([6 * SHOWN, 1, 28, 28])?;
    picture::save(&images, SHOWN, &options.drawings.plots, "autoencoder")?;

    assert!(errors[0][0] < errors[0][1], "two numbers of the autoencoder must say more than two principal components");
    let quick = options.common.quick; // three passes are too few to remove noise
    assert!(quick || errors[1][0] < errors[1][1], "the denoising autoencoder must beat the best linear map");
    assert!(own > own_linear, "the code must separate the classes better");
    Ok(())
}
