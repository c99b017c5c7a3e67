//! The checker bites: seeded faults are caught, and so is a fixed sample of mutants.

use std::process::{Command, Output};

mod common;

fn wgrad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgrad")).args(arguments).output().expect("wgrad runs")
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
    for check in ["value", "sentinel", "permutation", "step"] {
        assert!(text.contains(&format!("caught by {check} ")), "no fault is caught by {check}");
    }
}
