//! Tolerances and tensor comparison.

use std::fmt;

use serde_json::{Value as Json, json};
use wgrad::{Shape, Tensor};

/// The kind of op that computed a tensor, which determines the allowed error in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Data movement, comparisons, indices: `got == want`.
    Exact,
    /// Unary and binary elementwise ops, and `where`: `1e-6 + 1e-5 |want|`.
    Elementwise,
    /// The same for ops in which PyTorch uses a single-precision constant even for doubles (the 1/6 of hardsigmoid's
    /// gradient): the reference may be off by one f32 rounding, `2^-24 |want|`.
    RoundedConstant,
    /// All other arithmetic: `1e-5 max(1, max |want|)`.
    Scaled,
    /// A number of a training run: this absolute error.
    Absolute(f64),
}

/// The reference computes in f64: except for [`Kind::Exact`] and [`Kind::RoundedConstant`] it is allowed
/// `1e-9 max(1, max |want|)`.
const REFERENCE: f64 = 1e-9;

impl Kind {
    /// The allowed error of an element, given the largest magnitude in its tensor.
    fn allowed(self, reference: bool, want: f64, largest: f64) -> f64 {
        match self {
            Kind::Exact => 0.0,
            Kind::RoundedConstant if reference => REFERENCE + 2f64.powi(-24) * want.abs(),
            _ if reference => REFERENCE * largest.max(1.0),
            Kind::Elementwise | Kind::RoundedConstant => 1e-6 + 1e-5 * want.abs(),
            Kind::Scaled => 1e-5 * largest.max(1.0),
            Kind::Absolute(bound) => bound,
        }
    }
}

/// The result of comparing tensors.
#[derive(Default)]
pub struct Comparison {
    /// Elements compared.
    pub compared: usize,
    /// The largest error as a fraction of the allowed error; infinite if none is allowed.
    pub worst: f64,
    /// The worst element of each failing tensor.
    pub failures: Vec<Failure>,
}

/// A tensor that failed.
pub struct Failure {
    /// Its name, such as `grad_x`.
    pub tensor: String,
    /// The failure.
    pub what: Wrong,
}

/// How a tensor fails.
pub enum Wrong {
    /// Elements are out of tolerance; this is the worst.
    Element { index: Vec<usize>, got: f64, want: f64, allowed: f64, off: usize, of: usize },
    /// A failure of the whole tensor.
    Other(String),
}

impl Failure {
    pub fn other(tensor: impl Into<String>, message: impl Into<String>) -> Self {
        Failure { tensor: tensor.into(), what: Wrong::Other(message.into()) }
    }

    /// The number of failing elements.
    pub fn elements(&self) -> usize {
        match &self.what {
            Wrong::Element { off, .. } => *off,
            Wrong::Other(_) => 0,
        }
    }

    pub fn json(&self) -> Json {
        match &self.what {
            // JSON has no NaN or infinity; they are written as strings.
            Wrong::Element { index, got, want, allowed, off, of } => {
                let number = |x: &f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
                json!({
                    "tensor": self.tensor, "index": index, "got": number(got), "want": number(want),
                    "allowed": number(allowed), "elements_off": off, "elements": of,
                })
            }
            Wrong::Other(message) => json!({"tensor": self.tensor, "message": message}),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Wrong::Element { index, got, want, allowed, off, of } => write!(
                f,
                "{}{index:?}: got {got:?}, want {want:?}, allowed {allowed:.3e} ({off} of {of} elements off)",
                self.tensor
            ),
            Wrong::Other(message) => write!(f, "{}: {message}", self.tensor),
        }
    }
}

/// A difference as a fraction of the allowed error. Written so that NaN always exceeds it.
fn fraction(diff: f64, allowed: f64) -> f64 {
    match (diff <= allowed, allowed > 0.0) {
        (true, true) => diff / allowed,
        (true, false) => 0.0,
        (false, true) if !diff.is_nan() => diff / allowed,
        (false, _) => f64::INFINITY,
    }
}

impl Comparison {
    /// Compares a result with its expected shape and values.
    pub fn add(&mut self, name: &str, got: &Tensor, shape: &Shape, want: &[f64], kind: Kind, reference: bool) {
        if got.shape() != shape {
            let message = format!("the shape is {}, but should be {shape}", got.shape());
            self.failures.push(Failure::other(name, message));
            return;
        }
        let got = got.to_f64();
        let largest = want.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
        let (mut worst, mut at, mut off) = (0.0, 0, 0);
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let (diff, allowed) = ((got - want).abs(), kind.allowed(reference, want, largest));
            let used = fraction(diff, allowed);
            if used > worst {
                (worst, at) = (used, i);
            }
            if !(diff <= allowed) {
                off += 1;
            }
        }
        self.compared += want.len();
        self.worst = self.worst.max(worst);
        if off > 0 {
            let allowed = kind.allowed(reference, want[at], largest);
            let index = shape.unravel(at);
            let what = Wrong::Element { index, got: got[at], want: want[at], allowed, off, of: want.len() };
            self.failures.push(Failure { tensor: name.to_owned(), what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(got: [f64; 3], want: [f64; 3], kind: Kind, reference: bool) -> Comparison {
        let mut result = Comparison::default();
        let got = Tensor::new([3], got).expect("three elements");
        result.add("y", &got, &[3].into(), &want, kind, reference);
        result
    }

    #[test]
    fn each_kind_has_its_bound() {
        let off = |by: f64, kind, reference| {
            !compare([0.5, 100.0, 1.0 + by], [0.5, 100.0, 1.0], kind, reference).failures.is_empty()
        };
        assert!(off(1e-15, Kind::Exact, false) && off(1e-15, Kind::Exact, true));
        assert!(!off(1.0e-5, Kind::Elementwise, false) && off(1.2e-5, Kind::Elementwise, false));
        assert!(!off(0.9e-3, Kind::Scaled, false) && off(1.1e-3, Kind::Scaled, false));
        assert!(!off(0.9e-7, Kind::Scaled, true) && off(1.1e-7, Kind::Elementwise, true));
        assert!(!off(1.9e-4, Kind::Absolute(2e-4), false) && off(2.1e-4, Kind::Absolute(2e-4), false));
    }

    #[test]
    fn nan_fails_and_is_the_worst() {
        let result = compare([9.0, f64::NAN, 3.0], [1.0, 2.0, 3.0], Kind::Scaled, false);
        let text = result.failures[0].to_string();
        assert!(text.starts_with("y[1]: got NaN, want 2.0") && text.ends_with("(2 of 3 elements off)"), "{text}");
        assert!(result.worst.is_infinite());
        let result = compare([1.0, 2.0, 3.0], [1.0, f64::NAN, 3.0], Kind::Scaled, false);
        assert_eq!(result.failures.len(), 1);
    }

    #[test]
    fn shapes_must_agree() {
        let mut result = Comparison::default();
        let got = Tensor::new([3], [1.0f32, 2.0, 3.0]).expect("three elements");
        result.add("y", &got, &[1, 3].into(), &[1.0, 2.0, 3.0], Kind::Exact, false);
        assert_eq!(result.failures[0].to_string(), "y: the shape is [3], but should be [1, 3]");
        assert_eq!(result.compared, 0);
    }
}
