//! Reverse-mode differentiation as a graph transformation, independent of particular ops.

use std::collections::HashMap;

use crate::graph::{Graph, NodeKind, Shortcut, ValueId};
use crate::op::Backward;
use crate::{DType, Value};

/// Gradients of a scalar `loss` with respect to each of `wrt`, as new values of the same graph,
/// which can be differentiated again. The gradient is zero if the loss does not depend on a value.
///
/// ```
/// use wgrad::{gradients, Device, DType, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, []);
/// let dx = &gradients(&x.square(), &[&x])[0];
/// let ddx = &gradients(dx, &[&x])[0];
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[dx, ddx])?;
/// let outputs = session.run(&program, &[("x", &Tensor::scalar(3.0))])?;
/// assert_eq!((outputs[0].item()?, outputs[1].item()?), (6.0, 2.0));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[track_caller]
pub fn gradients(loss: &Value, wrt: &[&Value]) -> Vec<Value> {
    let graph = loss.graph();
    if loss.is_valid() && (loss.dtype() != DType::F32 || loss.shape().numel() != 1) {
        let why = "the loss must be one float, an f32; cast() it, reduce it with mean_all() or sum_all(), or give \
                   seeds to gradients_of";
        let invalid = graph.error("gradients", &[loss], why);
        return vec![invalid; wrt.len()];
    }
    let one = loss.ones_like(); // invalid if the loss is
    gradients_of(&[(loss, &one)], wrt)
}

/// Gradients of `sum over outputs of (seed * output)` with respect to each of `wrt`: the
/// vector-Jacobian product. Each seed has its output's type.
#[track_caller]
pub fn gradients_of(outputs: &[(&Value, &Value)], wrt: &[&Value]) -> Vec<Value> {
    let Some(graph) = outputs.first().map(|(y, _)| y.graph().clone()) else {
        return wrt.iter().map(|v| v.zeros_like()).collect();
    };
    let all: Vec<&Value> = outputs.iter().flat_map(|&(y, seed)| [y, seed]).chain(wrt.iter().copied()).collect();
    if let Err(invalid) = graph.admit("gradients", &all) {
        return vec![invalid; wrt.len()];
    }
    for (y, seed) in outputs {
        if y.ty() != seed.ty() || !y.dtype().is_float() {
            let why = "a seed must have its output's type, which must be a float";
            let invalid = graph.error("gradients", &[y, seed], why);
            return vec![invalid; wrt.len()];
        }
    }
    let mut sums: HashMap<ValueId, Value> = HashMap::new();
    for (y, seed) in outputs {
        accumulate(&mut sums, y.id(), (*seed).clone());
    }
    let last = outputs.iter().map(|(y, _)| y.id().node).max().unwrap_or(0);
    let shortcuts = graph.shortcuts_from(wrt);
    let sources = wrt.iter().map(|v| v.id()).chain(shortcuts.iter().map(|shortcut| shortcut.result));
    let needed = depends_on(&graph, sources, last);
    for node in (0..=last).rev() {
        if needed[node] {
            reverse(&graph, node, &needed, &mut sums);
        }
    }
    for Shortcut { input, result, op } in shortcuts {
        let Some(dy) = sums.get(&result).cloned() else { continue };
        let (inputs, outputs) = ([graph.value_of(input)], [graph.stored_value_of(result)]);
        let backward = Backward { inputs: &inputs, outputs: &outputs, dys: &[Some(dy)], needs: &[true] };
        for gradient in graph.on_behalf_of(result.node, || op.gradient(&backward)).into_iter().flatten() {
            accumulate(&mut sums, input, gradient);
        }
    }
    wrt.iter().map(|v| sums.get(&v.id()).cloned().unwrap_or_else(|| v.zeros_like())).collect()
}

fn accumulate(sums: &mut HashMap<ValueId, Value>, id: ValueId, gradient: Value) {
    let sum = match sums.remove(&id) {
        Some(before) => before + gradient,
        None => gradient,
    };
    sums.insert(id, sum);
}

/// For each node up to `last`, whether it makes one of these values or depends on one.
fn depends_on(graph: &Graph, sources: impl Iterator<Item = ValueId>, last: usize) -> Vec<bool> {
    let nodes = graph.lock();
    let mut needed = vec![false; last + 1];
    for node in sources.map(|id| id.node).filter(|&node| node <= last) {
        needed[node] = true;
    }
    for node in 0..=last {
        needed[node] |= nodes.nodes[node].inputs.iter().any(|input| needed[input.node]);
    }
    needed
}

/// Propagates the gradients of a node's outputs to its inputs.
fn reverse(graph: &Graph, node: usize, needed: &[bool], sums: &mut HashMap<ValueId, Value>) {
    let content = graph.lock().nodes[node].clone();
    let NodeKind::Op(op) = &content.kind else { return };
    let dys: Vec<Option<Value>> =
        (0..content.outputs.len()).map(|output| sums.get(&ValueId { node, output }).cloned()).collect();
    if dys.iter().all(Option::is_none) {
        return;
    }
    let inputs: Vec<Value> = content.inputs.iter().map(|&id| graph.value_of(id)).collect();
    let outputs: Vec<Value> =
        (0..content.outputs.len()).map(|output| graph.stored_value_of(ValueId { node, output })).collect();
    let needs: Vec<bool> = inputs.iter().map(|v| needed[v.id().node] && v.dtype().is_float()).collect();
    if !needs.contains(&true) {
        return;
    }
    let backward = Backward { inputs: &inputs, outputs: &outputs, dys: &dys, needs: &needs };
    graph.on_behalf_of(node, || {
        for (i, gradient) in op.gradient(&backward).into_iter().enumerate() {
            if let Some(gradient) = gradient.filter(|_| needs[i]) {
                debug_assert!(!gradient.is_valid() || gradient.ty() == inputs[i].ty(), "{} input {i}", op.name());
                accumulate(sums, inputs[i].id(), gradient);
            }
        }
    });
}
