//! What the ranks of a job exchange in a step, in which order, and when it is ready.
//!
//! The exchanges of a step form *phases*: those of a phase do not depend on each other. The plan computes all that does
//! not depend on a phase before it. Within a phase, the operands are read back in *buckets*, because many small
//! messages take longer than a large one; a bucket is sent as soon as its operands are computed, while the device goes
//! on. Phases and buckets follow from the graph alone, so that they are the same on all ranks, whatever their devices.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{KernelCall, Plan, Stored};
use crate::graph::{Nodes, ValueId};
use crate::op::Exchange;

/// Bytes from which a bucket is sent. PyTorch uses as much (Li et al., *PyTorch Distributed*, VLDB 2020).
const BUCKET: usize = 25 << 20;

/// Exchanges that do not depend on each other. Example: [`Plan::exchanges`].
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// The kernel calls without launches that stand for the exchanges.
    pub calls: Range<usize>,
    /// What is sent together, in order.
    pub buckets: Vec<Bucket>,
}

/// Values that are sent together. Example: [`Plan::exchanges`].
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The operands and results.
    pub members: Vec<(Stored, Stored)>,
    /// How the values of the ranks are combined.
    pub exchange: Exchange,
    /// After how many kernel calls all operands are computed.
    pub ready: usize,
}

impl Bucket {
    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.members.iter().map(|(operand, _)| operand.ty.shape.numel()).sum()
    }

    /// The results with their values, which `values` holds one after another.
    pub(crate) fn results<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = (&'a Stored, &'a [f32])> {
        let lengths = self.members.iter().map(|(_, result)| result.ty.shape.numel());
        let ends = lengths.scan(0, |end, length| {
            *end += length;
            Some(*end - length..*end)
        });
        self.members.iter().map(|(_, result)| result).zip(ends.map(|range| &values[range]))
    }
}

/// The exchange that a node stands for.
pub(crate) fn of_node(nodes: &Nodes, node: usize) -> Option<Exchange> {
    nodes.nodes[node].op()?.exchange()
}

/// For each node, the number of phases that it depends on, including its own if it is an exchange.
pub(crate) fn depths(nodes: &Nodes) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::with_capacity(nodes.nodes.len());
    for (number, node) in nodes.nodes.iter().enumerate() {
        let before = node.inputs.iter().map(|id| depths[id.node]).max().unwrap_or(0);
        depths.push(before + usize::from(of_node(nodes, number).is_some()));
    }
    depths
}

/// The exchange of a kernel call.
fn of_call(nodes: &Nodes, call: &KernelCall) -> Option<Exchange> {
    of_node(nodes, call.writes.first()?.value.node)
}

impl Plan {
    /// What the ranks of a job exchange in a step: see [`AllReduce`](crate::ops::all_reduce::AllReduce).
    ///
    /// ```
    /// use wgrad::ops::all_reduce::AllReduce;
    /// use wgrad::plan::{Options, Plan};
    /// use wgrad::{DType, Graph, Profile};
    /// let graph = Graph::new();
    /// let x = graph.input("x", DType::F32, [64]);
    /// let sums = [x.exp(), x.square()].map(|x| x.all_reduce(AllReduce::SUM));
    /// let plan = Plan::of(&graph, &sums.each_ref(), &Profile::webgpu_defaults(), &Options::default())?.0;
    /// let phases = plan.exchanges();
    /// assert_eq!((phases.len(), phases[0].buckets.len(), phases[0].buckets[0].numel()), (1, 1, 128));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn exchanges(&self) -> Vec<Phase> {
        let exchanges = self.calls.iter().enumerate().filter_map(|(number, call)| {
            let exchange = of_call(&self.nodes, call)?;
            Some((number, exchange, call.reads.first()?.clone(), call.writes.first()?.clone()))
        });
        let mut exchanges: Vec<_> = exchanges.collect();
        if exchanges.is_empty() {
            return Vec::new();
        }
        let depths = depths(&self.nodes);
        // As the backward pass makes the operands.
        exchanges.sort_by_key(|(_, _, operand, result)| {
            (depths[result.value.node], operand.value.node, operand.value.output, result.value.node)
        });
        let mut made: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (number, call) in self.calls.iter().enumerate() {
            made.extend(call.writes.iter().map(|stored| (stored.value, number + 1)));
        }
        let mut phases: Vec<(usize, Phase)> = Vec::new();
        for (call, exchange, operand, result) in exchanges {
            let depth = depths[result.value.node];
            if phases.last().is_none_or(|(last, _)| *last != depth) {
                phases.push((depth, Phase { calls: call..call + 1, buckets: Vec::new() }));
            }
            let Some((_, phase)) = phases.last_mut() else { continue };
            phase.calls = phase.calls.start.min(call)..phase.calls.end.max(call + 1);
            let ready = made.get(&operand.value).copied().unwrap_or(0);
            match phase.buckets.last_mut() {
                Some(bucket) if bucket.exchange == exchange && bucket.numel() * 4 < BUCKET => {
                    bucket.ready = bucket.ready.max(ready);
                    bucket.members.push((operand, result));
                }
                _ => phase.buckets.push(Bucket { members: vec![(operand, result)], exchange, ready }),
            }
        }
        let members = |phase: &Phase| phase.buckets.iter().map(|bucket| bucket.members.len()).sum::<usize>();
        debug_assert!(phases.iter().all(|(_, phase)| members(phase) == phase.calls.len()), "a phase is not together");
        phases.into_iter().map(|(_, phase)| phase).collect()
    }
}
