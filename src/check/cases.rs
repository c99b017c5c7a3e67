//! Cases as graphs with random inputs, and gradients by finite differences.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::autodiff::gradients_of;
use crate::cpu::{Values, evaluate};
use crate::graph::ValueId;
use crate::op::{Case, Fill};
use crate::{DType, Data, Graph, Result, Tensor, TensorType, Value};

/// A case as a graph: inputs, outputs and, if it is differentiable, a seed `dy` for each float output and the
/// gradient of each float input.
///
/// Example: [`check_case`](crate::check::check_case).
pub struct CaseGraph {
    /// The graph.
    pub graph: Graph,
    /// The case's inputs, then the seeds: names, values and how to fill them.
    pub inputs: Vec<(String, Value, Fill)>,
    /// The outputs, then the gradients, with their names.
    pub outputs: Vec<(String, Value)>,
    /// How many of `inputs` and of `outputs` belong to the case itself.
    pub own: (usize, usize),
}

impl CaseGraph {
    /// Builds the graph.
    ///
    /// # Errors
    /// All graph errors, if the case's ops reject its shapes.
    pub fn new(case: &Case) -> Result<CaseGraph> {
        let graph = Graph::new();
        let mut inputs: Vec<(String, Value, Fill)> = case
            .inputs
            .iter()
            .map(|i| (i.name.to_owned(), graph.input(i.name, i.ty.dtype, &i.ty.shape), i.fill.clone()))
            .collect();
        let values: Vec<Value> = inputs.iter().map(|(_, value, _)| value.clone()).collect();
        let ys = (case.build)(&values);
        let mut outputs: Vec<(String, Value)> =
            ys.iter().enumerate().map(|(i, y)| (format!("y{i}"), y.clone())).collect();
        let own = (inputs.len(), outputs.len());
        if case.differentiable {
            let seeds: Vec<(&Value, String, Value)> = ys
                .iter()
                .enumerate()
                .filter(|(_, y)| y.is_valid() && y.dtype().is_float())
                .map(|(i, y)| (y, format!("dy{i}")))
                .map(|(y, name)| (y, name.clone(), graph.input(&name, y.dtype(), y.shape())))
                .collect();
            let floats: Vec<&(String, Value, Fill)> = inputs.iter().filter(|(_, v, _)| v.dtype().is_float()).collect();
            let wrt: Vec<&Value> = floats.iter().map(|(_, v, _)| v).collect();
            let pairs: Vec<(&Value, &Value)> = seeds.iter().map(|(y, _, seed)| (*y, seed)).collect();
            let gradients = gradients_of(&pairs, &wrt);
            outputs.extend(floats.iter().zip(gradients).map(|((name, ..), d)| (format!("d{name}"), d)));
            let named: Vec<_> =
                seeds.into_iter().map(|(_, name, seed)| (name, seed, Fill::Uniform(-1.0, 1.0))).collect();
            inputs.extend(named);
        }
        let errors = graph.errors();
        if errors.is_empty() { Ok(CaseGraph { graph, inputs, outputs, own }) } else { Err(crate::Error::Graph(errors)) }
    }

    /// Draws the inputs; floats are exact in f32.
    pub fn sample(&self, seed: u64) -> Vec<Tensor> {
        let mut rng = StdRng::seed_from_u64(seed);
        self.inputs.iter().map(|(_, value, fill)| draw(value.ty(), fill, &mut rng)).collect()
    }

    fn feeds(&self, inputs: &[Tensor]) -> Values {
        self.inputs.iter().zip(inputs).map(|((_, v, _), t)| (v.id(), t.to_reference())).collect()
    }

    /// All outputs and gradients on the reference.
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let ids: Vec<ValueId> = self.outputs.iter().map(|(_, v)| v.id()).collect();
        let values = evaluate(&self.graph.nodes(), &ids, self.feeds(inputs))?;
        Ok(ids.iter().filter_map(|id| values.get(id).cloned()).collect())
    }

    /// Compares the reference's gradients with central differences of the reference itself, at up to `most`
    /// elements of each input. Returns the number of comparisons.
    ///
    /// # Errors
    /// A message that names the first element whose error exceeds `1e-6` of the scale.
    pub fn check_gradients(&self, seed: u64, most: usize) -> std::result::Result<usize, String> {
        let inputs = self.sample(seed);
        let nodes = self.graph.nodes();
        let ys: Vec<&Value> =
            self.outputs[..self.own.1].iter().map(|(_, y)| y).filter(|y| y.dtype().is_float()).collect();
        let ids: Vec<ValueId> = ys.iter().map(|y| y.id()).collect();
        let outputs = |inputs: &[Tensor]| -> std::result::Result<Vec<f64>, String> {
            let values = evaluate(&nodes, &ids, self.feeds(inputs)).map_err(|e| e.to_string())?;
            Ok(ids.iter().flat_map(|id| values[id].to_f64()).collect())
        };
        let seeds: Vec<f64> = inputs[self.own.0..].iter().flat_map(Tensor::to_f64).collect();
        let all = self.reference(&inputs).map_err(|e| e.to_string())?;
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut compared = 0;
        let floats = (0..self.own.0).filter(|&i| self.inputs[i].1.dtype().is_float());
        for (gradient, i) in all[self.own.1..].iter().zip(floats) {
            let gradient = gradient.to_f64();
            let x = inputs[i].to_f64();
            let picks: Vec<usize> = if x.len() <= most {
                (0..x.len()).collect()
            } else {
                (0..most).map(|_| rng.random_range(0..x.len())).collect()
            };
            // There are no finite differences at an infinity.
            for at in picks.into_iter().filter(|&at| x[at].is_finite()) {
                let moved = |by: f64| {
                    let mut x = x.clone();
                    x[at] += by;
                    let mut inputs = inputs.clone();
                    inputs[i] = Tensor::of(inputs[i].shape(), x);
                    outputs(&inputs)
                };
                let difference = |h: f64| -> std::result::Result<f64, String> {
                    // Subtract before summing: a difference of long sums would cancel.
                    let pairs = moved(h)?.into_iter().zip(moved(-h)?).zip(&seeds);
                    Ok(pairs.map(|((up, down), dy)| (up - down) * dy).sum::<f64>() / (2.0 * h))
                };
                let agrees = |difference: f64| {
                    let scale = difference.abs().max(gradient[at].abs()).max(1.0);
                    (difference - gradient[at]).abs() <= 1e-6 * scale
                };
                // The smaller step avoids a kink within the first one, unless it is at the point itself. If the
                // first step is too large for the curvature and the smaller one too small for the rounding,
                // Richardson extrapolation removes the second-order error. A wrong rule fails all three.
                let h = 1e-5 * x[at].abs().max(0.1);
                let first = difference(h)?;
                let right = agrees(first)
                    || agrees(difference(h / 32.0)?)
                    || agrees((16.0 * difference(h / 4.0)? - first) / 15.0);
                if !right {
                    let index = inputs[i].shape().unravel(at);
                    return Err(format!(
                        "d{}{index:?} is {:e} by the rule and {first:e} by finite differences",
                        self.inputs[i].0, gradient[at]
                    ));
                }
                compared += 1;
            }
        }
        Ok(compared)
    }
}

/// Draws one tensor; floats are exact in f32. Narrow types are drawn in their wide type and converted.
pub fn draw(ty: &TensorType, fill: &Fill, rng: &mut StdRng) -> Tensor {
    let n = ty.shape.numel();
    let data: Data = match (fill, ty.dtype.wide()) {
        (Fill::Coin, _) | (_, DType::Bool) => (0..n).map(|_| rng.random::<bool>()).collect::<Vec<_>>().into(),
        (Fill::Index(bound), DType::I32) => {
            (0..n).map(|_| rng.random_range(0..(*bound).max(1)) as i32).collect::<Vec<_>>().into()
        }
        (Fill::Index(bound), DType::U32) => {
            (0..n).map(|_| rng.random_range(0..(*bound).max(1))).collect::<Vec<_>>().into()
        }
        (Fill::Index(bound), _) => {
            (0..n).map(|_| rng.random_range(0..(*bound).max(1)) as f32).collect::<Vec<_>>().into()
        }
        (Fill::Distinct, _) => {
            let mut order: Vec<usize> = (0..n).collect();
            for i in (1..n).rev() {
                order.swap(i, rng.random_range(0..=i));
            }
            order.into_iter().map(|i| (i as f32 - n as f32 / 2.0) * 0.02).collect::<Vec<f32>>().into()
        }
        (Fill::Uniform(low, high) | Fill::Special(_, low, high), _) => {
            let special: &[f64] = if let Fill::Special(values, ..) = fill { values } else { &[] };
            let mut values: Vec<f32> = (0..n).map(|_| rng.random_range(*low..=*high) as f32).collect();
            values.iter_mut().zip(special).for_each(|(x, &s)| *x = s as f32);
            values.into()
        }
    };
    Tensor::of(&ty.shape, data).stored_as(ty.dtype)
}
