//! Step timing, per kernel call.

mod step;

pub(crate) use step::launches;
pub use step::{LaunchTime, Phases, StepProfile};

use crate::time::Instant;
use crate::{Profile, Program, Result, Session, Tensor, gpu};

/// The time of one kernel call. Example: [`StepProfile`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CallTime {
    /// What it computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// Its time, in seconds.
    pub seconds: f64,
}

impl Session {
    /// Runs a step like [`Session::run`], but one kernel call at a time, and returns the time of each.
    ///
    /// Uses GPU timestamps if available. Software adapters execute commands on their own threads, and
    /// their timestamps miss part of the work. There, and without timestamps, the time is measured from
    /// submission to completion, including the submission overhead (some tens of microseconds).
    ///
    /// # Errors
    /// As [`Session::run`]; also if the session computes on the reference.
    pub fn time_calls(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<CallTime>> {
        let start = Instant::now();
        self.time_calls_by(program, feeds, &mut || start.elapsed().as_secs_f64())
    }

    /// [`Session::time_calls`] with another clock where GPU timestamps are not used, such as CPU time.
    #[doc(hidden)]
    pub fn time_calls_by(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
        clock: &mut dyn FnMut() -> f64,
    ) -> Result<Vec<CallTime>> {
        self.alone(program, "timing single launches")?;
        let (engine, _) = self.start_check(program, feeds)?;
        let mut times = Vec::with_capacity(program.plan().calls.len());
        for (number, call) in program.plan().calls.iter().enumerate() {
            let seconds = seconds_of(self.device().profile(), engine, number, clock)?;
            times.push(CallTime { label: call.label.clone(), seconds });
        }
        gpu::block_on(self.finish_check(program, engine))?;
        Ok(times)
    }
}

/// Runs one kernel call and returns its time, by GPU timestamps if these are reliable.
pub(crate) fn seconds_of(
    profile: &Profile,
    engine: &gpu::Program,
    call: usize,
    clock: &mut dyn FnMut() -> f64,
) -> Result<f64> {
    if profile.timestamps && !profile.software {
        return Ok(gpu::block_on(engine.timed(call..call + 1))?.unwrap_or_default());
    }
    let start = clock();
    gpu::block_on(engine.run_call(call))?;
    Ok(clock() - start)
}
