//! Where a step's time goes.

use std::time::Instant;

use crate::{Profile, Program, Result, Session, Tensor, gpu};

/// How long one call of a plan took.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTime {
    /// What the call computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Session {
    /// Runs a step as [`Session::run`] does, but call by call, and tells how long each took.
    ///
    /// A GPU's own timestamps are taken where it has them. Software adapters execute commands on
    /// threads of their own, and their timestamps miss some of it: there, and where there are no
    /// timestamps, it is the time from a call's submission to its end, a submission's cost included
    /// (some tens of microseconds).
    ///
    /// # Errors
    /// As [`Session::run`]; and when the session computes on the reference.
    pub fn time_calls(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<CallTime>> {
        let start = Instant::now();
        self.time_units_by(program, feeds, &mut || start.elapsed().as_secs_f64())
    }

    /// The same with another clock for what is not timed by the device, such as one that counts the
    /// time that the process had a core.
    #[doc(hidden)]
    pub fn time_units_by(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
        clock: &mut dyn FnMut() -> f64,
    ) -> Result<Vec<CallTime>> {
        let (gpu, _) = self.start_check(program, feeds)?;
        let mut times = Vec::with_capacity(program.plan().calls.len());
        for (number, call) in program.plan().calls.iter().enumerate() {
            let seconds = seconds_of(self.device().profile(), gpu, number, clock)?;
            times.push(CallTime { label: call.label.clone(), seconds });
        }
        self.finish_check(program, gpu)?;
        Ok(times)
    }
}

/// Runs one call: how long it took, on the device's own clock where that can be trusted.
pub(crate) fn seconds_of(
    profile: &Profile,
    gpu: &gpu::Program,
    call: usize,
    clock: &mut dyn FnMut() -> f64,
) -> Result<f64> {
    if profile.timestamps && !profile.software {
        return Ok(gpu.timed(call..call + 1)?.unwrap_or_default());
    }
    let start = clock();
    gpu.run_call(call)?;
    Ok(clock() - start)
}
