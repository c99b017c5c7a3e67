//! A GRU learns to spell first names, one character at a time, and invents new ones.
//!
//! ```text
//! cargo run --release --example gru_names
//! ```
//!
//! A character-level language model predicts the probability of each character given the previous ones. It is measured
//! in bits per character, the mean of `-log2 p` of the actual character, on held-out names; lower is better.
//!
//! - **Bigrams** look back one character: `p(b | a) = (count of ab + 1) / (count of a + size)`.
//! - **GRU** (Cho et al. 2014): each character has a learned embedding x; the state h summarises the characters so far.
//!   With `r, z = sigmoid(W x + U h + b)`, the candidate state is `n = tanh(W x + r (U h + b))`, and z is the share of
//!   the old state that is kept: `h = (1 - z) n + z h`. The prediction is `p = softmax(V h + d)`.
//!
//! Names are encoded as START a n n a END and padded to rows of equal length; the padding after END does not count in
//! the loss. To generate a name, characters are sampled from p one by one, from START until END.

mod common;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::data::{Batches, Split, TextLines, Vocabulary};
use wgrad::loss::ClassLoss;
use wgrad::nn::{Recurrent, RecurrentOptions, Scope, States, init};
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Graph, Result, Session, Tensor, Value};

/// Sizes of the embeddings and of the state.
const EMBEDDED: usize = 24;
const HIDDEN: usize = 96;
/// Names per step.
const BATCH: usize = 64;
/// Number of generated names.
const NEW: usize = 24;

#[derive(Parser)]
#[command(about = "Trains a GRU to spell first names, and generates new ones.")]
struct Arguments {
    #[command(flatten)]
    common: common::Options,
    /// Sampling temperature: below 1 favours likely characters and common names; above 1 gives stranger names
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
}

/// Maps characters `[batch, time]` to logits of the next ones, `[batch, time, characters]`, and the states.
fn model(nn: &Scope, characters: &Value, size: usize, state: Option<&[Value]>) -> (Value, States) {
    let table = nn.parameter("embedding.weight", [size, EMBEDDED], init::normal(0.0, 1.0));
    let gru = Recurrent::gru(nn, "gru", EMBEDDED, HIDDEN, RecurrentOptions::default());
    let states = gru.states(&table.embedding(characters), state);
    (nn.linear("out", &states.y, size), states)
}

/// The mean loss in nats per character of rows `[batch, time + 1]`; each character is predicted from previous ones.
fn loss(nn: &Scope, rows: &Value, size: usize) -> Value {
    let time = rows.dim(1);
    let (logits, _) = model(nn, &rows.slice(1, 0, time - 1, 1), size, None);
    let targets = rows.slice(1, 1, time, 1).reshape(&[-1]);
    let options = ClassLoss { ignore_index: Some(Vocabulary::PAD), ..ClassLoss::default() };
    logits.reshape(&[-1, size as isize]).cross_entropy_with(&targets, &options)
}

fn main() -> Result<()> {
    let Arguments { common: mut options, temperature } = Arguments::parse();
    let names = TextLines::load(common::data("first_names.txt"))?.texts;
    let vocabulary = Vocabulary::new(&names);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    let rows = vocabulary.encode_rows(&names, longest)?;
    let Split { train, test } = Split::random(names.len(), 0.1, options.seed)?;
    println!("{} training names, {} held out; {} characters", train.len(), test.len(), vocabulary.len());

    let size = vocabulary.len();
    let mut session = options.session()?;
    let training = Graph::new();
    let batch = training.input("rows", DType::I32, [BATCH, longest]);
    let nats = loss(&Scope::train(&training, options.seed), &batch, size);
    Adam::new().lr(4e-3).minimize(&training, &nats);
    let step = session.compile(&training, &[&nats])?;
    let evaluation = Graph::new();
    let batch = evaluation.input("rows", DType::I32, [test.len(), longest]);
    let nats = loss(&Scope::eval(&evaluation, options.seed), &batch, size);
    let evaluate = session.compile(&evaluation, &[&nats])?;

    let held_out = rows.rows(&test)?;
    let bigrams = bigrams(&rows.rows(&train)?, &held_out, size);
    println!("bigrams: {bigrams:.3} bits per character of held-out names");
    let mut bits = f64::INFINITY;
    let order = Batches::new(train.len(), BATCH)?.shuffled(options.seed);
    for epoch in 0..if options.quick { 1 } else { 10 } {
        let mut nats = Vec::new();
        // Skips the last batch if it is not full; the order differs in each epoch.
        for batch in order.epoch(epoch).filter(|batch| batch.len() == BATCH) {
            let batch: Vec<usize> = batch.into_iter().map(|row| train[row]).collect();
            nats.push(options.steps.run(&mut session, &step, &[("rows", &rows.rows(&batch)?)])?[0].item()?);
        }
        bits = options.steps.run(&mut session, &evaluate, &[("rows", &held_out)])?[0].item()? / std::f64::consts::LN_2;
        let learned = nats.iter().sum::<f64>() / nats.len() as f64 / std::f64::consts::LN_2;
        println!("epoch {:>2}: {learned:.3} bits per character in training, {bits:.3} held out", epoch + 1);
    }

    let made_up = make_up(&mut options, &mut session, &vocabulary, longest, temperature)?;
    println!("generated (* is in the list of names):");
    for line in made_up.chunks(8) {
        let marked = |name: &String| format!("{name}{}", if names.contains(name) { "*" } else { "" });
        println!("  {}", line.iter().map(marked).collect::<Vec<_>>().join(" "));
    }
    options.steps.summary();
    println!("GRU {bits:.3} bits per character, bigrams {bigrams:.3}");
    assert!(bits < bigrams, "the GRU must need fewer bits than bigrams");
    Ok(())
}

/// Bits per character of `held_out`, predicted by the bigrams of `train`.
fn bigrams(train: &Tensor, held_out: &Tensor, size: usize) -> f64 {
    let pairs = |rows: &Tensor| {
        let (length, numbers) = (rows.shape()[1], rows.to_f64());
        let pairs =
            numbers.chunks(length).flat_map(|row| row.windows(2)).map(|pair| (pair[0] as usize, pair[1] as usize));
        pairs.filter(|&(_, next)| next != Vocabulary::PAD as usize).collect::<Vec<_>>()
    };
    // The next character is never PAD or START.
    let choices = (size - 2) as f64;
    let mut counts = vec![0.0; size * size];
    pairs(train).into_iter().for_each(|(a, b)| counts[a * size + b] += 1.0);
    let bits = |(a, b): (usize, usize)| {
        let row = &counts[a * size..][..size];
        -((row[b] + 1.0) / (row.iter().sum::<f64>() + choices)).log2()
    };
    let pairs = pairs(held_out);
    let count = pairs.len() as f64;
    pairs.into_iter().map(bits).sum::<f64>() / count
}

/// Generates names character by character, all in parallel; each step returns the state for the next.
fn make_up(
    options: &mut common::Options,
    session: &mut Session,
    vocabulary: &Vocabulary,
    longest: usize,
    temperature: f64,
) -> Result<Vec<String>> {
    let graph = Graph::new();
    let characters = graph.input("characters", DType::I32, [NEW, 1]);
    let state = graph.input("state", DType::F32, [1, NEW, HIDDEN]);
    let nn = Scope::eval(&graph, options.seed);
    let (logits, states) = model(&nn, &characters, vocabulary.len(), Some(&[state]));
    let p = (logits / graph.scalar("temperature", 1.0)).softmax(-1);
    let program = session.compile(&graph, &[&p, &states.h])?;

    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut last = vec![Vocabulary::START; NEW];
    let mut names = vec![Vec::new(); NEW];
    let mut state = Tensor::new([1, NEW, HIDDEN], vec![0.0f32; NEW * HIDDEN])?;
    for _ in 1..longest {
        let feeds = [
            ("characters", &Tensor::new([NEW, 1], last.clone())?),
            ("state", &state),
            ("temperature", &Tensor::scalar(temperature)),
        ];
        let mut outputs = options.steps.run(session, &program, &feeds)?;
        state = outputs.swap_remove(1);
        let p = outputs[0].to_f64();
        for ((p, last), name) in p.chunks(vocabulary.len()).zip(&mut last).zip(&mut names) {
            *last = draw(p, &mut rng) as i32;
            name.push(*last);
        }
    }
    names.iter().map(|name| vocabulary.decode(name)).collect()
}

/// Samples an index with probabilities `p`.
fn draw(p: &[f64], rng: &mut StdRng) -> usize {
    let mut left = rng.random::<f64>() * p.iter().sum::<f64>();
    let reached = p.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    reached.unwrap_or(p.len() - 1) // rounding may leave a remainder
}
