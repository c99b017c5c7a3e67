//! Every case again on devices that are given less than the adapter has, so that every fold, split
//! and fallback runs: what WebGPU guarantees, and the least of everything (128 invocations, 64
//! workgroups per dimension, bindings of 1 MiB). wgpu enforces the limits, and the heuristics
//! choose what they would choose on a real GPU.

use wgrad::check::check_case;
use wgrad::{Device, Error, Profile};

mod common;

/// What came of all cases under a profile.
#[derive(Default)]
struct Outcome {
    cases: usize,
    compared: usize,
    /// Cases that the profile refuses, with the reason.
    refused: Vec<(String, String)>,
}

/// Runs the cases that `wanted` names, in all ways, and panics where one is wrong.
fn run(profile: &Profile, wanted: impl Fn(&str) -> bool) -> Outcome {
    let device = Device::open_within(None, Some(profile)).expect("opens");
    let given = device.profile();
    assert_eq!((given.max_invocations, given.max_workgroups), (profile.max_invocations, profile.max_workgroups));
    assert_eq!((given.usable_storage_buffers(), given.max_binding), (7, profile.max_binding));
    assert!(given.subgroups.is_none() && !given.f16 && !given.timestamps && !given.software);
    let mut outcome = Outcome::default();
    let mut failures = Vec::new();
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        let name = format!("{} ({})", case.op, case.name);
        if !wanted(&name) {
            continue;
        }
        match check_case(&device, case, 1000 + number as u64) {
            Ok(report) if report.passed() => {
                outcome.cases += 1;
                outcome.compared += report.compared();
            }
            Ok(report) => failures.push(format!("{name}: {report:?}")),
            Err(Error::Limit(why)) => outcome.refused.push((name, why)),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    println!("{}: {} cases, {} comparisons", profile.name, outcome.cases, outcome.compared);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    outcome
}

#[test]
fn every_case_runs_within_the_webgpu_defaults() {
    if common::device().is_none() {
        return;
    }
    let outcome = run(&Profile::webgpu_defaults(), |_| true);
    assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
    assert_eq!(outcome.cases, wgrad::ops::cases().len());
    assert!(outcome.compared > 100_000, "only {} comparisons", outcome.compared);
}

#[test]
fn every_case_runs_within_low_limits() {
    if common::device().is_none() {
        return;
    }
    let outcome = run(&Profile::low_1mib(), |_| true);
    println!("{:#?}", outcome.refused);
    let names: Vec<&str> = outcome.refused.iter().map(|(name, _)| name.as_str()).collect();
    let large = run(&Profile::low(), |name| names.contains(&name));
    println!("{:#?}", large.refused);
}
