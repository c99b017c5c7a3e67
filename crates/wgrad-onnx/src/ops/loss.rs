//! Losses over classes along axis 1.

use wgrad::DType;

use super::Family;
use crate::node::{Node, Result, signed};
use crate::value::Val;

pub(super) const FAMILY: Family = &[("NegativeLogLikelihoodLoss", class_loss), ("SoftmaxCrossEntropyLoss", class_loss)];

fn class_loss(node: &mut Node<'_, '_>) -> Result<Vec<Val>> {
    let (x, labels, ty) = (node.value(0)?, node.value(1)?, node.input(0)?.ty());
    let log_probabilities = node.checked(if node.op() == "SoftmaxCrossEntropyLoss" { x.log_softmax(1) } else { x })?;
    if log_probabilities.shape().rank() < 2 {
        return Err("its scores must have an axis for the classes".into());
    }
    if labels.shape().rank() == 0 || labels.dtype().is_float() {
        return Err(format!("its labels {} are no batch of class numbers", labels.ty()).into());
    }
    let labels = if labels.dtype() == DType::I32 { labels } else { labels.cast(DType::I32) };
    let ignored = node.attribute("ignore_index").and_then(|attribute| attribute.i);
    // Ignored labels may be out of range.
    let (kept, labels) = match ignored {
        Some(ignored) => {
            let kept = labels.ne(&labels.full_like(ignored as f64));
            (Some(kept.clone()), kept.where_(&labels, &labels.zeros_like()))
        }
        None => (None, labels),
    };
    let labels = node.checked(labels)?;
    let mut shape = labels.shape().to_vec();
    shape.insert(1, 1);
    let picked = log_probabilities.gather(1, &labels.reshape(&signed(&shape))).reshape(&signed(labels.shape()));
    let weights = match node.optional_value(2)? {
        Some(weights) => {
            let of_label = weights.index_select(0, &labels.reshape(&[-1])).reshape(&signed(labels.shape()));
            Some(of_label)
        }
        None => None,
    };
    let ones = || picked.ones_like();
    let weights = match (weights, kept) {
        (Some(weights), Some(kept)) => Some(kept.where_(&weights, &weights.zeros_like())),
        (None, Some(kept)) => Some(kept.where_(&ones(), &picked.zeros_like())),
        (weights, None) => weights,
    };
    let losses = match &weights {
        Some(weights) => -(&picked * weights),
        None => -&picked,
    };
    let loss = match node.text("reduction", "mean").as_str() {
        "none" => losses,
        "sum" => losses.sum_all(),
        "mean" => match weights {
            Some(weights) => losses.sum_all() / weights.sum_all(),
            None => losses.mean_all(),
        },
        other => return Err(format!("the reduction `{other}` is unknown").into()),
    };
    let loss = node.checked(loss)?;
    Ok(vec![node.result(loss, ty), node.result(log_probabilities, ty)])
}
