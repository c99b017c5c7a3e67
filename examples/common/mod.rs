//! What the examples share: `--shadow` holds every step against the reference, `--find-nan` finds
//! where the first NaN or infinity comes from.

use clap::Parser;
use wgrad::{Program, Result, Session, Tensor};

/// How the steps of an example are run.
#[derive(Parser)]
pub struct Steps {
    /// Compare every launch of every step with the reference; stop at the first that is wrong
    #[arg(long, conflicts_with = "find_nan")]
    pub shadow: bool,
    /// Look for NaN and infinity in every step; stop at the first
    #[arg(long)]
    pub find_nan: bool,
    #[arg(skip)]
    numbers: usize,
    #[arg(skip)]
    launches: usize,
    #[arg(skip)]
    steps: usize,
}

impl Steps {
    /// Runs a step. What `--shadow` or `--find-nan` finds ends the example.
    pub fn run(&mut self, session: &mut Session, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        let (outputs, found) = if self.shadow {
            let (outputs, report) = session.run_checked(program, feeds)?;
            self.numbers += report.compared();
            self.launches += report.units.len();
            (outputs, report.divergence.map(|divergence| divergence.to_string()))
        } else if self.find_nan {
            let (outputs, found) = session.find_nan(program, feeds)?;
            (outputs, found.map(|found| found.to_string()))
        } else {
            (session.run(program, feeds)?, None)
        };
        if let Some(found) = found {
            eprintln!("{found}");
            std::process::exit(1);
        }
        self.steps += 1;
        Ok(outputs)
    }

    /// Says what was compared.
    pub fn summary(&self) {
        if self.shadow {
            let Steps { steps, launches, numbers, .. } = self;
            println!("shadow: {steps} steps right, {launches} launches, {numbers} numbers compared");
        }
        if self.find_nan {
            println!("find-nan: neither NaN nor infinity in {} steps", self.steps);
        }
    }
}
