//! A convolutional network learns handwritten digits.
//!
//! ```text
//! cargo run --release --example mnist_cnn
//! cargo run --release --example mnist_cnn -- --weights mnist_cnn.safetensors --predict digit.png
//! ```
//!
//! Two convolutions with batch norm and two dense layers, cross-entropy, Adam. Before training, one step is compared
//! with the CPU reference, kernel call by kernel call; with `--shadow`, every step is.
//!
//! On several devices, here 4 processes of this machine (needs Open MPI or MPICH, and libclang to build):
//!
//! ```text
//! mpirun -n 4 cargo run --release --features mpi --example mnist_cnn -- --distributed
//! ```

mod common;

use std::path::{Path, PathBuf};

use clap::Parser;
use wgrad::Result;
use wgrad::data::{Augment, Mnist};
use wgrad::distributed::World;
use wgrad::ops::conv2d::Conv2d;
use wgrad::optim::schedule::OneCycle;
use wgrad::prelude::*;
use wgrad::train::{Dataset, Loader, Metric, Model, Trainer};

/// Trains a convolutional network on handwritten digits, or classifies an image with it.
#[derive(Parser)]
struct Options {
    /// Folder with the four MNIST files, gzipped or not [default: the 9,000 included digits]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Number of passes over the training digits
    #[arg(long, default_value_t = 4)]
    epochs: u64,
    /// Digits per step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Largest learning rate; it rises and falls in one cycle
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Randomly shift each digit by up to this many pixels, and rotate it by up to 5 degrees for each
    #[arg(long, value_name = "PIXELS", default_value_t = 1)]
    augment: u16,
    /// Store activations as f16, or as the given type (f16, bf16, f32)
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "f16",
        default_value = "f32")]
    mixed: DType,
    /// File to write the weights to, or to read them from with --predict
    #[arg(long, default_value = "mnist_cnn.safetensors")]
    weights: PathBuf,
    /// Classify this image (PNG, JPEG or PNM) instead of training
    #[arg(long, value_name = "IMAGE")]
    predict: Option<PathBuf>,
    /// Folder for checkpoints, a log and a report; an earlier run in it is resumed
    #[arg(long)]
    run: Option<PathBuf>,
    /// Train on the ranks of an MPI job: build with `--features mpi`, and start with mpirun
    #[arg(long)]
    distributed: bool,
    /// Send gradients to other ranks as f16
    #[arg(long, requires = "distributed")]
    compress: bool,
    #[command(flatten)]
    common: common::Options,
}

/// Logits `[N, 10]` for images `[N, 1, 28, 28]`.
fn network(nn: &Scope, x: &Value) -> Value {
    let conv = |name, x: &Value, channels| nn.without_bias().conv2d(name, x, channels, 3, Conv2d::default());
    let x = nn.batch_norm("bn1", &conv("conv1", x, 16)).relu().max_pool2d(2);
    let x = nn.batch_norm("bn2", &conv("conv2", &x, 32)).relu().max_pool2d(2);
    nn.linear("fc2", &nn.linear("fc1", &x.flatten(1), 64).relu(), 10)
}

fn main() -> Result<()> {
    let options = Options::parse();
    options.predict.as_ref().map_or_else(|| train(&options), |image| predict(&options, image))
}

fn train(options: &Options) -> Result<()> {
    let (mut epochs, mut weights) = (options.epochs, options.weights.clone());
    let mut digits = Mnist::load(options.data.clone().unwrap_or_else(|| common::data("mnist10k")))?;
    if options.common.quick {
        (epochs, weights) = (1, weights.with_extension("quick.safetensors"));
        (digits.train, digits.test) = (digits.train.first(2000)?, digits.test.first(500)?);
    }
    let world = if options.distributed { Some(World::init()?) } else { None };
    let is_first = world.as_ref().is_none_or(World::is_first);
    if is_first {
        println!("data: {} training digits, {} test digits", digits.train.len(), digits.test.len());
    }
    let mut session = match &world {
        Some(world) => Session::new(Device::of_rank(world, options.common.device.as_deref())?),
        None => options.common.session()?,
    };
    if let Some(world) = &world {
        println!("{} of {}: {}", world.name_of(world.rank()), world.ranks(), session.device());
    }
    let (lr, pixels) = (options.lr, options.augment);
    let train = digits.train.augment(Augment::new(options.common.seed).shift(pixels).rotate(5.0 * f64::from(pixels)));
    let model = Model::new([1, 28, 28], network).seed(options.common.seed);
    let mut trainer = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .schedule(move |steps| OneCycle::new(lr, steps))
        .epochs(epochs)
        .batch(options.batch)
        .mixed(options.mixed)
        .workers(Loader::suitable_workers())
        .metrics([Metric::Accuracy]);
    if let Some(world) = &world {
        trainer = trainer.distributed(world).compress_gradients(options.compress);
    }
    if let Some(folder) = &options.run {
        trainer = trainer.folder(folder).resume(true);
    }
    let mut trainer = options.common.steps.inspect(trainer, &session, &train)?;
    if !session.device().is_cpu() && !options.common.steps.shadow {
        let verified = trainer.verify(&session, &train)?;
        if is_first {
            println!("check: {verified}");
        }
    }
    let history = trainer.fit(&mut session, &train, Some(&digits.test))?;
    let last = history.epochs.last().and_then(|epoch| epoch.validation.as_ref()?.get("accuracy"));
    if is_first {
        model.save(&session, &weights)?;
        println!("weights: {}\ntest accuracy {:.1}%", weights.display(), 100.0 * last.unwrap_or(0.0));
    }
    assert!(epochs == 0 || last.is_some_and(|accuracy| accuracy > 0.6), "the test accuracy must exceed 60%");
    Ok(())
}

fn predict(options: &Options, image: &Path) -> Result<()> {
    let mut session = options.common.session()?;
    let mut model = Model::new([1, 28, 28], |nn, x| network(nn, x).softmax(1));
    model.load(&mut session, &options.weights)?;
    let probabilities = model.predict(&mut session, &common::picture(image)?)?;
    println!("{} shows a {}", image.display(), common::most_likely(&probabilities));
    Ok(())
}
