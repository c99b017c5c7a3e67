//! Transfer learning: a network that can tell the digits 0 to 4 apart needs few pictures to learn 5 to 9.
//!
//! ```text
//! cargo run --release --example transfer
//! ```
//!
//! A network is a body `f`, which turns a picture into 64 features, and a head, `logits = W f(x) + b`. Both learn the
//! digits 0 to 4 from about 4,000 pictures. Then a new head learns the digits 5 to 9 from 20, 100 or 500 pictures, in
//! four ways (Yosinski, Clune, Bengio and Lipson, *How transferable are features in deep neural networks?*, 2014):
//!
//! - **frozen**: `min over W, b` of the loss; the body stays as it is;
//! - **fine-tuned**: `min over f, W, b`, starting from the body that was learned;
//! - **from scratch**: `min over f, W, b`, starting from random weights;
//! - **random, frozen**: `min over W, b` with a random body. This is the control: it shows how much of the result is
//!   due to what the body has learned, and not to its form.
//!
//! Which pictures are drawn matters if there are few of them, so each figure is the mean over several draws; all ways
//! get the same draws and the same number of steps. Guessing is right for one in five.

mod common;

use std::ops::Range;
use std::path::Path;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::{Batches, Digits, Mnist};
use wgrad::io::Weights;
use wgrad::ops::conv2d::Conv2d;
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};

const SIZES: [usize; 3] = [20, 100, 500];
const BATCH: usize = 20;

#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// Whether the body starts from what it has learned.
    learned: bool,
    frozen: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "frozen", learned: true, frozen: true },
    Way { name: "fine-tuned", learned: true, frozen: false },
    Way { name: "from scratch", learned: false, frozen: false },
    Way { name: "random, frozen", learned: false, frozen: true },
];

/// Logits `[N, 5]` for images `[N, 1, 28, 28]`.
fn network(nn: &Scope, x: &Value, frozen: bool) -> Value {
    let body = if frozen { nn.part("body").frozen() } else { nn.part("body") };
    let conv = |name, x: &Value, channels| body.conv2d(name, x, channels, 3, Conv2d::default()).relu().max_pool2d(2);
    let x = conv("conv2", &conv("conv1", x, 8), 16);
    nn.linear("head", &body.linear("fc", &x.flatten(1), 64).relu(), 5)
}

/// The pictures of some digits, which are numbered from 0.
fn part(digits: &Digits, of: Range<i32>) -> Result<Digits> {
    let labels = digits.labels.to_f64();
    let rows: Vec<usize> = (0..labels.len()).filter(|&row| of.contains(&(labels[row] as i32))).collect();
    let labels: Vec<i32> = rows.iter().map(|&row| labels[row] as i32 - of.start).collect();
    Ok(Digits { images: digits.images.rows(&rows)?, labels: Tensor::new([labels.len()], labels)? })
}

/// Trains with Adam; returns the share of the test pictures that are classified correctly.
fn train(
    options: &common::Options,
    session: &mut Session,
    model: &Model,
    (steps, lr): (u64, f64),
    data: &Digits,
    test: &Digits,
) -> Result<f64> {
    let trainer = Trainer::new(model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .lr(lr)
        .epochs(steps) // the steps end earlier
        .steps(steps)
        .batch(BATCH)
        .metrics([Metric::Accuracy])
        .quiet();
    let mut trainer = options.steps.inspect(trainer, session, data)?;
    trainer.fit(session, data, None)?;
    Ok(trainer.evaluate(session, test)?.get("accuracy").unwrap_or(0.0))
}

/// Learns the digits of `data` in one way; `file` has the weights that the other digits gave.
fn transfer(
    options: &common::Options,
    device: &Device,
    file: &Path,
    way: Way,
    data: &Digits,
    test: &Digits,
) -> Result<f64> {
    let steps = if options.quick { 30 } else { 150 };
    let mut session = Session::new(device.clone());
    let mut model = Model::new([1, 28, 28], move |nn, x| network(nn, x, way.frozen)).seed(options.seed);
    if way.learned {
        model.load_with(&mut session, file, &Weights::new().skip("head"))?;
    }
    model.predict(&mut session, &test.images.rows(&[0])?)?; // declares the variables
    let before = session.get("body.fc.weight")?;
    let accuracy = train(options, &mut session, &model, (steps, 5e-3), data, test)?;
    assert_eq!(session.get("body.fc.weight")? == before, way.frozen, "only a frozen body stays the same, bit for bit");
    Ok(accuracy)
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } =
        common::parse("Transfers what a network has learned about the digits 0 to 4 to the digits 5 to 9");
    let (steps, draws) = if options.quick { (150, 1) } else { (1000, 3) };
    let digits = Mnist::load(common::data("mnist10k"))?;
    let (old, old_test) = (part(&digits.train, 0..5)?, part(&digits.test, 0..5)?);
    let (new, new_test) = (part(&digits.train, 5..10)?, part(&digits.test, 5..10)?);
    let mut session = options.session()?;

    let model = Model::new([1, 28, 28], |nn, x| network(nn, x, false)).seed(options.seed);
    let accuracy = train(&options, &mut session, &model, (steps, 2e-3), &old, &old_test)?;
    println!("digits 0 to 4: {} pictures, {:.1}% of {} others correct", old.len(), 100.0 * accuracy, old_test.len());
    let file = Path::new("transfer.safetensors");
    model.save(&session, file)?;

    println!("digits 5 to 9, from{:>8}{:>10}{:>10} pictures", SIZES[0], SIZES[1], SIZES[2]);
    let mut percent = [[0.0; SIZES.len()]; WAYS.len()];
    for (way, percent) in WAYS.into_iter().zip(&mut percent) {
        for (size, percent) in SIZES.into_iter().zip(percent.iter_mut()) {
            for draw in 0..draws {
                let rows = &Batches::new(new.len(), size)?.shuffled(options.seed + draw).epoch(0).next().expect("rows");
                let few = Digits { images: new.images.rows(rows)?, labels: new.labels.rows(rows)? };
                let accuracy = transfer(&options, session.device(), file, way, &few, &new_test)?;
                *percent += 100.0 * accuracy / draws as f64;
            }
        }
        println!("{:<17}{:9.1}%{:9.1}%{:9.1}%", way.name, percent[0], percent[1], percent[2]);
    }
    let curve = |percent: [f64; 3]| SIZES.map(|size| size as f64).into_iter().zip(percent).collect();
    let curves = WAYS.iter().zip(percent).map(|(way, percent)| (way.name, curve(percent))).collect();
    let (title, x, y) = ("From the digits 0 to 4 to 5 to 9", "pictures", "percent of test digits");
    Plot { title, x, y, log: false, curves }.save(&drawings.plots, "transfer")?;

    let [frozen, tuned, scratch, random] = percent;
    assert!(frozen[0] > random[0] + 5.0, "the body must have learned something that other digits need, too");
    assert!(options.quick || tuned[0] > scratch[0] + 1.0, "what was learned must make up for missing pictures");
    assert!(options.quick || scratch[2] > frozen[2] + 5.0, "with more pictures, features must adapt");
    Ok(())
}
