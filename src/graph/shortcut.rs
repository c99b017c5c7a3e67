//! Values that are computed in another way than the caller wrote.

use std::sync::Arc;

use super::{Graph, ValueId};
use crate::Value;
use crate::op::Op;

/// `result` equals `op` of `input`, but does not read it: the gradient of `input` needs the op's rule.
#[derive(Clone, Debug)]
pub(crate) struct Shortcut {
    pub input: ValueId,
    pub result: ValueId,
    pub op: Arc<dyn Op>,
}

impl Graph {
    /// Records that `result` is `op` of `input`, although it was computed in another way.
    pub(crate) fn record_shortcut(&self, input: &Value, result: &Value, op: impl Op) {
        if input.is_valid() && result.is_valid() {
            self.lock().shortcuts.push(Shortcut { input: input.id, result: result.id, op: Arc::new(op) });
        }
    }

    /// The recorded shortcuts from one of these values.
    pub(crate) fn shortcuts_from(&self, inputs: &[&Value]) -> Vec<Shortcut> {
        let is_from = |shortcut: &&Shortcut| inputs.iter().any(|input| input.id == shortcut.input);
        self.lock().shortcuts.iter().filter(is_from).cloned().collect()
    }
}
