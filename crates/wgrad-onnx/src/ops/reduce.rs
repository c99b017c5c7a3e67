//! Reductions.

use wgrad::{DType, Value};

use super::Family;
use crate::constant::Constant;
use crate::node::{Node, Result};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("ReduceL1", reduce),
    ("ReduceL2", reduce),
    ("ReduceLogSum", reduce),
    ("ReduceLogSumExp", reduce),
    ("ReduceMax", reduce),
    ("ReduceMean", reduce),
    ("ReduceMin", reduce),
    ("ReduceProd", reduce),
    ("ReduceSum", reduce),
    ("ReduceSumSquare", reduce),
];

fn reduce(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (input, keeps) = (node.input(0)?, node.flag("keepdims", true));
    let (ty, rank) = (input.ty(), input.rank());
    let none = node.flag("noop_with_empty_axes", false);
    let given = node.ints_by_input_or_attribute(1, "axes")?.filter(|axes| !axes.is_empty());
    let axes: Vec<isize> = match given {
        Some(axes) => node.axes(&axes, rank)?.into_iter().map(|axis| axis as isize).collect(),
        None if none => Vec::new(),
        None => (0..rank as isize).collect(),
    };
    // What is neutral is the result of nothing.
    let sizes = input.shape().to_vec();
    if axes.iter().any(|&axis| sizes[axis as usize] == 0)
        && matches!(node.op(), "ReduceMax" | "ReduceMin" | "ReduceLogSumExp" | "ReduceLogSum")
    {
        let least = node.op() != "ReduceMin";
        let of = |axis: usize| if axes.contains(&(axis as isize)) { 1 } else { sizes[axis] };
        let kept = (0..rank).filter(|&axis| keeps || !axes.contains(&(axis as isize))).map(of).collect::<Vec<_>>();
        let count = kept.iter().product();
        return Ok(vec![Val::constant(match ty.is_float() {
            true => Constant::floats(ty, kept, vec![if least { f64::NEG_INFINITY } else { f64::INFINITY }; count]),
            false => Constant::ints(ty, kept, vec![if least { ty.range().0 } else { ty.range().1 }; count]),
        })]);
    }
    let x = node.value(0)?;
    let x = if x.dtype() == DType::Bool { x.cast(DType::I32) } else { x };
    // Without axes, each element alone.
    let over = |x: &Value, f: fn(&Value, &[isize], bool) -> Value| {
        if axes.is_empty() { x.clone() } else { f(x, &axes, keeps) }
    };
    let sum = |x: &Value| over(x, Value::sum);
    let y = match node.op() {
        "ReduceL1" => sum(&x.abs()),
        "ReduceL2" if ty.is_float() => sum(&x.square()).sqrt(),
        "ReduceL2" => sum(&(&x * &x)).cast(DType::F32).sqrt(),
        "ReduceLogSum" => sum(&x).log(),
        "ReduceLogSumExp" if axes.is_empty() => x,
        "ReduceLogSumExp" => x.logsumexp(&axes, keeps),
        "ReduceMax" => over(&x, Value::max),
        "ReduceMean" if ty.is_float() => over(&x, Value::mean),
        "ReduceMean" => {
            let count = axes.iter().map(|&axis| x.shape()[axis as usize]).product::<usize>();
            let total = sum(&x);
            total.div_trunc(&total.full_like(count as f64))
        }
        "ReduceMin" => over(&x, Value::min),
        "ReduceProd" => over(&x, Value::prod),
        "ReduceSumSquare" => sum(&(&x * &x)),
        _ => sum(&x),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
