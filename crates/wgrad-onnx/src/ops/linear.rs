//! Matrix products.

use wgrad::Value;

use super::Family;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("Einsum", einsum), ("Gemm", gemm), ("MatMul", matmul)];

fn matmul(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let y = node.checked(product(&a, &b))?;
    Ok(vec![node.result(y, ty)])
}

/// The product of NumPy: a vector counts as a row at the left, as a column at the right.
pub(super) fn product(a: &Value, b: &Value) -> Value {
    let (left, right) = (a.shape().rank() == 1, b.shape().rank() == 1);
    let (a, b) =
        (if left { a.reshape(&[1, -1]) } else { a.clone() }, if right { b.reshape(&[-1, 1]) } else { b.clone() });
    let y = a.matmul(&b);
    if !y.is_valid() {
        return y;
    }
    let (mut shape, rank) = (y.shape().to_vec(), y.shape().rank());
    if right {
        shape.remove(rank - 1);
    }
    if left {
        shape.remove(rank - 2);
    }
    if left || right { y.reshape(&signed(&shape)) } else { y }
}

fn gemm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let (alpha, beta) = (node.number("alpha", 1.0), node.number("beta", 1.0));
    node.attribute("broadcast");
    let turned = |x: Value, turn: bool| if turn { x.t() } else { x };
    let (a, b) = (turned(a, node.flag("transA", false)), turned(b, node.flag("transB", false)));
    let times = |x: Value, factor: f64| if factor == 1.0 { x } else { x * factor };
    let y = times(a.matmul(&b), alpha);
    let y = match node.optional_value(2)? {
        Some(c) => y + times(c, beta),
        None => y,
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn einsum(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let ty = node.input(0)?.ty();
    let equation = node.text("equation", "");
    let values = (0..node.inputs().len()).map(|at| node.value(at)).collect::<Result<Vec<_>>>()?;
    let refs: Vec<&Value> = values.iter().collect();
    let y = node.checked(values[0].graph().einsum(&equation, &refs))?;
    Ok(vec![node.result(y, ty)])
}
