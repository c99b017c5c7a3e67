//! Two networks play a game, and one of them learns to draw digits.
//!
//! ```text
//! cargo run --release --example gan
//! ```
//!
//! A generator `G` turns noise `z` and a label `y` into an image, a discriminator `D` gives the probability that an
//! image with a label is real. Each has an optimiser of its own, and they take steps in turn (I. Goodfellow et al.,
//! *Generative adversarial nets*, 2014; with labels: M. Mirza, S. Osindero, *Conditional generative adversarial nets*,
//! 2014):
//!
//! ```text
//! loss of D = -mean ln D(x, y) - mean ln (1 - D(G(z, y), y))     it tells real and generated images apart
//! loss of G = -mean ln D(G(z, y), y)                             it is taken for real
//! ```
//!
//! `D` is best for a given `G` if it returns `p(x) / (p(x) + p_G(x))`. If the distributions are the same, `D` is 1/2
//! everywhere, and both losses are known: `2 ln 2` and `ln 2`. The layers are those of A. Radford et al., *Unsupervised
//! representation learning with deep convolutional generative adversarial networks* (2015): transposed convolutions
//! with batch norm and relu in `G`, strided convolutions with leaky relu in `D`, Adam with `beta1 = 0.5`.
//!
//! Nothing forces `G` to draw more than one image for each label. If it does not (*mode collapse*), `D` learns to know
//! that image, `G` moves on to another, and so on. A term in the loss of `G` prevents it: of two images with the same
//! label, `mean |z - z'| / |G(z, y) - G(z', y)|` must be small (Q. Mao et al., *Mode seeking generative adversarial
//! networks for diverse image synthesis*, 2019). The game is played without this term, and with it.
//!
//! No loss says how good the images are, so two measures do. A classifier, trained on the same real digits, recognises
//! an image if it gives one of the ten digits a probability of at least 0.9. And two images of the same digit must
//! differ nearly as much as two real ones. Both are taken with less noise than in training: extreme noise is rare there,
//! and makes bad images (A. Brock et al., *Large scale GAN training for high fidelity natural image synthesis*, 2018).

mod common;

use std::f64::consts::LN_2;
use std::fmt::{self, Display, Formatter};

use clap::Parser;
use common::picture;
use common::plot::Plot;
use wgrad::data::{Batches, Digits, Mnist};
use wgrad::nn::ConvTranspose2d;
use wgrad::ops::conv2d::Conv2d;
use wgrad::optim::schedule::{Cosine, OneCycle, Schedule};
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};
use wgrad::{Program, Result};

/// Numbers of noise for an image.
const NOISE: usize = 32;
/// Width of the dense layers.
const WIDTH: usize = 128;
const BATCH: usize = 32;
/// The first learning rate; it falls to a tenth.
const LR: f64 = 1e-3;
/// Of the moving averages of the generator's weights, with which samples are drawn.
const DECAY: f64 = 0.995;
/// The weight of the term against mode collapse.
const VARIETY: f64 = 0.05;
/// The standard deviation of the noise for samples; in training it is 1.
const NARROW: f64 = 0.8;
/// Passes over the training digits in the game without this term.
const SHORT: u64 = 2;
/// Images that are judged, and the probability that makes one recognised.
const JUDGED: usize = 1000;
const CONFIDENT: f64 = 0.9;
/// Samples in a row of the picture.
const COLUMNS: usize = 20;

/// Trains a generator of digits against a discriminator; a classifier judges the result.
#[derive(Parser)]
struct Options {
    /// Passes over the training digits
    #[arg(long, default_value_t = 5)]
    epochs: u64,
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// Each convolution halves the image, each transposed convolution doubles it.
const HALF: Conv2d = Conv2d { stride: [2, 2], padding: [1, 1], dilation: [1, 1], groups: 1 };

/// Images `[n, 1, 28, 28]` from 0 to 1 for noise `[n, NOISE]` and labels `[n]`.
fn generator(nn: &Scope, z: &Value, labels: &Value) -> Value {
    let double =
        |name: &str, x: &Value, channels| ConvTranspose2d::new(nn, name, x.dim(1), channels, 4, HALF).forward(x);
    let x = nn.linear("fc1", z, WIDTH) + nn.embedding("label", labels, 10, WIDTH);
    let x = nn.linear("fc2", &nn.batch_norm("bn1", &x).relu(), 32 * 7 * 7);
    let x = double("conv1", &nn.batch_norm("bn2", &x).relu().reshape(&[-1, 32, 7, 7]), 16);
    // Most pixels are black.
    (double("conv2", &nn.batch_norm("bn3", &x).relu(), 1) - 2.0).sigmoid()
}

/// Features `[n, WIDTH]` of images. Without the dense layer, the discriminator would see whether each part of an image
/// looks right, but not whether the parts belong together.
fn features(nn: &Scope, x: &Value) -> Value {
    let x = nn.conv2d("conv1", x, 16, 4, HALF).leaky_relu(0.2);
    let x = nn.conv2d("conv2", &x, 32, 4, HALF).leaky_relu(0.2);
    nn.linear("fc1", &x.flatten(1), WIDTH).leaky_relu(0.2)
}

/// The logit `l` of `D = sigmoid(l)`, `[n, 1]`. Each label has weights of its own (T. Miyato, M. Koyama, *cGANs with
/// projection discriminator*, 2018).
fn discriminator(nn: &Scope, x: &Value, labels: &Value) -> Value {
    let x = features(nn, x);
    let of_label = nn.embedding("label", labels, 10, WIDTH) * &x / (WIDTH as f64).sqrt();
    nn.linear("fc2", &x, 1) + of_label.sum(&[1], true)
}

/// The step of the discriminator: it learns, the generator is frozen. Inputs `x` and `y`; returns the loss.
fn discriminate(session: &mut Session, seed: u64) -> Result<Program> {
    let graph = Graph::new();
    let nn = Scope::train(&graph, seed);
    let (real, labels) = (graph.input("x", DType::F32, [BATCH, 1, 28, 28]), graph.input("y", DType::I32, [BATCH]));
    let fake = generator(&nn.part("g").frozen(), &nn.random_normal([BATCH, NOISE]), &labels);
    let logits = discriminator(&nn.part("d"), &real.concat(&[&fake], 0), &labels.concat(&[&labels], 0));
    let logits = logits.split(&[BATCH, BATCH], 0);
    // -ln sigmoid(l) = softplus(-l), and -ln (1 - sigmoid(l)) = softplus(l).
    let loss = (-&logits[0]).softplus().mean_all() + logits[1].softplus().mean_all();
    adam().minimize(&graph, &loss);
    session.compile(&graph, &[&loss])
}

/// The step of the generator: it learns, the discriminator is frozen. Input `y`; returns the loss without the term
/// against mode collapse.
fn generate(session: &mut Session, seed: u64, variety: f64) -> Result<Program> {
    let graph = Graph::new();
    let nn = Scope::train(&graph, seed);
    // Both halves of the batch have the same labels.
    let half = graph.input("y", DType::I32, [BATCH]).slice(0, 0, BATCH / 2, 1);
    let labels = half.concat(&[&half], 0);
    let z = nn.random_normal([BATCH, NOISE]);
    let fake = generator(&nn.part("g"), &z, &labels);
    let loss = (-discriminator(&nn.part("d").frozen(), &fake, &labels)).softplus().mean_all();
    let distance = |x: &Value| {
        let halves = x.flatten(1).split(&[BATCH / 2; 2], 0);
        (&halves[0] - &halves[1]).abs().mean(&[1], false)
    };
    let sameness = (distance(&z) / (distance(&fake) + 1e-3)).mean_all();
    adam().averaged(DECAY).minimize(&graph, &(&loss + sameness * variety));
    session.compile(&graph, &[&loss])
}

fn adam() -> Adam {
    Adam::new().betas((0.5, 0.999))
}

/// Which digits the images to be judged should be.
fn asked() -> Vec<usize> {
    (0..JUDGED).map(|image| image % 10).collect()
}

/// Images to be judged, with the moving averages of the generator's weights.
fn sample(session: &mut Session, seed: u64) -> Result<Program> {
    let graph = Graph::new();
    let labels = graph.constant(Tensor::new([JUDGED], asked().iter().map(|&digit| digit as i32).collect::<Vec<_>>())?);
    let nn = Scope::eval(&graph, seed).averaged();
    let images = generator(&nn.part("g"), &(nn.random_normal([JUDGED, NOISE]) * NARROW), &labels);
    session.compile(&graph, &[&images])
}

/// A classifier of real digits, with the session that holds its weights.
struct Judge {
    session: Session,
    classifier: Model,
}

/// What it finds in images.
struct Verdict {
    /// The share of images that are recognised as a digit, and as the right one.
    recognised: f64,
    right: f64,
    /// How many are recognised as each digit.
    counts: [usize; 10],
    /// The mean distance of two images of the same digit.
    distance: f64,
}

impl Judge {
    fn new(options: &Options, mut session: Session, digits: &Mnist) -> Result<Judge> {
        let classifier = Model::new([1, 28, 28], |nn, x| nn.linear("fc2", &features(nn, x), 10));
        let classifier = classifier.seed(options.common.seed);
        let mut trainer = Trainer::new(&classifier, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
            .schedule(|steps| OneCycle::new(8e-3, steps))
            .epochs(4)
            .seed(options.common.seed)
            .metrics([Metric::Accuracy])
            // Without `--profile`, which shows a step of the game.
            .shadow(options.common.steps.shadow)
            .find_nan(options.common.steps.find_nan)
            .quiet();
        let history = trainer.fit(&mut session, &digits.train, Some(&digits.test))?;
        let accuracy = history.epochs.last().and_then(|epoch| epoch.validation.as_ref()?.get("accuracy"));
        println!("classifier: {:.1}% of the test digits are right", 100.0 * accuracy.unwrap_or(0.0));
        Ok(Judge { session, classifier })
    }

    fn judge(&mut self, images: &Tensor, digits: &[usize]) -> Result<Verdict> {
        let (mut counts, mut right) = ([0; 10], 0);
        let logits = self.classifier.predict(&mut self.session, images)?.to_f64();
        for (logits, &digit) in logits.chunks(10).zip(digits) {
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            if let Some(seen) = logits.iter().position(|logit| logit.exp() / sum >= CONFIDENT) {
                counts[seen] += 1;
                right += usize::from(seen == digit);
            }
        }
        let share = |count: usize| count as f64 / digits.len() as f64;
        let distance = distance(images, digits);
        Ok(Verdict { recognised: share(counts.iter().sum()), right: share(right), counts, distance })
    }
}

/// The mean Euclidean distance of two images of the same digit.
fn distance(images: &Tensor, digits: &[usize]) -> f64 {
    let pixels = images.to_f32();
    let images: Vec<(&[f32], &usize)> = pixels.chunks(28 * 28).zip(digits).collect();
    let (mut sum, mut count) = (0.0, 0.0);
    for (number, (a, digit)) in images.iter().enumerate() {
        for (b, _) in images[..number].iter().filter(|image| image.1 == *digit) {
            sum += f64::from(a.iter().zip(*b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()).sqrt();
            count += 1.0;
        }
    }
    sum / count
}

/// What a game leaves: the losses of the discriminator and of the generator in each step, the images and the verdict
/// after each epoch.
#[derive(Default)]
struct Game {
    losses: [Vec<f64>; 2],
    images: Vec<Tensor>,
    verdicts: Vec<Verdict>,
}

fn play(options: &mut Options, judge: &mut Judge, digits: &Digits, epochs: u64, variety: f64) -> Result<Game> {
    let seed = options.common.seed;
    let mut session = Session::new(judge.session.device().clone());
    let steps = [discriminate(&mut session, seed)?, generate(&mut session, seed, variety)?];
    let sample = sample(&mut session, seed)?;
    let batches = Batches::new(digits.len(), BATCH)?.shuffled(seed).drop_last();
    let schedule = Cosine { lr: LR, last: LR / 10.0, steps: epochs * batches.count() as u64 };
    let mut game = Game::default();
    for epoch in 1..=epochs {
        for numbers in batches.epoch(epoch) {
            let (x, y) = (digits.images.rows(&numbers)?, digits.labels.rows(&numbers)?);
            let lr = Tensor::scalar(schedule.lr(game.losses[0].len() as u64));
            let feeds: [&[(&str, &Tensor)]; 2] = [&[("x", &x), ("y", &y), ("lr", &lr)], &[("y", &y), ("lr", &lr)]];
            for ((step, feeds), losses) in steps.iter().zip(feeds).zip(&mut game.losses) {
                losses.push(options.common.steps.run(&mut session, step, feeds)?[0].item()?);
            }
        }
        let images = options.common.steps.run(&mut session, &sample, &[])?.remove(0);
        let verdict = judge.judge(&images, &asked())?;
        let [d, g] = [0, 1].map(|player| mean(&game.losses[player][game.losses[0].len() - batches.count()..]));
        println!("epoch {epoch}: losses D {d:.3}, G {g:.3}; {verdict}");
        game.images.push(images);
        game.verdicts.push(verdict);
    }
    Ok(game)
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [recognised, right] = [self.recognised, self.right].map(|share| 100.0 * share);
        write!(f, "recognised {recognised:5.1}%, as the right digit {right:5.1}%, distance {:.2}", self.distance)
    }
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    let mut digits = Mnist::load(common::data("mnist10k"))?;
    let mut short = SHORT;
    if options.common.quick {
        (options.epochs, short, digits.train) = (1, 1, digits.train.first(800)?);
    }
    let mut judge = Judge::new(&options, options.common.session()?, &digits)?;
    let labels: Vec<usize> = digits.test.labels.to_f64().into_iter().map(|label| label as usize).collect();
    let real = judge.judge(&digits.test.images, &labels)?;
    println!("test digits: {real}");
    println!("without the term against mode collapse:");
    let collapsed = play(&mut options, &mut judge, &digits.train, short, 0.0)?;
    println!("with it:");
    let epochs = options.epochs;
    let game = play(&mut options, &mut judge, &digits.train, epochs, VARIETY)?;
    let verdict = &game.verdicts[game.verdicts.len() - 1];
    println!("by digit: {:?}", verdict.counts);

    let images = collapsed.images.last().into_iter().chain(game.images.iter().step_by(2));
    let rows = images.map(|images| images.slice(0, 0..COLUMNS)).collect::<Result<Vec<Tensor>>>()?;
    let rows = Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)?;
    picture::save(&rows, COLUMNS, &options.drawings.plots, "gan")?;
    let per_epoch = game.losses[0].len() as f64 / epochs as f64;
    let curve = |losses: &[f64]| -> Vec<(f64, f64)> {
        let middle = |at: usize, steps: usize| (40.0 * at as f64 + steps as f64 / 2.0) / per_epoch;
        let means = losses.chunks(40).enumerate();
        means.map(|(at, losses)| (middle(at, losses.len()), mean(losses))).collect()
    };
    let level = |level: f64| vec![(0.0, level), (epochs as f64, level)];
    let [d, g] = &game.losses;
    let curves = vec![
        ("discriminator", curve(d)),
        ("generator", curve(g)),
        ("2 ln 2", level(2.0 * LN_2)),
        ("ln 2", level(LN_2)),
    ];
    Plot { title: "The losses of both", x: "epoch", y: "mean loss of 40 steps", log: false, curves }
        .save(&options.drawings.plots, "gan")?;

    options.common.steps.summary();
    assert!(mean(d) < 2.0 * LN_2, "the discriminator must tell real and generated images apart");
    if !options.common.quick {
        assert!(verdict.recognised >= 0.8, "most images must be recognised");
        assert!(verdict.right >= 0.7, "most must be the digit that was asked for");
        assert!(verdict.counts.iter().all(|&count| count >= 20), "all digits must occur");
        assert!(verdict.distance > 0.7 * real.distance, "images of a digit must differ");
        let without = &collapsed.verdicts[collapsed.verdicts.len() - 1];
        assert!(without.distance < 0.4 * real.distance, "without the term, they must collapse");
    }
    Ok(())
}
