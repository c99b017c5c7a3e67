//! Sequence to sequence: dates in words become ISO dates, with and without attention.
//!
//! ```text
//! cargo run --release --example seq2seq
//! ```
//!
//! An encoder reads `third may 1987`, and a decoder writes `1987-05-03`, character by character:
//!
//! `p(y | x) = prod_t p(y[t] | y[0..t], x)`.
//!
//! The first model consists of two LSTMs, and the decoder starts from the last state of the encoder (I. Sutskever,
//! O. Vinyals, Q. V. Le, *Sequence to sequence learning with neural networks*, 2014). That state must hold the whole
//! date. With *attention*, the decoder also looks at the states `h[s]` of the encoder at all places (D. Bahdanau,
//! K. Cho, Y. Bengio, *Neural machine translation by jointly learning to align and translate*, 2014; here in the form
//! of M. Luong, H. Pham, C. D. Manning, 2015). From its own state `d[t]`, it computes
//!
//! ```text
//! a[t, s] = softmax over s of d[t] W h[s]     where to look
//! c[t]    = sum over s of a[t, s] h[s]        what is there
//! p(y[t]) = softmax(V tanh(U [d[t]; c[t]]))
//! ```
//!
//! The third model is a transformer (A. Vaswani et al., *Attention is all you need*, 2017), with attention in the place
//! of LSTMs. All learn from the same pairs and then write dates that they have not seen, always the likeliest
//! character. It is known which characters matter: to write the year, the decoder must look at the year.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::WithDrawings;
use common::plot::Matrices;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use wgrad::Result;
use wgrad::data::Vocabulary;
use wgrad::nn::{
    Embedding, Layer, Recurrent, RecurrentOptions, TransformerDecoderLayer, TransformerEncoderLayer,
    sinusoidal_positions,
};
use wgrad::optim::schedule::{Cosine, Schedule};
use wgrad::prelude::*;
use wgrad::train::{Inputs, Step, Trainer};

/// Pairs for tests and for training, and passes over the latter.
const TEST: usize = 500;
const TRAIN: usize = 8000;
const EPOCHS: u64 = 4;
const BATCH: usize = 32;
const WIDTH: usize = 64;
const HEADS: usize = 4;
/// Characters of a date in words, with START and END, and of an ISO date with one of both.
const LENGTH: usize = 26;
const WRITTEN: usize = 11;
/// Digits of a year.
const YEAR: usize = 4;
/// Dates in the picture of attention.
const SHOWN: usize = 4;

const MONTHS: &str = "january february march april may june july august september october november december";
const ORDINALS: &str = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth \
    fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third \
    twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first";

/// A date in one of six forms.
fn in_words(year: usize, month: usize, day: usize, rng: &mut StdRng) -> String {
    let name = |names: &'static str, number| names.split(' ').nth(number - 1).unwrap_or_default();
    let (month, ordinal) = (name(MONTHS, month), name(ORDINALS, day));
    let (short, suffix) = (&month[..3], &ordinal[ordinal.len() - 2..]); // 3rd ends like third
    match rng.random_range(0..6) {
        0 => format!("{ordinal} {short} {year}"),
        1 => format!("{short} {ordinal}, {year}"),
        2 => format!("{month} {day}, {year}"),
        3 => format!("{day} {short} {year}"),
        4 => format!("{day}{suffix} of {month} {year}"),
        _ => format!("{year}, {month} the {day}{suffix}"),
    }
}

/// All dates of two centuries in random order, in words and as ISO dates.
fn dates(seed: u64) -> (Vec<String>, Vec<String>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let days = |year: usize, month| match month {
        2 if year.is_multiple_of(4) && year != 1900 => 29, // 2000 was a leap year, 1900 was not
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let months = (1900..2100).flat_map(|year| (1..=12).map(move |month| (year, month)));
    let mut dates: Vec<_> = months.flat_map(|(y, m)| (1..=days(y, m)).map(move |d| (y, m, d))).collect();
    dates.shuffle(&mut rng);
    dates.into_iter().map(|(y, m, d)| (in_words(y, m, d, &mut rng), format!("{y}-{m:02}-{d:02}"))).unzip()
}

/// The logits `[N, WRITTEN, V]` of the characters that follow those of `y`, and where the decoder looked,
/// `[N, WRITTEN, LENGTH]`.
type Network = fn(&Scope, &Value, &Value, usize) -> (Value, Option<Value>);

const NETWORKS: [(&str, Network); 3] = [
    ("LSTMs", |nn, x, y, characters| lstms(nn, x, y, characters, false)),
    ("LSTMs with attention", |nn, x, y, characters| lstms(nn, x, y, characters, true)),
    ("transformer", transformer),
];

/// What to add to scores, so that padding gets no attention: `[N, 1, LENGTH]`.
fn mask(x: &Value) -> Value {
    let padding = x.eq(&x.full_like(f64::from(Vocabulary::PAD))).cast(DType::F32);
    (padding * -1e9).reshape(&[-1, 1, LENGTH as isize])
}

/// The encoder reads in both directions, the decoder starts from the last states of both.
fn lstms(nn: &Scope, x: &Value, y: &Value, characters: usize, attention: bool) -> (Value, Option<Value>) {
    let table = Embedding::new(nn, "characters", characters, WIDTH);
    let both = RecurrentOptions::default().bidirectional();
    let encoder = Recurrent::lstm(nn, "encoder", WIDTH, WIDTH / 2, both).states(&table.forward(x), None);
    let last = |state: &Value| state.permute(&[1, 0, 2]).reshape(&[1, -1, WIDTH as isize]);
    let start: Vec<Value> = [Some(encoder.h), encoder.c].iter().flatten().map(last).collect();
    let decoder = Recurrent::lstm(nn, "decoder", WIDTH, WIDTH, RecurrentOptions::default());
    let (h, d) = (encoder.y, decoder.states(&table.forward(y), Some(&start)).y);
    let (d, a) = if attention {
        let scores = nn.linear("attention", &d, WIDTH).matmul(&h.permute(&[0, 2, 1]));
        let a = (scores + mask(x)).softmax(2);
        (d.concat(&[&a.matmul(&h)], 2), Some(a))
    } else {
        (d, None)
    };
    (nn.linear("head", &nn.linear("mix", &d, WIDTH).tanh(), characters), a)
}

/// Its attention is not returned: the kernels do not store it.
fn transformer(nn: &Scope, x: &Value, y: &Value, characters: usize) -> (Value, Option<Value>) {
    let table = Embedding::new(nn, "characters", characters, WIDTH);
    let embed = |x: &Value| table.forward(x) + sinusoidal_positions(nn.graph(), x.dim(1), WIDTH);
    let mask = mask(x).reshape(&[-1, 1, 1, LENGTH as isize]);
    let encoder = TransformerEncoderLayer::new(nn, "encoder", WIDTH, HEADS, 2 * WIDTH, 0.0).mask(&mask);
    let decoder = TransformerDecoderLayer::new(nn, "decoder", WIDTH, HEADS, 2 * WIDTH, 0.0).causal().memory_mask(&mask);
    (nn.linear("head", &decoder.forward(&embed(y), &encoder.forward(&embed(x))), characters), None)
}

/// The mean of `-ln p` over the characters after START, when the decoder reads the correct ones before them.
fn step(network: Network, characters: usize, nn: &Scope, batch: &Inputs) -> Step {
    let y = batch.get("y");
    let (logits, _) = network(nn, &batch.get("x"), &y.slice(1, 0, WRITTEN, 1), characters);
    let next = y.slice(1, 1, WRITTEN + 1, 1).reshape(&[-1]);
    let logits = logits.reshape(&[-1, characters as isize]);
    Step { loss: logits.cross_entropy(&next, Reduction::Mean), prediction: None }
}

/// Writes the likeliest characters one by one, for all rows at once; also returns the attention if there is one.
fn translate(
    session: &mut Session,
    network: Network,
    vocabulary: &Vocabulary,
    x: &Tensor,
) -> Result<(Vec<String>, Option<Tensor>)> {
    let (graph, rows) = (Graph::new(), x.shape()[0]);
    let input = graph.input("x", DType::I32, x.shape());
    let read = graph.input("y", DType::I32, [rows, WRITTEN]);
    let (logits, attention) = network(&Scope::eval(&graph, 0), &input, &read, vocabulary.len());
    let outputs: Vec<Value> = [Some(logits.argmax(2, false)), attention].into_iter().flatten().collect();
    let program = session.compile(&graph, &outputs.iter().collect::<Vec<_>>())?;
    let mut y = vec![Vocabulary::PAD; rows * (WRITTEN + 1)];
    y.chunks_mut(WRITTEN + 1).for_each(|row| row[0] = Vocabulary::START);
    let mut outputs = Vec::new();
    for place in 0..WRITTEN {
        // What has not been written yet does not matter, since no network looks ahead.
        let read = Tensor::new([rows, WRITTEN + 1], y.clone())?.slice(1, 0..WRITTEN)?;
        outputs = session.run(&program, &[("x", x), ("y", &read)])?;
        let likeliest = outputs[0].to_f64();
        for (row, likeliest) in y.chunks_mut(WRITTEN + 1).zip(likeliest.chunks(WRITTEN)) {
            row[place + 1] = likeliest[place] as i32;
        }
    }
    let texts = y.chunks(WRITTEN + 1).map(|row| vocabulary.decode(row)).collect::<Result<_>>()?;
    Ok((texts, outputs.into_iter().nth(1)))
}

/// The share of the digits of years for which the decoder looked most at a digit of the year, and what would be
/// expected if it looked anywhere.
fn looks_at_years(attention: &Tensor, words: &[String], dates: &[String]) -> [f64; 2] {
    let attention = attention.to_f64();
    let (mut hits, mut chance) = (0, 0.0);
    for ((of_date, words), date) in attention.chunks(WRITTEN * LENGTH).zip(words).zip(dates) {
        let first = 1 + words.find(&date[..YEAR]).unwrap_or_default(); // START is at 0
        for row in of_date.chunks(LENGTH).take(YEAR) {
            let most = (0..LENGTH).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or_default();
            hits += usize::from((first..first + YEAR).contains(&most));
        }
        chance += YEAR as f64 / (words.len() + 2) as f64;
    }
    [hits as f64 / (YEAR * words.len()) as f64, chance / words.len() as f64]
}

/// Draws where the decoder looked: a row for each character that it wrote, a column for each that it read.
fn save_attention(attention: &Tensor, words: &[String], written: &[String], folder: &Path) -> Result<()> {
    let attention = attention.to_f64();
    // START and END are dots.
    let labels: Vec<[String; 2]> =
        words.iter().zip(written).map(|(x, y)| [format!("{y}·"), format!("·{x}·")]).collect();
    let matrix = |(of_date, [rows, columns]): (&[f64], &[String; 2])| {
        let width = columns.chars().count();
        let cells = of_date.chunks(LENGTH).take(rows.chars().count()).flat_map(|row| row[..width].to_vec()).collect();
        (rows.clone(), columns.clone(), cells)
    };
    let matrices = attention.chunks(WRITTEN * LENGTH).zip(&labels).take(SHOWN).map(matrix).collect();
    Matrices { matrices }.save(folder, "seq2seq")
}

/// The percentage of texts that are right.
fn percent(written: &[String], dates: &[String]) -> f64 {
    100.0 * written.iter().zip(dates).filter(|(written, date)| written == date).count() as f64 / dates.len() as f64
}

/// The loss of guessing by frequency alone: the mean of `-ln (n[c] / n)` with the counts n of the characters.
fn loss_of_frequencies(dates: &[String]) -> f64 {
    let mut counts = BTreeMap::from([(None, dates.len() as f64)]); // of END
    dates.iter().flat_map(|date| date.chars()).for_each(|c| *counts.entry(Some(c)).or_default() += 1.0);
    let all: f64 = counts.values().sum();
    counts.values().map(|count| -count / all * (count / all).ln()).sum()
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } =
        common::parse("Translates dates in words to ISO dates: LSTMs with and without attention, and a transformer");
    let (test_count, train_count, epochs) = if options.quick { (100, 1500, 1) } else { (TEST, TRAIN, EPOCHS) };
    let (words, dates) = dates(options.seed);
    let vocabulary = Vocabulary::new(words.iter().chain(&dates));
    let characters = vocabulary.len();
    let rows = |from: usize, to: usize| -> Result<(Tensor, Tensor)> {
        Ok((vocabulary.encode_rows(&words[from..to], LENGTH)?, vocabulary.encode_rows(&dates[from..to], WRITTEN + 1)?))
    };
    let (test, train) = (rows(0, test_count)?, rows(test_count, test_count + train_count)?);
    let (words, dates) = (&words[..test_count], &dates[..test_count]);
    let frequencies = loss_of_frequencies(dates);
    println!("data: {train_count} dates, {test_count} others for tests; loss by frequency alone {frequencies:.3}");
    let session = options.session()?;
    let mut right = Vec::new();
    for (name, network) in NETWORKS {
        let mut session = Session::new(session.device().clone());
        let trainer = Trainer::of(move |nn, batch| step(network, characters, nn, batch))
            .schedule(|steps| Cosine { lr: 3e-3, last: 0.0, steps }.after_warm_up(steps / 10))
            .seed(options.seed)
            .epochs(epochs)
            .batch(BATCH)
            .quiet();
        let mut trainer = options.steps.inspect(trainer, &session, &train)?;
        trainer.fit(&mut session, &train, None)?;
        let loss = trainer.evaluate(&mut session, &test)?.loss;
        let (written, attention) = translate(&mut session, network, &vocabulary, &test.0)?;
        let percent = percent(&written, dates);
        println!("{name}: loss {loss:.4}, {percent:.1}% of the dates are right");
        for (words, written) in words.iter().zip(&written).take(4) {
            println!("  {words:<26}{written}");
        }
        if let Some(attention) = attention {
            let [at_year, chance] = looks_at_years(&attention, words, dates).map(|share| 100.0 * share);
            println!(
                "  for a digit of the year, it looks most at one in {at_year:.1}% of all cases, by chance {chance:.1}%"
            );
            save_attention(&attention, words, &written, &drawings.plots)?;
            assert!(options.quick || at_year > 50.0, "to write the year, the decoder must look at the year");
        }
        assert!(loss < frequencies - 0.2, "{name}: the characters read must help to guess the next");
        right.push(percent);
    }
    assert!(options.quick || right[1].min(right[2]) >= 95.0, "with attention, nearly all dates must be right");
    assert!(options.quick || right[1] > right[0] + 10.0, "without attention, fewer dates must be right");
    Ok(())
}
