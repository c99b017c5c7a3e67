//! Every case of every op on the GPU, forward and backward, with every variant, fused and unfused,
//! launch by launch against the reference.

use wgrad::check::{CaseGraph, check_case, ways};
use wgrad::{Error, Session, Tensor};

mod common;

#[test]
fn every_case_agrees_with_the_reference() {
    let Some(device) = common::device() else { return };
    let pattern = std::env::var("WGRAD_TEST_OP").unwrap_or_default();
    let mut compared = 0;
    let mut failures = Vec::new();
    for (number, case) in wgrad::ops::cases().iter().enumerate().filter(|(_, case)| case.op.contains(&pattern)) {
        let name = format!("{} ({})", case.op, case.name);
        match check_case(&device, case, number as u64) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(report) => {
                compared += report.compared();
                for (way, report) in report.ways {
                    for unit in report.units.iter().filter(|unit| !unit.passed()) {
                        let what = unit.worst.as_ref().map_or_else(String::new, ToString::to_string);
                        let stray: Vec<&String> = unit.stray.iter().chain(&unit.status).collect();
                        let (label, wrong, n) = (&unit.label, unit.wrong, unit.compared);
                        failures.push(format!("{name} {way:?} {label}: {wrong} of {n} wrong: {what} {stray:?}"));
                    }
                }
            }
        }
    }
    println!("{compared} comparisons on {device}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 1000 || !pattern.is_empty(), "only {compared} comparisons");
}

#[test]
fn an_index_out_of_range_that_the_device_computes_is_reported() {
    let Some(device) = common::device() else { return };
    for case in wgrad::ops::out_of_range_cases() {
        let graph = CaseGraph::new(&case).expect("builds");
        let inputs = graph.sample(1);
        let feeds: Vec<(&str, &Tensor)> =
            graph.inputs.iter().zip(&inputs).map(|((name, ..), tensor)| (name.as_str(), tensor)).collect();
        let outputs: Vec<_> = graph.outputs.iter().map(|(_, value)| value).collect();
        assert!(matches!(graph.reference(&inputs), Err(Error::Input(why)) if why.contains("out of range")));
        for options in ways(&graph, device.profile()) {
            let mut session = Session::new(device.clone());
            let program = session.compile_with(&graph.graph, &outputs, &options).expect("compiles");
            let name = format!("{} ({}), {options:?}", case.op, case.name);
            let run = session.run(&program, &feeds);
            assert!(matches!(&run, Err(Error::Input(why)) if why.contains("out of range")), "{name}: {run:?}");
            // The check of a device that reports it ends with the reference's own complaint.
            let check = session.check(&program, &feeds).map(|(_, report)| report);
            assert!(matches!(&check, Err(Error::Input(why)) if why.contains(" at [")), "{name}: {check:?}");
        }
    }
}
