//! Initial values of parameters. They depend only on seed, name and shape, so neither the order of layers nor the
//! size of other layers affects them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{Error, Result, Shape, Tensor};

/// A distribution of initial values; see the functions of this module. It parses from the name of such a function,
/// with optional arguments.
///
/// ```
/// use wgrad::nn::{Init, init};
/// assert_eq!("kaiming_uniform".parse::<Init>()?, init::kaiming_uniform(0.0));
/// assert_eq!("xavier_normal(1.667)".parse::<Init>()?, init::xavier_normal(1.667));
/// assert_eq!("uniform(-0.1, 0.1)".parse::<Init>()?, init::uniform(-0.1, 0.1));
/// let error = "kaimin_uniform".parse::<Init>().unwrap_err().to_string();
/// assert!(error.contains("`kaimin_uniform`") && error.contains("kaiming_uniform"));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Init(InitKind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum InitKind {
    Constant(f64),
    Uniform(f64, f64),
    Normal(f64, f64),
    /// Mean, standard deviation, low, high: redrawn until within bounds.
    Truncated(f64, f64, f64, f64),
    /// Gain.
    Orthogonal(f64),
    /// Gain; the standard deviation is `gain / sqrt(fan_in)`.
    FanIn(Family, f64),
    /// Gain; the standard deviation is `gain / sqrt((fan_in + fan_out) / 2)`.
    FanMean(Family, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Uniform,
    Normal,
}

/// The same value everywhere.
pub fn constant(value: f64) -> Init {
    Init(InitKind::Constant(value))
}

/// Zeros.
pub fn zeros() -> Init {
    constant(0.0)
}

/// Ones.
pub fn ones() -> Init {
    constant(1.0)
}

/// Uniform in `[low, high)`.
pub fn uniform(low: f64, high: f64) -> Init {
    Init(InitKind::Uniform(low, high))
}

/// Normal with the given mean and standard deviation.
pub fn normal(mean: f64, std: f64) -> Init {
    Init(InitKind::Normal(mean, std))
}

/// Normal with the given mean and standard deviation, redrawn until in `[low, high]`; vision transformers use mean 0,
/// standard deviation 0.02 and bounds of +-2 standard deviations. If the interval contains less than about a
/// thousandth of the distribution, values are uniform in it instead.
pub fn truncated_normal(mean: f64, std: f64, low: f64, high: f64) -> Init {
    Init(InitKind::Truncated(mean, std, low, high))
}

/// A matrix of the first axis by all others with orthogonal rows (or columns, if there are more rows than columns) of
/// norm `gain`, from normal numbers by the Gram-Schmidt process, which is uniform over all such matrices (Saxe,
/// McClelland and Ganguli, arXiv:1312.6120). Commonly used for recurrent weights.
pub fn orthogonal(gain: f64) -> Init {
    Init(InitKind::Orthogonal(gain))
}

/// For layers before a leaky ReLU of slope `a` (0 for a ReLU): `U(-b, b)`,
/// `b = sqrt(6 / ((1 + a^2) fan_in))` (He et al., *Delving deep into rectifiers*, ICCV 2015).
/// PyTorch's linear and convolution layers use it with `a = sqrt(5)`, so that `b = 1 / sqrt(fan_in)`. `fan_in` is the
/// product of all sizes except the first.
pub fn kaiming_uniform(a: f64) -> Init {
    Init(InitKind::FanIn(Family::Uniform, leaky_gain(a)))
}

/// The normal form of [`kaiming_uniform`]: standard deviation `sqrt(2 / ((1 + a^2) fan_in))`.
pub fn kaiming_normal(a: f64) -> Init {
    Init(InitKind::FanIn(Family::Normal, leaky_gain(a)))
}

/// For layers between linear or saturating activations: `U(-b, b)`,
/// `b = gain sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, AISTATS 2010); the usual gain is 1,
/// and 5/3 before a tanh.
pub fn xavier_uniform(gain: f64) -> Init {
    Init(InitKind::FanMean(Family::Uniform, gain))
}

/// The normal form of [`xavier_uniform`]: standard deviation `gain sqrt(2 / (fan_in + fan_out))`.
pub fn xavier_normal(gain: f64) -> Init {
    Init(InitKind::FanMean(Family::Normal, gain))
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
            InitKind::Constant(value) => vec![value as f32; count],
            InitKind::Uniform(low, high) => draw_uniform(&mut rng, count, low, high),
            InitKind::Normal(mean, std) => draw_normal(&mut rng, count, mean, std),
            InitKind::Truncated(mean, std, low, high) => draw_truncated(&mut rng, count, (mean, std), (low, high)),
            InitKind::Orthogonal(gain) => draw_orthogonal(&mut rng, &shape, gain),
            InitKind::FanIn(family, gain) => draw_family(&mut rng, count, family, gain / fan_in.sqrt()),
            InitKind::FanMean(family, gain) => {
                draw_family(&mut rng, count, family, gain / (0.5 * (fan_in + fan_out)).sqrt())
            }
        };
        Tensor::of(&shape, values)
    }
}

/// Name, parameter names, default arguments (if any), and constructor.
type Named = (&'static str, &'static str, &'static [f64], fn(&[f64]) -> Init);

const NAMES: &[Named] = &[
    ("zeros", "", &[], |_| zeros()),
    ("ones", "", &[], |_| ones()),
    ("constant", "value", &[], |a| constant(a[0])),
    ("uniform", "low, high", &[0.0, 1.0], |a| uniform(a[0], a[1])),
    ("normal", "mean, std", &[0.0, 1.0], |a| normal(a[0], a[1])),
    ("truncated_normal", "mean, std, low, high", &[0.0, 1.0, -2.0, 2.0], |a| truncated_normal(a[0], a[1], a[2], a[3])),
    ("orthogonal", "gain", &[1.0], |a| orthogonal(a[0])),
    ("kaiming_uniform", "a", &[0.0], |a| kaiming_uniform(a[0])),
    ("kaiming_normal", "a", &[0.0], |a| kaiming_normal(a[0])),
    ("xavier_uniform", "gain", &[1.0], |a| xavier_uniform(a[0])),
    ("xavier_normal", "gain", &[1.0], |a| xavier_normal(a[0])),
];

impl std::str::FromStr for Init {
    type Err = Error;

    /// Parses `name` or `name(argument, ...)`; without arguments, PyTorch's defaults apply.
    fn from_str(text: &str) -> Result<Init> {
        let trimmed = text.trim();
        let (name, arguments) = match trimmed.split_once('(') {
            None => (trimmed, None),
            Some((name, rest)) => match rest.strip_suffix(')') {
                Some(inside) => (name.trim(), Some(inside)),
                None => return Err(Error::Input(format!("the initialiser `{text}` has no closing parenthesis"))),
            },
        };
        let Some((_, parameters, defaults, make)) = NAMES.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = NAMES.iter().map(|(known, ..)| *known).collect();
            return Err(Error::Input(format!("unknown initialiser `{name}`; expected one of {}", known.join(", "))));
        };
        let wanted = parameters.split(", ").filter(|p| !p.is_empty()).count();
        let given: Option<Vec<f64>> = match arguments {
            None => Some(defaults.to_vec()),
            Some(inside) if inside.trim().is_empty() => Some(Vec::new()),
            Some(inside) => inside.split(',').map(|a| a.trim().parse().ok().filter(|a: &f64| a.is_finite())).collect(),
        };
        match given {
            Some(given) if given.len() == wanted => Ok(make(&given)),
            _ => Err(Error::Input(format!("the initialiser `{text}`: expected {name}({parameters}) with numbers"))),
        }
    }
}

/// `fan_in` and `fan_out`, at least 1 each; for weights `[out, in, ...]`, the kernel sizes after the first two axes
/// count in both.
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

/// Normal numbers, in pairs (Box and Muller, *A note on the generation of random normal deviates*, 1958).
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

/// Enough, with high probability, for an interval containing a thousandth of the distribution.
const MAX_TRIES: usize = 10_000;

fn draw_truncated(rng: &mut StdRng, count: usize, (mean, std): (f64, f64), (low, high): (f64, f64)) -> Vec<f32> {
    let within = |x: &f32| (low..=high).contains(&f64::from(*x));
    let one = |rng: &mut StdRng| {
        let found = (0..MAX_TRIES).find_map(|_| draw_normal(rng, 1, mean, std).pop().filter(within));
        found.unwrap_or_else(|| (low + (high - low) * rng.random::<f64>()) as f32)
    };
    (0..count).map(|_| one(rng)).collect()
}

fn draw_orthogonal(rng: &mut StdRng, shape: &Shape, gain: f64) -> Vec<f32> {
    let rows = shape.first().copied().unwrap_or(1);
    let columns = shape.numel() / rows.max(1);
    // Removes from each vector its components along the previous ones, twice for accuracy.
    let (vectors, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < vectors {
        let mut v: Vec<f64> = draw_normal(rng, length, 0.0, 1.0).into_iter().map(f64::from).collect();
        for before in basis.iter().chain(&basis) {
            let along: f64 = v.iter().zip(before).map(|(a, b)| a * b).sum();
            v.iter_mut().zip(before).for_each(|(a, b)| *a -= along * b);
        }
        let norm = v.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(v.into_iter().map(|a| a / norm).collect());
        }
    }
    let at = |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    places.map(|(row, column)| (gain * at(row, column)) as f32).collect()
}

/// A generator keyed by the seed and the FNV-1a hash (Fowler, Noll and Vo) of the name, which is the same on every
/// machine and in every release.
fn rng(seed: u64, name: &str) -> StdRng {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    StdRng::from_seed(key)
}
