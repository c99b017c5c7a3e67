//! The network of the lesson, as in `examples/mnist_cnn.rs`.

use wgrad::Value;
use wgrad::nn::Scope;
use wgrad::ops::conv2d::Conv2d;

/// Logits `[N, 10]` for images `[N, 1, 28, 28]` of digits.
pub fn network(nn: &Scope, x: &Value) -> Value {
    let conv = |name, x: &Value, channels| nn.without_bias().conv2d(name, x, channels, 3, Conv2d::default());
    let x = nn.batch_norm("bn1", &conv("conv1", x, 16)).relu().max_pool2d(2);
    let x = nn.batch_norm("bn2", &conv("conv2", &x, 32)).relu().max_pool2d(2);
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 64).relu(), 10)
}
