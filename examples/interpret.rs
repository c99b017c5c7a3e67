//! Interpretation: which pixels make a network see a digit?
//!
//! ```text
//! cargo run --release --example interpret
//! ```
//!
//! `s(x)` is the logit of the class that the network sees in a picture x, and `g(x) = ds / dx` its gradient.
//!
//! - **saliency**: `|g(x)|` (Simonyan, Vedaldi and Zisserman 2013).
//! - **SmoothGrad**: `|mean of g(x + noise)|` for normal noise, since gradients change a lot from one picture to the
//!   next (Smilkov, Thorat, Kim, Viégas and Wattenberg 2017).
//! - **integrated gradients**: `x * integral of g(a x) da`, for a from 0 (a black picture) to 1. Their sum is
//!   `s(x) - s(0)`, as the example checks; this is called *completeness* (Sundararajan, Taly and Yan 2017). The
//!   integral is the mean over the centres of equal intervals.
//! - **occlusion**: `s(x) - s(x with a black square)`, for squares around each pixel (Zeiler and Fergus 2014).
//! - **Grad-CAM**: `relu(sum over k of c_k A_k)`, where `A_k` is channel k of the last convolution, and `c_k` the mean
//!   of `ds / dA_k` over all places (Selvaraju et al. 2017).
//!
//! Which method is right? If pixels matter, deleting them must change the decision (Samek et al. 2017). The example
//! paints pixels black, the most important ones first, and measures the probability of the class. Random pixels are the
//! control. Pixels that are black already cannot be deleted, so only the others are ordered.

mod common;

use common::WithDrawings;
use common::picture;
use common::plot::Plot;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgrad::data::{self, Digits, Mnist};
use wgrad::nn::init;
use wgrad::ops::conv2d::Conv2d;
use wgrad::ops::interpolate::Interpolation;
use wgrad::prelude::*;
use wgrad::train::{Batch, Model, Programs, Trainer};
use wgrad::{Result, gradients};

const CLASSES: usize = 10;
const SIZE: usize = 28;
const PIXELS: usize = SIZE * SIZE;
/// The standard deviation of SmoothGrad's noise, and the number of noisy pictures.
const NOISE: f64 = 0.3;
const NOISY: u64 = 32;
/// Intervals of the comparison for integrated gradients.
const FEW: u64 = 4;
/// The side of the squares of occlusion, and the distance between them.
const SQUARE: usize = 6;
const STRIDE: usize = 2;
/// Pixels that are deleted at a time.
const DELETED: usize = 5;
const MAPS: [&str; 6] = ["saliency", "SmoothGrad", "integrated gradients", "occlusion", "Grad-CAM", "random"];

/// The channels of the last convolution `[N, 16, 14, 14]`, and the logits.
fn network(nn: &Scope, x: &Value) -> (Value, Value) {
    let x = nn.conv2d("conv1", x, 8, 5, Conv2d::same(5)).relu().max_pool2d(2);
    let channels = nn.conv2d("conv2", &x, 16, 3, Conv2d::same(3)).relu();
    let x = nn.linear("fc1", &channels.flatten(1), 32).relu();
    let logits = nn.linear("fc2", &x, CLASSES);
    (channels, logits)
}

/// For pictures `x` and their classes: the scores s, the gradients g, Grad-CAM's maps, and the probabilities.
fn explain() -> Programs {
    Programs::new(|graph, batch| {
        let x = batch.get("x");
        let (channels, logits) = network(&Scope::eval(graph, 0), &x);
        let of_class = |values: &Value| (values * batch.get("class").one_hot(CLASSES)).sum(&[1], false);
        let score = of_class(&logits);
        // The pictures are independent, so the gradient of the sum has the gradients of all.
        let [gradient, by_channel] = &gradients(&score.sum_all(), &[&x, &channels])[..] else { unreachable!() };
        let cam = (by_channel.mean(&[2, 3], true) * &channels).sum(&[1], true).relu();
        let cam = cam.interpolate(&[SIZE, SIZE], Interpolation::Linear);
        vec![score, gradient.clone(), cam, of_class(&logits.softmax(1))]
    })
}

/// A trained network and pictures to explain.
struct Explainer {
    session: Session,
    model: Model,
    programs: Programs,
    images: Tensor,
    /// The classes that the network sees.
    classes: Tensor,
}

impl Explainer {
    /// Scores, gradients, Grad-CAM's maps and probabilities for changed pictures.
    fn explain(&mut self, images: Vec<f32>) -> Result<[Vec<f64>; 4]> {
        let images = Tensor::new(self.images.shape().clone(), images)?;
        let batch = Batch::from([("x".into(), images), ("class".into(), self.classes.clone())]);
        let outputs = self.programs.run(&mut self.session, &batch, &[])?;
        Ok([0, 1, 2, 3].map(|output: usize| outputs[output].to_f64()))
    }

    /// The mean of the gradients of `count` versions of the pictures.
    fn mean_gradient(&mut self, count: u64, version: impl Fn(u64) -> Vec<f32>) -> Result<Vec<f64>> {
        let mut mean = vec![0.0; self.images.numel()];
        for number in 0..count {
            let [_, gradient, ..] = self.explain(version(number))?;
            mean.iter_mut().zip(gradient).for_each(|(mean, g)| *mean += g / count as f64);
        }
        Ok(mean)
    }

    fn smooth_grad(&mut self, seed: u64) -> Result<Vec<f64>> {
        let (shape, x) = (self.images.shape().clone(), self.images.to_f32());
        let noise = |number| init::normal(0.0, NOISE).draw(shape.clone(), seed * NOISY + number, "noise").to_f32();
        let mean = self.mean_gradient(NOISY, |number| x.iter().zip(noise(number)).map(|(x, n)| x + n).collect())?;
        Ok(mean.into_iter().map(f64::abs).collect())
    }

    fn integrated_gradients(&mut self, intervals: u64) -> Result<Vec<f64>> {
        let x = self.images.to_f32();
        let share = |number| (number as f32 + 0.5) / intervals as f32;
        let mean = self.mean_gradient(intervals, |number| x.iter().map(|x| x * share(number)).collect())?;
        Ok(mean.into_iter().zip(x).map(|(g, x)| g * f64::from(x)).collect())
    }

    /// The largest difference between the sum of integrated gradients and `s(x) - s(0)`, in parts of the mean of the
    /// latter.
    fn incompleteness(&mut self, map: &[f64]) -> Result<f64> {
        let [of_images, ..] = self.explain(self.images.to_f32())?;
        let [of_black, ..] = self.explain(vec![0.0; map.len()])?;
        let wanted: Vec<f64> = of_images.iter().zip(of_black).map(|(x, black)| x - black).collect();
        let mean = wanted.iter().map(|wanted| wanted.abs()).sum::<f64>() / wanted.len() as f64;
        let sums = map.chunks(PIXELS).map(|map| map.iter().sum::<f64>());
        Ok(sums.zip(wanted).map(|(sum, wanted)| (sum - wanted).abs()).fold(0.0, f64::max) / mean)
    }

    fn occlusion(&mut self) -> Result<Vec<f64>> {
        let [whole, ..] = self.explain(self.images.to_f32())?;
        let classes = self.classes.to_f64();
        let mut map = vec![0.0; self.images.numel()];
        let margin = (SQUARE - STRIDE) / 2;
        for (top, left) in (0..SIZE).step_by(STRIDE).flat_map(|y| (0..SIZE).step_by(STRIDE).map(move |x| (y, x))) {
            let inside = |pixel: usize, margin: usize| {
                let within = |at: usize, from: usize| at + margin >= from && at < from + STRIDE + margin;
                within(pixel / SIZE % SIZE, top) && within(pixel % SIZE, left)
            };
            let mut images = self.images.to_f32();
            (0..images.len()).filter(|&pixel| inside(pixel, margin)).for_each(|pixel| images[pixel] = 0.0);
            let images = Tensor::new(self.images.shape().clone(), images)?;
            let logits = self.model.predict(&mut self.session, &images)?.to_f64();
            for pixel in (0..map.len()).filter(|&pixel| inside(pixel, 0)) {
                let image = pixel / PIXELS;
                map[pixel] = whole[image] - logits[image * CLASSES + classes[image] as usize];
            }
        }
        Ok(map)
    }

    /// The mean probability of the classes while pixels that are not black are deleted, those with the largest numbers
    /// in the map first.
    fn delete(&mut self, map: &[f64], until: usize) -> Result<Vec<(f64, f64)>> {
        let mut images = self.images.to_f32();
        let mut orders = Vec::new();
        for (image, map) in map.chunks(PIXELS).enumerate() {
            let mut order: Vec<usize> = (0..PIXELS).filter(|pixel| images[image * PIXELS + pixel] > 0.0).collect();
            order.sort_by(|&a, &b| map[b].total_cmp(&map[a]));
            orders.push(order.into_iter().map(|pixel| image * PIXELS + pixel).collect::<Vec<_>>());
        }
        let mut curve = Vec::new();
        for deleted in (0..=until).step_by(DELETED) {
            let next = orders.iter().flat_map(|order| order.iter().take(deleted).skip(deleted.saturating_sub(DELETED)));
            next.for_each(|&pixel| images[pixel] = 0.0);
            let [.., probabilities] = self.explain(images.clone())?;
            curve.push((deleted as f64, probabilities.iter().sum::<f64>() / probabilities.len() as f64));
        }
        Ok(curve)
    }
}

/// Colours for a map: red above 0, blue below, white at 0; `[3, H, W]` for the numbers of one image.
fn colours(map: &[f64]) -> Vec<f32> {
    let largest = map.iter().map(|v| v.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let channel = |of: fn(f64) -> f64| map.iter().map(move |v| 1.0 - of(v / largest) as f32);
    channel(|v| (-v).max(0.0)).chain(channel(f64::abs)).chain(channel(|v| v.max(0.0))).collect()
}

fn main() -> Result<()> {
    let WithDrawings { common: options, drawings } = common::parse(
        "Shows which pixels of a digit matter to a network, by five methods, and deletes those pixels to compare them",
    );
    let Mnist { train, test } = Mnist::load(common::data("mnist10k"))?;
    let (digits, count, epochs, intervals) = if options.quick { (1500, 20, 2, 32) } else { (8000, 100, 4, 64) };
    let train = train.first(digits)?;
    let mut session = options.session()?;
    let mut model = Model::new([1, SIZE, SIZE], |nn, x| network(nn, x).1).seed(options.seed).batch(100);
    let trainer = Trainer::new(&model, |logits, labels| logits.cross_entropy(labels, Reduction::Mean))
        .lr(3e-3)
        .epochs(epochs)
        .quiet();
    options.steps.inspect(trainer, &session, &train)?.fit(&mut session, &train, None)?;
    let logits = model.predict(&mut session, &test.images)?.to_f64();
    let largest = |logits: &[f64]| (0..CLASSES).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as i32;
    let seen = Tensor::new([test.len()], logits.chunks(CLASSES).map(largest).collect::<Vec<_>>())?;
    println!("{:.1}% of the test digits are recognised", 100.0 * data::accuracy(&seen, &test.labels)?);

    let Digits { images, labels } = test.first(count)?;
    let classes = seen.slice(0, 0..count)?;
    let mut explainer = Explainer { session, model, programs: explain(), images, classes };
    let x = explainer.images.to_f32();
    let [_, gradient, cam, _] = explainer.explain(x.clone())?;
    let (rough, fine) = (explainer.integrated_gradients(FEW)?, explainer.integrated_gradients(intervals)?);
    let (by_few, by_many) = (explainer.incompleteness(&rough)?, explainer.incompleteness(&fine)?);
    println!(
        "integrated gradients: the sum is wrong by {by_few:.4} with {FEW} intervals, {by_many:.4} with {intervals}"
    );
    let random = x.iter().zip(StdRng::seed_from_u64(options.seed).random_iter()).map(|(_, random)| random).collect();
    let saliency = gradient.into_iter().map(f64::abs).collect();
    let maps = [saliency, explainer.smooth_grad(options.seed)?, fine, explainer.occlusion()?, cam, random];

    println!("probability after deleting{:9}{:9}{:9}  pixels     mean", 10, 20, 40);
    let mut curves = Vec::new();
    for (name, map) in MAPS.into_iter().zip(&maps) {
        let curve = explainer.delete(map, 80)?;
        let at = |deleted: usize| curve[deleted / DELETED].1;
        let mean = curve.iter().map(|point| point.1).sum::<f64>() / curve.len() as f64;
        println!("{name:<26}{:9.3}{:9.3}{:9.3}{mean:17.3}", at(10), at(20), at(40));
        curves.push((name, curve, mean));
    }

    // A row for each digit: the picture and its maps.
    let labels = labels.to_f64();
    let rows: Vec<usize> = (0..6).filter_map(|digit| labels.iter().position(|&label| label == digit as f64)).collect();
    let mut pixels = Vec::new();
    for row in &rows {
        let part = row * PIXELS..(row + 1) * PIXELS;
        (0..3).for_each(|_| pixels.extend(x[part.clone()].iter().map(|x| 1.0 - x)));
        maps[..5].iter().for_each(|map| pixels.extend(colours(&map[part.clone()])));
    }
    picture::save(&Tensor::new([rows.len() * 6, 3, SIZE, SIZE], pixels)?, 6, &drawings.plots, "interpret")?;
    // The filters of the first layer, each number as a square of 6 by 6 pixels.
    let filters = explainer.session.get("conv1.weight")?.to_f64();
    let enlarged = |filter: &[f64]| (0..900).map(|i| filter[i / 180 * 5 + i % 30 / 6]).collect::<Vec<_>>();
    let pixels: Vec<f32> = filters.chunks(25).flat_map(|filter| colours(&enlarged(filter))).collect();
    picture::save(&Tensor::new([8, 3, 30, 30], pixels)?, 8, &drawings.plots, "interpret_filters")?;
    let plotted = curves.iter().map(|(name, curve, _)| (*name, curve.clone())).collect();
    let (title, x, y) = ("Deleting the most important pixels", "deleted pixels", "probability of the class");
    Plot { title, x, y, log: false, curves: plotted }.save(&drawings.plots, "interpret")?;

    let [saliency, smooth, integrated, occlusion, _, random] = [0, 1, 2, 3, 4, 5].map(|map: usize| curves[map].2);
    assert!(by_many < by_few && by_many < 0.05, "integrated gradients must sum to the difference of the logits");
    assert!(saliency.max(smooth).max(occlusion) < random - 0.1, "random pixels must matter less");
    assert!(integrated < random - 0.2, "random pixels must matter far less");
    Ok(())
}
