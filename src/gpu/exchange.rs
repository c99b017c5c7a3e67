//! The exchanges of a step with the other ranks of a job: operands are read back while the device computes on.

use super::adapter::Gpu;
use super::readback::staging;
use crate::distributed::{Ticket, World};
use crate::plan::{Bucket, Phase};
use crate::trace::span;
use crate::{Error, Result};

/// The exchanges of a program.
pub(super) struct Exchanges {
    phases: Vec<StagedPhase>,
}

/// A phase, with a host-visible buffer for the operands of each bucket.
pub(super) struct StagedPhase {
    pub phase: Phase,
    pub staging: Vec<wgpu::Buffer>,
}

impl Exchanges {
    pub fn new(gpu: &Gpu, phases: Vec<Phase>) -> Exchanges {
        let staged = |phase: Phase| {
            let staging = phase.buckets.iter().map(|bucket| staging(gpu, bytes(bucket))).collect();
            StagedPhase { phase, staging }
        };
        Exchanges { phases: phases.into_iter().map(staged).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    /// The phases, if there are other ranks.
    pub fn among<'a>(&'a self, world: Option<&'a World>) -> Option<(&'a World, &'a [StagedPhase])> {
        let world = world.filter(|world| world.ranks() > 1)?;
        (!self.is_empty()).then_some((world, &self.phases))
    }
}

fn bytes(bucket: &Bucket) -> u64 {
    bucket.numel() as u64 * 4
}

/// The results of an exchange.
pub(super) fn combined(bucket: &Bucket, ticket: Ticket<Vec<f32>>, world: &World) -> Result<Vec<f32>> {
    let _span = span!("wait for other ranks");
    let mut values = ticket.wait()?;
    if values.len() != bucket.numel() {
        return Err(Error::Distributed(format!("internal: {} sums for {} values", values.len(), bucket.numel())));
    }
    if bucket.exchange.mean {
        let ranks = world.ranks() as f32;
        values.iter_mut().for_each(|x| *x /= ranks);
    }
    Ok(values)
}
