//! First values of parameters: seeded, and a function of seed and name alone, so that neither the
//! order of layers nor another layer's size changes what a layer starts from.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{Shape, Tensor};

/// A distribution to draw a parameter's first value from. See the functions of this module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Init(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Constant(f64),
    Uniform(f64, f64),
    Normal(f64, f64),
    /// `scale / sqrt(fan_in)`, where the distribution's standard deviation is 1.
    FanIn(Family, f64),
    /// `scale / sqrt((fan_in + fan_out) / 2)`, likewise.
    FanMean(Family, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Uniform,
    Normal,
}

/// One number everywhere.
pub fn constant(value: f64) -> Init {
    Init(Kind::Constant(value))
}

/// Zeros.
pub fn zeros() -> Init {
    constant(0.0)
}

/// Ones.
pub fn ones() -> Init {
    constant(1.0)
}

/// Evenly in `[low, high)`.
pub fn uniform(low: f64, high: f64) -> Init {
    Init(Kind::Uniform(low, high))
}

/// Normal, with that mean and standard deviation.
pub fn normal(mean: f64, std: f64) -> Init {
    Init(Kind::Normal(mean, std))
}

/// For layers before a leaky ReLU of slope `a` (0 for a ReLU): `U(-b, b)`,
/// `b = sqrt(6 / ((1 + a^2) fan_in))` (He et al., *Delving deep into rectifiers*, ICCV 2015).
/// PyTorch's linear and convolution layers start from it with `a = sqrt(5)`, which is
/// `b = 1 / sqrt(fan_in)`. `fan_in` is the product of all sizes but the first.
pub fn kaiming_uniform(a: f64) -> Init {
    Init(Kind::FanIn(Family::Uniform, leaky_gain(a)))
}

/// The normal form of [`kaiming_uniform`]: standard deviation `sqrt(2 / ((1 + a^2) fan_in))`.
pub fn kaiming_normal(a: f64) -> Init {
    Init(Kind::FanIn(Family::Normal, leaky_gain(a)))
}

/// For layers between linear or saturating activations: `U(-b, b)`,
/// `b = gain sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, AISTATS 2010); the usual gain is 1,
/// and 5/3 before a tanh.
pub fn xavier_uniform(gain: f64) -> Init {
    Init(Kind::FanMean(Family::Uniform, gain))
}

/// The normal form of [`xavier_uniform`]: standard deviation `gain sqrt(2 / (fan_in + fan_out))`.
pub fn xavier_normal(gain: f64) -> Init {
    Init(Kind::FanMean(Family::Normal, gain))
}

fn leaky_gain(a: f64) -> f64 {
    (2.0 / (1.0 + a * a)).sqrt()
}

impl Init {
    /// Draws a tensor: a function of seed, name and shape.
    ///
    /// ```
    /// use wgrad::nn::init;
    /// let w = init::kaiming_uniform(0.0).draw([16, 8], 42, "fc1.weight");
    /// assert_eq!(w, init::kaiming_uniform(0.0).draw([16, 8], 42, "fc1.weight"));
    /// assert!(w.to_f32().iter().all(|x| x.abs() <= (6.0f32 / 8.0).sqrt()));
    /// ```
    pub fn draw(&self, shape: impl Into<Shape>, seed: u64, name: &str) -> Tensor {
        let shape = shape.into();
        let count = shape.numel();
        let mut rng = rng(seed, name);
        let (fan_in, fan_out) = fans(&shape);
        let values: Vec<f32> = match self.0 {
            Kind::Constant(value) => vec![value as f32; count],
            Kind::Uniform(low, high) => draw_uniform(&mut rng, count, low, high),
            Kind::Normal(mean, std) => draw_normal(&mut rng, count, mean, std),
            Kind::FanIn(family, gain) => draw_family(&mut rng, count, family, gain / fan_in.sqrt()),
            Kind::FanMean(family, gain) => {
                draw_family(&mut rng, count, family, gain / (0.5 * (fan_in + fan_out)).sqrt())
            }
        };
        Tensor::of(&shape, values)
    }
}

/// What one output sees and what one input reaches, at least 1: for weights `[out, in, ...]` the
/// sizes behind the first two (a kernel's) count in both.
fn fans(shape: &Shape) -> (f64, f64) {
    let size = |axis: usize| shape.get(axis).map_or(1.0, |&size| size as f64);
    let field: f64 = shape.iter().skip(2).map(|&size| size as f64).product();
    ((size(1) * field).max(1.0), (size(0) * field).max(1.0))
}

fn draw_family(rng: &mut StdRng, count: usize, family: Family, std: f64) -> Vec<f32> {
    match family {
        // The standard deviation of U(-b, b) is b / sqrt(3).
        Family::Uniform => draw_uniform(rng, count, -std * 3f64.sqrt(), std * 3f64.sqrt()),
        Family::Normal => draw_normal(rng, count, 0.0, std),
    }
}

fn draw_uniform(rng: &mut StdRng, count: usize, low: f64, high: f64) -> Vec<f32> {
    (0..count).map(|_| (low + (high - low) * rng.random::<f64>()) as f32).collect()
}

/// Two at a time (Box and Muller, *A note on the generation of random normal deviates*, 1958).
pub(crate) fn draw_normal(rng: &mut StdRng, count: usize, mean: f64, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt(); // 1 - [0, 1) is never 0
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.push((mean + std * radius * cos) as f32);
        values.push((mean + std * radius * sin) as f32);
    }
    values.truncate(count);
    values
}

/// Seed and name side by side in the generator's key; the name as its FNV-1a hash (Fowler, Noll
/// and Vo), which stays the same on every machine and in every release.
fn rng(seed: u64, name: &str) -> StdRng {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    StdRng::from_seed(key)
}
