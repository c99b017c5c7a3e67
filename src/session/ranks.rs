//! Sessions that are ranks of a job.

use super::{Program, Session};
use crate::distributed::World;
use crate::{Error, Result, gpu};

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
        if ranks > 1 && program.gpu.as_ref().is_some_and(gpu::Program::exchanges) {
            return Err(Error::Distributed(format!(
                "{what} is not possible for a step with all_reduce in a job of {ranks} ranks; use a session of its own"
            )));
        }
        Ok(())
    }
}
