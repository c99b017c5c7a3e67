//! Matrix products.

use wgrad::{DType, Value};

use super::Family;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("Det", det), ("Einsum", einsum), ("Gemm", gemm), ("MatMul", matmul)];

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

/// Rows of a matrix whose elimination is unrolled.
const MOST_ROWS: usize = 64;

/// Determinants by Gaussian elimination with pivots: of each column, the largest element.
fn det(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.float(0)?.cast(DType::F32), node.input(0)?.ty());
    let rank = x.shape().rank();
    if rank < 2 || x.dim(-1) != x.dim(-2) || x.dim(-1) == 0 || x.shape().numel() == 0 {
        return Err(format!("{} has no square matrices", x.ty()).into());
    }
    let rows = x.dim(-1);
    if rows > MOST_ROWS {
        return Err(format!("{rows} rows are unrolled; at most {MOST_ROWS} are supported").into());
    }
    let batch = x.shape()[..rank - 2].to_vec();
    let mut rest = x.reshape(&signed(&[batch.iter().product(), rows, rows]));
    let n = rest.dim(0);
    let mut product: Option<Value> = None;
    for size in (1..=rows).rev() {
        let column = rest.slice(2, 0, 1, 1);
        let place = column.abs().argmax(1, true);
        let chosen = rest.gather(1, &place.broadcast_to(&[n, 1, size].into()));
        let pivot = chosen.slice(2, 0, 1, 1);
        // The first row takes the place of the chosen one, which changes the sign.
        let swapped = place.eq(&place.zeros_like()).where_(&pivot, &(-&pivot));
        product = Some(product.map_or(swapped.clone(), |product| product * swapped));
        if size == 1 {
            break;
        }
        let row = node.graph().iota(DType::I32, [1, size, 1], 1);
        let moved = row.eq(&place).where_(&rest.slice(1, 0, 1, 1), &rest).slice(1, 1, size, 1);
        let zero = pivot.eq(&pivot.zeros_like());
        let factor = moved.slice(2, 0, 1, 1) / zero.where_(&pivot.ones_like(), &pivot);
        rest = moved.slice(2, 1, size, 1) - factor * chosen.slice(2, 1, size, 1);
    }
    let y = product.ok_or("its matrices have no rows")?.reshape(&signed(&batch));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}
