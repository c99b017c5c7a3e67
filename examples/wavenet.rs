//! A network of dilated convolutions learns to speak digits, sample by sample.
//!
//! ```text
//! cargo run --release --example wavenet
//! ```
//!
//! A sound is a sequence of samples `x[t]` from -1 to 1, quantised to 256 levels, finer for soft sounds than for loud
//! ones (*mu-law*). Each level is predicted from those before it and the digit `h` that is spoken (A. van den Oord et
//! al., *WaveNet: a generative model for raw audio*, 2016):
//!
//! ```text
//! y       = sign(x) ln(1 + 255 |x|) / ln 256              mu-law; 256 equal intervals of y are the levels
//! p(x)    = prod_t p(x[t] | x[0..t], h)
//! layer d:  g = tanh(F * z + U h) sigmoid(G * z + V h)    with convolutions over z[t] and z[t - d]
//!           z = z + R g,   s = s + S g                    residual and skip connections
//! logits  = B relu(A relu(s))
//! ```
//!
//! The dilation `d` doubles from layer to layer, so the number of samples that a prediction sees grows exponentially
//! with the number of layers. Training computes all predictions of a sound at once. The measure is bits per sample,
//! `-log2 p(x[t] | ..)`, on held-out parts of the recordings: they are never targets in training, but are heard by
//! later predictions.
//!
//! The baseline is the best linear predictor of `y[t]` from `y[t - 1]` and `y[t - 2]` by least squares. Its residual
//! has a Laplace distribution with a scale of maximum likelihood, and the probability of a level is the integral over
//! its interval.
//!
//! To generate, a level is drawn from each prediction and becomes the next input. Done naively, all layers are computed
//! for all samples again each time. But a layer needs only its inputs at `t` and `t - d`, so each keeps its last `d`
//! inputs in a queue (T. Le Paine et al., *Fast WaveNet generation algorithm*, 2016). Both ways must draw the same
//! levels.

mod common;

use std::f64::consts::LN_2;
use std::time::Instant;

use clap::Parser;
use common::plot::Plot;
use common::wav;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::loss::ClassLoss;
use wgrad::nn::{Conv1d, init};
use wgrad::ops::conv1d::Conv1d as Window;
use wgrad::optim::schedule::{Cosine, Schedule};
use wgrad::prelude::*;
use wgrad::{Program, Result};

const RATE: usize = 8000;
const LEVELS: usize = 256;
/// Channels of `z` and `s`.
const WIDTH: usize = 24;
const SKIP: usize = 48;
/// The dilations double from 1 to this, twice.
const LONGEST: usize = 128;
/// Sounds and samples in a step.
const BATCH: usize = 8;
const WINDOW: usize = 768;
/// Every fifth part of so many samples is held out.
const PART: usize = 400;
/// Largest learning rate.
const LR: f64 = 4e-3;
/// Steps between two evaluations.
const REPORT: usize = 50;
/// Samples that are also generated naively.
const NAIVE: usize = 100;
/// A target that is not to be learned.
const IGNORED: i32 = -1;

/// Learns to speak digits with dilated convolutions, and writes them as a WAV file.
#[derive(Parser)]
struct Options {
    /// Training steps
    #[arg(long, default_value_t = 300)]
    steps: usize,
    /// Samples to generate of each digit
    #[arg(long, default_value_t = 3200)]
    samples: usize,
    #[command(flatten)]
    common: common::Options,
    #[command(flatten)]
    drawings: common::Drawings,
}

/// The level of a sample from -1 to 1.
fn level(x: f32) -> usize {
    let y = (255.0 * x.abs()).ln_1p() / 256f32.ln();
    ((y.copysign(x) + 1.0) * 128.0).floor().clamp(0.0, 255.0) as usize
}

/// The middle of a level's interval of `y`, which the network reads.
fn middle(level: usize) -> f32 {
    (level as f32 + 0.5) / 128.0 - 1.0
}

/// The sample of a level.
fn sample(level: usize) -> f32 {
    let y = middle(level);
    ((256f32.powf(y.abs()) - 1.0) / 255.0).copysign(y)
}

/// A digit as levels; which of them are held out depends on the digit, so that these are not the same part of all.
struct Spoken {
    digit: usize,
    levels: Vec<usize>,
}

impl Spoken {
    fn load(digit: usize) -> Result<Spoken> {
        let (_, sound) = wav::read(&common::data(&format!("speech/{digit}.wav")))?;
        Ok(Spoken { digit, levels: sound.into_iter().map(level).collect() })
    }

    fn held_out(&self, t: usize) -> bool {
        (t / PART + self.digit) % 5 == 2
    }

    /// The levels from `start`, each with the input before it, and whether it is held out. There is silence outside.
    fn window(&self, start: usize, length: usize) -> impl Iterator<Item = (f32, i32, bool)> {
        let silence = level(0.0);
        let input =
            move |t: usize| middle(if t == 0 { silence } else { self.levels.get(t - 1).copied().unwrap_or(silence) });
        (start..start + length).map(move |t| {
            let target = self.levels.get(t).map_or(IGNORED, |&level| level as i32);
            (input(t), target, self.held_out(t))
        })
    }
}

/// Inputs `x`, targets `y` and `digit` of windows of sounds that begin at the given samples. In training, targets that
/// are held out are ignored, in evaluation all others.
fn batch(windows: &[(&Spoken, usize)], length: usize, training: bool) -> Result<[Tensor; 3]> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (spoken, start) in windows {
        for (input, target, held_out) in spoken.window(*start, length) {
            x.push(input);
            y.push(if held_out == training { IGNORED } else { target });
        }
    }
    let digits: Vec<i32> = windows.iter().map(|(spoken, _)| spoken.digit as i32).collect();
    let n = windows.len();
    Ok([Tensor::new([n, 1, length], x)?, Tensor::new([n, length], y)?, Tensor::new([n], digits)?])
}

/// How the network is computed.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// All samples of a sound at once.
    Whole,
    /// One sample; the layers keep their last inputs in variables.
    Next,
}

/// A convolution over `x[t]` and `x[t - dilation]`, `[n, c, t]`.
fn causal(nn: &Scope, way: Way, name: &str, x: &Value, outputs: usize, dilation: usize) -> Value {
    let (n, channels) = (x.dim(0), x.dim(1));
    let (x, window) = match way {
        Way::Whole => (x.clone(), Window::default().dilation(dilation).causal(2)),
        Way::Next => {
            let queue = nn.variable(&format!("{name}.queue"), [n, channels, dilation], init::zeros());
            let inputs = queue.concat(&[x], 2);
            nn.graph().assign(&queue, &inputs.slice(2, 1, dilation + 1, 1));
            (inputs, Window::default().dilation(dilation))
        }
    };
    Conv1d::new(nn, name, channels, outputs, 2, window).forward(&x)
}

/// Logits `[n, LEVELS, t]` for the inputs `[n, 1, t]` and digits `[n]`.
fn network(nn: &Scope, way: Way, x: &Value, digit: &Value) -> Value {
    let pointwise =
        |name: &str, x: &Value, outputs| Conv1d::new(nn, name, x.dim(1), outputs, 1, Window::default()).forward(x);
    let digit = digit.one_hot(10);
    let mut z = causal(nn, way, "input", x, WIDTH, 1);
    let mut skips: Option<Value> = None;
    let dilations = || std::iter::successors(Some(1), |d| Some(2 * d)).take_while(|d| *d <= LONGEST);
    for (number, dilation) in dilations().chain(dilations()).enumerate() {
        let nn = nn.part(&format!("layer{number}"));
        let condition = nn.linear("digit", &digit, 2 * WIDTH).reshape(&[-1, 2 * WIDTH as isize, 1]);
        let gates = (causal(&nn, way, "gates", &z, 2 * WIDTH, dilation) + condition).split(&[WIDTH, WIDTH], 1);
        let gated = gates[0].tanh() * gates[1].sigmoid();
        let out = Conv1d::new(&nn, "out", WIDTH, WIDTH + SKIP, 1, Window::default()).forward(&gated);
        let out = out.split(&[WIDTH, SKIP], 1);
        z = z + &out[0];
        skips = Some(skips.map_or(out[1].clone(), |skips| skips + &out[1]));
    }
    let skips = skips.expect("there are layers");
    pointwise("logits", &pointwise("hidden", &skips.relu(), 2 * SKIP).relu(), LEVELS)
}

/// A program for `n` sounds: inputs `x`, `y` and `digit`, and the mean loss in bits of the targets that are not
/// ignored. In training also a step of the optimiser.
fn loss(session: &mut Session, seed: u64, n: usize, length: usize, training: bool) -> Result<Program> {
    let graph = Graph::new();
    let nn = if training { Scope::train(&graph, seed) } else { Scope::eval(&graph, seed) };
    let x = graph.input("x", DType::F32, [n, 1, length]);
    let y = graph.input("y", DType::I32, [n, length]);
    let logits = network(&nn, Way::Whole, &x, &graph.input("digit", DType::I32, [n]));
    let options = ClassLoss { ignore_index: Some(IGNORED), ..ClassLoss::default() };
    let loss = logits.cross_entropy_with(&y, &options) * (1.0 / LN_2);
    if training {
        Adam::new().minimize(&graph, &loss);
    }
    session.compile(&graph, &[&loss])
}

/// Trains the network; returns bits per sample in training and held out, by step.
fn train(
    options: &mut Options,
    session: &mut Session,
    sounds: &[Spoken],
    report: usize,
) -> Result<[Vec<(f64, f64)>; 2]> {
    let seed = options.common.seed;
    let longest = sounds.iter().map(|spoken| spoken.levels.len()).max().unwrap_or(0);
    let step = loss(session, seed, BATCH, WINDOW, true)?;
    let judge = loss(session, seed, sounds.len(), longest, false)?;
    let whole: Vec<(&Spoken, usize)> = sounds.iter().map(|spoken| (spoken, 0)).collect();
    let all = batch(&whole, longest, false)?;
    let schedule = Cosine { lr: LR, last: 1e-4, steps: options.steps as u64 };
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut curves, mut sum) = ([Vec::new(), Vec::new()], 0.0);
    for number in 1..=options.steps {
        let mut window = |_| {
            let spoken = &sounds[rng.random_range(0..sounds.len())];
            (spoken, rng.random_range(0..spoken.levels.len() - WINDOW))
        };
        let windows: Vec<(&Spoken, usize)> = (0..BATCH).map(&mut window).collect();
        let lr = Tensor::scalar(schedule.lr(number as u64));
        let [x, y, digit] = batch(&windows, WINDOW, true)?;
        let feeds = [("x", &x), ("y", &y), ("digit", &digit), ("lr", &lr)];
        sum += options.common.steps.run(session, &step, &feeds)?[0].item()?;
        if number % report == 0 {
            let feeds = [("x", &all[0]), ("y", &all[1]), ("digit", &all[2])];
            let held_out = options.common.steps.run(session, &judge, &feeds)?[0].item()?;
            let bits = [std::mem::take(&mut sum) / report as f64, held_out];
            println!("step {number:>4}: {:.3} bits per sample in training, {:.3} held out", bits[0], bits[1]);
            curves.iter_mut().zip(bits).for_each(|(curve, bits)| curve.push((number as f64, bits)));
        }
    }
    Ok(curves)
}

/// Bits per held-out sample of the linear predictor of order 2.
fn linear_prediction(sounds: &[Spoken]) -> f64 {
    // `y[t - 1]`, `y[t - 2]`, the level at `t`, and whether it is held out.
    let mut samples = Vec::new();
    for spoken in sounds {
        let all: Vec<(f32, i32, bool)> = spoken.window(0, spoken.levels.len()).collect();
        let before = std::iter::once(all[0].0).chain(all.iter().map(|sample| sample.0));
        samples
            .extend(all.iter().zip(before).map(|(&(x, y, out), before)| ([f64::from(x), f64::from(before)], y, out)));
    }
    let middle = |level: i32| f64::from(middle(level as usize));
    let (mut a, mut b) = ([0.0; 4], [0.0; 2]);
    for (x, level, _) in samples.iter().filter(|(.., held_out)| !held_out) {
        for i in 0..2 {
            b[i] += x[i] * middle(*level);
            (0..2).for_each(|j| a[2 * i + j] += x[i] * x[j]);
        }
    }
    let weights = common::solve(&a, &b);
    let predicted = |x: &[f64; 2]| x[0] * weights[0] + x[1] * weights[1];
    let cumulative = |z: f64| if z < 0.0 { z.exp() / 2.0 } else { 1.0 - (-z).exp() / 2.0 };
    let bits = |scale: f64, of_held_out: bool| {
        let chosen = samples.iter().filter(|(.., held_out)| *held_out == of_held_out);
        let bits: Vec<f64> = chosen
            .map(|(x, level, _)| {
                let edge = |level: i32| cumulative((middle(level) - 0.5 / 128.0 - predicted(x)) / scale);
                let above = if *level == 255 { 1.0 } else { edge(level + 1) };
                -(above - if *level == 0 { 0.0 } else { edge(*level) }).log2()
            })
            .collect();
        bits.iter().sum::<f64>() / bits.len() as f64
    };
    let scales = (0..60).map(|k| 0.01 * 1.05f64.powi(k));
    let best = scales.min_by(|&a, &b| bits(a, false).total_cmp(&bits(b, false))).expect("there are scales");
    println!("linear predictor: weights {:.3} and {:.3}, scale {best:.3}", weights[0], weights[1]);
    bits(best, true)
}

/// Draws levels of all digits, `[digit][t]`. Both ways use the same random numbers.
fn generate(options: &mut Options, session: &mut Session, way: Way, length: usize) -> Result<Vec<Vec<usize>>> {
    let width = if way == Way::Whole { length } else { 1 };
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [10, 1, width]);
    let digit = graph.constant(Tensor::new([10], (0..10).collect::<Vec<i32>>())?);
    let probabilities = network(&Scope::eval(&graph, options.common.seed), way, &x, &digit).softmax(1);
    let program = session.compile(&graph, &[&probabilities])?;
    let mut rng = StdRng::seed_from_u64(options.common.seed);
    let mut levels = vec![vec![level(0.0)]; 10]; // silence, then what is drawn
    for t in 0..length {
        // All inputs so far, padded with any number; or only the last one.
        let (first, at) = if way == Way::Whole { (0, t) } else { (t, 0) };
        let input = |levels: &Vec<usize>| {
            (first..first + width).map(|t| middle(levels[t.min(levels.len() - 1)])).collect::<Vec<f32>>()
        };
        let x = Tensor::new([10, 1, width], levels.iter().flat_map(input).collect::<Vec<f32>>())?;
        let p = options.common.steps.run(session, &program, &[("x", &x)])?[0].to_f64();
        for (digit, levels) in levels.iter_mut().enumerate() {
            let mut left: f64 = rng.random();
            let p = |level: usize| p[(digit * LEVELS + level) * width + at];
            let drawn = (0..LEVELS - 1).find(|&level| {
                left -= p(level);
                left < 0.0
            });
            levels.push(drawn.unwrap_or(LEVELS - 1));
        }
    }
    Ok(levels.into_iter().map(|levels| levels[1..].to_vec()).collect())
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    let (mut digits, mut report) = (10, REPORT);
    if options.common.quick {
        (options.steps, options.samples, digits, report) = (8, 20, 1, 8);
    }
    let sounds = (0..digits).map(Spoken::load).collect::<Result<Vec<Spoken>>>()?;
    let mut session = options.common.session()?;
    let linear = linear_prediction(&sounds);
    let curves = train(&mut options, &mut session, &sounds, report)?;
    let bits = curves[1].last().map_or(f64::NAN, |last| last.1);
    println!("bits per held-out sample: {bits:.3}; linear predictor of order 2: {linear:.3}");

    let naive = NAIVE.min(options.samples);
    let started = Instant::now();
    let slow = generate(&mut options, &mut session, Way::Whole, naive)?;
    let slow_time = started.elapsed().as_secs_f64() / naive as f64;
    let started = Instant::now();
    let samples = options.samples;
    let fast = generate(&mut options, &mut session, Way::Next, samples)?;
    let fast_time = started.elapsed().as_secs_f64() / samples as f64;
    let same = slow.iter().zip(&fast).all(|(slow, fast)| slow[..] == fast[..naive]);
    println!(
        "a sample of each digit: {:.1} ms naively (up to {naive}), {:.1} ms with queues",
        1e3 * slow_time,
        1e3 * fast_time
    );
    let sound: Vec<f32> = fast.iter().flatten().map(|&level| sample(level)).collect();
    wav::write(&options.drawings.plots.join("wavenet.wav"), RATE, &sound)?;
    let [training, held_out] = curves;
    let level = [&training[0], &training[training.len() - 1]].map(|point| (point.0, linear)).to_vec();
    let curves = vec![("training parts", training), ("held-out parts", held_out), ("linear predictor", level)];
    Plot { title: "Prediction of speech", x: "step", y: "bits per sample", log: false, curves }
        .save(&options.drawings.plots, "wavenet")?;

    options.common.steps.summary();
    assert!(same, "both ways must draw the same samples");
    let baseline = if options.common.quick { 8.0 } else { linear }; // a few steps: better than equal probabilities
    assert!(bits < baseline, "the network must predict better");
    Ok(())
}
