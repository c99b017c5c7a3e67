//! Sessions that are ranks of a job.

use super::{Program, Session};
use crate::cpu::{self, Values};
use crate::distributed::World;
use crate::graph::{Nodes, ValueId};
use crate::plan::exchange::{depths, of_node};
use crate::{Data, Error, Result, Tensor};

impl Session {
    /// Makes the session a rank of a job: [all-reduce ops](crate::ops::all_reduce::AllReduce) of its programs combine
    /// the values of all ranks, which must run the same programs in the same order. All ranks must call this together;
    /// they must all compute on GPUs, of any kind, or all on the reference.
    ///
    /// Example: [`AllReduce`](crate::ops::all_reduce::AllReduce).
    ///
    /// # Errors
    /// [`Error::Distributed`] if some ranks compute on the reference and others do not; as [`World::sum`].
    pub fn distribute(&mut self, world: &World) -> Result<()> {
        let own = self.device().is_cpu();
        let all = world.gather(vec![u8::from(own)])?;
        let which = |cpu: u8| all.iter().position(|kind| *kind == [cpu]);
        if let (Some(cpu), Some(gpu)) = (which(1), which(0)) {
            let (cpu, gpu) = (world.name_of(cpu), world.name_of(gpu));
            return Err(Error::Distributed(format!(
                "{cpu} computes on the reference and {gpu} on a GPU; select a device of the same kind on all ranks"
            )));
        }
        self.world = Some(world.clone());
        Ok(())
    }

    /// The job that the session is a rank of.
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// An error if the program's exchanges would be left out, because `what` runs single launches.
    pub(crate) fn alone(&self, program: &Program, what: &str) -> Result<()> {
        let ranks = self.world.as_ref().map_or(1, World::ranks);
        if ranks > 1 && !program.plan.exchanges().is_empty() {
            return Err(Error::Distributed(format!(
                "{what} is not possible for a step with all_reduce in a job of {ranks} ranks; use a session of its own"
            )));
        }
        Ok(())
    }
}

/// Evaluates a graph on the reference, with exchanges among the ranks: one phase after the other. The sums are in f64.
pub(super) fn evaluate(nodes: &Nodes, wanted: &[ValueId], mut feeds: Values, world: Option<&World>) -> Result<Values> {
    let Some(world) = world.filter(|world| world.ranks() > 1) else { return cpu::evaluate(nodes, wanted, feeds) };
    let needed = needed(nodes, wanted);
    let depths = depths(nodes);
    let mut exchanges: Vec<usize> =
        (0..nodes.nodes.len()).filter(|&node| needed[node] && of_node(nodes, node).is_some()).collect();
    exchanges.sort_by_key(|&node| depths[node]);
    for phase in exchanges.chunk_by(|&a, &b| depths[a] == depths[b]) {
        let operands: Vec<ValueId> = phase.iter().map(|&node| nodes.nodes[node].inputs[0]).collect();
        let values = cpu::evaluate(nodes, &operands, feeds.clone())?;
        let all: Vec<f64> = operands.iter().filter_map(|id| values.get(id)).flat_map(Tensor::to_f64).collect();
        let sums = world.sum(&all)?;
        let mut rest = &sums[..];
        for &node in phase {
            let shape = &nodes.nodes[node].outputs[0].shape;
            let (own, others) = rest.split_at_checked(shape.numel()).unwrap_or_default();
            rest = others;
            let mean = of_node(nodes, node).is_some_and(|exchange| exchange.mean);
            let divisor = if mean { world.ranks() as f64 } else { 1.0 };
            let result = own.iter().map(|sum| sum / divisor).collect();
            feeds.insert(ValueId { node, output: 0 }, Tensor::of(shape, Data::F64(result)));
        }
    }
    cpu::evaluate(nodes, wanted, feeds)
}

/// Which nodes these values depend on.
fn needed(nodes: &Nodes, wanted: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; nodes.nodes.len()];
    let mut open: Vec<usize> = wanted.iter().map(|id| id.node).collect();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut needed[node], true) {
            open.extend(nodes.nodes[node].inputs.iter().map(|id| id.node));
        }
    }
    needed
}
