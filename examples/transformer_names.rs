//! A small transformer learns first names letter by letter, and generates new ones.
//!
//! ```text
//! cargo run --release --example transformer_names
//! cargo run --release --example transformer_names -- --temperature 0.5 --top-k 5
//! ```
//!
//! A name is the sequence START, its letters, END. The model predicts each character from all previous ones,
//! `p(name) = prod_t p(c[t] | c[0..t])`, and is trained with the cross-entropy `-mean(ln p(c[t] | c[0..t]))`. Divided
//! by `ln 2`, this is *bits per character*: the average length of an ideal code for the names. It is evaluated on
//! held-out names and compared with a bigram model,
//! `p(c[t] | c[t-1]) = (count of the pair + 1) / (count of c[t-1] + V)`.
//!
//! The transformer (Vaswani et al., *Attention is all you need*, 2017) in its decoder-only form:
//! 1. Each character becomes a learned embedding plus a sinusoidal position encoding.
//! 2. Two blocks follow, `x = x + attention(norm(x))`, then `x = x + W2 gelu(W1 norm(x))`. Attention,
//!    `softmax(q k^T / sqrt(E)) v`, is *causal*: each position attends only to itself and earlier ones, because later
//!    characters are to be predicted. There are four heads.
//! 3. A linear layer gives the logits `z` of the next character, `p = softmax(z)`.
//!
//! To generate a name, characters are sampled one by one from `softmax(z / temperature)`, restricted to the `top-k`
//! likeliest: a low temperature gives common names, a high one strange names.
//!
//! At the end, every matrix of weights is rounded to 4 bits, in blocks of 32 numbers with a scale each, and the model
//! writes names once more. (The example `quantize` shows products that read such weights packed.)
//!
//! This takes a minute on a software adapter with two cores, and several minutes on the CPU reference; a run with
//! `--quick` already beats bigrams.

mod common;

use std::collections::HashSet;
use std::f64::consts::LN_2;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::data::{Batches, TextLines, Vocabulary};
use wgrad::loss::ClassLoss;
use wgrad::nn::{Embedding, Layer, Scope, TransformerEncoderLayer, sinusoidal_positions};
use wgrad::optim::{AdamW, LossScale, Optimizer};
use wgrad::quant::{Calibration, Scheme};
use wgrad::{DType, Data, Error, Graph, Program, Reduction, Result, Session, Tensor, Value};

/// Embedding size, heads, and hidden size of a block.
const WIDTH: usize = 48;
const HEADS: usize = 4;
const INNER: usize = 4 * WIDTH;
const BLOCKS: usize = 2;
const DROPOUT: f64 = 0.1;
/// Names per training step.
const BATCH: usize = 128;

#[derive(Parser)]
#[command(about = "Trains a transformer on first names, letter by letter, and generates new ones.")]
struct Options {
    #[command(flatten)]
    common: common::Options,
    /// Number of passes over the names [default: 24, or 1 with --quick]
    #[arg(long)]
    epochs: Option<u64>,
    /// Maximum learning rate; rises over the first tenth of the steps, then falls to 0
    #[arg(long, default_value_t = 6e-3)]
    lr: f64,
    /// Store activations as f16, or as the given type (f16, bf16, f32)
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "f16",
        default_value = "f32")]
    mixed: DType,
    /// Divisor of the logits when generating names
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Sample each character from this many of the likeliest ones
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    top_k: u64,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !(options.temperature > 0.0) {
        return Err(Error::Input("the temperature must be above 0".into()));
    }
    let names = TextLines::load(common::data("first_names.txt"))?.texts;
    let vocabulary = Vocabulary::new(&names);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    // The model reads START and the letters, and predicts the letters and END.
    let length = longest + 1;
    let all = vocabulary.encode_rows(&names, length + 1)?;
    let mut order: Vec<usize> =
        Batches::new(names.len(), names.len())?.shuffled(options.common.seed).epoch(0).flatten().collect();
    let held_out = all.rows(&order.split_off(names.len() * 9 / 10))?;
    let train = all.rows(&order)?;
    println!(
        "data: {} training names, {} held out, up to {longest} letters, {} characters",
        order.len(),
        names.len() - order.len(),
        vocabulary.len()
    );
    let mut session = options.common.session()?;

    let bits = learn(&mut options, &mut session, &train, &held_out, vocabulary.len())?;
    let bigram = bigram_bits(&train, &held_out, vocabulary.len());
    println!("bits per character on held-out names: {bits:.3}; bigrams: {bigram:.3}");

    let made_up = write_names(&mut options, &mut session, 24, length, &vocabulary)?;
    let known: HashSet<&String> = names.iter().collect();
    let new = made_up.iter().filter(|name| !known.contains(name)).count();
    println!("{new} of {} are not in the list of names", made_up.len());

    round_weights(&mut session)?;
    let rounded = evaluate(&mut options, &mut session, &held_out, vocabulary.len())?;
    println!("weights rounded to 4 bits: {rounded:.3} bits per character on held-out names");
    write_names(&mut options, &mut session, 8, length, &vocabulary)?;

    options.common.steps.summary();
    assert!(bits < bigram, "more context must make better predictions");
    assert!(rounded < bits + 0.1, "4 bits per weight must suffice");
    Ok(())
}

/// Replaces every matrix of weights by the numbers that its integers of 4 bits stand for.
fn round_weights(session: &mut Session) -> Result<()> {
    for name in session.names().iter().filter(|name| name.ends_with(".weight")) {
        let weight = session.get(name)?;
        if weight.shape().rank() == 2 {
            let rounded = Scheme::int4().per_block().quantize(&weight, Calibration::Mse)?;
            session.set(name, &rounded.dequantize()?)?;
        }
    }
    Ok(())
}

/// The logits `[names, length, V]` of the next character after each of the characters `[names, length]`.
fn model(nn: &Scope, characters: &Value, vocabulary: usize) -> Value {
    let positions = sinusoidal_positions(nn.graph(), characters.dim(1), WIDTH);
    let x = Embedding::new(nn, "characters", vocabulary, WIDTH).forward(characters) + nn.activation(&positions);
    let x = (0..BLOCKS).fold(nn.dropout(&x, DROPOUT), |x, i| {
        let block = TransformerEncoderLayer::new(nn, &format!("blocks.{i}"), WIDTH, HEADS, INNER, DROPOUT);
        block.norm_first().activation(Value::gelu).causal().forward(&x)
    });
    nn.linear("head", &nn.layer_norm("norm", &x), vocabulary)
}

/// The mean of `-ln p` over the characters `[names, length + 1]` after the first; PAD does not count.
fn loss(nn: &Scope, names: &Value, vocabulary: usize) -> Value {
    let length = names.dim(1) - 1;
    let logits = model(nn, &names.slice(1, 0, length, 1), vocabulary).reshape(&[-1, vocabulary as isize]);
    let next = names.slice(1, 1, length + 1, 1).reshape(&[-1]);
    let options = ClassLoss { reduction: Reduction::Mean, ignore_index: Some(Vocabulary::PAD), ..ClassLoss::default() };
    logits.cross_entropy_with(&next, &options)
}

fn training_step(session: &mut Session, options: &Options, names: &Tensor, vocabulary: usize) -> Result<Program> {
    let graph = Graph::new();
    let names = graph.input("names", DType::I32, names.shape());
    let nn = Scope::train(&graph, options.common.seed).mixed(options.mixed);
    let loss = loss(&nn, &names, vocabulary);
    let adam = AdamW::new().weight_decay(0.05);
    match options.mixed {
        DType::F16 => LossScale::new().minimize(&graph, &adam, &loss),
        _ => adam.minimize(&graph, &loss),
    };
    session.compile(&graph, &[&loss])
}

/// Trains the model; returns the bits per character on held-out names.
fn learn(
    options: &mut Options,
    session: &mut Session,
    train: &Tensor,
    held_out: &Tensor,
    vocabulary: usize,
) -> Result<f64> {
    let seed = options.common.seed;
    let judge = judge(session, options, held_out, vocabulary)?;
    let batches = Batches::new(train.shape()[0], BATCH)?.shuffled(seed);
    let epochs = options.epochs.unwrap_or(if options.common.quick { 1 } else { 24 });
    // The last, smaller batch of an epoch is skipped; the order differs in each epoch.
    let per_epoch = (train.shape()[0] / BATCH) as u64;
    let steps = (epochs * per_epoch).max(1) as f64;
    let step = training_step(session, options, &train.rows(&(0..BATCH).collect::<Vec<_>>())?, vocabulary)?;
    let mut bits = 0.0;
    for epoch in 0..epochs {
        let mut sum = 0.0;
        for (number, rows) in batches.epoch(epoch).filter(|rows| rows.len() == BATCH).enumerate() {
            let done = (epoch * per_epoch + number as u64) as f64 / steps;
            let lr = Tensor::scalar(options.lr * ((done + 1.0 / steps) / 0.1).min((1.0 - done) / 0.9));
            let feeds = [("names", &train.rows(&rows)?), ("lr", &lr)];
            sum += options.common.steps.run(session, &step, &feeds)?[0].item()?;
        }
        bits = options.common.steps.run(session, &judge, &[("names", held_out)])?[0].item()? / LN_2;
        let learned = sum / per_epoch as f64 / LN_2;
        println!("epoch {:>2}: {learned:.3} bits per character in training, {bits:.3} held out", epoch + 1);
    }
    Ok(bits)
}

/// The program that evaluates the model.
fn judge(session: &mut Session, options: &Options, names: &Tensor, vocabulary: usize) -> Result<Program> {
    let graph = Graph::new();
    let names = graph.input("names", DType::I32, names.shape());
    let nn = Scope::eval(&graph, options.common.seed).mixed(options.mixed);
    session.compile(&graph, &[&loss(&nn, &names, vocabulary)])
}

/// Bits per character on these names.
fn evaluate(options: &mut Options, session: &mut Session, names: &Tensor, vocabulary: usize) -> Result<f64> {
    let judge = judge(session, options, names, vocabulary)?;
    Ok(options.common.steps.run(session, &judge, &[("names", names)])?[0].item()? / LN_2)
}

/// Generates names and prints them.
fn write_names(
    options: &mut Options,
    session: &mut Session,
    count: usize,
    length: usize,
    vocabulary: &Vocabulary,
) -> Result<Vec<String>> {
    let rows = sample(options, session, count, length, vocabulary.len())?;
    let names: Vec<String> = rows.iter().map(|row| vocabulary.decode(row)).collect::<Result<_>>()?;
    println!("generated, with temperature {} and top-k {}:", options.temperature, options.top_k);
    names.chunks(8).for_each(|line| println!("  {}", line.join(" ")));
    Ok(names)
}

/// Bits per character of the held-out names, predicted by the bigrams of the training names.
fn bigram_bits(train: &Tensor, held_out: &Tensor, vocabulary: usize) -> f64 {
    let pairs = |names: &Tensor| -> Vec<[usize; 2]> {
        let numbers: Vec<usize> = names.to_f64().into_iter().map(|number| number as usize).collect();
        let rows = numbers.chunks(names.shape()[1]);
        let pairs = rows.flat_map(|row| row.windows(2).map(|pair| [pair[0], pair[1]]));
        pairs.filter(|pair| pair[1] != Vocabulary::PAD as usize).collect()
    };
    let mut counts = vec![1.0; vocabulary * vocabulary];
    pairs(train).into_iter().for_each(|[before, next]| counts[before * vocabulary + next] += 1.0);
    let bits = |[before, next]: [usize; 2]| {
        let row: f64 = counts[before * vocabulary..][..vocabulary].iter().sum();
        -(counts[before * vocabulary + next] / row).log2()
    };
    let judged = pairs(held_out);
    judged.iter().copied().map(bits).sum::<f64>() / judged.len().max(1) as f64
}

/// Generates names, as rows of character indices after START.
fn sample(
    options: &mut Options,
    session: &mut Session,
    count: usize,
    length: usize,
    vocabulary: usize,
) -> Result<Vec<Vec<i32>>> {
    let graph = Graph::new();
    let characters = graph.input("characters", DType::I32, [count, length]);
    let logits = model(&Scope::eval(&graph, options.common.seed).mixed(options.mixed), &characters, vocabulary);
    let program = session.compile(&graph, &[&logits])?;
    let mut rng = StdRng::seed_from_u64(options.common.seed);
    let mut rows = vec![vec![Vocabulary::START]; count];
    for place in 0..length {
        // The padding after the last character does not matter, because attention is causal.
        let padded =
            |row: &Vec<i32>| row.iter().copied().chain(std::iter::repeat(Vocabulary::PAD)).take(length).collect();
        let read: Vec<Vec<i32>> = rows.iter().map(padded).collect();
        let read = Tensor::new([count, length], Data::from(read.concat()))?;
        let logits = options.common.steps.run(session, &program, &[("characters", &read)])?[0].to_f64();
        for (row, of_row) in rows.iter_mut().zip(logits.chunks(length * vocabulary)) {
            let next = draw(&of_row[place * vocabulary..][..vocabulary], options.temperature, options.top_k, &mut rng);
            row.push(next);
        }
    }
    Ok(rows)
}

/// Samples from `softmax(logits / temperature)`, among the `top_k` likeliest; never PAD or START.
fn draw(logits: &[f64], temperature: f64, top_k: u64, rng: &mut StdRng) -> i32 {
    let mut likeliest: Vec<usize> = (Vocabulary::END as usize..logits.len()).collect();
    likeliest.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    likeliest.truncate(usize::try_from(top_k).unwrap_or(usize::MAX));
    let weights: Vec<f64> =
        likeliest.iter().map(|&i| ((logits[i] - logits[likeliest[0]]) / temperature).exp()).collect();
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (&number, weight) in likeliest.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return number as i32;
        }
    }
    likeliest[0] as i32
}
