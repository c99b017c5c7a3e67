//! `wgrad onnx test`: ONNX's tests of operators.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Value as Json, json};
use wgrad::Device;
use wgrad_lab::output::{self, Out, Stop};
use wgrad_onnx::node_tests::{self, NodeTest, Verdict};

/// What is printed.
#[derive(Clone, Copy, PartialEq)]
pub enum Shown {
    Failures,
    All,
    Markdown,
    Json,
}

/// A test, and its verdict on each device.
struct Tested {
    test: NodeTest,
    verdicts: Vec<Verdict>,
}

/// Runs the tests in a folder on each device.
pub fn run(folder: &Path, name: Option<&str>, devices: &[String], shown: Shown, out: &mut Out) -> Result<bool, Stop> {
    let devices = match devices {
        [] => vec![Device::open(None)?],
        names => names.iter().map(|name| Device::open(Some(name))).collect::<Result<_, _>>()?,
    };
    let mut results: Vec<Tested> = Vec::new();
    for test in node_tests::tests(folder)? {
        if name.is_some_and(|pattern| !output::matches(pattern, &test.name)) {
            continue;
        }
        let mut verdicts = Vec::new();
        for device in &devices {
            let verdict = catch_unwind(AssertUnwindSafe(|| test.run(device)));
            let verdict = verdict.unwrap_or_else(|_| Verdict::Failed("it panicked".into()));
            let line = match &verdict {
                Verdict::Passed if shown == Shown::All => Some("passed".to_owned()),
                Verdict::Unsupported(why) if shown == Shown::All => Some(format!("unsupported: {why}")),
                Verdict::Failed(why) if shown != Shown::Json => Some(format!("failed: {why}")),
                _ => None,
            };
            if let Some(line) = line {
                let on = if devices.len() > 1 { format!(" on {device}") } else { String::new() };
                out.line(format!("{}{on}: {line}", test.name))?;
            }
            verdicts.push(verdict);
        }
        results.push(Tested { test, verdicts });
    }
    if results.is_empty() {
        return Err(Stop::Error("no test has such a name".into()));
    }
    match shown {
        Shown::Json => out.line(format!("{:#}", tests_as_json(&devices, &results)))?,
        Shown::Markdown => tests_as_markdown(&devices, &results, out)?,
        _ => {
            for (at, device) in devices.iter().enumerate() {
                let [passed, failed, unsupported] = counts(&results, at);
                let all = results.len();
                out.line(format!("{device}: {passed} passed, {failed} failed, {unsupported} unsupported, of {all}"))?;
            }
        }
    }
    let all = (0..devices.len()).map(|at| counts(&results, at));
    Ok(all.into_iter().all(|[passed, failed, _]| passed > 0 && failed == 0))
}

/// Passed, failed and unsupported tests on a device.
fn counts<'t>(results: impl IntoIterator<Item = &'t Tested>, device: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for tested in results {
        counts[match tested.verdicts[device] {
            Verdict::Passed => 0,
            Verdict::Failed(_) => 1,
            Verdict::Unsupported(_) => 2,
        }] += 1;
    }
    counts
}

fn tests_as_json(devices: &[Device], results: &[Tested]) -> Json {
    let tests = results.iter().map(|Tested { test, verdicts }| {
        let verdicts = devices.iter().zip(verdicts).map(|(device, verdict)| {
            let (result, why) = match verdict {
                Verdict::Passed => ("passed", None),
                Verdict::Failed(why) => ("failed", Some(why)),
                Verdict::Unsupported(why) => ("unsupported", Some(why)),
            };
            json!({"device": device.to_string(), "result": result, "why": why})
        });
        json!({"name": test.name, "operators": test.operators, "verdicts": verdicts.collect::<Vec<_>>()})
    });
    json!({"tests": tests.collect::<Vec<_>>()})
}

fn tests_as_markdown(devices: &[Device], results: &[Tested], out: &mut Out) -> Result<(), Stop> {
    let mut groups: BTreeMap<String, Vec<&Tested>> = BTreeMap::new();
    for tested in results {
        let group = match &tested.test.operators[..] {
            [only] => format!("`{only}`"),
            [] => "unreadable".into(),
            _ => "several operators".into(),
        };
        groups.entry(group).or_default().push(tested);
    }
    let names: Vec<String> = devices.iter().map(|device| format!(" {device} |")).collect();
    out.line(format!("| operator | tests |{} not supported |", names.concat()))?;
    out.line(format!("| --- | --- |{} --- |", " --- |".repeat(devices.len())))?;
    for (group, tests) in &groups {
        let cells = (0..devices.len()).map(|at| match counts(tests.iter().copied(), at) {
            [passed, 0, _] => format!(" {passed} |"),
            [passed, failed, _] => format!(" {passed}, {failed} **failed** |"),
        });
        let mut reasons: Vec<String> = tests
            .iter()
            .flat_map(|tested| &tested.verdicts)
            .filter_map(|verdict| match verdict {
                Verdict::Unsupported(why) => Some(reason(why)),
                _ => None,
            })
            .collect();
        reasons.sort();
        reasons.dedup();
        let more = if reasons.len() > 3 { ", ..." } else { "" };
        reasons.truncate(3);
        out.line(format!("| {group} | {} |{} {}{more} |", tests.len(), cells.collect::<String>(), reasons.join(", ")))?;
    }
    let sums = (0..devices.len()).map(|at| format!(" **{}** |", counts(results, at)[0])).collect::<String>();
    out.line(format!("| **all** | **{}** |{sums} |", results.len()))
}

/// The first reason, without names.
fn reason(why: &str) -> String {
    let first = why.split("; ").next().unwrap_or_default();
    let text = first.rsplit_once("`: ").map_or(first, |(_, rest)| rest);
    let text = if text.contains("operator is not supported") { "operator" } else { text };
    text.replace('|', "/").replace('\n', " ")
}
