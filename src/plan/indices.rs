//! Which index operands the host checks, and their bounds.

use std::collections::HashMap;

use super::layout::{Layout, Origin};
use crate::TensorType;
use crate::cpu::index_in_range;
use crate::graph::{NodeKind, ValueId};

/// Whether a step may fail on the device: some live node has indices that the host cannot check, because they
/// are neither inputs nor constants.
pub(super) fn may_fail(layout: &Layout<'_>) -> bool {
    layout.live_nodes().any(|node| !checked_on_upload(layout, node))
}

/// Whether the host checks all index operands of a node: they are inputs or valid constants.
fn checked_on_upload(layout: &Layout<'_>, node: usize) -> bool {
    let Some(op) = layout.op(node) else { return true };
    let inputs = &layout.node(node).inputs;
    let types: Vec<&TensorType> = inputs.iter().map(|&id| layout.ty(id)).collect();
    let mut indices = inputs.iter().enumerate().filter(|(i, _)| op.index_bound(*i, &types).is_some());
    indices.all(|(i, &id)| match layout.of(id).origin {
        Origin::Value(root) => match &layout.node(root.node).kind {
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
pub(super) fn index_bounds(layout: &Layout<'_>) -> HashMap<ValueId, usize> {
    let mut smallest: HashMap<ValueId, usize> = HashMap::new();
    for node in layout.live_nodes() {
        let Some(op) = layout.op(node) else { continue };
        let inputs = &layout.node(node).inputs;
        let types: Vec<&TensorType> = inputs.iter().map(|&id| layout.ty(id)).collect();
        for (i, &id) in inputs.iter().enumerate() {
            if let Some(bound) = op.index_bound(i, &types) {
                let known = smallest.entry(layout.of(id).origin.value()).or_insert(bound);
                *known = bound.min(*known);
            }
        }
    }
    smallest
}
