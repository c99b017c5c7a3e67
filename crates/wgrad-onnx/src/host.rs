//! Arithmetic with 64-bit integers and truth values that are known when a model is imported: shapes, axes, positions.
//! Devices have 32 bits, and exporters use the largest 64-bit integers for "to the end".

use wgrad::Shape;

use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result};
use crate::ops::shape::{Part, reshaped, slices, squeezed, unsqueezed};
use crate::ops::small_floats;

/// An array of integers.
#[derive(Clone)]
struct Array {
    ty: ElemType,
    shape: Vec<usize>,
    values: Vec<i64>,
}

impl Array {
    /// An array whose elements are those of `self` at other positions.
    fn picked(&self, shape: Vec<usize>, position: impl Fn(&[usize]) -> Vec<usize>) -> Array {
        let (to, strides) = (Shape::from(&shape[..]), Shape::from(&self.shape[..]).strides());
        let at = |linear: usize| -> usize {
            position(&to.unravel(linear)).iter().zip(&strides).map(|(place, stride)| place * stride).sum()
        };
        let values = (0..to.numel()).map(|linear| self.values[at(linear)]).collect();
        Array { ty: self.ty, shape, values }
    }

    fn broadcast(&self, shape: &[usize]) -> Array {
        let skipped = shape.len() - self.shape.len();
        self.picked(shape.to_vec(), |to| {
            self.shape.iter().zip(&to[skipped..]).map(|(&size, &place)| if size == 1 { 0 } else { place }).collect()
        })
    }

    fn constant(self) -> Constant {
        Constant::ints(self.ty, self.shape, self.values)
    }
}

/// Computes a node whose inputs are all known, if it is one of those that shapes are computed with, and its numbers are
/// integers or truth values.
pub(crate) fn evaluate(node: &mut Node<'_, '_>) -> Option<Result<Vec<Constant>>> {
    if !node.proto.domain.as_deref().unwrap_or_default().trim_start_matches("ai.onnx").is_empty() {
        return None;
    }
    let inputs: Vec<Option<Constant>> = node.inputs().iter().map(|val| val.as_ref()?.known().cloned()).collect();
    let arrays: Vec<Option<Array>> = inputs.iter().map(|input| array(input.as_ref()?)).collect();
    let first = arrays.first()?.clone();
    let all: Option<Vec<Array>> = arrays.into_iter().collect();
    let done = match (node.op(), first, all) {
        ("Cast", Some(x), _) => cast(node, &x),
        ("Reshape", Some(x), _) => moved(&x, reshaped(node, &x.shape)),
        ("Squeeze", Some(x), _) => moved(&x, squeezed(node, &x.shape)),
        ("Unsqueeze", Some(x), _) => moved(&x, unsqueezed(node, &x.shape)),
        ("Slice", Some(x), _) => slice(node, &x),
        ("Gather", Some(x), Some(all)) => gather(node, &x, all.get(1)?),
        ("Concat", _, Some(all)) => concat(node, &all),
        ("Neg" | "Abs" | "Not" | "Sign" | "BitwiseNot", Some(x), _) => unary(node, x)?,
        ("Where", _, Some(all)) => choose(&all)?,
        (op, _, Some(all)) if all.len() == 2 => binary(op, &all[0], &all[1])?,
        _ => return None,
    };
    Some(done.and_then(|found| {
        node.check_attributes()?;
        Ok(vec![found])
    }))
}

fn array(constant: &Constant) -> Option<Array> {
    Some(Array { ty: constant.ty, shape: constant.shape.clone(), values: constant.to_ints()? })
}

fn moved(x: &Array, shape: Result<Vec<usize>>) -> Result<Constant> {
    Ok(Array { shape: shape?, ..x.clone() }.constant())
}

fn cast(node: &mut Node<'_, '_>, x: &Array) -> Result<Constant> {
    let saturates = node.flag("saturate", true);
    let to = node.elem_type("to", ElemType::F32)?;
    let constant = x.clone().constant();
    if to.is_small_float() {
        return small_floats(to, x.shape.clone(), constant.to_floats(), saturates);
    }
    if to.is_float() {
        return Ok(Constant::floats(to, x.shape.clone(), constant.to_floats()));
    }
    Ok(Constant::ints(to, x.shape.clone(), x.values.iter().map(|&value| to.wrapped(value)).collect()))
}

fn slice(node: &mut Node<'_, '_>, x: &Array) -> Result<Constant> {
    let parts = slices(node, &x.shape)?;
    let shape = parts.iter().map(Part::len).collect();
    Ok(x.picked(shape, |to| to.iter().zip(&parts).map(|(&place, part)| part.position(place)).collect()).constant())
}

fn gather(node: &mut Node<'_, '_>, x: &Array, index: &Array) -> Result<Constant> {
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, x.shape.len())?;
    let (size, rank) = (x.shape[axis], index.shape.len());
    let mut places = Vec::new();
    for &place in &index.values {
        places.push(node.axis(place, size).map_err(|_| format!("index {place} is out of range for {size} elements"))?);
    }
    let shape = [&x.shape[..axis], &index.shape, &x.shape[axis + 1..]].concat();
    let strides = Shape::from(&index.shape[..]).strides();
    let found = x.picked(shape, |to| {
        let linear: usize = to[axis..axis + rank].iter().zip(&strides).map(|(place, stride)| place * stride).sum();
        [&to[..axis], &[places[linear]], &to[axis + rank..]].concat()
    });
    Ok(found.constant())
}

fn concat(node: &mut Node<'_, '_>, all: &[Array]) -> Result<Constant> {
    let axis = node.int("axis", 0);
    let axis = node.axis(axis, all[0].shape.len())?;
    let fits = |x: &Array| {
        x.ty == all[0].ty
            && x.shape.len() == all[0].shape.len()
            && (0..x.shape.len()).all(|i| i == axis || x.shape[i] == all[0].shape[i])
    };
    if !all.iter().all(fits) {
        let shapes: Vec<&Vec<usize>> = all.iter().map(|x| &x.shape).collect();
        return Err(format!("its inputs have types or shapes that do not fit: {shapes:?}").into());
    }
    let mut shape = all[0].shape.clone();
    shape[axis] = all.iter().map(|x| x.shape[axis]).sum();
    let before: usize = shape[..axis].iter().product();
    let mut values = Vec::new();
    for outer in 0..before {
        for x in all {
            let each = x.values.len() / before.max(1);
            values.extend(&x.values[outer * each..(outer + 1) * each]);
        }
    }
    Ok(Array { ty: all[0].ty, shape, values }.constant())
}

fn unary(node: &Node<'_, '_>, x: Array) -> Option<Result<Constant>> {
    let f: fn(i64) -> i64 = match node.op() {
        "Neg" => i64::wrapping_neg,
        "Abs" => i64::wrapping_abs,
        "Sign" => i64::signum,
        "BitwiseNot" => |x| !x,
        "Not" => |x| i64::from(x == 0),
        _ => return None,
    };
    let values = x.values.iter().map(|&value| x.ty.wrapped(f(value))).collect();
    Some(Ok(Array { values, ..x }.constant()))
}

fn choose(all: &[Array]) -> Option<Result<Constant>> {
    let [condition, a, b] = all else { return None };
    let shape = broadcast_shape(all)?;
    let [condition, a, b] = [condition, a, b].map(|x| x.broadcast(&shape));
    let pick = |i: usize| if condition.values[i] != 0 { a.values[i] } else { b.values[i] };
    let values = (0..a.values.len()).map(pick).collect();
    Some(Ok(Array { ty: a.ty, shape, values }.constant()))
}

fn binary(op: &str, a: &Array, b: &Array) -> Option<Result<Constant>> {
    let compares = matches!(op, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual");
    // Those of u64 are kept as i64.
    if a.ty == ElemType::U64
        && (compares || matches!(op, "Div" | "Mod" | "Min" | "Max"))
        && [a, b].iter().any(|x| x.values.iter().any(|&v| v < 0))
    {
        return None;
    }
    let f: fn(i64, i64) -> i64 = match op {
        "Add" => i64::wrapping_add,
        "Sub" => i64::wrapping_sub,
        "Mul" => i64::wrapping_mul,
        "Div" if b.values.iter().all(|&x| x != 0) => i64::wrapping_div,
        "Min" => |a, b| a.min(b),
        "Max" => |a, b| a.max(b),
        "Equal" => |a, b| (a == b).into(),
        "Less" => |a, b| (a < b).into(),
        "LessOrEqual" => |a, b| (a <= b).into(),
        "Greater" => |a, b| (a > b).into(),
        "GreaterOrEqual" => |a, b| (a >= b).into(),
        "And" | "BitwiseAnd" => |a, b| a & b,
        "Or" | "BitwiseOr" => |a, b| a | b,
        "Xor" | "BitwiseXor" => |a, b| a ^ b,
        _ => return None,
    };
    let shape = broadcast_shape(&[a.clone(), b.clone()])?;
    let (a, b) = (a.broadcast(&shape), b.broadcast(&shape));
    let ty = if compares { ElemType::Bool } else { a.ty };
    let values = a.values.iter().zip(&b.values).map(|(&a, &b)| ty.wrapped(f(a, b))).collect();
    Some(Ok(Array { ty, shape, values }.constant()))
}

/// `None` if the shapes do not broadcast, which the graph then reports.
fn broadcast_shape(all: &[Array]) -> Option<Vec<usize>> {
    let mut shape = Shape::scalar();
    for x in all {
        shape = shape.broadcast(&Shape::from(&x.shape[..]))?;
    }
    Some(shape.to_vec())
}
