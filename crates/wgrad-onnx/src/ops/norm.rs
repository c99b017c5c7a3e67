//! Normalisations and softmax.

use wgrad::{DType, Value};

use super::Family;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("BatchNormalization", batch_norm),
    ("GroupNormalization", group_norm),
    ("InstanceNormalization", instance_norm),
    ("LRN", local_response),
    ("LayerNormalization", layer_norm),
    ("LogSoftmax", softmax),
    ("LpNormalization", lp_norm),
    ("MeanVarianceNormalization", mean_variance),
    ("RMSNormalization", rms_norm),
    ("Softmax", softmax),
];

/// `[c]` as `[1, c, 1, ...]`.
pub(super) fn by_channel(x: &Value, rank: usize) -> Value {
    let mut shape = vec![1isize; rank];
    shape[1.min(rank - 1)] = -1;
    x.reshape(&shape)
}

fn batch_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    for ignored in ["is_test", "consumed_inputs", "spatial"] {
        node.attribute(ignored);
    }
    let (momentum, training) = (node.number("momentum", 0.9), node.flag("training_mode", false));
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    if !training && let Some(y) = folded(node, eps)? {
        let y = node.checked(y)?;
        return Ok(vec![node.result(y, ty)]);
    }
    let [scale, bias] = [node.value(1)?, node.value(2)?];
    let [mean, var] = [node.untrained(3)?, node.untrained(4)?];
    if training {
        // Also the running statistics, which ONNX keeps with the biased variance.
        let normed = x.batch_norm_training(Some(&scale), Some(&bias), eps);
        let mix = |old: Value, new: Value| old * momentum + new * (1.0 - momentum);
        let (y, mean, var) = (node.checked(normed.y)?, mix(mean, normed.mean), mix(var, normed.var));
        let types = [node.input(3)?.ty(), node.input(4)?.ty()];
        return Ok(vec![node.result(y, ty), node.result(mean, types[0]), node.result(var, types[1])]);
    }
    let variable = |at: usize| node.input(at).is_ok_and(|val| val.weight_name().is_some());
    if node.builder.is_training() && variable(3) && variable(4) {
        let normed = x.batch_norm_training(Some(&scale), Some(&bias), eps);
        let y = node.checked(normed.y)?;
        for (old, new) in [(&mean, normed.mean), (&var, normed.var)] {
            node.graph().assign(old, &(old * momentum + new * (1.0 - momentum)));
        }
        return Ok(vec![node.result(y, ty)]);
    }
    let factor = scale * (var + eps).sqrt().reciprocal();
    let shift = bias - mean * &factor;
    let rank = x.shape().rank();
    let y = node.checked(&x * by_channel(&factor, rank) + by_channel(&shift, rank))?;
    Ok(vec![node.result(y, ty)])
}

/// For inference: the convolution before it with other weights, if these are known; the other convolution then has no
/// use and is left out.
fn folded(node: &Node<'_, '_>, eps: f64) -> Result<Option<Value>> {
    let Some(convolution) = node.builder.convolutions.get(&node.proto.input[0]) else { return Ok(None) };
    let known = |at: usize| node.optional(at).and_then(|val| Some(val.known()?.to_floats()));
    let (Some(scale), Some(bias), Some(mean), Some(var)) = (known(1), known(2), known(3), known(4)) else {
        return Ok(None);
    };
    let channels = convolution.channels();
    if [&scale, &bias, &mean, &var].iter().any(|list| list.len() != channels) {
        return Ok(None);
    }
    let factor: Vec<f64> = (0..channels).map(|c| scale[c] / (var[c] + eps).sqrt()).collect();
    let shift: Vec<f64> = (0..channels).map(|c| bias[c] - mean[c] * factor[c]).collect();
    convolution.scaled(&factor, &shift).map(Some)
}

fn instance_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    node.attribute("consumed_inputs");
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    let y = x.instance_norm(Some(&node.value(1)?), Some(&node.value(2)?), eps);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn layer_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    node.attribute("stash_type");
    let axis = node.int("axis", -1);
    let axis = node.axis(axis, x.shape().rank())?;
    let (scale, bias) = (node.value(1)?, node.optional_value(2)?);
    let axes: Vec<isize> = (axis as isize..x.shape().rank() as isize).collect();
    // The statistics are in f32 whatever the type.
    let wide = x.cast(DType::F32);
    let normalized = x.shape()[axis..].to_vec();
    let fits = |value: &Value| value.shape().to_vec() == normalized;
    let y = match fits(&scale) && bias.as_ref().is_none_or(fits) {
        true => x.layer_norm(&normalized, Some(&scale), bias.as_ref(), eps),
        false => {
            let y = x.layer_norm(&normalized, None, None, eps) * scale;
            bias.map_or(y.clone(), |bias| y + bias)
        }
    };
    let y = node.checked(y)?;
    let mean = wide.mean(&axes, true);
    let deviation = (wide.var(&axes, 0, true) + eps).sqrt().reciprocal();
    let stats = if ty.is_float() && ty != ElemType::F64 { ElemType::F32 } else { ty };
    Ok(vec![node.result(y, ty), node.result(mean, stats), node.result(deviation, stats)])
}

/// Before opset 13, over all axes from `axis` on.
fn softmax(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, old) = (node.value(0)?, node.input(0)?.ty(), node.version() < 13);
    let rank = x.shape().rank();
    let axis = node.int("axis", if old { 1 } else { -1 });
    let axis = if old && axis == rank as i64 { rank } else { node.axis(axis, rank)? };
    let is_log = node.op() == "LogSoftmax";
    let of = |x: &Value, axis: isize| if is_log { x.log_softmax(axis) } else { x.softmax(axis) };
    let y = match old && axis + 1 != rank {
        false => of(&x, axis as isize),
        true => {
            let shape = x.shape().to_vec();
            let flat = [shape[..axis].iter().product::<usize>(), shape[axis..].iter().product()];
            of(&x.reshape(&signed(&flat)), 1).reshape(&signed(&shape))
        }
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn group_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    let groups = node.int("num_groups", 0).max(0) as usize;
    node.attribute("stash_type");
    let (scale, bias) = (node.value(1)?, node.value(2)?);
    // Before opset 21, scale and bias are by group.
    let by_channel = |value: Value| match value.shape().numel() == groups && x.dim(1) != groups {
        true => {
            let each = x.dim(1) / groups.max(1);
            value.reshape(&[-1, 1]).broadcast_to(&[groups, each].into()).reshape(&[-1])
        }
        false => value,
    };
    let y = x.group_norm(groups, Some(&by_channel(scale)), Some(&by_channel(bias)), eps);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn rms_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, eps) = (node.value(0)?, node.input(0)?.ty(), node.number("epsilon", 1e-5));
    node.attribute("stash_type");
    let axis = node.int("axis", -1);
    let axis = node.axis(axis, x.shape().rank())?;
    let (scale, normalized) = (node.value(1)?, x.shape()[axis..].to_vec());
    let y = match scale.shape().to_vec() == normalized {
        true => x.rms_norm(&normalized, Some(&scale), eps),
        false => x.rms_norm(&normalized, None, eps) * scale,
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

/// Krizhevsky et al., 2012: division by a power of the sum of squares over neighbouring channels.
fn local_response(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let (alpha, beta, bias) = (node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0));
    let size = node.int("size", 1).max(1) as usize;
    let (before, after) = ((size - 1) / 2, size - 1 - (size - 1) / 2);
    let window = super::convolution::Window { kernel: size, stride: 1, dilation: 1, before, after };
    // Channels as an axis after the first two.
    let shape = x.shape().to_vec();
    let inner: usize = shape[2..].iter().product();
    let squares = x.square().reshape(&signed(&[shape[0], 1, shape[1], inner]));
    let padded = super::convolution::padded(&squares, &[window], 0.0);
    let sum = super::pool::along(&padded, 2, &window, shape[1], |a, b| a + b).reshape(&signed(&shape));
    let y = x / (sum * (alpha / size as f64) + bias).powf(beta);
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn lp_norm(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let (axis, p) = (node.int("axis", -1), node.int("p", 2));
    let axis = [node.axis(axis, x.shape().rank())? as isize];
    let norm = match p {
        1 => x.abs().sum(&axis, true),
        2 => x.square().sum(&axis, true).sqrt(),
        other => return Err(format!("p = {other} is not supported").into()),
    };
    // Of zeros, zeros.
    let y = norm.eq(&norm.zeros_like()).where_(&x.zeros_like(), &(&x / &norm));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn mean_variance(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty) = (node.value(0)?, node.input(0)?.ty());
    let axes = node.attribute_ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
    let axes = signed(&node.axes(&axes, x.shape().rank())?);
    let centered = &x - x.mean(&axes, true);
    let deviation = centered.square().mean(&axes, true).sqrt();
    let y = node.checked(centered / (deviation + 1e-9))?;
    Ok(vec![node.result(y, ty)])
}
