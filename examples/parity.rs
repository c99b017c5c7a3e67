//! Odd or even? The representation of the input matters more than the network.
//!
//! ```text
//! cargo run --release --example parity
//! ```
//!
//! One sigmoid unit, `p = sigmoid(x w + b)`, is trained twice with binary cross-entropy. First, `x` is the number
//! itself. The unit is a monotone function of it, but parity changes 255 times from 0 to 255: with any `w` and `b`, at
//! most 129 of the 256 are correct. Then `x` is the vector of its eight binary digits. Now a single weight suffices,
//! and the unit learns it from half of the numbers.

mod common;

use wgrad::data::Split;
use wgrad::nn::{Scope, init};
use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Graph, Reduction, Result, Session, Tensor};

const NUMBERS: usize = 256;

fn main() -> Result<()> {
    let mut options: common::Options = common::parse("Tells even from odd numbers, given as one number and as digits");
    let device = options.session()?.device().clone();
    let odd =
        |numbers: &[usize]| Tensor::new([numbers.len(), 1], numbers.iter().map(|n| (n % 2) as f32).collect::<Vec<_>>());

    // The number itself.
    let all: Vec<usize> = (0..NUMBERS).collect();
    let raw = Tensor::new([NUMBERS, 1], all.iter().map(|&n| n as f32).collect::<Vec<_>>())?;
    let mut session = Session::new(device.clone());
    let loss = train(&mut options, &mut session, &raw, &odd(&all)?)?;
    let right_raw = right(&mut options, &mut session, &raw, &odd(&all)?)?;
    println!("the number itself: loss {loss:.4} (chance: {:.4}), {right_raw} of {NUMBERS} correct", 2f64.ln());

    // Its binary digits, lowest first; trained on half of the numbers, tested on the others.
    let digits = |numbers: &[usize]| {
        let digits = numbers.iter().flat_map(|n| (0..8).map(move |k| (n >> k & 1) as f32));
        Tensor::new([numbers.len(), 8], digits.collect::<Vec<_>>())
    };
    let split = Split::random(NUMBERS, 0.5, options.seed)?;
    let mut session = Session::new(device);
    let loss = train(&mut options, &mut session, &digits(&split.train)?, &odd(&split.train)?)?;
    let right_digits = right(&mut options, &mut session, &digits(&split.test)?, &odd(&split.test)?)?;
    println!("its digits: loss {loss:.4}, {right_digits} of {} held-out numbers correct", split.test.len());
    let weights = session.get("unit.weight")?.to_f64();
    let shown: Vec<String> = weights.iter().rev().map(|w| format!("{w:.2}")).collect();
    println!("weights of 128, 64, ..., 1: {}", shown.join(", "));

    options.steps.summary();
    assert!(right_raw <= 129 && right_digits == split.test.len(), "the first must fail, the second must learn");
    let others = weights[1..].iter().map(|w| w.abs()).fold(0.0, f64::max);
    assert!(weights[0] > 3.0 * others, "the lowest digit must decide");
    Ok(())
}

/// Trains the unit on all rows at once; returns the last loss.
fn train(options: &mut common::Options, session: &mut Session, x: &Tensor, y: &Tensor) -> Result<f64> {
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let graph = Graph::new();
    let nn = Scope::train(&graph, options.seed).part("unit");
    let input = graph.input("x", DType::F32, [rows, width]);
    let target = graph.input("y", DType::F32, [rows, 1]);
    let w = nn.parameter("weight", [width, 1], init::zeros());
    let b = nn.parameter("bias", [1], init::zeros());
    let loss = (input.matmul(&w) + b).binary_cross_entropy_with_logits(&target, Reduction::Mean);
    Adam::new().lr(0.05).minimize(&graph, &loss);
    let step = session.compile(&graph, &[&loss])?;
    let mut last = f64::NAN;
    for _ in 0..if options.quick { 300 } else { 2000 } {
        last = options.steps.run(session, &step, &[("x", x), ("y", y)])?[0].item()?;
    }
    Ok(last)
}

/// The number of rows that the unit classifies correctly, with threshold 1/2.
fn right(options: &mut common::Options, session: &mut Session, x: &Tensor, y: &Tensor) -> Result<usize> {
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let graph = Graph::new();
    let nn = Scope::eval(&graph, options.seed).part("unit");
    let input = graph.input("x", DType::F32, [rows, width]);
    let w = nn.parameter("weight", [width, 1], init::zeros());
    let b = nn.parameter("bias", [1], init::zeros());
    let p = (input.matmul(&w) + b).sigmoid();
    let judge = session.compile(&graph, &[&p])?;
    let p = options.steps.run(session, &judge, &[("x", x)])?.remove(0).to_f64();
    Ok(p.iter().zip(y.to_f64()).filter(|(p, y)| (**p > 0.5) == (*y > 0.5)).count())
}
