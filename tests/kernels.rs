//! Every case of every op on the GPU, forward and backward, with every variant, fused and unfused,
//! launch by launch against the reference.

use wgrad::check::check_case;

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
                        let stray = unit.stray.clone().unwrap_or_default();
                        let (label, wrong, n) = (&unit.label, unit.wrong, unit.compared);
                        failures.push(format!("{name} {way:?} {label}: {wrong} of {n} wrong: {what} {stray}"));
                    }
                }
            }
        }
    }
    println!("{compared} comparisons on {device}");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 1000 || !pattern.is_empty(), "only {compared} comparisons");
}
