//! Every case again on a device that is given no more than WebGPU guarantees: 16 KiB of workgroup
//! memory, 256 invocations, 8 storage buffers, no subgroups. wgpu enforces the limits, and the
//! heuristics choose what they would choose on a real GPU.

use wgrad::check::check_case;
use wgrad::{Device, Profile};

mod common;

#[test]
fn every_case_runs_within_the_webgpu_defaults() {
    if common::device().is_none() {
        return;
    }
    let device = Device::open_within(None, Some(&Profile::webgpu_defaults())).expect("opens");
    let profile = device.profile();
    assert_eq!((profile.max_invocations, profile.usable_storage_buffers()), (256, 7));
    assert!(profile.subgroups.is_none() && !profile.software);
    let mut compared = 0;
    let mut failures = Vec::new();
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        match check_case(&device, case, 1000 + number as u64) {
            Ok(report) if report.passed() => compared += report.compared(),
            Ok(report) => failures.push(format!("{} ({}): {report:?}", case.op, case.name)),
            Err(error) => failures.push(format!("{} ({}): {error}", case.op, case.name)),
        }
    }
    println!("{compared} comparisons");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 100_000, "only {compared} comparisons");
}
