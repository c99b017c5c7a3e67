//! Every case again on devices that are given less than the adapter has, so that every fold, split
//! and fallback runs: what WebGPU guarantees, and the least of everything (128 invocations, 64
//! workgroups per dimension, bindings of 1 MiB). wgpu enforces the limits, and the heuristics
//! choose what they would choose on a real GPU.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use wgrad::check::{CaseGraph, check_case, ways};
use wgrad::plan::Plan;
use wgrad::{Device, Error, Limit, Profile, Session, Value};

mod common;

/// What came of all cases under a profile.
#[derive(Default)]
struct Outcome {
    cases: usize,
    compared: usize,
    /// Cases that the profile refuses, with the reason.
    refused: Vec<(String, String)>,
}

/// One profile after the other: the driver keeps most kernels of the first for the second.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the cases that `wanted` names, in all ways, and panics where one is wrong.
fn run(profile: &Profile, wanted: impl Fn(&str) -> bool) -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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
    assert_eq!(outcome.refused, []);
    assert_eq!(outcome.cases, wgrad::ops::cases().len());
    assert!(outcome.compared > 3_000_000, "only {} comparisons", outcome.compared);
}

/// The cases that do not fit bindings of 1 MiB.
const LARGE: [&str; 1] = ["sum (all of 1.2 million)"];

#[test]
fn every_case_runs_within_low_limits() {
    if common::device().is_none() {
        return;
    }
    let outcome = run(&Profile::low_1mib(), |_| true);
    let names: Vec<&str> = outcome.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, LARGE);
    for (name, why) in &outcome.refused {
        assert!(
            why.contains("needs a buffer of") && why.contains("allows 1048576; use a smaller batch"),
            "{name}: {why}"
        );
    }
    assert_eq!(outcome.cases + LARGE.len(), wgrad::ops::cases().len());
    assert!(outcome.compared > 3_000_000, "only {} comparisons", outcome.compared);

    let large = run(&Profile::low(), |name| LARGE.contains(&name));
    assert_eq!((large.cases, large.refused), (LARGE.len(), vec![]));
    assert!(large.compared > 0);
}

/// On a grid of 4 x 4 x 4: for each kernel the first case that needs all three dimensions. What
/// needs more than 64 workgroups is refused, for that reason.
#[test]
fn every_kernel_folds_over_three_dimensions() {
    if common::device().is_none() {
        return;
    }
    let tiny = Profile { name: "a grid of 4".into(), max_workgroups: 4, ..Profile::low() };
    let device = Device::open_within(None, Some(&tiny)).expect("opens");
    let (mut kernels, mut compared, mut refused) = (BTreeSet::new(), 0, 0);
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        let graph = CaseGraph::new(case).expect("builds");
        let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
        for options in ways(&graph, &tiny) {
            let (plan, findings) = Plan::of(&graph.graph, &outputs, device.profile(), &options).expect("no mistakes");
            if !findings.is_empty() {
                assert!(findings.iter().all(|f| f.limit == Limit::Workgroups && f.allows == 64), "{findings:?}");
                refused += 1;
                continue;
            }
            let dispatches = plan.units.iter().flat_map(|unit| &unit.dispatches);
            let folded = dispatches.filter(|dispatch| dispatch.workgroups[2] > 1).map(|d| d.entry.clone());
            let folded: BTreeSet<String> = folded.filter(|entry| !kernels.contains(entry)).collect();
            if folded.is_empty() {
                continue;
            }
            kernels.extend(folded);
            let inputs = graph.sample(number as u64);
            let feeds: Vec<_> = graph.inputs.iter().zip(&inputs).map(|((name, ..), t)| (name.as_str(), t)).collect();
            let mut session = Session::new(device.clone());
            let program = session.compile_with(&graph.graph, &outputs, &options).expect("compiles");
            let (_, report) = session.check(&program, &feeds).expect("runs");
            assert!(report.passed(), "{} ({}): {report:?}", case.op, case.name);
            compared += report.compared();
        }
    }
    println!("{} kernels, {compared} comparisons, {refused} plans refused: {kernels:?}", kernels.len());
    assert!(kernels.len() > 15 && compared > 0 && refused > 0, "{kernels:?}");
}
