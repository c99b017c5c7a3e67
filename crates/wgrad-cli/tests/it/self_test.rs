//! `wgrad check --self-test` catches every seeded fault.

use std::process::{Command, Output};

use crate::common;

fn wgrad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).output().expect("wgrad runs")
}

/// On Mesa's software driver, every seeded fault has a kernel to apply to.
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
    // Kernels for matrix units need `--precision mixed`, and a newer driver than most machines have.
    let mut lost = text.lines().filter(|line| line.starts_with("not here") && !line.contains("cooperative"));
    assert!(!runs_on_llvmpipe(&text) || lost.next().is_none(), "a fault no longer has a kernel:\n{text}");
    for check in ["value", "sentinel", "status", "step"] {
        assert!(text.contains(&format!("caught by {check} ")), "no fault is caught by {check}");
    }
    // Which check detects a race depends on how the driver schedules workgroups: wrong values, or bits that differ
    // between two runs or in reverse workgroup order.
    for race in ["a workgroup writes into another's rows", "a workgroup reads what another writes"] {
        let line = text.lines().find(|line| line.contains(race)).unwrap_or_else(|| panic!("no `{race}`:\n{text}"));
        let checks = ["value", "determinism", "permutation"];
        assert!(checks.iter().any(|check| line.starts_with(&format!("caught by {check} "))), "{line}");
    }
}
