//! Kernel calls that run one at a time, in a job of several ranks.

use std::collections::HashMap;

use super::bound::Bounded;
use crate::distributed::World;
use crate::gpu::Program as Engine;
use crate::graph::ValueId;
use crate::plan::{Phase, Plan};
use crate::{Result, Session, Tensor};

/// Runs the kernel calls of a step in order, and exchanges values with the other ranks in the phases of the step, which
/// run unchecked steps meanwhile.
pub(super) struct Runner<'p> {
    gpu: &'p Engine,
    plan: &'p Plan,
    world: Option<World>,
    phases: Vec<Phase>,
    /// The results of the current phase.
    results: HashMap<ValueId, Vec<f32>>,
}

impl<'p> Runner<'p> {
    pub fn new(session: &Session, gpu: &'p Engine, plan: &'p Plan) -> Runner<'p> {
        Runner { gpu, plan, world: session.world().cloned(), phases: plan.exchanges(), results: HashMap::new() }
    }

    /// Must be called before anything overwrites an output of the call: the first call of a phase sends the operands of
    /// all.
    pub fn prepare(&mut self, number: usize) -> Result<()> {
        if let Some(phase) = self.phases.iter().position(|phase| phase.calls.start == number) {
            self.results.extend(self.gpu.exchange(phase, self.world.as_ref())?);
        }
        Ok(())
    }

    /// Runs a call. For an exchange among several ranks, returns what must then be on the device.
    pub async fn run(&mut self, number: usize) -> Result<Option<HashMap<ValueId, Bounded>>> {
        let result = self.plan.calls[number].writes.first();
        let Some((stored, values)) = result.and_then(|stored| Some((stored, self.results.remove(&stored.value)?)))
        else {
            self.gpu.run_call(number).await?;
            return Ok(None);
        };
        self.gpu.write_buffer(stored.buffer, 0, bytemuck::cast_slice(&values))?;
        let value = Tensor::of(&stored.ty.shape, values.into_iter().map(f64::from).collect::<Vec<f64>>());
        Ok(Some(HashMap::from([(stored.value, Bounded::exact(value))])))
    }
}
