//! Residual networks (He et al., *Deep residual learning for image recognition*, CVPR 2016), with torchvision's names.

use crate::Value;
use crate::nn::{Conv2d, Layer, Linear, Scope, init};
use crate::ops::conv2d::Conv2d as Options;
use crate::ops::pool2d::Pool2d;

/// ResNet-18 for images `[N, 3, H, W]`, usually 224 x 224: logits `[N, num_classes]`. Names, layouts and initial values
/// are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`, `fc`), so that its weights load:
///
/// ```
/// use wgrad::nn::Scope;
/// use wgrad::{DType, Graph, models};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [1, 3, 64, 64]);
/// let logits = models::resnet18(&Scope::eval(&graph, 0), &x, 1000);
/// assert_eq!(logits.shape()[..], [1, 1000]);
/// let count: usize = graph.parameters().iter().map(|(_, value)| value.shape().numel()).sum();
/// assert_eq!(count, 11_689_512); // as torchvision documents
/// // session.load_weights("resnet18.safetensors", &graph)?
/// ```
///
/// In Python, `safetensors.torch.save_file(torchvision.models.resnet18(weights="DEFAULT").state_dict(), path)` writes
/// the file. For other classes, load it with
/// [`Session::load_weights_with`](crate::Session::load_weights_with) and `Weights::new().skip("fc")`.
#[track_caller]
pub fn resnet18(nn: &Scope, x: &Value, num_classes: usize) -> Value {
    resnet(nn, x, [2, 2, 2, 2], num_classes)
}

/// ResNet-34; otherwise as [`resnet18`].
#[track_caller]
pub fn resnet34(nn: &Scope, x: &Value, num_classes: usize) -> Value {
    resnet(nn, x, [3, 4, 6, 3], num_classes)
}

#[track_caller]
fn resnet(nn: &Scope, x: &Value, blocks: [usize; 4], num_classes: usize) -> Value {
    if x.is_valid() && x.shape().rank() != 4 {
        return x.graph().error("resnet", &[x], "expected images [N, C, H, W]");
    }
    let x = convolution(nn, "conv1", &nn.activation(x), 64, 7, 2);
    let mut x = nn.batch_norm("bn1", &x).relu().max_pool2d(Pool2d::new(3).stride(2).padding(1));
    for (stage, count) in blocks.into_iter().enumerate() {
        for number in 0..count {
            let stride = if stage > 0 && number == 0 { 2 } else { 1 };
            x = block(&nn.part(&format!("layer{}", stage + 1)).part(&number.to_string()), &x, 64 << stage, stride);
        }
    }
    let x = x.global_avg_pool2d().flatten(1);
    Linear::new(nn, "fc", x.dim(-1), num_classes).forward(&x)
}

/// Two convolutions, and the shortcut around them.
#[track_caller]
fn block(nn: &Scope, x: &Value, channels: usize, stride: usize) -> Value {
    let y = nn.batch_norm("bn1", &convolution(nn, "conv1", x, channels, 3, stride)).relu();
    let y = nn.batch_norm("bn2", &convolution(nn, "conv2", &y, channels, 3, 1));
    if stride == 1 && x.dim(1) == channels {
        return (y + x).relu();
    }
    let shortcut = nn.batch_norm("downsample.1", &convolution(nn, "downsample.0", x, channels, 1, stride));
    (y + shortcut).relu()
}

/// A convolution without bias, whose initial weights are normal with variance `2 / fan_out`.
#[track_caller]
fn convolution(nn: &Scope, name: &str, x: &Value, channels: usize, kernel: usize, stride: usize) -> Value {
    let deviation = (2.0 / (channels * kernel * kernel) as f64).sqrt();
    let shape = [channels, x.dim(1), kernel, kernel];
    let weight = nn.part(name).parameter("weight", shape, init::normal(0.0, deviation));
    Conv2d { weight, bias: None, options: Options::same(kernel).stride(stride) }.forward(x)
}
