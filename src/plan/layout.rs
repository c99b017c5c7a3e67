//! Graph simplification and layout: duplicate ops, constants, dead nodes, and views.

use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{NodeKind, Nodes, ValueId};
use crate::op::{Arg, Lowering, Op};
use crate::ops::generate::Full;
use crate::shape::View;
use crate::{DType, Shape, Tensor, TensorType};

/// Where a value's elements are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// A leaf, a kernel's output or a pointwise op's output: contiguous under its own id.
    Value(ValueId),
    /// A contiguous copy of that value, needed because strides cannot express a later view.
    Copy(ValueId),
}

/// A value as a view of stored elements.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub origin: Origin,
    pub view: View,
    /// The computed or leaf value behind all views and copies.
    pub source: ValueId,
}

/// The layout of a graph's live values, with views resolved.
pub(crate) struct Layout {
    /// For each node, whether a target or assignment depends on it.
    pub live: Vec<bool>,
    /// For each node, whether it is a pointwise op.
    pub pointwise: Vec<bool>,
    /// For each live node, the places of its outputs.
    places: Vec<Vec<Place>>,
}

impl Layout {
    pub fn new(nodes: &Nodes, targets: &[ValueId]) -> Layout {
        let count = nodes.nodes.len();
        let pointwise = |node| op_of(nodes, node).is_some_and(|op| matches!(op.lowering(), Lowering::Pointwise(_)));
        let pointwise = (0..count).map(pointwise).collect();
        let mut layout = Layout { live: vec![false; count], pointwise, places: Vec::with_capacity(count) };
        let roots = targets.iter().copied().chain(nodes.assignments.iter().map(|a| a.value));
        for root in roots {
            layout.live[root.node] = true;
        }
        for node in (0..count).rev() {
            if layout.live[node] {
                nodes.nodes[node].inputs.iter().for_each(|input| layout.live[input.node] = true);
            }
        }
        for node in 0..count {
            let places = if layout.live[node] { layout.place(nodes, node) } else { Vec::new() };
            layout.places.push(places);
        }
        layout
    }

    /// The place of a live value.
    pub fn of(&self, id: ValueId) -> &Place {
        &self.places[id.node][id.output]
    }

    /// The computed or leaf value behind all views and copies of a live value.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.of(id).source
    }

    /// The places of a node's outputs, from those of its inputs.
    fn place(&self, nodes: &Nodes, number: usize) -> Vec<Place> {
        let node = &nodes.nodes[number];
        if let Some(Lowering::View(op)) = op_of(nodes, number).map(|op| op.lowering()) {
            let input = node.inputs[0];
            let Place { origin, view, source } = self.of(input);
            let seen = match op.view(view) {
                Some(view) => Some((origin.clone(), view)),
                None => op.view(&View::contiguous(&nodes.ty(input).shape)).map(|view| (Origin::Copy(input), view)),
            };
            if let Some((origin, view)) = seen {
                return vec![Place { origin, view, source: *source }];
            }
        }
        let own = |(output, ty): (usize, &TensorType)| {
            let id = ValueId { node: number, output };
            Place { origin: Origin::Value(id), view: View::contiguous(&ty.shape), source: id }
        };
        node.outputs.iter().enumerate().map(own).collect()
    }
}

/// Common subexpression elimination: readers of a duplicate (same op, attributes and inputs as an earlier
/// node) read the earlier node instead. Duplicates stay in the list as dead nodes.
pub(crate) fn merge_duplicates(nodes: &mut Nodes, targets: &mut [ValueId]) {
    let mut first: HashMap<(String, Vec<ValueId>), usize> = HashMap::new();
    let mut same: Vec<usize> = Vec::with_capacity(nodes.nodes.len());
    for (number, node) in nodes.nodes.iter_mut().enumerate() {
        node.inputs.iter_mut().for_each(|id| id.node = same[id.node]);
        same.push(match &node.kind {
            NodeKind::Op(op) => *first.entry((format!("{op:?}"), node.inputs.clone())).or_insert(number),
            _ => number,
        });
    }
    targets.iter_mut().for_each(|id| id.node = same[id.node]);
    nodes.assignments.iter_mut().for_each(|a| a.value.node = same[a.value.node]);
}

/// Replaces pointwise nodes and views of constants with constants, and skips operations with an identity element.
pub(crate) fn fold_constants(nodes: &mut Nodes) {
    let mut known: Vec<Option<f64>> = Vec::with_capacity(nodes.nodes.len());
    for node in &mut nodes.nodes {
        let inputs: Option<Vec<f64>> = node.inputs.iter().map(|id| known[id.node]).collect();
        let folded = match (&node.kind, inputs) {
            // Integers, which wrap at their own width, are not folded.
            _ if node.outputs[0].dtype != DType::F32 => None,
            (NodeKind::Op(op), Some(inputs)) if inputs.is_empty() => op.fill_value(),
            (NodeKind::Op(op), Some(inputs)) => folded(&**op, &inputs),
            _ => None,
        };
        known.push(folded);
        if let Some(value) = folded.filter(|_| !node.inputs.is_empty()) {
            node.kind = NodeKind::Op(Arc::new(Full { value, ty: node.outputs[0].clone() }));
            node.inputs.clear();
        }
    }
    skip_identities(nodes);
}

/// Readers of an operation with an identity element (such as a product with 1) read the other operand instead:
/// gradients start with such products. The skipped nodes become dead unless they are fetched or assigned.
fn skip_identities(nodes: &mut Nodes) {
    let mut instead: Vec<Option<ValueId>> = Vec::with_capacity(nodes.nodes.len());
    for number in 0..nodes.nodes.len() {
        nodes.nodes[number].inputs.iter_mut().for_each(|id| *id = instead[id.node].unwrap_or(*id));
        let identity = op_of(nodes, number).and_then(Op::identity);
        instead.push(match nodes.nodes[number].inputs[..] {
            [a, b] if identity.is_some() && constant_of(nodes, a) == identity => Some(b),
            [a, b] if identity.is_some() && constant_of(nodes, b) == identity => Some(a),
            _ => None,
        });
    }
}

/// The result of an op on constants, if it is a finite constant.
fn folded(op: &dyn Op, inputs: &[f64]) -> Option<f64> {
    match op.lowering() {
        Lowering::View(_) => inputs.first().copied(),
        Lowering::Pointwise(call) if !call.args.contains(&Arg::Index) => {
            let scalars: Vec<Tensor> = inputs.iter().map(|&x| Tensor::scalar(x)).collect();
            let ty = TensorType::new(DType::F32, Shape::scalar());
            let result = op.reference(&scalars.iter().collect::<Vec<_>>(), std::slice::from_ref(&ty));
            result.first()?.item().ok().filter(|x| x.is_finite())
        }
        _ => None,
    }
}

/// The node's op, unless it is a leaf.
pub(crate) fn op_of(nodes: &Nodes, node: usize) -> Option<&dyn Op> {
    match &nodes.nodes[node].kind {
        NodeKind::Op(op) => Some(&**op),
        _ => None,
    }
}

/// The value of all elements, if it is a known constant.
pub(crate) fn constant_of(nodes: &Nodes, id: ValueId) -> Option<f64> {
    op_of(nodes, id.node)?.fill_value()
}
