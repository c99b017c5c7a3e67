//! The models of the examples and benchmarks, whose kernels are checked along with those of the ops, and residual
//! networks.

mod resnet;

pub use resnet::{resnet18, resnet34};

use crate::loss::Reduction;
use crate::nn::Scope;
use crate::ops::conv2d::Conv2d;
use crate::optim::{Adam, LossScale, Optimizer};
use crate::{DType, Graph, Value};

/// The convolutional network of the classic Keras introduction (F. Chollet, *Deep Learning with
/// Python*, chapter 5) for images `[N, 1, 28, 28]`: logits `[N, 10]`.
///
/// ```text
/// conv 3x3, 32 - relu - max pool 2 - conv 3x3, 64 - relu - max pool 2 - dense 128 - relu - dense 10
/// ```
#[track_caller]
pub fn mnist_cnn(nn: &Scope, x: &Value) -> Value {
    mnist_cnn_with(nn, x, 0.0)
}

/// [`mnist_cnn`] with dropout before both dense layers; 0 means none.
#[track_caller]
pub fn mnist_cnn_with(nn: &Scope, x: &Value, dropout: f64) -> Value {
    let x = nn.conv2d("conv1", &nn.activation(x), 32, 3, Conv2d::default()).relu().max_pool2d(2);
    let x = nn.conv2d("conv2", &x, 64, 3, Conv2d::default()).relu().max_pool2d(2);
    let x = nn.linear("fc1", &nn.dropout(&x.flatten(1), dropout), 128).relu();
    nn.linear("fc2", &nn.dropout(&x, dropout), 10)
}

/// A 2-4-1 sigmoid network for `[N, 2]`: logits `[N, 1]`.
#[track_caller]
pub fn xor(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc2", &nn.linear("fc1", x, 4).sigmoid(), 1)
}

/// A training step of [`mnist_cnn`] on `batch` images: inputs `x` and `labels`, scalar `lr`,
/// cross-entropy, Adam. Returns the loss.
#[track_caller]
pub fn mnist_cnn_training(graph: &Graph, batch: usize, seed: u64) -> Value {
    mnist_cnn_training_with(graph, batch, seed, 0.0)
}

/// [`mnist_cnn_training`] with dropout; see [`mnist_cnn_with`].
#[track_caller]
pub fn mnist_cnn_training_with(graph: &Graph, batch: usize, seed: u64, dropout: f64) -> Value {
    mnist_cnn_training_in(graph, &Scope::train(graph, seed), batch, dropout)
}

/// [`mnist_cnn_training_with`] in a scope. With [f16 activations](Scope::mixed), the loss is scaled.
#[track_caller]
pub fn mnist_cnn_training_in(graph: &Graph, nn: &Scope, batch: usize, dropout: f64) -> Value {
    let x = graph.input("x", DType::F32, [batch, 1, 28, 28]);
    let labels = graph.input("labels", DType::I32, [batch]);
    let loss = mnist_cnn_with(nn, &x, dropout).cross_entropy(&labels, Reduction::Mean);
    let adam = Adam::new().lr(1e-3);
    match nn.activations() {
        DType::F16 => LossScale::new().minimize(graph, &adam, &loss),
        _ => adam.minimize(graph, &loss),
    };
    loss
}

/// Predictions of [`mnist_cnn`] for `batch` images in input `x`: logits, and the digit with the largest one.
#[track_caller]
pub fn mnist_cnn_inference(graph: &Graph, batch: usize, seed: u64) -> (Value, Value) {
    let x = graph.input("x", DType::F32, [batch, 1, 28, 28]);
    let logits = mnist_cnn(&Scope::eval(graph, seed), &x);
    let digit = logits.argmax(1, false);
    (logits, digit)
}

/// A training step of [`xor`] on the four cases: inputs `x` `[4, 2]` and `y` `[4, 1]`, binary
/// cross-entropy, Adam. Returns the loss and the probabilities.
#[track_caller]
pub fn xor_training(graph: &Graph, seed: u64) -> (Value, Value) {
    let x = graph.input("x", DType::F32, [4, 2]);
    let y = graph.input("y", DType::F32, [4, 1]);
    let logits = xor(&Scope::train(graph, seed), &x);
    let loss = logits.binary_cross_entropy_with_logits(&y, Reduction::Mean);
    Adam::new().lr(0.05).minimize(graph, &loss);
    (loss, logits.sigmoid())
}

/// The programs of the examples, by name, with their graphs and outputs.
pub fn programs() -> Vec<(&'static str, Graph, Vec<Value>)> {
    let training = Graph::new();
    let loss = mnist_cnn_training(&training, 64, 0);
    let inference = Graph::new();
    let (logits, digit) = mnist_cnn_inference(&inference, 100, 0);
    let xor = Graph::new();
    let (xor_loss, probabilities) = xor_training(&xor, 0);
    vec![
        ("mnist-cnn-training", training, vec![loss]),
        ("mnist-cnn-inference", inference, vec![logits, digit]),
        ("xor-training", xor, vec![xor_loss, probabilities]),
    ]
}
