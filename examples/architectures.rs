//! Architectures: what depth, separable convolutions and residual paths bring to a network that sees drawings.
//!
//! ```text
//! cargo run --release --example architectures
//! ```
//!
//! A convolution with k by k weights from c to d channels has `k^2 c d` parameters. All networks have norms after
//! convolutions (Ioffe and Szegedy 2015), and halve height and width from stage to stage while channels double:
//!
//! - **VGG** (Simonyan and Zisserman 2014): two 3 by 3 convolutions per stage, then max pooling, and a dense layer. Two
//!   of them see 5 by 5 pixels like a convolution with 25 weights, with only 18, and are not linear in between.
//! - **plain** and **residual** networks of 6 n + 2 layers (He, Zhang, Ren and Sun 2015): three stages of n blocks of
//!   two convolutions. A plain block is `y = F(x)`; a residual block is `y = x + F(x)`, whose gradient always contains 1.
//! - **separable** convolutions: k by k weights for each channel alone, then 1 by 1 weights over the channels, which
//!   are `k^2 c + c d` parameters (Sifre 2014). Here in the residual network.
//! - **Xception** (Chollet 2016): residual blocks of two separable convolutions and max pooling, with the ReLUs before
//!   them, and a 1 by 1 convolution with stride 2 on the residual path.
//!
//! Widths are such that all networks have about the same number of parameters. The question is who makes the most of
//! them, and at what price in multiply-adds and time.

mod common;

use common::WithDrawings;
use common::plot::Plot;
use wgrad::Result;
use wgrad::data::idx;
use wgrad::nn::{Conv2d, SeparableConv2d};
use wgrad::ops::conv2d::Conv2d as Options2d;
use wgrad::ops::pool2d::Pool2d;
use wgrad::optim::schedule::Cosine;
use wgrad::prelude::*;
use wgrad::train::{Metric, Model, Trainer};

const CLASSES: usize = 9;

/// Drawings `[n, 3, 32, 32]` from 0 (the white ground) to 1, and their classes.
type Drawings = (Tensor, Tensor);

type Network = Box<dyn Fn(&Scope, &Value) -> Value + Send + Sync>;

/// Three stages of blocks of two convolutions.
#[derive(Clone, Copy)]
struct Staged {
    blocks: usize,
    /// The channels of the first stage.
    width: usize,
    residual: bool,
    separable: bool,
}

/// A convolution and its norm.
fn conv(nn: &Scope, name: &str, x: &Value, channels: usize, kernel: usize, stride: usize) -> Value {
    let options = Options2d::same(kernel).stride(stride);
    let y = Conv2d::new(&nn.without_bias(), name, x.dim(1), channels, kernel, options).forward(x);
    nn.batch_norm(&format!("{name}_norm"), &y)
}

/// A separable convolution and its norm.
fn separable(nn: &Scope, name: &str, x: &Value, channels: usize, stride: usize) -> Value {
    let options = Options2d::same(3).stride(stride);
    let y = SeparableConv2d::new(&nn.without_bias(), name, x.dim(1), channels, 3, options).forward(x);
    nn.batch_norm(&format!("{name}_norm"), &y)
}

/// The logits from the means of the channels.
fn head(nn: &Scope, x: &Value) -> Value {
    nn.linear("fc", &x.global_avg_pool2d().flatten(1), CLASSES)
}

fn vgg(nn: &Scope, x: &Value) -> Value {
    let mut x = x.clone();
    for (stage, channels) in [8, 16, 32].into_iter().enumerate() {
        for layer in 0..2 {
            x = conv(nn, &format!("conv{stage}_{layer}"), &x, channels, 3, 1).relu();
        }
        x = x.max_pool2d(2);
    }
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 24).relu(), CLASSES)
}

impl Staged {
    fn network(self, nn: &Scope, x: &Value) -> Value {
        let mut x = conv(nn, "stem", x, self.width, 3, 1).relu();
        for (stage, block) in (0..3).flat_map(|stage| (0..self.blocks).map(move |block| (stage, block))) {
            let part = nn.part(&format!("{stage}_{block}"));
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = self.block(&part, &x, self.width << stage, stride);
        }
        head(nn, &x)
    }

    /// The number of parameters, by the formulas.
    fn parameters(self) -> usize {
        let conv = |c, d| if self.separable { 9 * c + c * d } else { 9 * c * d };
        let with_norm = |weights, channels| weights + 2 * channels;
        let mut sum = with_norm(27 * self.width, self.width) + 4 * self.width * CLASSES + CLASSES;
        for (stage, block) in (0..3).flat_map(|stage| (0..self.blocks).map(move |block| (stage, block))) {
            let d = self.width << stage;
            let c = if stage > 0 && block == 0 { d / 2 } else { d };
            sum += with_norm(conv(c, d), d) + with_norm(conv(d, d), d);
            sum += if self.residual && c < d { with_norm(c * d, d) } else { 0 };
        }
        sum
    }

    fn block(self, nn: &Scope, x: &Value, channels: usize, stride: usize) -> Value {
        let conv3 = |name, x: &Value, stride| match self.separable {
            true => separable(nn, name, x, channels, stride),
            false => conv(nn, name, x, channels, 3, stride),
        };
        let y = conv3("conv2", &conv3("conv1", x, stride).relu(), 1);
        match (self.residual, stride) {
            (false, _) => y.relu(),
            (true, 1) => (y + x).relu(),
            (true, _) => (y + conv(nn, "shortcut", x, channels, 1, stride)).relu(),
        }
    }
}

fn xception(nn: &Scope, x: &Value) -> Value {
    let mut x = conv(nn, "stem", x, 16, 3, 1).relu();
    for (stage, channels) in [24, 40, 72].into_iter().enumerate() {
        let part = nn.part(&stage.to_string());
        let y = separable(&part, "conv1", &x, channels, 1).relu();
        let y = separable(&part, "conv2", &y, channels, 1).max_pool2d(Pool2d::new(3).stride(2).padding(1));
        x = (y + conv(&part, "shortcut", &x, channels, 1, 2)).relu();
    }
    head(nn, &x)
}

fn drawings(part: &str) -> Result<Drawings> {
    let (shape, bytes) = idx::read(common::data(&format!("emoji/{part}-images-idx4-ubyte.gz")), 4)?;
    let (_, labels) = idx::read(common::data(&format!("emoji/{part}-labels-idx1-ubyte.gz")), 1)?;
    let pixels: Vec<f32> = bytes.into_iter().map(|byte| 1.0 - f32::from(byte) / 255.0).collect();
    let labels: Vec<i32> = labels.into_iter().map(i32::from).collect();
    Ok((Tensor::new(shape, pixels)?, Tensor::new([labels.len()], labels)?))
}

/// What a training gave.
struct Found {
    name: &'static str,
    parameters: usize,
    /// Training losses by epoch.
    losses: Vec<(f64, f64)>,
    /// The loss of the last epoch.
    loss: f64,
}

/// Trains a network and prints what it needs and what it gives.
fn train(
    options: &common::Options,
    device: &Device,
    (name, network): (&'static str, Network),
    data: &Drawings,
    test: &Drawings,
) -> Result<Found> {
    // Drawings are seen at half of their size.
    let model = Model::new([3, 32, 32], move |nn, x| network(nn, &x.avg_pool2d(2))).seed(options.seed);
    let summary = model.summary(1)?;
    let mut session = Session::new(device.clone());
    let trainer = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .schedule(|steps| Cosine { lr: 5e-3, last: 0.0, steps })
        .epochs(if options.quick { 2 } else { 4 })
        .metrics([Metric::Accuracy])
        .quiet();
    let mut trainer = options.steps.inspect(trainer, &session, data)?;
    let epochs = trainer.fit(&mut session, data, None)?.epochs;
    let percent = 100.0 * trainer.evaluate(&mut session, test)?.get("accuracy").unwrap_or(0.0);
    let loss = epochs.last().map_or(f64::NAN, |epoch| epoch.loss);
    let times = epochs.iter().map(|epoch| 1e3 * epoch.seconds / epoch.steps as f64);
    let (time, parameters) = (times.fold(f64::INFINITY, f64::min), summary.parameters());
    let multiply_adds = summary.multiply_adds() as f64 / 1e6;
    println!("{name:<20}{parameters:10}{multiply_adds:13.2} M{time:9.0} ms{loss:8.3}{percent:7.1}%");
    let losses = epochs.iter().map(|epoch| (epoch.number as f64, epoch.loss)).collect();
    Ok(Found { name, parameters, losses, loss })
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings: plots } = common::parse(
        "Compares VGG, plain, residual and separable networks and Xception in small, on drawings of emoji",
    );
    let device = options.session()?.device().clone();
    let (mut data, test) = (drawings("train")?, drawings("test")?);
    if options.quick {
        data = (data.0.slice(0, 0..320)?, data.1.slice(0, 0..320)?);
    }
    let shallow = Staged { blocks: 1, width: 8, residual: false, separable: false };
    let deep = Staged { blocks: 3, width: 4, ..shallow };
    let separable = Staged { width: 20, residual: true, separable: true, ..shallow };
    let with_paths = |network: Staged| Staged { residual: true, ..network };
    let staged = [
        ("plain, 8 layers", shallow),
        ("residual, 8 layers", with_paths(shallow)),
        ("plain, 20 layers", deep),
        ("residual, 20 layers", with_paths(deep)),
        ("separable, 8 layers", separable),
    ];
    let mut networks: Vec<(&str, Network)> = vec![("VGG", Box::new(vgg)), ("Xception", Box::new(xception))];
    for (name, network) in staged {
        networks.push((name, Box::new(move |nn: &Scope, x: &Value| network.network(nn, x))));
    }

    println!("{:<20}{:>10}{:>15}{:>12}{:>8}{:>8}", "", "parameters", "multiply-adds", "step", "loss", "test");
    let train = |network| train(&options, &device, network, &data, &test);
    let found = networks.into_iter().map(train).collect::<Result<Vec<_>>>()?;
    let curves = found[..6].iter().map(|run| (run.name, run.losses.clone())).collect();
    let (title, y) = ("Networks with 17,000 to 22,000 parameters", "loss on training drawings");
    Plot { title, x: "epoch", y, log: false, curves }.save(&plots.plots, "architectures")?;

    for (run, (name, network)) in found[2..].iter().zip(staged) {
        assert_eq!(run.parameters, network.parameters(), "{name}: parameters must be those of the formula");
    }
    let guess = (CLASSES as f64).ln();
    assert!(found.iter().all(|run| run.loss < guess), "all must learn more than to guess");
    let [.., plain, residual, _] = &found[..] else { unreachable!("there are seven networks") };
    assert!(options.quick || residual.loss < plain.loss - 0.05, "residual paths must help a deep network to learn");
    Ok(())
}
