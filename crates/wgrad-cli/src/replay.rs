//! `wgrad check --replay FILE`: runs one kernel call from a case file on any device.

use std::path::Path;

use serde_json::json;
use wgrad::check::KernelCase;
use wgrad::{Device, NO_ADAPTER, OpenOptions};

use wgrad_lab::output::{Out, Stop};

/// Replays the case; true if the device agrees with the reference.
pub fn run(file: &Path, device: Option<&str>, options: &OpenOptions, json: bool, out: &mut Out) -> Result<bool, Stop> {
    let case = KernelCase::load(file)?;
    let device = Device::open_with(device, options)?;
    if device.is_cpu() && Device::list().is_empty() {
        return Err(Stop::Error(format!("{NO_ADAPTER}. The reference cannot replay a kernel")));
    }
    let report = case.replay(&device)?;
    let worst = report.worst.as_ref().map(ToString::to_string);
    if json {
        let profile = device.profile();
        let report = json!({
            "device": {"name": profile.name, "backend": profile.backend, "driver": profile.driver},
            "call": case.label,
            "found_on": case.device,
            "found_by": case.version,
            "passed": report.passed(),
            "compared": report.compared,
            "wrong": report.wrong,
            "worst": worst,
            "stray": report.stray,
            "status": report.status,
        });
        out.line(format!("{report:#}"))?;
        return Ok(report["passed"] == true);
    }
    out.line(format!("device: {device}, driver {}", device.profile().driver))?;
    out.line(format!("call: {}, found on {} by wgrad {}", case.label, case.device, case.version))?;
    if let Some((op, variant)) = &case.kernel {
        out.line(format!("kernel: {op}, variant {variant}"))?;
    }
    for (_, tensor) in &case.reads {
        out.line(format!("reads: {}", tensor.ty()))?;
    }
    for expected in &case.writes {
        out.line(format!("writes: {} {}", expected.node, expected.value.ty()))?;
    }
    let others = report.stray.iter().chain(&report.status).cloned();
    for line in worst.map(|worst| format!("worst: {worst}")).into_iter().chain(others) {
        out.line(line)?;
    }
    let verdict = if report.passed() { "passed" } else { "FAILED" };
    out.line(format!("replay: {verdict}, {} of {} elements wrong", report.wrong, report.compared))?;
    Ok(report.passed())
}
