//! A GRU learns to spell first names, one character after the other, and makes up new ones.
//!
//! ```text
//! cargo run --release --example gru_names
//! ```
//!
//! A model of text says how likely each next character is after those before. It is measured in bits
//! per character, `-log2 p` of what really came, on names that it has not seen: fewer are better.
//!
//! - **Bigrams** look back one character: `p(b | a) = (count of ab + 1) / (count of a + size)`.
//! - **GRU** (Cho et al. 2014): each character has a vector x that is learned; the state h remembers what
//!   has been read. With r, z = sigmoid(W x + U h + b), `n = tanh(W x + r (U h + b))` is the new state,
//!   of which z says how much of the old one stays: `h = (1 - z) n + z h`. `p = softmax(V h + d)`.
//!
//! Names are written START a n n a END, all in rows of one length; what is behind END does not count in
//! the loss. To make up a name, characters are drawn from p one by one, from START until END.

mod common;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::data::{Batches, Split, Vocabulary};
use wgrad::loss::ClassLoss;
use wgrad::nn::{Recurrent, RecurrentOptions, Scope, States, init};
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Error, Graph, Result, Session, Tensor, Value};

/// Numbers of a character's vector, and of the state.
const EMBEDDED: usize = 24;
const HIDDEN: usize = 96;
/// Names in a step.
const BATCH: usize = 64;
/// Names that are made up.
const NEW: usize = 24;

#[derive(Parser)]
#[command(about = "A GRU learns to spell first names, and makes up new ones.")]
struct Arguments {
    #[command(flatten)]
    common: common::Options,
    /// Below 1 the likely gets likelier: plainer names; above 1 stranger ones
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
}

/// Characters `[batch, time]` to logits of the next ones, `[batch, time, characters]`, and the states.
fn model(nn: &Scope, characters: &Value, size: usize, state: Option<&[Value]>) -> (Value, States) {
    let table = nn.parameter("embedding.weight", [size, EMBEDDED], init::normal(0.0, 1.0));
    let gru = Recurrent::gru(nn, "gru", EMBEDDED, HIDDEN, RecurrentOptions::default());
    let states = gru.states(&table.embedding(characters), state);
    (nn.linear("out", &states.y, size), states)
}

/// The mean over all characters, in nats, of rows `[batch, time + 1]`: each is predicted from those before.
fn loss(nn: &Scope, rows: &Value, size: usize) -> Value {
    let time = rows.dim(1);
    let (logits, _) = model(nn, &rows.slice(1, 0, time - 1, 1), size, None);
    let targets = rows.slice(1, 1, time, 1).reshape(&[-1]);
    let options = ClassLoss { ignore_index: Some(Vocabulary::PAD), ..ClassLoss::default() };
    logits.reshape(&[-1, size as isize]).cross_entropy_with(&targets, &options)
}

fn main() -> Result<()> {
    let Arguments { common: mut options, temperature } = Arguments::parse();
    let path = common::data("first_names.txt");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
    let names: Vec<&str> = text.lines().collect();
    let vocabulary = Vocabulary::new(&names);
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    let rows = vocabulary.encode_rows(&names, longest)?;
    let Split { train, test } = Split::random(names.len(), 0.1, options.seed)?;
    println!("{} names to learn from, {} held out; {} characters", train.len(), test.len(), vocabulary.len());

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
    println!("bigrams: {bigrams:.3} bits per character of the names held out");
    let mut bits = f64::INFINITY;
    let order = Batches::new(train.len(), BATCH)?.shuffled(options.seed);
    for epoch in 0..if options.quick { 2 } else { 10 } {
        let mut nats = Vec::new();
        // The few that are left when the last batch is not full wait for another order.
        for batch in order.epoch(epoch).filter(|batch| batch.len() == BATCH) {
            let batch: Vec<usize> = batch.into_iter().map(|row| train[row]).collect();
            nats.push(options.steps.run(&mut session, &step, &[("rows", &rows.rows(&batch)?)])?[0].item()?);
        }
        bits = options.steps.run(&mut session, &evaluate, &[("rows", &held_out)])?[0].item()? / std::f64::consts::LN_2;
        let learned = nats.iter().sum::<f64>() / nats.len() as f64 / std::f64::consts::LN_2;
        println!("epoch {:>2}: {learned:.3} bits per character in training, {bits:.3} held out", epoch + 1);
    }

    let made_up = make_up(&mut options, &mut session, &vocabulary, longest, temperature)?;
    println!("made up (* is a name of the list):");
    for line in made_up.chunks(8) {
        let marked = |name: &String| format!("{name}{}", if names.contains(&name.as_str()) { "*" } else { "" });
        println!("  {}", line.iter().map(marked).collect::<Vec<_>>().join(" "));
    }
    options.steps.summary();
    println!("GRU {bits:.3} bits per character, bigrams {bigrams:.3}");
    assert!(bits < bigrams, "the GRU must need fewer bits than bigrams");
    Ok(())
}

/// Bits per character of `held_out` by the bigrams of `train`.
fn bigrams(train: &Tensor, held_out: &Tensor, size: usize) -> f64 {
    let pairs = |rows: &Tensor| {
        let (length, numbers) = (rows.shape()[1], rows.to_f64());
        let pairs =
            numbers.chunks(length).flat_map(|row| row.windows(2)).map(|pair| (pair[0] as usize, pair[1] as usize));
        pairs.filter(|&(_, next)| next != Vocabulary::PAD as usize).collect::<Vec<_>>()
    };
    // What may come next is END or a character: all but PAD and START.
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

/// Draws names character by character, all at once: the state goes out of a step and into the next.
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

/// A number, as likely as `p` says.
fn draw(p: &[f64], rng: &mut StdRng) -> usize {
    let mut left = rng.random::<f64>() * p.iter().sum::<f64>();
    let reached = p.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    reached.unwrap_or(p.len() - 1) // rounding may leave a little over
}
