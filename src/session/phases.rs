//! The host's side of a step, phase by phase.

use std::time::Instant;

use super::{Program, Session, elsewhere};
use crate::{Result, Tensor};

/// How long the phases of a step take on the host, in seconds. Example: [`StepProfile`](crate::StepProfile).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phases {
    /// Checking the feeds and handing them to the device.
    pub upload: f64,
    /// Recording the launches and submitting them.
    pub submit: f64,
    /// Waiting for the device and reading the outputs back.
    pub readback: f64,
}

impl Phases {
    /// All phases together.
    pub fn total(&self) -> f64 {
        self.upload + self.submit + self.readback
    }
}

impl Session {
    /// Runs a step on the device and times its phases.
    pub(crate) fn run_by_phases(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Phases> {
        let started = Instant::now();
        let feeds = self.bind(program, feeds)?;
        let gpu = program.gpu.as_ref().ok_or_else(elsewhere)?;
        feeds.upload(gpu)?;
        let upload = started.elapsed().as_secs_f64();
        let reading = gpu.start_reading()?;
        let submit = started.elapsed().as_secs_f64() - upload;
        pollster::block_on(reading.outputs())?;
        let readback = started.elapsed().as_secs_f64() - upload - submit;
        self.count(program);
        Ok(Phases { upload, submit, readback })
    }
}
