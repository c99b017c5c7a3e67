//! Determinism of a whole training.

use rand::SeedableRng;
use rand::rngs::StdRng;
use wgrad::check::{differs, draw};
use wgrad::op::Fill;
use wgrad::{DType, Device, Graph, Result, Session, Tensor, TensorType, models};

/// Three training steps of [`models::mnist_cnn_training`], twice from the same start: losses and
/// variables must be the same bits. Gives the number of elements compared.
///
/// # Errors
/// When the device fails, or (as a text in the result) at the first difference.
pub fn repeat_training(device: &Device) -> Result<std::result::Result<usize, String>> {
    const BATCH: usize = 8;
    let graph = Graph::new();
    let loss = models::mnist_cnn_training(&graph, BATCH, 0);
    let mut rng = StdRng::seed_from_u64(0);
    let images = TensorType::new(DType::F32, [BATCH, 1, 28, 28]);
    let x = draw(&images, &Fill::Uniform(0.0, 1.0), &mut rng);
    let labels = Tensor::new([BATCH], (0..BATCH as i32).collect::<Vec<i32>>())?;
    let train = || -> Result<(Vec<String>, Vec<Tensor>)> {
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&loss])?;
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for step in 1..=3 {
            names.push(format!("the loss of step {step}"));
            values.extend(session.run(&program, &[("x", &x), ("labels", &labels)])?);
        }
        for name in session.names() {
            values.push(session.get(&name)?);
            names.push(name);
        }
        Ok((names, values))
    };
    let ((names, first), (_, second)) = (train()?, train()?);
    Ok(match differs(&first, &second) {
        Some(at) => Err(format!("{} is not the same bits in two trainings from the same start", names[at])),
        None => Ok(first.iter().map(Tensor::numel).sum()),
    })
}
