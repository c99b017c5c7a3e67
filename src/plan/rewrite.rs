//! Algebraic rewrites of a graph, in one table, and the merging of equal nodes.
//!
//! A builder such as [`Value::powf`](crate::Value::powf) may still choose between ops, with the gradient rules that
//! come with them. What holds for a graph however it was built belongs here.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::{constant_of, live};
use crate::graph::{Node, NodeKind, Nodes, ValueId};
use crate::op::{Arg, Lowering, Op};
use crate::ops::cast::without_rounding;
use crate::ops::cross_entropy::{is_losses, with_gradient};
use crate::ops::generate::Full;
use crate::{Shape, Tensor, TensorType};

/// A rewrite of a node.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it does, and why.
    pub reason: &'static str,
    /// Whether results keep all bits. Otherwise they change within the error bounds of the ops that it replaces.
    pub exact: bool,
    apply: fn(&Nodes, &Node) -> Option<Instead>,
}

/// What replaces a node.
enum Instead {
    /// A constant for all its elements.
    Constant(f64),
    /// Its readers read another value. The node is dead unless it is fetched or assigned.
    Value(ValueId),
    /// Another op with the same inputs.
    Op(Arc<dyn Op>),
}

/// The rewrites. Nodes are rewritten in graph order, each by the first rule that applies, so that the inputs of a node
/// are already rewritten.
pub const RULES: &[Rule] = &[
    Rule {
        name: "view of a constant",
        reason: "A view of a tensor with one value everywhere is such a tensor, which needs no memory.",
        exact: true,
        apply: view_of_constant,
    },
    Rule {
        name: "function of constants",
        reason: "Gradients of means and scales multiply constants. The product is computed once, in f64, and rounded \
                 once, not at each step and after each op.",
        exact: false,
        apply: function_of_constants,
    },
    Rule {
        name: "rounding of a selection",
        reason: "Relu, maxima and selections of f16 values give f16 values. Rounding takes a dozen operations.",
        exact: true,
        apply: rounding_of_selection,
    },
    Rule {
        name: "identity element",
        reason: "Gradients start with products with 1, which are copies.",
        exact: true,
        apply: identity_element,
    },
];

/// Merges equal nodes; with `fuse`, also applies the rewrites and joins gradients.
pub(crate) fn simplify(nodes: &mut Nodes, targets: &mut [ValueId], fuse: bool) {
    if fuse {
        rewrite(nodes);
    }
    merge_duplicates(nodes, targets);
    if fuse {
        join_gradients(nodes, targets);
    }
}

/// Applies the rewrites.
fn rewrite(nodes: &mut Nodes) {
    let mut instead: Vec<Option<ValueId>> = Vec::with_capacity(nodes.nodes.len());
    for number in 0..nodes.nodes.len() {
        nodes.nodes[number].inputs.iter_mut().for_each(|id| *id = instead[id.node].unwrap_or(*id));
        let found = RULES.iter().find_map(|rule| (rule.apply)(nodes, &nodes.nodes[number]));
        let node = &mut nodes.nodes[number];
        instead.push(match found {
            Some(Instead::Constant(value)) => {
                node.kind = NodeKind::Op(Arc::new(Full::new(value, node.outputs[0].clone())));
                node.inputs.clear();
                None
            }
            Some(Instead::Op(op)) => {
                node.kind = NodeKind::Op(op);
                None
            }
            Some(Instead::Value(id)) => Some(id),
            None => None,
        });
    }
}

/// The values of all inputs, if there are inputs and each is a known constant.
fn constants(nodes: &Nodes, node: &Node) -> Option<Vec<f64>> {
    let values: Option<Vec<f64>> = node.inputs.iter().map(|&id| constant_of(nodes, id)).collect();
    values.filter(|values| !values.is_empty())
}

fn view_of_constant(nodes: &Nodes, node: &Node) -> Option<Instead> {
    let value = *constants(nodes, node)?.first()?;
    matches!(node.op()?.lowering(), Lowering::View(_)).then_some(Instead::Constant(value))
}

/// Floats only: integers wrap at their own width. Results that are not finite are left to the device.
fn function_of_constants(nodes: &Nodes, node: &Node) -> Option<Instead> {
    let values = constants(nodes, node)?;
    let op = node.op()?;
    let Lowering::Pointwise(call) = op.lowering() else { return None };
    let mut types = node.inputs.iter().map(|&id| nodes.ty(id)).chain(&node.outputs);
    if call.args.contains(&Arg::Index) || types.any(|ty| !ty.dtype.is_float()) {
        return None;
    }
    let scalars: Vec<Tensor> = values.into_iter().map(Tensor::scalar).collect();
    let ty = TensorType::new(node.outputs[0].dtype, Shape::scalar());
    let result = op.reference(&scalars.iter().collect::<Vec<_>>(), std::slice::from_ref(&ty));
    result.first()?.item().ok().filter(|x| x.is_finite()).map(Instead::Constant)
}

fn rounding_of_selection(nodes: &Nodes, node: &Node) -> Option<Instead> {
    let (to, exact) = without_rounding(node.op()?)?;
    let rounded = &nodes.nodes[node.inputs[0].node];
    let of_type = |&id: &ValueId| match constant_of(nodes, id) {
        Some(value) => to.rounded(value) == value,
        None => {
            let operand = &nodes.nodes[id.node];
            operand.name() == "widen" && nodes.ty(operand.inputs[0]).dtype == to
        }
    };
    let mut floats = rounded.inputs.iter().filter(|&&id| nodes.ty(id).dtype.is_float());
    (rounded.op()?.selects() && floats.all(of_type)).then_some(Instead::Op(exact))
}

fn identity_element(nodes: &Nodes, node: &Node) -> Option<Instead> {
    let identity = node.op()?.identity()?;
    match node.inputs[..] {
        [a, b] if constant_of(nodes, a) == Some(identity) => Some(Instead::Value(b)),
        [a, b] if constant_of(nodes, b) == Some(identity) => Some(Instead::Value(a)),
        _ => None,
    }
}

/// Common subexpression elimination: readers of a duplicate (an equal op with the same inputs as an earlier node) read
/// the earlier node instead. Duplicates stay in the list as dead nodes.
fn merge_duplicates(nodes: &mut Nodes, targets: &mut [ValueId]) {
    let mut first: HashMap<(Arc<dyn Op>, Vec<ValueId>), usize> = HashMap::new();
    let mut same: Vec<usize> = Vec::with_capacity(nodes.nodes.len());
    for (number, node) in nodes.nodes.iter_mut().enumerate() {
        node.inputs.iter_mut().for_each(|id| id.node = same[id.node]);
        same.push(match &node.kind {
            NodeKind::Op(op) => *first.entry((op.clone(), node.inputs.clone())).or_insert(number),
            _ => number,
        });
    }
    targets.iter_mut().for_each(|id| id.node = same[id.node]);
    nodes.assignments.iter_mut().for_each(|a| a.value.node = same[a.value.node]);
}

/// Joins cross entropies and their gradients ([`with_gradient`]) if both are needed: readers of a gradient read another
/// output of the losses' node. The gradient stays in the list as a dead node.
fn join_gradients(nodes: &mut Nodes, targets: &mut [ValueId]) {
    let live = live(nodes, targets);
    let mut losses: HashMap<[ValueId; 2], usize> = HashMap::new();
    let mut instead: HashMap<usize, ValueId> = HashMap::new();
    for number in (0..nodes.nodes.len()).filter(|&number| live[number]) {
        let node = &mut nodes.nodes[number];
        node.inputs.iter_mut().filter(|id| id.output == 0).for_each(|id| *id = *instead.get(&id.node).unwrap_or(id));
        let node = &nodes.nodes[number];
        match (&node.kind, &node.inputs[..]) {
            (NodeKind::Op(op), &[x, class]) if is_losses(&**op) => {
                losses.insert([x, class], number);
            }
            (NodeKind::Op(op), &[x, class, dy]) => {
                let Some(first) = losses.get(&[x, class]).copied() else { continue };
                let (Some(dy), NodeKind::Op(of)) = (constant_of(nodes, dy), &nodes.nodes[first].kind) else { continue };
                let Some(both) = with_gradient(&**of, &**op, dy) else { continue };
                let ty = node.outputs[0].clone();
                nodes.nodes[first].kind = NodeKind::Op(both);
                nodes.nodes[first].outputs.push(ty);
                instead.insert(number, ValueId { node: first, output: 1 });
            }
            _ => {}
        }
    }
    let of_targets = targets.iter_mut().chain(nodes.assignments.iter_mut().map(|assignment| &mut assignment.value));
    of_targets.for_each(|id| *id = *instead.get(&id.node).unwrap_or(id));
}
