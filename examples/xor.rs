//! A 2-4-1 network of sigmoids learns exclusive or, which a single unit cannot.
//!
//! ```text
//! cargo run --release --example xor
//! ```
//!
//! Forward: `h = sigmoid(x W1' + b1)`, `p = sigmoid(h W2' + b2)`. Loss: the binary cross-entropy
//! `-mean(y ln p + (1 - y) ln(1 - p))`, computed from the logits. Adam trains the 17 parameters. With `-- --shadow`,
//! each kernel call of each step is compared with the reference; with `-- --find-nan`, each is checked for NaN.

mod common;

use wgrad::{Graph, Tensor, models};

fn main() -> wgrad::Result<()> {
    let mut options: common::Options = common::parse("Learns exclusive or, which a single unit cannot");
    let graph = Graph::new();
    let (loss, probabilities) = models::xor_training(&graph, options.seed);

    let mut session = options.session()?;
    let step = session.compile(&graph, &[&loss, &probabilities])?;

    let x = Tensor::new([4, 2], [0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])?;
    let y = Tensor::new([4, 1], [0.0f32, 1.0, 1.0, 0.0])?;
    let mut outputs = Vec::new();
    for number in 0..=600 {
        outputs = options.steps.run(&mut session, &step, &[("x", &x), ("y", &y)])?;
        if number % 100 == 0 {
            println!("step {number:>4}: loss {:.4}", outputs[0].item()?);
        }
    }
    let p = outputs[1].to_f32();
    for (case, p) in x.to_f32().chunks(2).zip(&p) {
        println!("{} xor {} = {p:.3}", case[0], case[1]);
    }
    let learned = p.iter().zip(y.to_f32()).all(|(p, y)| (p - y).abs() < 0.1);
    options.steps.summary();
    println!("{}", if learned { "learned" } else { "not learned" });
    assert!(learned, "every probability must be within 0.1 of its target");
    Ok(())
}
