//! Pruning: how many of its weights does a network need?
//!
//! ```text
//! cargo run --release --example pruning
//! ```
//!
//! A mask m of zeros and ones turns the weights `w` of a trained network into `m w`. Here the number of ones is halved
//! again and again. Which weights go, and what happens to the others?
//!
//! - **magnitude**: `m_i = 1` for the largest `|w_i|` of all layers together. The others stay as they are.
//! - **fine-tuned**: they are trained further with the mask (Han, Pool, Tran and Dally 2015).
//! - **gradual**: the mask grows during this training. The share of zeros is `s (1 - (1 - t)^3)` for t from 0 to 1, so
//!   that most zeros come early, when many weights are superfluous (Zhu and Gupta 2017).
//! - **units**: whole hidden units go, those with the smallest norm of their incoming weights; the others are
//!   fine-tuned. The network becomes smaller, not only emptier, so it is faster without any kernel for sparse weights.
//! - **ticket**: the mask of *magnitude*, and the weights that the network had before its training, from which it is
//!   trained again. Frankle and Carbin (2018) call this a winning ticket of the lottery.
//! - **random**: the same mask and other random weights, which shows whether the mask or the start matters.
//!
//! The network multiplies weights by the mask, so a weight whose mask is 0 has gradient 0, and counts as 0. The plot
//! shows accuracy over halvings.

mod common;

use std::time::Instant;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::Mnist;
use wgrad::nn::init;
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{Control, Metric, Model, Trainer};

const HIDDEN: usize = 128;
const METHODS: [&str; 6] = ["magnitude", "fine-tuned", "gradual", "units", "ticket", "random"];
const LAYERS: [&str; 2] = ["fc1", "fc2"];

/// The logits of a network with one hidden layer, whose weights are multiplied by masks.
fn network(nn: &Scope, x: &Value, hidden: usize) -> Value {
    let masked = |name: &str, x: &Value, outputs| {
        let layer = Linear::new(nn, name, x.dim(1), outputs);
        let mask = nn.part(name).variable("mask", layer.weight.shape().clone(), init::ones());
        Linear { weight: &layer.weight * mask, ..layer }.forward(x)
    };
    masked("fc2", &masked("fc1", &x.flatten(1), hidden).relu(), 10)
}

/// What all trainings share.
struct Setting {
    options: common::Options,
    device: Device,
    data: Mnist,
    /// Passes over the digits, of a training and of a fine-tuning.
    epochs: u64,
    tuning: u64,
}

impl Setting {
    fn model(&self, seed: u64, hidden: usize) -> Model {
        Model::new([1, 28, 28], move |nn, x| network(nn, x, hidden)).seed(seed)
    }

    /// A session with a network's first weights.
    fn start(&self, seed: u64, hidden: usize) -> Result<Session> {
        let mut session = Session::new(self.device.clone());
        let (graph, logits) = self.model(seed, hidden).graph(1);
        session.compile(&graph, &[&logits])?;
        Ok(session)
    }

    /// Trains for some epochs, before each of which a function is called, and returns the percentage of test digits
    /// that are classified correctly.
    fn train(
        &self,
        session: &mut Session,
        hidden: usize,
        epochs: u64,
        before: impl Fn(&mut Session, u64) -> Result<()> + 'static,
    ) -> Result<f64> {
        before(session, 0)?;
        let loss = |logits: &Value, labels: &Value| logits.cross_entropy(labels, Reduction::Mean);
        let trainer = Trainer::new(&self.model(self.options.seed, hidden), loss)
            .schedule(|steps| Cosine { lr: 3e-3, last: 0.0, steps })
            .batch(50)
            .epochs(epochs)
            .metrics([Metric::Accuracy])
            .on_epoch(move |session, epoch| before(session, epoch.number).map(|()| Control::Continue))
            .quiet();
        let mut trainer = self.options.steps.inspect(trainer, session, &self.data.train)?;
        trainer.fit(session, &self.data.train, None)?;
        Ok(100.0 * trainer.evaluate(session, &self.data.test)?.get("accuracy").unwrap_or(0.0))
    }

    /// The percentage of a network as it is.
    fn accuracy(&self, session: &mut Session, hidden: usize) -> Result<f64> {
        self.train(session, hidden, 0, keep)
    }

    /// A session with the weights and masks of another.
    fn copy(&self, from: &Session) -> Result<Session> {
        let mut session = self.start(0, HIDDEN)?;
        for (layer, what) in LAYERS.iter().flat_map(|layer| ["weight", "bias", "mask"].map(|what| (layer, what))) {
            session.set(&name(layer, what), &from.get(&name(layer, what))?)?;
        }
        Ok(session)
    }

    /// A smaller network with some of the hidden units, those with the largest norms of incoming weights.
    fn with_units(&self, from: &Session, count: usize) -> Result<Session> {
        let (w1, w2) = (from.get("fc1.weight")?, from.get("fc2.weight")?.to_f32());
        let norms: Vec<f32> = w1.to_f32().chunks(w1.shape()[1]).map(|row| row.iter().map(|w| w * w).sum()).collect();
        let mut units: Vec<usize> = (0..HIDDEN).collect();
        units.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
        units.truncate(count);
        let outgoing: Vec<f32> = w2.chunks(HIDDEN).flat_map(|row| units.iter().map(|&unit| row[unit])).collect();
        let mut session = self.start(0, count)?;
        session.set("fc1.weight", &w1.rows(&units)?)?;
        session.set("fc1.bias", &from.get("fc1.bias")?.rows(&units)?)?;
        session.set("fc2.weight", &Tensor::new([10, count], outgoing)?)?;
        session.set("fc2.bias", &from.get("fc2.bias")?)?;
        Ok(session)
    }

    /// The median time of classifying the test digits.
    fn time(&self, session: &mut Session, hidden: usize) -> Result<f64> {
        let mut model = self.model(0, hidden).batch(1000);
        let mut times = Vec::new();
        for _ in 0..11 {
            let begin = Instant::now();
            model.predict(session, &self.data.test.images)?;
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

/// Does nothing before an epoch.
fn keep(_: &mut Session, _: u64) -> Result<()> {
    Ok(())
}

fn name(layer: &str, what: &str) -> String {
    format!("{layer}.{what}")
}

/// Masks the smallest weights of all layers together, except for a share.
fn prune(session: &mut Session, share: f64) -> Result<()> {
    let mut sizes = Vec::new();
    for layer in LAYERS {
        set_mask(session, layer, session.get(&name(layer, "mask"))?)?; // weights that are masked already come last
        sizes.extend(session.get(&name(layer, "weight"))?.to_f32().iter().map(|w| w.abs()));
    }
    sizes.sort_by(|a, b| b.total_cmp(a));
    let least = sizes[(share * sizes.len() as f64) as usize - 1];
    for layer in LAYERS {
        let w = session.get(&name(layer, "weight"))?;
        let mask: Vec<f32> = w.to_f32().iter().map(|w| if w.abs() >= least { 1.0 } else { 0.0 }).collect();
        set_mask(session, layer, Tensor::new(w.shape().clone(), mask)?)?;
    }
    Ok(())
}

/// Sets a mask, and the weights that it leaves out to 0.
fn set_mask(session: &mut Session, layer: &str, mask: Tensor) -> Result<()> {
    let w = session.get(&name(layer, "weight"))?;
    let product: Vec<f32> = w.to_f32().iter().zip(mask.to_f32()).map(|(w, m)| w * m).collect();
    session.set(&name(layer, "weight"), &Tensor::new(w.shape().clone(), product)?)?;
    session.set(&name(layer, "mask"), &mask)
}

/// The share of weights that are not 0.
fn remaining(session: &Session) -> Result<f64> {
    let mut all = Vec::new();
    for layer in LAYERS {
        all.extend(session.get(&name(layer, "weight"))?.to_f32());
    }
    Ok(all.iter().filter(|w| **w != 0.0).count() as f64 / all.len() as f64)
}

/// Prunes a network in all ways, so that this share of its weights remains. Returns the accuracies in percent, and how
/// many times as fast as the dense network the one with fewer units is.
fn prune_in_all_ways(setting: &Setting, dense: &mut Session, share: f64) -> Result<([f64; METHODS.len()], f64)> {
    let (seed, train, tune) = (setting.options.seed, setting.epochs, setting.tuning);
    let mut pruned = setting.copy(dense)?;
    prune(&mut pruned, share)?;
    let magnitude = setting.accuracy(&mut pruned, HIDDEN)?;
    let [mut ticket, mut random] = [setting.start(seed, HIDDEN)?, setting.start(seed + 1000, HIDDEN)?];
    for layer in LAYERS {
        let mask = pruned.get(&name(layer, "mask"))?;
        [&mut ticket, &mut random].into_iter().try_for_each(|session| set_mask(session, layer, mask.clone()))?;
    }
    let tuned = setting.train(&mut pruned, HIDDEN, tune, keep)?;
    let ticket_percent = setting.train(&mut ticket, HIDDEN, train, keep)?;
    let random_percent = setting.train(&mut random, HIDDEN, train, keep)?;
    for session in [&pruned, &ticket, &random] {
        assert!((remaining(session)? - share).abs() < 1e-4, "masked weights must stay 0");
    }

    let ramp = move |session: &mut Session, epoch: u64| {
        let t = ((epoch + 1) as f64 / 4.0).min(1.0);
        prune(session, 1.0 - (1.0 - share) * (1.0 - (1.0 - t).powi(3)))
    };
    let gradual = setting.train(&mut setting.copy(dense)?, HIDDEN, tune, ramp)?;

    let count = (share * HIDDEN as f64) as usize;
    let mut smaller = setting.with_units(dense, count)?;
    let units = setting.train(&mut smaller, count, tune, keep)?;
    let speed = setting.time(dense, HIDDEN)? / setting.time(&mut smaller, count)?;
    Ok(([magnitude, tuned, gradual, units, ticket_percent, random_percent], speed))
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } =
        common::parse("Prunes a network for handwritten digits: single weights, hidden units, and lottery tickets");
    let device = options.session()?.device().clone();
    let (rows, epochs, tuning, halvings) = if options.quick { (2000, 2, 1, 3..=4) } else { (4000, 8, 8, 1..=7) };
    let mut data = Mnist::load(common::data("mnist10k"))?;
    data.train = data.train.first(rows)?;
    let setting = Setting { options, device, data, epochs, tuning };
    let mut dense = setting.start(setting.options.seed, HIDDEN)?;
    let all = setting.train(&mut dense, HIDDEN, epochs, keep)?;
    println!("all weights: {all:.1}% of the test digits");
    println!("remaining  {}   speed of units", METHODS.map(|method| format!("{method:>11}")).concat());
    let mut rows = Vec::new();
    for halving in halvings.clone() {
        let share = 0.5f64.powi(halving);
        let (percent, speed) = prune_in_all_ways(&setting, &mut dense, share)?;
        println!("{:9.2}% {}{speed:10.1}", 100.0 * share, percent.map(|percent| format!("{percent:10.1}%")).concat());
        rows.push(percent);
    }
    let curve = |method: usize| {
        let points = halvings.clone().map(f64::from).zip(rows.iter().map(|row| row[method]));
        (METHODS[method], std::iter::once((0.0, all)).chain(points).collect())
    };
    let curves = (0..METHODS.len()).map(curve).collect();
    let (title, x, y) = ("Pruning", "halvings of the number of weights", "percent of test digits");
    Plot { title, x, y, log: false, curves }.save(&drawings.plots, "pruning")?;

    let start = rows.iter().map(|[.., ticket, random]| ticket - random).sum::<f64>() / rows.len() as f64;
    println!("tickets are {start:.1} points better than the same masks with random weights, on average");
    assert!(start > 0.0, "the weights before the training must matter, not only the mask");
    let [magnitude, tuned, gradual, units, ..] = rows[if setting.options.quick { 1 } else { 3 }]; // 1 of 16 weights
    assert!(tuned > units, "single weights must be chosen better than units");
    if !setting.options.quick {
        assert!(tuned > magnitude + 5.0, "fine-tuning must make up for most of the pruning");
        assert!(tuned > all - 3.0 && gradual > all - 3.0, "a network needs few of its weights");
        assert!(rows[6][2] > rows[6][1], "with few weights, they must go gradually");
    }
    Ok(())
}
