//! The cases kill a fixed sample of mutants.

use std::process::Command;

use crate::common;

#[test]
fn a_sample_of_mutants_is_killed() {
    if common::device().is_none() {
        return;
    }
    // Every mutant except known equivalent ones must be killed.
    let output = Command::new(env!("CARGO_BIN_EXE_wgrad-lab"))
        .args(["mutate", "--shader", "*conv2d_direct", "--sample", "8", "--seed", "1"])
        .output()
        .expect("wgrad-lab runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
    let ["killed", killed, "of", tried, ..] = words[..] else { panic!("{text}") };
    assert_eq!(killed, tried, "{text}");
    assert!(tried.parse::<usize>().expect("a number") >= 6, "{text}");
}
