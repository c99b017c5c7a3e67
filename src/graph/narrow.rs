//! Ops with narrow operands: they compute in the wide types, and float results are rounded once.

use std::sync::Arc;

use super::{Graph, Value, ValueId};
use crate::TensorType;
use crate::op::Op;

impl Graph {
    /// Adds an op that computes in the wide types of its operands.
    #[track_caller]
    pub(super) fn apply_widened(&self, op: Arc<dyn Op>, inputs: &[&Value]) -> Vec<Value> {
        let wide: Vec<Value> = inputs.iter().map(|v| v.widen()).collect();
        let types: Vec<&TensorType> = wide.iter().map(|v| &v.ty).collect();
        if let Err(message) = op.infer(&types) {
            return vec![self.error(op.name(), inputs, message); 4];
        }
        let outputs = self.apply_shared(op, &wide.iter().collect::<Vec<_>>());
        let mut floats = inputs.iter().map(|v| v.dtype()).filter(|dtype| dtype.is_float());
        let common = floats.next().filter(|first| floats.all(|dtype| dtype == *first));
        // Further outputs are statistics for the gradient.
        let rounded = |(number, output): (usize, Value)| match common {
            Some(dtype) if number == 0 && output.is_valid() && output.dtype().is_float() => {
                let rounded = output.cast(dtype);
                self.lock().rounded.insert(output.id, rounded.id);
                rounded
            }
            _ => output,
        };
        outputs.into_iter().enumerate().map(rounded).collect()
    }

    /// The value with this id, which must exist; if a narrow type is stored instead of it, that value, widened.
    /// Gradient rules read it, so that the backward pass needs only what is stored.
    pub(crate) fn stored_value_of(&self, id: ValueId) -> Value {
        let rounded = self.lock().rounded.get(&id).copied();
        rounded.map_or_else(|| self.value_of(id), |id| self.value_of(id).widen())
    }
}

impl Value {
    /// The inputs of the op that produced this value, if that op has this name. Where it was applied to narrow
    /// operands, the narrow ones.
    pub(crate) fn made_by(&self, op: &str) -> Option<Vec<Value>> {
        let nodes = self.graph.lock();
        let maker = |id: ValueId| nodes.nodes.get(id.node);
        let node = maker(self.id)?;
        let inputs = if node.name() == op {
            node.inputs.clone()
        } else {
            let node = maker(*node.inputs.first()?).filter(|_| node.name() == "cast" && self.dtype().is_narrow())?;
            let widened = |id: &ValueId| maker(*id).filter(|node| node.name() == "widen").map(|node| node.inputs[0]);
            let inputs: Option<Vec<ValueId>> = node.inputs.iter().map(widened).collect();
            inputs.filter(|ids| node.name() == op && ids.iter().all(|&id| nodes.ty(id).dtype == self.dtype()))?
        };
        drop(nodes);
        Some(inputs.into_iter().map(|id| self.graph.value_of(id)).collect())
    }
}
