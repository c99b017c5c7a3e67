//! Groups of ops that are one operator: a convolution with a bias, and batch normalisation. Runtimes fuse these.

use wgrad::DType;
use wgrad::graph::ValueId;

use super::nodes;
use super::site::{Found, Site, Size};
use super::writer::{Writer, float};

/// Writes the operator of the group that ends with this `add`; `None` if there is none. What else the group has computed
/// is left unread.
pub(super) fn write(w: &mut Writer<'_>, site: &Site<'_>) -> Found<Option<String>> {
    if site.node.name() != "add" || site.node.outputs[0].dtype != DType::F32 {
        return Ok(None);
    }
    let Some(bias) = channels(w, site.node.inputs[1]) else { return Ok(None) };
    let data = w.maker(site.node.inputs[0]);
    if matches!(data.node.name(), "conv2d" | "conv2d_input_grad") {
        return nodes::convolution(w, &data, Some(bias)).map(Some);
    }
    let Some(norm) = Norm::find(w, &data) else { return Ok(None) };
    let mut inputs = Vec::new();
    for id in [norm.x, norm.weight, bias, norm.mean, norm.var] {
        inputs.push(w.value(id)?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    Ok(Some(w.node_with("BatchNormalization", &inputs, &[("epsilon", float(norm.eps))])))
}

/// The vector `[C]` of which a value is the copies along all axes but the second.
fn channels(w: &Writer<'_>, id: ValueId) -> Option<ValueId> {
    let copies = w.maker(id);
    if copies.node.name() != "broadcast" {
        return None;
    }
    let shape = copies.output_shape(0).ok()?;
    let column = w.maker(copies.node.inputs[0]);
    if column.node.name() != "reshape" {
        return None;
    }
    let (vector, sizes) = (column.input_shape(0).ok()?, column.output_shape(0).ok()?);
    let at = sizes.len().checked_sub(shape.len().checked_sub(1)?)?;
    let size = |axis: usize| if axis == at { vector[0] } else { Size::fixed(1) };
    let fits = shape.len() >= 2
        && vector.len() == 1
        && shape[1] == vector[0]
        && sizes.iter().enumerate().all(|(axis, found)| *found == size(axis));
    fits.then_some(column.node.inputs[0])
}

/// `(x - mean) rsqrt(var + eps) weight`.
struct Norm {
    x: ValueId,
    mean: ValueId,
    var: ValueId,
    weight: ValueId,
    eps: f64,
}

impl Norm {
    fn find(w: &Writer<'_>, scaled: &Site<'_>) -> Option<Norm> {
        let of = |site: &Site<'_>, name: &str| (site.node.name() == name).then(|| site.node.inputs.clone());
        let [normal, weight] = of(scaled, "mul")?[..] else { return None };
        let [off, rsqrt] = of(&w.maker(normal), "mul")?[..] else { return None };
        let [x, mean] = of(&w.maker(off), "sub")?[..] else { return None };
        let [sum] = of(&w.maker(channels(w, rsqrt)?), "rsqrt")?[..] else { return None };
        let [var, eps] = of(&w.maker(sum), "add")?[..] else { return None };
        let eps = w.maker(eps);
        let eps = (eps.node.name() == "full").then(|| eps.float("value").ok())??;
        Some(Norm { x, mean: channels(w, mean)?, var, weight: channels(w, weight)?, eps })
    }
}
