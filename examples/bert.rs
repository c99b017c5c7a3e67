//! A small BERT: a network that has learned to fill in missing words needs fewer labels.
//!
//! ```text
//! cargo run --release --example bert
//! ```
//!
//! Some words `m` of a text are hidden, and a transformer predicts them from the words on both sides:
//!
//! `loss = -mean over m of ln p(word[m] | the other words)`, `p = softmax(E h[m] + b)`,
//!
//! where `h[m]` is the output of the encoder at place m, and E is the table of word embeddings itself (Devlin, Chang,
//! Lee and Toutanova, *BERT: pre-training of deep bidirectional transformers*, 2018). Of the hidden words, 80% are
//! replaced by MASK, 10% by any word, and 10% stay, so that the encoder must make something of every word. Other words
//! are hidden each time.
//!
//! No label is needed for that. Then a linear layer over the mean of `h` tells ten classes of definitions apart (*a
//! small casserole in which individual portions can be cooked* is an artifact), and all weights learn from a few
//! labelled texts. Two others learn from the same texts: the same network from random weights, and logistic regression
//! on a bag of words, `p = softmax(sum over the words of W[word] + b)`. No text of the test is read before it.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use common::WithDrawings;
use common::plot::Plot;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom, index};
use rand::{Rng, SeedableRng};
use wgrad::data::{TextLines, Vocabulary};
use wgrad::loss::ClassLoss;
use wgrad::nn::{Layer, TransformerEncoder, TransformerEncoderLayer, init};
use wgrad::optim::schedule::{Cosine, Schedule};
use wgrad::prelude::*;
use wgrad::train::{Batch, Dataset, Inputs, Metric, Step, Trainer};
use wgrad::{Error, Result};

/// The numbers of labelled definitions, and how often the transformer reads them.
const SIZES: [(usize, u64); 3] = [(100, 20), (500, 10), (2000, 5)];
const TEST: usize = 2000;
const CLASSES: usize = 10;
/// Words, START and END of a definition; longer ones are cut.
const LENGTH: usize = 16;
/// Frequent words with a number of their own.
const WORDS: usize = 2000;
/// Besides them, there are three special words, one for all rare words, and this one for hidden words.
const MASK: i32 = WORDS as i32 + 4;
const RARE: i32 = MASK - 1;
/// The number of all of these.
const NUMBERS: usize = WORDS + 5;
/// Embedding size, heads, hidden size and number of blocks.
const WIDTH: usize = 64;
const HEADS: usize = 4;
const INNER: usize = 128;
const BLOCKS: usize = 2;
const DROPOUT: f64 = 0.1;
/// Hidden words per definition.
const HIDDEN: usize = 3;
/// Definitions per step.
const BATCH: usize = 32;

/// The outputs `[N, LENGTH, WIDTH]` of the encoder for words `[N, LENGTH]`, and the table of embeddings.
fn encode(nn: &Scope, words: &Value) -> (Value, Value) {
    let nn = nn.part("bert");
    let table = nn.parameter("words.weight", [NUMBERS, WIDTH], init::normal(0.0, 0.02));
    let places = nn.parameter("places.weight", [LENGTH, WIDTH], init::normal(0.0, 0.02));
    let x = nn.dropout(&nn.layer_norm("norm", &(table.embedding(words) + places)), DROPOUT);
    let mask = is_word(words).reshape(&[-1, 1, 1, LENGTH as isize]);
    let blocks = TransformerEncoder::new(&nn, "encoder", BLOCKS, |nn, name| {
        TransformerEncoderLayer::new(nn, name, WIDTH, HEADS, INNER, DROPOUT).activation(Value::gelu).mask(&mask)
    });
    (blocks.forward(&x), table)
}

/// Where a text has not ended.
fn is_word(words: &Value) -> Value {
    words.gt(&words.full_like(f64::from(Vocabulary::PAD)))
}

/// The sum over the words of a text, of values `[N, LENGTH, width]`.
fn sum_of_words(x: &Value, words: &Value) -> Value {
    (x * is_word(words).cast(DType::F32).reshape(&[-1, LENGTH as isize, 1])).sum(&[1], false)
}

/// The logits of the words at some places `[N, count]`, one after the other.
fn guess(nn: &Scope, words: &Value, places: &Value) -> Value {
    let (h, table) = encode(nn, words);
    let index = places.reshape(&[places.dim(0) as isize, -1, 1]);
    let h = h.gather(1, &index.broadcast_to(&[places.dim(0), places.dim(1), WIDTH].into()));
    let bias = nn.parameter("guess.bias", [NUMBERS], init::zeros());
    h.reshape(&[-1, WIDTH as isize]).matmul(&table.permute(&[1, 0])) + bias
}

/// Rare words are not to be guessed: they have one number together.
fn pretrain(nn: &Scope, batch: &Inputs) -> Step {
    let logits = guess(nn, &batch.get("x"), &batch.get("places"));
    let options = ClassLoss { ignore_index: Some(RARE), ..ClassLoss::default() };
    Step { loss: logits.cross_entropy_with(&batch.get("y").reshape(&[-1]), &options), prediction: None }
}

/// Classes from the mean of the encoder's outputs over the words.
fn transformer(nn: &Scope, batch: &Inputs) -> Step {
    let words = batch.get("x");
    let (h, _) = encode(nn, &words);
    let mean = sum_of_words(&h, &words) / sum_of_words(&h.ones_like(), &words);
    classes(nn.linear("head", &nn.dropout(&mean, DROPOUT), CLASSES), batch)
}

/// Logistic regression on a bag of words: the sum of a row of weights for each word.
fn bag(nn: &Scope, batch: &Inputs) -> Step {
    let words = batch.get("x");
    let weights = nn.parameter("words.weight", [NUMBERS, CLASSES], init::zeros());
    let bias = nn.parameter("bias", [CLASSES], init::zeros());
    classes(sum_of_words(&weights.embedding(&words), &words) + bias, batch)
}

fn classes(logits: Value, batch: &Inputs) -> Step {
    Step { loss: logits.cross_entropy(&batch.get("y"), Reduction::Mean), prediction: Some(logits) }
}

/// The definitions in random order, each once: the vocabulary, their words `[N, LENGTH]` and their classes `[N]`.
fn definitions(seed: u64) -> Result<(Vocabulary, Tensor, Tensor)> {
    let path = common::data("glosses.tsv.gz");
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| GzDecoder::new(file).read_to_string(&mut text));
    read.map_err(|source| Error::Io { path, source })?;
    // After the header, a line has a class, a word and its definition.
    let mut seen = HashSet::new();
    let rows = text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let long = |row: &[&str]| row.len() == 3 && row[2].split(' ').count() >= HIDDEN;
    let rows = rows.filter(|row| long(row) && seen.insert(row[2].to_owned()));
    let mut lines: Vec<String> = rows.map(|row| format!("{}\t{}", row[0], row[2])).collect();
    lines.shuffle(&mut StdRng::seed_from_u64(seed));
    let lines = TextLines::parse_labelled(&lines.join("\n"))?;
    let vocabulary = Vocabulary::words(&lines.texts[TEST..], WORDS);
    let (words, classes) = lines.encode(&vocabulary, LENGTH)?;
    Ok((vocabulary, words, classes))
}

/// The numbers in a tensor of words.
fn numbers(words: &Tensor) -> Vec<i32> {
    words.to_f64().into_iter().map(|number| number as i32).collect()
}

/// Hides words of definitions `x`, and adds the places and what was there.
fn hide(mut batch: Batch, seed: u64) -> Result<Batch> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut words = numbers(&batch["x"]);
    let (mut places, mut hidden) = (Vec::new(), Vec::new());
    for row in words.chunks_mut(LENGTH) {
        let length = row.iter().take_while(|&&word| word != Vocabulary::PAD).count();
        for place in index::sample(&mut rng, length - 1, HIDDEN).into_iter().map(|place| 1 + place) {
            places.push(place as i32); // not 0, which is START
            hidden.push(row[place]);
            row[place] = match rng.random_range(0..10) {
                0 => row[place],
                1 => rng.random_range(Vocabulary::END + 1..RARE),
                _ => MASK,
            };
        }
    }
    let rows = words.len() / LENGTH;
    batch.insert("x".into(), Tensor::new([rows, LENGTH], words)?);
    batch.insert("places".into(), Tensor::new([rows, HIDDEN], places)?);
    batch.insert("y".into(), Tensor::new([rows, HIDDEN], hidden)?);
    Ok(batch)
}

/// The loss of guessing by frequency alone: the mean of `-ln (n[word] / n)` with the counts n of `words`.
fn loss_of_frequencies(words: &Tensor, hidden: &Tensor) -> f64 {
    let mut counts = [1.0; NUMBERS]; // 1 more, so that no word is impossible
    let counted = numbers(words).into_iter().filter(|word| ![Vocabulary::PAD, Vocabulary::START, RARE].contains(word));
    counted.for_each(|word| counts[word as usize] += 1.0);
    let all: f64 = counts.iter().sum();
    let hidden: Vec<i32> = numbers(hidden).into_iter().filter(|&word| word != RARE).collect();
    hidden.iter().map(|&word| (all / counts[word as usize]).ln()).sum::<f64>() / hidden.len() as f64
}

/// Prints the likeliest words for the gap in a text.
fn show_guesses(session: &mut Session, vocabulary: &Vocabulary, before: &str, after: &str) -> Result<()> {
    let start = [vec![Vocabulary::START], vocabulary.encode(before)?].concat();
    let gap = start.len();
    let mut text = [start, vec![MASK], vocabulary.encode(after)?, vec![Vocabulary::END]].concat();
    text.resize(LENGTH, Vocabulary::PAD);
    let graph = Graph::new();
    let constant = |width, numbers| Ok::<_, Error>(graph.constant(Tensor::new([1, width], numbers)?));
    let logits = guess(&Scope::eval(&graph, 0), &constant(LENGTH, text)?, &constant(1, vec![gap as i32])?);
    let program = session.compile(&graph, &[&logits.softmax(1)])?;
    let p = session.run(&program, &[])?[0].to_f64();
    let mut likeliest: Vec<i32> = (Vocabulary::END + 1..RARE).collect();
    likeliest.sort_by(|&a, &b| p[b as usize].total_cmp(&p[a as usize]));
    let guesses =
        likeliest[..4].iter().map(|&word| Ok(format!("{} {:.2}", vocabulary.decode(&[word])?, p[word as usize])));
    println!("  {before} ___ {after}: {}", guesses.collect::<Result<Vec<_>>>()?.join(", "));
    Ok(())
}

/// A trainer with AdamW, whose rate rises for a tenth of the steps, then falls to 0.
fn trainer(options: &common::Options, step: fn(&Scope, &Inputs) -> Step, epochs: u64, lr: f64) -> Trainer {
    Trainer::of(step)
        .optimizer(AdamW::new().weight_decay(0.01))
        .schedule(move |steps| Cosine { lr, last: 0.0, steps }.after_warm_up(steps / 10))
        .seed(options.seed)
        .epochs(epochs)
        .batch(BATCH)
        .quiet()
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } = common::parse(
        "Hides words of definitions, lets a transformer guess them, and then lets it classify definitions",
    );
    let (vocabulary, words, labels) = definitions(options.seed)?;
    let count = if options.quick { TEST + 4000 } else { words.shape()[0] };
    println!("data: {} definitions, {TEST} others for tests", count - TEST);
    let mut session = options.session()?;

    let unlabelled = words.slice(0, TEST..count)?;
    let hidden = hide(Batch::from([("x".into(), words.slice(0, 0..TEST)?)]), options.seed)?;
    let frequencies = loss_of_frequencies(&unlabelled, &hidden["y"]);
    let (epochs, margin) = if options.quick { (1, 0.2) } else { (4, 1.0) };
    let (pretraining, data) = (trainer(&options, pretrain, epochs, 3e-3), unlabelled.map(hide));
    let mut pretraining = options.steps.inspect(pretraining, &session, &data)?;
    pretraining.fit(&mut session, &data, None)?;
    let loss = pretraining.evaluate(&mut session, &hidden)?.loss;
    println!("hidden words: loss {loss:.3}; by frequency alone {frequencies:.3}");
    for (before, after) in [("the capital of", ""), ("a large", "of africa"), ("someone who", "others")] {
        show_guesses(&mut session, &vocabulary, before, after)?;
    }
    let learned: Vec<(String, Tensor)> = session
        .names()
        .into_iter()
        .filter(|name| name.starts_with("bert.") && !name.contains(".adam."))
        .map(|name| Ok((name.clone(), session.get(&name)?)))
        .collect::<Result<_>>()?;

    let test = (words.slice(0, 0..TEST)?, labels.slice(0, 0..TEST)?);
    // Returns the percentage of the test definitions that are classified correctly.
    let train = |step, weights: &[(String, Tensor)], size, epochs, lr| -> Result<f64> {
        let data = (words.slice(0, TEST..TEST + size)?, labels.slice(0, TEST..TEST + size)?);
        let mut session = Session::new(session.device().clone());
        let mut trainer = trainer(&options, step, epochs, lr).metrics([Metric::Accuracy]);
        trainer.evaluate(&mut session, &test)?; // declares the variables
        weights.iter().try_for_each(|(name, value)| session.set(name, value))?;
        let mut trainer = options.steps.inspect(trainer, &session, &data)?;
        trainer.fit(&mut session, &data, None)?;
        Ok(100.0 * trainer.evaluate(&mut session, &test)?.get("accuracy").unwrap_or(0.0))
    };
    let sizes = if options.quick { &SIZES[..1] } else { &SIZES[..] };
    let names = ["pre-trained", "from scratch", "bag of words"];
    let mut curves = names.map(|name| (name, Vec::new()));
    println!("labels{:>16}{:>16}{:>16}", names[0], names[1], names[2]);
    for &(size, epochs) in sizes {
        let epochs = if options.quick { epochs / 4 } else { epochs };
        let percent = [
            train(transformer, &learned, size, epochs, 3e-3)?,
            train(transformer, &[], size, epochs, 3e-3)?,
            train(bag, &[], size, 20, 3e-2)?,
        ];
        println!("{size:>6}{:15.1}%{:15.1}%{:15.1}%", percent[0], percent[1], percent[2]);
        curves.iter_mut().zip(percent).for_each(|(curve, percent)| curve.1.push(((size as f64).log10(), percent)));
    }
    let [few, many] = [0, sizes.len() - 1].map(|at| [0, 1, 2].map(|way| curves[way].1[at].1));
    let (title, x) = ("Definitions that are classified correctly", "log10 of the number of labels");
    let y = "percent of test definitions";
    Plot { title, x, y, log: false, curves: curves.to_vec() }.save(&drawings.plots, "bert")?;
    assert!(loss < frequencies - margin, "the other words must help to guess a word");
    assert!(options.quick || few[0] > few[1].max(few[2]) + 1.0, "pre-training must make up for missing labels");
    let gain = |percent: [f64; 3]| percent[0] - percent[1];
    assert!(options.quick || gain(few) > gain(many) + 1.0, "with more labels, pre-training must matter less");
    Ok(())
}
