//! The checker bites: seeded faults are caught, and so is a fixed sample of mutants.

use std::process::{Command, Output};

mod common;

fn wgrad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).output().expect("wgrad runs")
}

/// On Mesa's software driver every seeded fault finds its kernel.
fn runs_on_llvmpipe(text: &str) -> bool {
    text.starts_with("device: llvmpipe") && text.contains(", vulkan,")
}

#[test]
fn every_seeded_fault_is_caught() {
    if common::device().is_none() {
        return;
    }
    let output = wgrad(&["check", "--self-test"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let last = text.lines().last().unwrap_or_default();
    let words: Vec<&str> = last.split(' ').collect();
    let ["caught", caught, "of", tried] = words[..] else { panic!("{last}") };
    assert_eq!(caught, tried);
    assert!(tried.parse::<usize>().expect("a number") >= 30, "only {tried} faults");
    assert!(!runs_on_llvmpipe(&text) || !text.contains("\nnot here"), "a fault has no kernel any more:\n{text}");
    for check in ["value", "sentinel", "status", "step"] {
        assert!(text.contains(&format!("caught by {check} ")), "no fault is caught by {check}");
    }
    // Which check sees a race depends on how the driver schedules the workgroups: wrong values, bits that differ
    // between two runs, or bits that differ in the opposite order.
    for race in ["a workgroup writes into another's rows", "a workgroup reads what another writes"] {
        let line = text.lines().find(|line| line.contains(race)).unwrap_or_else(|| panic!("no `{race}`:\n{text}"));
        let checks = ["value", "determinism", "permutation"];
        assert!(checks.iter().any(|check| line.starts_with(&format!("caught by {check} "))), "{line}");
    }
}

#[test]
fn a_sample_of_mutants_is_killed() {
    if common::device().is_none() {
        return;
    }
    // All but those that are listed because they make no difference.
    for shader in ["cumsum", "conv2d_direct"] {
        let output = wgrad(&["mutate", "--shader", &format!("*{shader}"), "--sample", "8", "--seed", "1"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
        let ["killed", killed, "of", tried, ..] = words[..] else { panic!("{text}") };
        assert_eq!(killed, tried, "{text}");
        assert!(tried.parse::<usize>().expect("a number") >= 6, "{text}");
    }
}
