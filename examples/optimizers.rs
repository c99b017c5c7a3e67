//! Optimisers compared: on a quadratic, in Rosenbrock's valley, and on a network for digits.
//!
//! ```text
//! cargo run --release --example optimizers
//! ```
//!
//! Gradient descent, `p <- p - r g`, is understood best for a quadratic `sum(c_i p_i^2) / 2`, where each step
//! multiplies `p_i` by `1 - r c_i`. So it diverges if the rate r exceeds `2 / c_max`. It is fastest for
//! `r = 2 / (c_min + c_max)`, where the distance shrinks by `(k - 1) / (k + 1)` per step; `k = c_max / c_min` is the
//! condition number. Momentum, `b <- m b + g`, `p <- p - r b` (Polyak 1964), replaces k by its square root with
//! `r = (2 / (sqrt(c_min) + sqrt(c_max)))^2` and `m = ((sqrt(k) - 1) / (sqrt(k) + 1))^2`.
//!
//! The example measures these figures. Then it compares
//!
//! - all optimisers in the valley `(1 - x)^2 + 100 (y - x^2)^2` (Rosenbrock 1960) with its minimum at (1, 1);
//! - the same optimisers on a network;
//! - learning rates in a range test: the rate grows with each step, from useless to divergence (Smith 2015);
//! - schedules of the rate, and batches of 1 row, 32 rows and all rows.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::{Digits, Mnist};
use wgrad::optim::schedule::{Constant, Cosine, OneCycle, Schedule, Step};
use wgrad::optim::{Adadelta, Adagrad, Lion, NAdam, RmsProp};
use wgrad::prelude::*;
use wgrad::train::{Control, Model, StepEvent, Trainer};

/// The curvatures of the quadratic.
const CURVATURE: [f64; 2] = [1.0, 25.0];
/// The usual start in the valley.
const START: [f32; 2] = [-1.2, 1.0];

type Points = Vec<(f64, f64)>;

/// An optimiser with learning rates that suit it in the valley and on the network, from a coarse search.
struct Entry {
    name: &'static str,
    optimizer: Rc<dyn Optimizer>,
    valley: f64,
    network: f64,
}

fn entries() -> Vec<Entry> {
    fn entry(name: &'static str, optimizer: impl Optimizer + 'static, valley: f64, network: f64) -> Entry {
        Entry { name, optimizer: Rc::new(optimizer), valley, network }
    }
    vec![
        entry("SGD", Sgd::new(), 1e-3, 0.2),
        entry("momentum", Sgd::new().momentum(0.9), 1e-3, 0.05),
        entry("Nesterov", Sgd::new().momentum(0.9).nesterov(true), 1e-3, 0.05),
        entry("Adagrad", Adagrad::new(), 1.0, 0.05),
        entry("Adadelta", Adadelta::new(), 0.2, 2.0),
        entry("RMSprop", RmsProp::new(), 0.01, 5e-3),
        entry("Adam", Adam::new(), 0.1, 5e-3),
        entry("AdamW", AdamW::new(), 0.1, 5e-3),
        entry("NAdam", NAdam::new(), 0.02, 5e-3),
        entry("Lion", Lion::new(), 2e-3, 1e-3),
    ]
}

/// `sum(c_i p_i^2) / 2`, with its minimum at 0.
fn quadratic(p: &Value) -> Value {
    let c = Tensor::new([2], CURVATURE.map(|c| c as f32)).expect("two numbers");
    (p.square() * p.graph().constant(c)).sum_all() * 0.5
}

/// `(1 - x)^2 + 100 (y - x^2)^2`, with its minimum at (1, 1).
fn valley(p: &Value) -> Value {
    let (x, y) = (p.slice(0, 0, 1, 1), p.slice(0, 1, 2, 1));
    ((x.neg() + 1.0).square() + (y - x.square()).square() * 100.0).sum_all()
}

/// Minimises a function of two numbers; returns the distance from its minimum before each step, and after the last.
fn descend(
    options: &mut common::Options,
    device: &Device,
    (function, start, minimum): (fn(&Value) -> Value, [f32; 2], f64),
    (optimizer, lr): (&dyn Optimizer, f64),
    steps: usize,
) -> Result<Vec<f64>> {
    let graph = Graph::new();
    let p = graph.parameter("p", Tensor::new([2], start)?);
    optimizer.minimize(&graph, &function(&p));
    let mut session = Session::new(device.clone());
    let step = session.compile(&graph, &[&p])?;
    let lr = Tensor::scalar(lr);
    let mut distances = Vec::new();
    for _ in 0..=steps {
        let p = options.steps.run(&mut session, &step, &[("lr", &lr)])?[0].to_f64();
        distances.push((p[0] - minimum).hypot(p[1] - minimum));
    }
    Ok(distances)
}
/// The factor by which the distance shrinks per step, over the last ten.
fn contraction(distances: &[f64]) -> f64 {
    let last = distances.len() - 1;
    (distances[last] / distances[last - 10]).powf(0.1)
}

/// The training of a network with one hidden layer.
fn trainer<S: Schedule + 'static>(
    options: &common::Options,
    optimizer: Rc<dyn Optimizer>,
    schedule: impl Fn(u64) -> S + 'static,
    batch: usize,
) -> Trainer {
    let model = Model::new([1, 28, 28], |nn, x| nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 32).relu(), 10));
    Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .update(move |graph, gradients| optimizer.apply(graph, gradients))
        .seed(options.seed)
        .schedule(schedule)
        .batch(batch)
        .shadow(options.steps.shadow)
        .find_nan(options.steps.find_nan)
        .quiet()
}

/// The rates of a range test: tenfold every 60 steps.
struct Growing;

impl Schedule for Growing {
    fn lr(&self, step: u64) -> f64 {
        1e-4 * 10f64.powf(step as f64 / 60.0)
    }
}

/// The losses of a training with growing rates, by the decimal logarithm of the rate, until the loss has doubled.
fn range_test(trainer: Trainer, session: &mut Session, data: &Digits) -> Result<Points> {
    let points = Rc::new(RefCell::new(Points::new()));
    let seen = points.clone();
    let note = move |event: &StepEvent| {
        let mut seen = seen.borrow_mut();
        let lr = Growing.lr(seen.len() as u64);
        seen.push((lr.log10(), event.loss));
        Ok(if event.loss < 2.0 * seen[0].1 { Control::Continue } else { Control::Stop })
    };
    trainer.on_step(note).fit(session, data, None)?;
    Ok(points.take())
}

fn main() -> Result<()> {
    let WithDrawings { common: mut options, drawings } =
        common::parse("Compares optimisers, learning rates, schedules and batch sizes");
    let device = options.session()?.device().clone();
    let fresh = || Session::new(device.clone());

    // The quadratic: what the theory predicts and what is measured.
    let [low, high] = CURVATURE;
    let (k, best) = (high / low, 2.0 / (low + high));
    let polyak = (2.0 / (low.sqrt() + high.sqrt())).powi(2);
    let m = ((k.sqrt() - 1.0) / (k.sqrt() + 1.0)).powi(2);
    let (plain, heavy) = (Sgd::new(), Sgd::new().momentum(m));
    println!("per step, the distance is multiplied by      theory  measured");
    let mut apart = 0f64;
    for (name, optimizer, lr, theory) in [
        ("a small rate", &plain, 0.1 * best, 1.0 - 0.1 * best * low),
        ("the best rate", &plain, best, (k - 1.0) / (k + 1.0)),
        ("a rate above the limit", &plain, 2.2 / high, 1.2),
        ("the best rate and momentum", &heavy, polyak, m.sqrt()),
    ] {
        let distances = descend(&mut options, &device, (quadratic, [1.0, 1.0], 0.0), (optimizer, lr), 60)?;
        let measured = contraction(&distances);
        println!("{name:<28} r = {lr:.4} {theory:13.4}{measured:10.4}");
        apart = apart.max((measured - theory).abs());
    }

    // All optimisers, in the valley and on the network.
    let (steps, rows, epochs) = if options.quick { (300, 1000, 2) } else { (2000, 4000, 3) };
    let Mnist { train, test } = Mnist::load(common::data("mnist10k"))?;
    let train = train.first(rows)?;
    let learn = |trainer: Trainer, epochs: u64| -> Result<f64> {
        let mut trainer = trainer.epochs(epochs);
        let mut session = fresh();
        trainer.fit(&mut session, &train, None)?;
        Ok(trainer.evaluate(&mut session, &test)?.loss)
    };
    println!("              valley: rate, distance   network: rate, loss on test digits");
    let (mut curves, mut ends, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for Entry { name, optimizer, valley: lr, network } in entries() {
        let distances = descend(&mut options, &device, (valley, START, 1.0), (&*optimizer, lr), steps)?;
        let (end, loss) =
            (distances[steps], learn(trainer(&options, optimizer, move |_| Constant(network), 32), epochs)?);
        println!("{name:<14}{lr:12}{end:11.1e}{network:17}{loss:10.4}");
        curves.push((name, (0..).map(f64::from).zip(distances).step_by(10).collect()));
        ends.push((name, end));
        losses.push(loss);
    }
    let (title, y) = ("Rosenbrock's valley", "distance from the minimum");
    Plot { title, x: "steps", y, log: true, curves }.save(&drawings.plots, "optimizers")?;

    // Learning rates, schedules and batches, with momentum.
    let momentum = || -> Rc<dyn Optimizer> { Rc::new(Sgd::new().momentum(0.9)) };
    let points = range_test(trainer(&options, momentum(), |_| Growing, 32).epochs(20), &mut fresh(), &train)?;
    let least = points.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
    let [lowest, range_end] = [least, points[points.len() - 1]].map(|point| 10f64.powf(point.0));
    println!("range test: the loss is lowest at rate {lowest:.3}, and has doubled at {range_end:.3}");
    let (title, x, y) = ("Learning-rate range test", "decimal logarithm of the rate", "loss of the batch");
    Plot { title, x, y, log: false, curves: vec![("loss", points)] }.save(&drawings.plots, "optimizers_range")?;

    let lr = 0.1;
    let constant = learn(trainer(&options, momentum(), move |_| Constant(lr), 32), epochs)?;
    let falling =
        learn(trainer(&options, momentum(), move |n| Step { lr, every: n.div_ceil(3), gamma: 0.2 }, 32), epochs)?;
    let cosine = learn(trainer(&options, momentum(), move |steps| Cosine { lr, last: 0.0, steps }, 32), epochs)?;
    let cycle = learn(trainer(&options, momentum(), move |n| OneCycle::new(lr, n), 32), epochs)?;
    println!(
        "schedules from {lr}: constant {constant:.4}, steps {falling:.4}, cosine {cosine:.4}, one cycle {cycle:.4}"
    );
    let batch = |rows, lr| learn(trainer(&options, momentum(), move |_| Constant(lr), rows), epochs);
    let (one, some, all) = (batch(1, 0.002)?, batch(32, 0.05)?, batch(rows, 0.1)?);
    println!("batches: 1 row {one:.4}, 32 rows {some:.4}, all {rows} rows {all:.4}");

    options.steps.summary();
    assert!(apart < 0.02, "on a quadratic, descent must converge as fast as the theory says");
    let end = |name: &str| ends.iter().find(|end| end.0 == name).expect("it has run").1;
    let share = if options.quick { 0.5 } else { 0.1 };
    assert!(end("Adam") < share * end("SGD"), "gradient descent is slow in a valley");
    assert!(options.quick || (end("Adam") < 1e-3 && end("momentum") < 1e-2), "the minimum must be found");
    let limit = if options.quick { 2.0 } else { 0.5 }; // 2.31 before training
    assert!(losses.iter().all(|loss| *loss < limit), "all optimisers must train the network");
    assert!((0.01..1.0).contains(&lowest) && range_end > 2.0 * lowest, "the range test must pass the best rate");
    assert!(cosine < constant, "a rate that falls must be better than a constant one");
    assert!(all > 1.5 * some, "with all rows in a batch, there are too few steps");
    Ok(())
}
