//! Compares a sample of a task's outputs with the f64 reference.

use rand::SeedableRng;
use rand::rngs::StdRng;
use wgrad::check::bound::rounding_to_f16;
use wgrad::op::gamma;
use wgrad::{DType, Device, Graph, Precision, Session, Tensor, Value};

use wgrad_lab::output::Stop;

/// Compares a sample of a task's outputs.
pub type Sample = Box<dyn Fn(&Reference, &[Tensor]) -> Result<Verified, Stop>>;

/// The outcome of a comparison.
#[derive(Clone, Debug)]
pub struct Verified {
    /// How many numbers were compared.
    pub compared: usize,
    /// Out of how many, if only a sample was compared.
    pub of: Option<usize>,
    /// Largest error divided by its bound.
    pub worst: f64,
}

impl Verified {
    /// Adds the counts of another comparison.
    pub fn add(&mut self, other: Verified) {
        self.compared += other.compared;
        self.worst = self.worst.max(other.worst);
    }
}

/// The reference for sums of products.
pub struct Reference {
    /// The precision of the products of the program.
    pub precision: Precision,
    /// The relative error of storing a result.
    pub unit: f64,
}

impl Reference {
    /// Compares `got` with the outputs of the graph that `build` makes from the inputs, where each element is a sum of
    /// `terms` products.
    pub fn compare(
        &self,
        terms: usize,
        inputs: &[Tensor],
        build: impl Fn(&[Value]) -> Value,
        got: &Tensor,
    ) -> Result<Verified, Stop> {
        let inputs: Vec<Tensor> = inputs.iter().map(|input| input.cast(DType::F32)).collect();
        let graph = Graph::new();
        let names: Vec<String> = (0..inputs.len()).map(|i| format!("input{i}")).collect();
        let values: Vec<Value> =
            names.iter().zip(&inputs).map(|(name, t)| graph.input(name, t.dtype(), t.shape())).collect();
        let y = build(&values);
        let mut session = Session::new(Device::cpu());
        let program = session.compile(&graph, &[&y])?;
        let mut on = |inputs: &[Tensor]| -> Result<Vec<f64>, Stop> {
            let feeds: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
            Ok(session.run(&program, &feeds)?.iter().flat_map(Tensor::to_f64).collect())
        };
        let want = on(&inputs)?;
        let mut magnitudes = |of: &dyn Fn(f32) -> f32| {
            let values = |t: &Tensor| t.to_f32().into_iter().map(of).collect::<Vec<f32>>();
            on(&inputs.iter().map(|t| Tensor::new(t.shape(), values(t))).collect::<wgrad::Result<Vec<Tensor>>>()?)
        };
        let exact = magnitudes(&f32::abs)?;
        let rounded = match self.precision {
            Precision::Highest => exact.clone(),
            Precision::Mixed => magnitudes(&|x| x.abs() + rounding_to_f16(x.into()) as f32)?,
            other => return Err(Stop::Error(format!("there is no error bound for products in precision {other}"))),
        };
        let bound = |(exact, rounded): (f64, f64)| (gamma(terms) + self.unit) * rounded + (rounded - exact);
        let bounds: Vec<f64> = exact.into_iter().zip(rounded).map(bound).collect();
        hold(&got.to_f64(), &want, &bounds)
    }

    /// Compares the scalar `got` with `sum(x y)`, where each `y` is itself a sum of `terms` products on the device.
    pub fn inner_product(&self, x: &Tensor, y: &Tensor, got: &Tensor, terms: usize) -> Result<Verified, Stop> {
        let products: Vec<f64> = x.to_f64().iter().zip(y.to_f64()).map(|(x, y)| x * y).collect();
        let magnitude: f64 = products.iter().map(|p| p.abs()).sum();
        // The terms, the other factor of those that the device adds, and the sum are stored.
        let of_operands = if self.precision == Precision::Mixed { 2f64.powi(-9) } else { 0.0 };
        let bound = (gamma(x.numel()) + gamma(terms) + 3.0 * self.unit + of_operands) * magnitude;
        hold(&got.to_f64(), &[products.iter().sum()], &[bound])
    }
}

fn hold(got: &[f64], want: &[f64], bounds: &[f64]) -> Result<Verified, Stop> {
    if got.len() != want.len() || got.is_empty() {
        return Err(Stop::Error(format!("internal: {} numbers to compare with {}", got.len(), want.len())));
    }
    let mut worst = 0f64;
    for (i, ((got, want), bound)) in got.iter().zip(want).zip(bounds).enumerate() {
        let difference = (got - want).abs();
        if !(difference <= *bound) {
            return Err(Stop::Wrong(format!(
                "wrong result, so nothing is timed: sampled element {i} is {got:e}, expected {want:e} \
                 within {bound:.1e}"
            )));
        }
        if difference > 0.0 {
            worst = worst.max(difference / bound);
        }
    }
    Ok(Verified { compared: got.len(), of: None, worst })
}

/// `most` indices below `n`, deterministic, including the first and the last.
pub fn sampled(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let mut picks = rand::seq::index::sample(&mut StdRng::seed_from_u64(n as u64), n, most).into_vec();
    picks.sort_unstable();
    picks[0] = 0;
    if let Some(last) = picks[1..].last_mut() {
        *last = n - 1;
    }
    picks
}

/// Slices of a host tensor.
pub trait Pick {
    /// The slices at these positions along an axis.
    fn pick(&self, axis: usize, positions: &[usize]) -> Tensor;
}

impl Pick for Tensor {
    fn pick(&self, axis: usize, positions: &[usize]) -> Tensor {
        let (mut shape, values) = (self.shape().to_vec(), self.to_f32());
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let size = shape[axis];
        shape[axis] = positions.len();
        let mut picked = Vec::with_capacity(outer * positions.len() * inner);
        for o in 0..outer {
            for p in positions {
                picked.extend_from_slice(&values[(o * size + p) * inner..][..inner]);
            }
        }
        Tensor::new(shape, picked).unwrap_or_else(|_| self.clone()) // the element count matches the shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_include_both_ends() {
        assert_eq!(sampled(3, 8), [0, 1, 2]);
        let picks = sampled(1000, 64);
        assert_eq!((picks.len(), picks[0], picks[63]), (64, 0, 999));
        assert_eq!(sampled(1000, 1), [0]);
    }

    #[test]
    fn picks_are_slices() {
        let t = Tensor::new([2, 3, 2], (0..12).map(|i| i as f32).collect::<Vec<_>>()).expect("a tensor");
        let picked = t.pick(1, &[2, 0]);
        assert_eq!(**picked.shape(), [2, 2, 2]);
        assert_eq!(picked.to_f32(), [4.0, 5.0, 0.0, 1.0, 10.0, 11.0, 6.0, 7.0]);
    }

    #[test]
    fn wrong_and_missing_numbers_are_detected() {
        assert!(hold(&[1.0, 2.0], &[1.0, 2.1], &[0.0, 0.2]).is_ok());
        assert!(hold(&[1.0, 2.0], &[1.0, 2.1], &[0.0, 0.05]).is_err());
        assert!(hold(&[f64::NAN], &[1.0], &[10.0]).is_err());
        assert!(hold(&[], &[], &[]).is_err());
    }
}
