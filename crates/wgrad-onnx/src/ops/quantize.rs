//! Quantisation: 8-bit integers with scale and zero point, in the arithmetic of f32 and i32.

use wgrad::{DType, Value};

use super::Family;
use super::convolution::{convolved, windows};
use super::elementwise::small_floats;
use super::linear::product;
use crate::build::evaluate;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("ConvInteger", conv_integer),
    ("DequantizeLinear", dequantize),
    ("DynamicQuantizeLinear", dynamic_quantize),
    ("MatMulInteger", matmul_integer),
    ("QLinearConv", quantized_conv),
    ("QLinearMatMul", quantized_matmul),
    ("QuantizeLinear", quantize),
];

/// A scale or zero point for data: of the whole tensor, of each place along an axis, or of blocks along the axis.
fn spread(x: &Value, axis: usize, block: usize, like: &[usize]) -> Result<Value> {
    let shape = x.shape().to_vec();
    if x.shape().numel() == 1 {
        return Ok(x.reshape(&[]));
    }
    if shape.len() == 1 {
        let mut by_axis = vec![1isize; like.len()];
        by_axis[axis] = -1;
        return Ok(x.reshape(&by_axis));
    }
    // Each element for `block` places.
    if block == 0 || shape.len() != like.len() {
        return Err(format!("a scale of shape {shape:?} does not fit {like:?}").into());
    }
    let (outer, inner) = (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>());
    let wide =
        x.reshape(&signed(&[outer, shape[axis], 1, inner])).broadcast_to(&[outer, shape[axis], block, inner].into());
    let mut all = shape.clone();
    all[axis] = shape[axis] * block;
    Ok(wide.reshape(&signed(&all)).slice(axis as isize, 0, like[axis], 1))
}

/// The axis and block size of a node.
fn layout(node: &mut Node<'_, '_>, rank: usize) -> Result<(usize, usize)> {
    let (axis, block) = (node.int("axis", 1), node.int("block_size", 0).max(0) as usize);
    // For a scale of one number, the axis does not matter.
    let axis = node.axis(axis, rank).unwrap_or(0);
    Ok((axis, block))
}

/// Rounds to the nearest integer, ties to even, and clamps to the type.
pub(super) fn rounded(x: &Value, to: ElemType) -> Value {
    let (low, high) = to.range();
    x.round().clamp(low as f64, high as f64).cast(if to.dtype() == DType::U8 { DType::I32 } else { to.dtype() })
}

fn quantize(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.float(0)?.cast(DType::F32);
    let like = x.shape().to_vec();
    let (axis, block) = layout(node, like.len())?;
    let saturates = node.flag("saturate", true);
    node.attribute("precision");
    let default = node.elem_type("output_dtype", ElemType::U8)?;
    let to = node.optional(2).map_or(default, |zero| zero.ty());
    let scale = spread(&node.float(1)?.cast(DType::F32), axis, block, &like)?;
    let mut y = if to.is_small_float() { x / scale } else { (x / scale).round() };
    if node.optional(2).is_some() {
        y = y + spread(&node.value(2)?.cast(DType::F32), axis, block, &like)?;
    }
    if to.is_small_float() {
        let all = (0..node.inputs().len()).filter(|&at| node.optional(at).is_some());
        all.map(|at| node.known(at)).collect::<Result<Vec<_>>>()?;
        let y = node.checked(y)?;
        let found = evaluate(node.graph(), &[&y]).map_err(|error| error.to_string())?;
        let values = found.first().map(|found| found.to_f64()).unwrap_or_default();
        return Ok(vec![Val::constant(small_floats(to, like, values, saturates)?)]);
    }
    let y = node.checked(rounded(&y, to))?;
    Ok(vec![node.result(y, to)])
}

fn dequantize(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, scale_ty) = (node.value(0)?, node.input(1)?.ty());
    let like = x.shape().to_vec();
    let (axis, block) = layout(node, like.len())?;
    let to = node.elem_type("output_dtype", scale_ty)?;
    let whole = if node.input(0)?.ty().is_float() { DType::F32 } else { DType::I32 };
    let mut y = x.cast(whole);
    if node.optional(2).is_some() {
        y = y - spread(&node.value(2)?.cast(whole), axis, block, &like)?;
    }
    let scale = spread(&node.value(1)?.cast(DType::F32), axis, block, &like)?;
    let y = node.checked(y.cast(DType::F32) * scale)?;
    Ok(vec![node.result(y, to)])
}

/// u8 with scale and zero point from the range of the data, which is extended to 0.
fn dynamic_quantize(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.float(0)?;
    let all: Vec<isize> = (0..x.shape().rank() as isize).collect();
    let zero = || x.graph().full(x.dtype(), wgrad::Shape::scalar(), 0.0);
    let (low, high) = (x.min(&all, false).minimum(&zero()), x.max(&all, false).maximum(&zero()));
    let scale = (high - &low) / 255.0;
    // All zeros: any scale does.
    let divisor = scale.eq(&zero()).where_(&zero().ones_like(), &scale);
    let point = (-&low / &divisor).round().clamp(0.0, 255.0);
    let y = node.checked(rounded(&((&x / &divisor).round() + &point), ElemType::U8))?;
    let point = point.cast(DType::I32);
    Ok(vec![node.result(y, ElemType::U8), node.result(scale, ElemType::F32), node.result(point, ElemType::U8)])
}

/// Integers without their zero point, which may differ by row or column.
fn centered(node: &Node<'_, '_>, at: usize, zero: usize, axis: isize) -> Result<Value> {
    let x = node.value(at)?.cast(DType::I32);
    let Some(point) = node.optional_value(zero)? else { return Ok(x) };
    let point = point.cast(DType::I32);
    if point.shape().numel() == 1 {
        return Ok(x - point.reshape(&[]));
    }
    if point.shape().rank() > 1 {
        return Ok(x - point);
    }
    let rank = x.shape().rank();
    let mut shape = vec![1isize; rank];
    shape[if axis < 0 { (rank as isize + axis) as usize } else { axis as usize }] = -1;
    Ok(x - point.reshape(&shape))
}

fn matmul_integer(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (a, b) = (centered(node, 0, 2, -2)?, centered(node, 1, 3, -1)?);
    let y = node.checked(product(&a, &b))?;
    Ok(vec![node.result(y, ElemType::I32)])
}

/// A convolution of integers, in f32: exact while sums stay below 2^24.
fn integer_conv(node: &mut Node<'_, '_>, x: Value, w: Value) -> Result<Value> {
    let (x, w) = (node.checked(x)?, node.checked(w)?);
    if x.shape().rank() < 3 || w.shape().rank() != x.shape().rank() {
        return Err(format!("data {} and weights {} do not fit", x.ty(), w.ty()).into());
    }
    let kernel = w.shape()[2..].to_vec();
    node.attribute("kernel_shape");
    let groups = node.int("group", 1).max(1) as usize;
    let sizes = x.shape()[2..].to_vec();
    let windows = windows(node, &kernel, &sizes)?;
    convolved(&x.cast(DType::F32), &w.cast(DType::F32), &windows, groups)
}

fn conv_integer(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, w) = (centered(node, 0, 2, 1)?, centered(node, 1, 3, 0)?);
    let y = integer_conv(node, x, w)?;
    let y = node.checked(y.cast(DType::I32))?;
    Ok(vec![node.result(y, ElemType::I32)])
}

fn quantized_matmul(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let to = node.input(7)?.ty();
    let (a, b) = (centered(node, 0, 2, -2)?, centered(node, 3, 5, -1)?);
    let scale_of = |at: usize, axis: isize| -> Result<Value> {
        let scale = node.value(at)?.cast(DType::F32);
        if scale.shape().numel() == 1 {
            return Ok(scale.reshape(&[]));
        }
        Ok(if scale.shape().rank() > 1 {
            scale
        } else if axis == -2 {
            scale.reshape(&[-1, 1])
        } else {
            scale
        })
    };
    let scale = scale_of(1, -2)? * scale_of(4, -1)? / scale_of(6, -1)?;
    let y = (product(&a, &b).cast(DType::F32) * scale).round() + node.value(7)?.cast(DType::F32);
    let y = node.checked(rounded(&y, to))?;
    Ok(vec![node.result(y, to)])
}

fn quantized_conv(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let to = node.input(7)?.ty();
    let (x, w) = (centered(node, 0, 2, 1)?, centered(node, 3, 5, 0)?);
    let rank = x.shape().rank();
    let mut sum = integer_conv(node, x, w)?;
    if let Some(bias) = node.optional_value(8)? {
        sum = sum + super::norm::by_channel(&bias.cast(DType::F32), rank);
    }
    let scale_of = |at: usize| -> Result<Value> {
        let scale = node.value(at)?.cast(DType::F32);
        Ok(if scale.shape().numel() == 1 { scale.reshape(&[]) } else { super::norm::by_channel(&scale, rank) })
    };
    let scale = scale_of(1)? * scale_of(4)? / scale_of(6)?;
    let y = (sum * scale).round() + node.value(7)?.cast(DType::F32).reshape(&[]);
    let y = node.checked(rounded(&y, to))?;
    Ok(vec![node.result(y, to)])
}
