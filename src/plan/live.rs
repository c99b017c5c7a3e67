//! How long a step keeps its intermediate values.

use std::collections::HashMap;

use super::{BufferId, Plan, Role, padded};
use crate::graph::ValueId;

/// An intermediate value of a step, and the kernel calls between which it exists; see [`Plan::live_values`].
///
/// Example: [`Plan::live_values`].
#[derive(Clone, Debug, PartialEq)]
pub struct LiveValue {
    /// The graph value; `None` for scratch memory of a kernel.
    pub value: Option<ValueId>,
    /// Its size in bytes, with the padding that buffers have.
    pub bytes: u64,
    /// The index in [`Plan::calls`] of the kernel call that writes it.
    pub first: usize,
    /// That of the last one that reads it; the number of kernel calls if it is an output or the new value of a variable.
    pub last: usize,
}

impl Plan {
    /// The intermediate values of a step, in the order in which they are written. The bytes of those that exist at
    /// kernel call `i`, with `first <= i <= last`, are the memory that the step needs there; buffers may have more,
    /// because they are shared by values of different sizes, or not shared at all.
    ///
    /// ```
    /// use wgrad::plan::{Options, Plan};
    /// use wgrad::{DType, Graph, Profile};
    /// let graph = Graph::new();
    /// let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [64, 64]));
    /// let y = a.matmul(&b).matmul(&b);
    /// let (plan, _) = Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default())?;
    /// let live: Vec<(usize, usize)> = plan.live_values().iter().map(|live| (live.first, live.last)).collect();
    /// assert_eq!(live, [(0, 1), (1, 2)]); // the first product, and the second, which is read back
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn live_values(&self) -> Vec<LiveValue> {
        let mut lives = Vec::new();
        // For each buffer, the value that is in it.
        let mut within: HashMap<BufferId, usize> = HashMap::new();
        let temporary = |buffer: BufferId| self.buffers[buffer].role == Role::Temporary;
        for (at, call) in self.calls.iter().enumerate() {
            for stored in &call.reads {
                if let Some(&live) = within.get(&stored.buffer) {
                    let live: &mut LiveValue = &mut lives[live];
                    live.last = at;
                }
            }
            for stored in call.writes.iter().filter(|stored| temporary(stored.buffer)) {
                within.insert(stored.buffer, lives.len());
                let bytes = padded(stored.ty.bytes());
                lives.push(LiveValue { value: Some(stored.value), bytes, first: at, last: at });
            }
            for &(_, bytes) in &call.scratch {
                lives.push(LiveValue { value: None, bytes: padded(bytes), first: at, last: at });
            }
        }
        let kept = self.outputs.iter().filter_map(|(_, buffer)| *buffer);
        for buffer in kept.chain(self.commits.iter().map(|commit| commit.from)) {
            if let Some(&live) = within.get(&buffer) {
                lives[live].last = self.calls.len();
            }
        }
        lives
    }
}
