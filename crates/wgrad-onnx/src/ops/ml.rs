//! Classic machine learning (`ai.onnx.ml`), as far as it has numbers.

use wgrad::{DType, Tensor, Value};

use super::Family;
use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[
    ("ai.onnx.ml.ArrayFeatureExtractor", features),
    ("ai.onnx.ml.Binarizer", binarizer),
    ("ai.onnx.ml.LabelEncoder", label_encoder),
    ("ai.onnx.ml.LinearClassifier", linear_classifier),
    ("ai.onnx.ml.LinearRegressor", linear_regressor),
    ("ai.onnx.ml.Normalizer", normalizer),
    ("ai.onnx.ml.Scaler", scaler),
];

/// Numbers of an attribute in the graph.
fn row(node: &Node<'_, '_>, numbers: Vec<f64>) -> Result<Value> {
    let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
    Ok(node.graph().constant(Tensor::new([numbers.len()], numbers).map_err(|error| error.to_string())?))
}

fn features(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, index, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let (mut shape, count) = (x.shape().to_vec(), index.shape().numel());
    match shape.last_mut() {
        Some(size) => *size = count,
        None => return Err("its data is a scalar".into()),
    }
    if shape.len() == 1 {
        shape.insert(0, 1);
    }
    let y = x.index_select(-1, &index.cast(DType::I32).reshape(&[-1])).reshape(&signed(&shape));
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ty)])
}

fn binarizer(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, ty, threshold) = (node.float(0)?, node.input(0)?.ty(), node.number("threshold", 0.0));
    let y = node.checked(x.gt(&x.full_like(threshold)).cast(DType::F32))?;
    Ok(vec![node.result(y, ty)])
}

/// Keys or values of a map.
fn entries(node: &mut Node<'_, '_>, names: [&'static str; 4]) -> Result<Constant> {
    let [tensor, ints, floats, strings] = names;
    if node.attribute(strings).is_some() {
        return Err("strings are not supported".into());
    }
    if let Some(tensor) = node.tensor(tensor)? {
        return Ok(tensor);
    }
    if let Some(ints) = node.attribute_ints(ints) {
        return Ok(Constant::ints(ElemType::I64, vec![ints.len()], ints));
    }
    let floats = node.attribute_numbers(floats).ok_or("it has no keys or values that are numbers")?;
    Ok(Constant::floats(ElemType::F32, vec![floats.len()], floats))
}

/// The value of each key, or a default.
fn label_encoder(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, from) = (node.value(0)?, node.input(0)?.ty());
    let keys = entries(node, ["keys_tensor", "keys_int64s", "keys_floats", "keys_strings"])?;
    let values = entries(node, ["values_tensor", "values_int64s", "values_floats", "values_strings"])?;
    node.attribute("default_string");
    let (of_ints, of_floats) = (node.int("default_int64", -1), node.number("default_float", -0.0));
    let default = match node.tensor("default_tensor")? {
        Some(tensor) => tensor,
        None if values.ty.is_float() => Constant::floats(values.ty, vec![1], vec![of_floats]),
        None => Constant::ints(values.ty, vec![1], vec![of_ints]),
    };
    let count = keys.numel();
    if count == 0 || values.numel() != count || keys.ty != from || default.numel() != 1 || default.ty != values.ty {
        return Err(
            format!("{count} keys of {} and {} values do not fit data of {from}", keys.ty, values.numel()).into()
        );
    }
    let numbers = keys.to_floats();
    if (1..count).any(|at| numbers[..at].contains(&numbers[at])) || numbers.iter().any(|x| x.is_nan()) {
        return Err("keys that occur twice or are no number are not supported".into());
    }
    let ty = values.ty;
    let constant = |x: &Constant| -> Result<Value> { Ok(node.graph().constant(x.to_tensor()?)) };
    let (keys, values, default) = (constant(&keys)?, constant(&values)?, constant(&default)?);
    let shape = x.shape().to_vec();
    let hit = x.reshape(&[-1, 1]).eq(&keys.reshape(&[1, -1])).cast(DType::I32);
    let found = values.reshape(&[-1]).index_select(0, &hit.argmax(1, false));
    let any = hit.max(&[1], false).cast(DType::Bool);
    let y = node.checked(any.where_(&found, &default.reshape(&[1])).reshape(&signed(&shape)))?;
    Ok(vec![node.result(y, ty)])
}

fn scaler(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.float(0)?.cast(DType::F32);
    let offset = node.attribute_numbers("offset").unwrap_or_else(|| vec![0.0]);
    let scale = node.attribute_numbers("scale").unwrap_or_else(|| vec![1.0]);
    let y = node.checked((x - row(node, offset)?) * row(node, scale)?)?;
    Ok(vec![node.result(y, ElemType::F32)])
}

/// Rows divided by a norm.
fn normalizer(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let x = node.float(0)?.cast(DType::F32);
    let norm = match node.text("norm", "MAX").as_str() {
        "MAX" => x.abs().max(&[-1], true),
        "L1" => x.abs().sum(&[-1], true),
        "L2" => x.square().sum(&[-1], true).sqrt(),
        other => return Err(format!("the norm `{other}` is unknown").into()),
    };
    let y = node.checked(&x / norm.maximum(&norm.full_like(1e-30)))?;
    Ok(vec![node.result(y, ElemType::F32)])
}

/// `x W^T + b`, with as many rows of weights as there are results.
fn linear(node: &mut Node<'_, '_>, targets: Option<usize>) -> Result<Value> {
    let x = node.float(0)?.cast(DType::F32);
    let x = if x.shape().rank() == 1 { x.reshape(&[1, -1]) } else { x };
    let weights = node.attribute_numbers("coefficients").ok_or("its coefficients are missing")?;
    let bias = node.attribute_numbers("intercepts").filter(|bias| !bias.is_empty());
    let width = x.dim(-1);
    let rows = targets.unwrap_or_else(|| weights.len() / width.max(1));
    if x.shape().rank() != 2 || rows == 0 || weights.len() != rows * width {
        return Err(format!("{} coefficients do not fit data {}", weights.len(), x.ty()).into());
    }
    let weights = row(node, weights)?.reshape(&signed(&[rows, width]));
    let y = x.matmul(&weights.t());
    Ok(match bias {
        Some(bias) => y + row(node, bias)?,
        None => y,
    })
}

fn linear_regressor(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let targets = node.int("targets", 1).max(1) as usize;
    let y = linear(node, Some(targets))?;
    let y = match node.text("post_transform", "NONE").as_str() {
        "NONE" => y,
        other => return Err(format!("post_transform = {other} is not supported").into()),
    };
    let y = node.checked(y)?;
    Ok(vec![node.result(y, ElemType::F32)])
}

/// Scores of classes, and the label of the class with the largest.
fn linear_classifier(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    if node.attribute("classlabels_strings").is_some_and(|labels| !labels.strings.is_empty()) {
        return Err("labels that are strings are not supported; use classlabels_ints".into());
    }
    let labels = node.attribute_ints("classlabels_ints").ok_or("its classlabels_ints are missing")?;
    node.attribute("multi_class");
    let mut scores = linear(node, None)?;
    // One score of two classes is that of the second.
    if scores.dim(1) == 1 && labels.len() == 2 {
        scores = (-&scores).concat(&[&scores], 1);
    }
    if scores.dim(1) < 2 || scores.dim(1) != labels.len() {
        return Err(format!("{} labels do not fit {} scores", labels.len(), scores.dim(1)).into());
    }
    let scores = match node.text("post_transform", "NONE").as_str() {
        "NONE" => scores,
        "LOGISTIC" => scores.sigmoid(),
        "SOFTMAX" => scores.softmax(1),
        other => return Err(format!("post_transform = {other} is not supported").into()),
    };
    let labels = Constant::ints(ElemType::I64, vec![labels.len()], labels).to_tensor()?;
    let label = node.graph().constant(labels).index_select(0, &scores.argmax(1, false));
    let (label, scores) = (node.checked(label)?, node.checked(scores)?);
    Ok(vec![node.result(label, ElemType::I64), node.result(scores, ElemType::F32)])
}
