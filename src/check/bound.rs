//! How far a correct device result may be from the exact one.
//!
//! The reference is evaluated in f64, together with a bound for each element. A launch's inputs are exact,
//! because they are read back from the device. An op adds its own rounding (see [`Rounding`]): nothing for
//! copies, integers and comparisons; a few ulps for arithmetic; `gamma(k)` times the sum of magnitudes for a
//! sum of k products, so that the bound follows the condition of the sum (`gamma_of_runs(k)` for reductions,
//! which are summed in runs). Inside a fused chain, a pointwise op propagates the errors of its operands: it is
//! evaluated again with each operand moved up and down by its error, and the differences are added. A
//! comparison whose operands are closer than their errors, and whatever it selects, may therefore come out
//! either way, while all other bounds stay tight.

use std::collections::HashMap;

use crate::graph::{NodeKind, Nodes, ValueId};
pub use crate::op::rounding_to_f16;
use crate::op::{Op, Precision, Rounding, gamma, gamma_of_runs};
use crate::{Data, Error, Result, Tensor, TensorType};

/// A value with a bound for each element; `None` if it is exact.
///
/// Example: [`Session::run_checked`](crate::Session::run_checked).
#[derive(Clone, Debug)]
pub struct Bounded {
    /// The exact value.
    pub value: Tensor,
    /// The allowed error of each element.
    pub error: Option<Vec<f64>>,
    /// Whether an element may as well be NaN (see [`Op::may_be_nan`]).
    pub may_be_nan: Option<Vec<bool>>,
}

impl Bounded {
    /// A value without an error.
    pub fn exact(value: Tensor) -> Bounded {
        Bounded { value, error: None, may_be_nan: None }
    }

    /// Whether this element may as well be NaN.
    pub fn allows_nan(&self, at: usize) -> bool {
        self.may_be_nan.as_ref().is_some_and(|which| which[at])
    }
}

/// Computes `targets` from `feeds`, which are exact, as a kernel call with matrix products of this precision may.
///
/// # Errors
/// If a needed value is neither fed nor computable.
pub fn evaluate(
    nodes: &Nodes,
    targets: &[ValueId],
    feeds: HashMap<ValueId, Tensor>,
    precision: Precision,
) -> Result<HashMap<ValueId, Bounded>> {
    let mut values: HashMap<ValueId, Bounded> =
        feeds.into_iter().map(|(id, value)| (id, Bounded::exact(value))).collect();
    // In-place updates feed the old value under the variable's id, never under the target's. A leaf, such as a step
    // scalar that is fetched, is copied.
    for target in targets.iter().filter(|target| nodes.nodes[target.node].op().is_some()) {
        values.remove(target);
    }
    let mut needed = vec![false; nodes.nodes.len()];
    let mut open: Vec<ValueId> = targets.to_vec();
    while let Some(id) = open.pop() {
        if !values.contains_key(&id) && !std::mem::replace(&mut needed[id.node], true) {
            open.extend(&nodes.nodes[id.node].inputs);
        }
    }
    for (number, node) in nodes.nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
        let outputs = match &node.kind {
            NodeKind::Constant(tensor) => vec![Bounded::exact(tensor.to_reference())],
            NodeKind::Op(op) => {
                let inputs: Option<Vec<&Bounded>> = node.inputs.iter().map(|id| values.get(id)).collect();
                let inputs = inputs.ok_or_else(|| Error::Input(format!("internal: {} lacks an input", node.name())))?;
                crate::cpu::check_indices(nodes, number, &inputs.iter().map(|b| &b.value).collect::<Vec<_>>())?;
                step(&**op, &inputs, &node.outputs, precision)
            }
            _ => return Err(Error::Input(format!("internal: {} is not fed", node.name()))),
        };
        for (output, bounded) in outputs.into_iter().enumerate() {
            values.entry(ValueId { node: number, output }).or_insert(bounded);
        }
    }
    Ok(values)
}

/// One op: its value, its own rounding, and the propagated errors of its operands.
fn step(op: &dyn Op, inputs: &[&Bounded], types: &[TensorType], precision: Precision) -> Vec<Bounded> {
    let values: Vec<&Tensor> = inputs.iter().map(|b| &b.value).collect();
    let mut outputs = op.reference(&values, types);
    let mut errors = own(op, &values, &outputs, types, precision);
    let mut may_be_nan: Vec<Option<Vec<bool>>> = vec![None; outputs.len()];
    may_be_nan[0] = op.may_be_nan(&values, types);
    let mut finite = Vec::new();
    let with = |i: usize, value: &Tensor| {
        let mut values = values.clone();
        values[i] = value;
        op.reference(&values, types)
    };
    for (i, input) in inputs.iter().enumerate() {
        if let Some(which) = &input.may_be_nan {
            let shifted = with(i, &with_nan(&input.value, which));
            for (number, (output, shifted)) in outputs.iter().zip(&shifted).enumerate() {
                let is_float = matches!(output.data(), Data::F64(_));
                for (at, (a, b)) in output.to_f64().into_iter().zip(shifted.to_f64()).enumerate() {
                    if is_float && b.is_nan() {
                        may_be_nan[number].get_or_insert_with(|| vec![false; output.numel()])[at] = true;
                    } else if !super::same(a, b) {
                        // A comparison with NaN came out differently.
                        errors[number].get_or_insert_with(|| vec![0.0; output.numel()])[at] += apart(a, b);
                    }
                }
            }
        }
        let Some(error) = &input.error else { continue };
        for up in [true, false] {
            let shifted = with(i, &moved(&input.value, error, up));
            for (number, ((error, output), shifted)) in errors.iter_mut().zip(&outputs).zip(&shifted).enumerate() {
                let (a, b) = (output.to_f64(), shifted.to_f64());
                let error = error.get_or_insert_with(|| vec![0.0; a.len()]);
                for (at, ((error, a), b)) in error.iter_mut().zip(&a).zip(&b).enumerate() {
                    if a.is_infinite() && b.is_finite() {
                        finite.push((number, at, *b));
                    }
                    *error += apart(*a, *b);
                }
            }
        }
    }
    // An infinity that may also be a finite number, because an operand is near the limit of a range, is bounded as that
    // number with an infinite error.
    for (number, at, value) in finite {
        outputs[number].replace(at, value);
    }
    let all = outputs.into_iter().zip(errors).zip(may_be_nan);
    all.map(|((value, error), may_be_nan)| Bounded { value, error, may_be_nan }).collect()
}

/// The distance of two results; infinite if one of them is NaN.
fn apart(a: f64, b: f64) -> f64 {
    let distance = if super::same(a, b) { 0.0 } else { (a - b).abs() };
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// The tensor with NaN for some of its elements.
fn with_nan(value: &Tensor, which: &[bool]) -> Tensor {
    let mut value = value.clone();
    (0..which.len()).filter(|&at| which[at]).for_each(|at| value.replace(at, f64::NAN));
    value
}

/// The tensor with each element moved by its error; an uncertain bool is flipped.
fn moved(value: &Tensor, error: &[f64], up: bool) -> Tensor {
    let sign = if up { 1.0 } else { -1.0 };
    let data: Data = match value.data() {
        Data::F64(v) => v.iter().zip(error).map(|(x, e)| x + sign * e).collect::<Vec<f64>>().into(),
        Data::I32(v) => {
            v.iter().zip(error).map(|(&x, e)| (f64::from(x) + sign * e) as i32).collect::<Vec<i32>>().into()
        }
        Data::U32(v) => {
            v.iter().zip(error).map(|(&x, e)| (f64::from(x) + sign * e) as u32).collect::<Vec<u32>>().into()
        }
        Data::Bool(v) => {
            v.iter().zip(error).map(|(&x, &e)| if e > 0.0 && up { !x } else { x }).collect::<Vec<bool>>().into()
        }
        // The reference has wide types.
        Data::F32(_) | Data::F16(_) | Data::BF16(_) | Data::I8(_) | Data::U8(_) => value.data().clone(),
    };
    Tensor::of(value.shape(), data)
}

/// The op's own rounding.
fn own(
    op: &dyn Op,
    inputs: &[&Tensor],
    outputs: &[Tensor],
    types: &[TensorType],
    precision: Precision,
) -> Vec<Option<Vec<f64>>> {
    let input_types: Vec<TensorType> = inputs.iter().map(|t| t.ty()).collect();
    match op.rounding(&input_types.iter().collect::<Vec<_>>()) {
        Rounding::Exact => vec![None; outputs.len()],
        Rounding::Ulps(ulps, absolute) => outputs
            .iter()
            .map(|y| match y.data() {
                Data::F64(v) => Some(v.iter().map(|&y| rounding(y, ulps) + absolute).collect()),
                _ => None,
            })
            .collect(),
        Rounding::Sum(terms) => sums(op, inputs, types, terms, gamma(terms), precision),
        Rounding::Runs(terms) => sums(op, inputs, types, terms, gamma_of_runs(terms), Precision::Highest),
        Rounding::Bound(bound) => floats(outputs, bound(inputs, outputs, precision)),
    }
}

/// The bounds of sums: `gamma` times the sums of magnitudes. If operands may be rounded to f16, the magnitudes grow by
/// [`rounding_to_f16`], and the sums by what this adds: approximately 2^-11 for each operand of a product.
fn sums(
    op: &dyn Op,
    inputs: &[&Tensor],
    types: &[TensorType],
    terms: usize,
    gamma: f64,
    precision: Precision,
) -> Vec<Option<Vec<f64>>> {
    let sums = |of: &dyn Fn(f64) -> f64| -> Vec<Tensor> {
        let operands: Vec<Tensor> = inputs.iter().map(|x| each(x, of)).collect();
        op.reference(&operands.iter().collect::<Vec<_>>(), types)
    };
    let floor = terms as f64 * f64::from(f32::MIN_POSITIVE);
    let exact = sums(&f64::abs);
    let rounded = match precision {
        Precision::Highest => exact.clone(),
        Precision::Mixed => sums(&|x| x.abs() + rounding_to_f16(x)),
    };
    let bound = |(exact, rounded): (f64, f64)| {
        let bound = gamma * rounded + (rounded - exact) + floor;
        match rounded {
            0.0 => 0.0,
            _ if bound.is_nan() => f64::INFINITY, // the sum is not finite
            _ => bound,
        }
    };
    let bounds = |(exact, rounded): (Tensor, Tensor)| {
        let is_float = matches!(exact.data(), Data::F64(_));
        is_float.then(|| exact.to_f64().into_iter().zip(rounded.to_f64()).map(bound).collect())
    };
    exact.into_iter().zip(rounded).map(bounds).collect()
}

/// The bounds of the float outputs.
fn floats(outputs: &[Tensor], bounds: Vec<Vec<f64>>) -> Vec<Option<Vec<f64>>> {
    outputs.iter().zip(bounds).map(|(y, bound)| matches!(y.data(), Data::F64(_)).then_some(bound)).collect()
}

/// `ulps` units in the last place of `y` as f32; subnormal results may be flushed to zero.
fn rounding(y: f64, ulps: f64) -> f64 {
    if y == 0.0 {
        return 0.0;
    }
    let exponent = y.abs().log2().floor().clamp(-126.0, 127.0);
    let flushed = if y.abs() < 1e-36 { f64::from(f32::MIN_POSITIVE) } else { 0.0 };
    ulps * 2f64.powf(exponent - 23.0) + flushed
}

/// A tensor with a function applied to each float.
fn each(x: &Tensor, f: &dyn Fn(f64) -> f64) -> Tensor {
    match x.data() {
        Data::F64(v) => Tensor::of(x.shape(), v.iter().map(|&x| f(x)).collect::<Vec<f64>>()),
        _ => x.clone(),
    }
}
