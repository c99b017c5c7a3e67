//! Grids of more workgroups than a dimension takes are folded. Devices take 65,535, which few cases
//! exceed; here the device is opened with five, so that many do.

use wgrad::check::faults::plan;
use wgrad::check::{CaseGraph, check_case, ways};
use wgrad::{Device, Profile};

mod common;

#[test]
fn cases_agree_where_their_grids_fold() {
    let Some(device) = common::device() else { return };
    let limits = Profile { max_workgroups: 5, ..device.profile().clone() };
    let narrow = Device::open_within(Some(&device.profile().name), Some(&limits)).expect("opens with less");
    let (mut folded, mut failures) = (0, Vec::new());
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        let graph = CaseGraph::new(case).expect("builds");
        // A plan that exceeds 5 x 5 workgroups is refused.
        let plans = ways(&graph, narrow.profile()).into_iter().map(|options| {
            plan(&graph.graph, graph.outputs.iter().map(|(_, value)| value), narrow.profile(), &options).ok()
        });
        let Some(plans) = plans.collect::<Option<Vec<_>>>() else { continue };
        if !plans.iter().flat_map(|p| &p.units).flat_map(|u| &u.dispatches).any(|d| d.workgroups[1] > 1) {
            continue;
        }
        folded += 1;
        match check_case(&narrow, case, number as u64) {
            Ok(report) if report.passed() => {}
            Ok(report) => failures.push(format!("{} ({}): {report:?}", case.op, case.name)),
            Err(error) => failures.push(format!("{} ({}): {error}", case.op, case.name)),
        }
    }
    println!("{folded} cases with folded grids");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(folded > 20, "only {folded} cases");
}
