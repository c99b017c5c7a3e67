//! Which index operands the host checks, and their bounds.

use std::collections::HashMap;

use super::layout::{Layout, Origin, op_of};
use crate::TensorType;
use crate::cpu::index_in_range;
use crate::graph::{NodeKind, Nodes, ValueId};

/// Whether a step may fail on the device: some live node has indices that the host cannot check, because they
/// are neither inputs nor constants.
pub(super) fn may_fail(nodes: &Nodes, layout: &Layout) -> bool {
    (0..nodes.nodes.len()).filter(|&node| layout.live[node]).any(|node| !checked_on_upload(nodes, layout, node))
}

/// Whether the host checks all index operands of a node: they are inputs or valid constants.
fn checked_on_upload(nodes: &Nodes, layout: &Layout, node: usize) -> bool {
    let Some(op) = op_of(nodes, node) else { return true };
    let inputs = &nodes.nodes[node].inputs;
    let types: Vec<&TensorType> = inputs.iter().map(|&id| nodes.ty(id)).collect();
    let mut indices = inputs.iter().enumerate().filter(|(i, _)| op.index_bound(*i, &types).is_some());
    indices.all(|(i, &id)| match layout.of(id).origin {
        Origin::Value(root) => match &nodes.nodes[root.node].kind {
            NodeKind::Input(_) => true,
            // An out-of-range constant is reported by the kernel.
            NodeKind::Constant(tensor) => {
                op.index_bound(i, &types).is_none_or(|bound| index_in_range(tensor, bound).is_ok())
            }
            _ => false,
        },
        Origin::Copy(_) => false,
    })
}

/// For each value used as indices, directly or through views, the smallest bound of any op that uses it.
pub(super) fn index_bounds(nodes: &Nodes, layout: &Layout) -> HashMap<ValueId, usize> {
    let mut smallest: HashMap<ValueId, usize> = HashMap::new();
    for (number, node) in nodes.nodes.iter().enumerate().filter(|(n, _)| layout.live[*n]) {
        let Some(op) = op_of(nodes, number) else { continue };
        let types: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
        for (i, &id) in node.inputs.iter().enumerate() {
            if let Some(bound) = op.index_bound(i, &types) {
                let (Origin::Value(root) | Origin::Copy(root)) = layout.of(id).origin;
                let known = smallest.entry(root).or_insert(bound);
                *known = bound.min(*known);
            }
        }
    }
    smallest
}
