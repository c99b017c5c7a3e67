//! Compares results with the f64 reference before anything is timed.

use wgrad::plan::KernelCall;
use wgrad::{DType, Program, Session, Tensor};

use super::sample::{Reference, Verified};
use super::tasks::Work;
use wgrad_lab::output::Stop;

/// Operation count above which only a sample is compared: the reference takes seconds for this many.
const WHOLE: f64 = 3e8;

/// Compares a step of the program with the reference: launch by launch, or a sample of its outputs. `None` on the
/// reference itself.
pub fn verify(work: &Work, session: &mut Session, program: &Program) -> Result<Option<Verified>, Stop> {
    if session.device().is_cpu() {
        return Ok(None);
    }
    let feeds: Vec<(&str, &Tensor)> = work.feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    if let Some(sample) = work.sample.as_ref().filter(|_| work.flop > WHOLE) {
        let outputs = session.run(program, &feeds)?;
        let precision = program.plan().calls.iter().map(KernelCall::precision).max().unwrap_or_default();
        let unit = outputs.iter().map(|y| unit(y.dtype())).fold(0.0, f64::max);
        let mut found = sample(&Reference { precision, unit }, &outputs)?;
        found.of = Some(outputs.iter().map(Tensor::numel).sum());
        return Ok(Some(found));
    }
    let (_, report) = session.check(program, &feeds)?;
    let worst = report.worst();
    if !report.passed() || report.compared() == 0 {
        let worst =
            worst.map_or("nothing was compared".to_owned(), |(call, element)| format!("in {}, {element}", call.label));
        return Err(Stop::Wrong(format!("wrong result, so nothing is timed: {worst}")));
    }
    let worst = worst.map_or(0.0, |(_, element)| element.ratio());
    Ok(Some(Verified { compared: report.compared(), of: None, worst }))
}

/// The relative error of rounding to a type of storage.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 0.0,
    }
}
