//! Commands that cannot finish: slow shader compilation with little time, signals, closed pipes. Results so
//! far are written, and missing ones are reported. A separate binary, since its time limits would not hold
//! while other tests run.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

#[path = "../../../tests/common/mod.rs"]
mod common;

/// A command in which each pipeline takes `delay` additional milliseconds to compile.
fn slow(args: &[&str], delay: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    command.args(args).env("WGRAD_TEST_PIPELINE_DELAY", delay.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn json(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn names(list: &Json) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(Json::as_str).collect()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill is installed").success());
}

/// Waits for a process. If it does not end in time, kills it and fails the test.
fn ended(child: &mut Child, within: Duration) -> ExitStatus {
    let begin = Instant::now();
    loop {
        match child.try_wait().expect("a child") {
            Some(status) => return status,
            None if begin.elapsed() > within => {
                let _ = child.kill();
                panic!("still running after {within:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn text(child: Child) -> String {
    let output = child.wait_with_output().expect("it has ended");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Each pipeline takes ten minutes: the check compares nothing, but still ends.
#[test]
fn an_endless_compilation_does_not_block_a_check() {
    if common::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (data, page) = (folder.path().join("report.json"), folder.path().join("report.html"));
    let paths = [&data, &page].map(|path| path.to_str().expect("UTF-8"));
    let begin = Instant::now();
    let args = ["check", "--quick", "--op", "conv2d*", "--seconds", "3", "--json", paths[0], "--html", paths[1]];
    let mut child = slow(&args, 600_000).spawn().expect("starts");
    let status = ended(&mut child, Duration::from_secs(60));
    let (seconds, out) = (begin.elapsed().as_secs_f64(), text(child));
    // At most twice the budget, plus 10 s to start and end the process on a busy machine.
    assert!((3.0..16.0).contains(&seconds), "{seconds} s of 3: {out}");
    assert_eq!(status.code(), Some(2), "nothing was compared, so the check has not passed: {out}");
    assert!(out.contains("nothing was compared in 3 s"), "{out}");
    let report = json(&data);
    let mut ops: Vec<&str> =
        wgrad::ops::cases().iter().map(|case| case.op).filter(|op| op.starts_with("conv2d")).collect();
    ops.sort_unstable();
    ops.dedup();
    assert_eq!(names(&report["coverage"]["ops_not_compared"]), ops);
    assert!(out.contains(&format!("NOT COVERED, nothing compared of {} ops: ", ops.len())), "{out}");
    assert!(fs::read_to_string(&page).expect("a page").contains("Ops not compared"));
}

/// Each pipeline takes half a second: some ops are covered, and the others are listed.
#[test]
fn a_check_on_a_slow_driver_covers_what_fits_its_time() {
    if common::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("report.json");
    let begin = Instant::now();
    let args = ["check", "--quick", "--seconds", "5", "--json", data.to_str().expect("UTF-8")];
    let mut child = slow(&args, 500).spawn().expect("starts");
    let status = ended(&mut child, Duration::from_secs(60));
    let (seconds, out) = (begin.elapsed().as_secs_f64(), text(child));
    assert!((5.0..15.0).contains(&seconds), "{seconds} s of 5: {out}");
    assert_eq!(status.code(), Some(0), "{out}");
    let report = json(&data);
    let coverage = &report["coverage"];
    let left = names(&coverage["ops_not_compared"]);
    for op in report["ops"].as_array().expect("a list") {
        let none = op["comparisons"] == 0;
        assert_eq!(op["not_compared"].is_string(), none, "an op without comparisons has a reason: {op}");
        assert_eq!(op["op"].as_str().is_some_and(|name| left.contains(&name)), none, "{op}");
        assert!(!none || op["passed_cases"] == 0, "{op}");
    }
    let (ran, left) = (coverage["ops_compared"].as_u64().unwrap_or(0) as usize, left.len());
    assert_eq!(coverage["ops"].as_u64(), Some((ran + left) as u64), "{coverage}");
    assert!(ran > 0 && left > 0 && report["comparisons"].as_u64() > Some(0), "{ran} ops ran, {left} did not: {out}");
    assert!(out.contains(&format!("NOT COVERED, nothing compared of {left} ops: ")), "{out}");
    assert!(out.contains("time was up: run the check again") && out.contains("increase --seconds"), "{out}");
    assert_eq!(report["interrupted"], false);
}

#[test]
fn a_signal_ends_a_check_which_still_writes_its_report() {
    if common::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let started = [("INT", 600_000), ("TERM", 600_000), ("HUP", 600_000), ("TERM", 0)].map(|(name, delay)| {
        let data = folder.path().join(format!("{name}{delay}.json"));
        let path = data.to_str().expect("UTF-8");
        let child = slow(&["check", "--full", "--json", path], delay).spawn().expect("starts");
        (name, delay, data, child)
    });
    std::thread::sleep(Duration::from_secs(4));
    for (name, delay, data, mut child) in started {
        signal(&child, name);
        let begin = Instant::now();
        let status = ended(&mut child, Duration::from_secs(10));
        let (seconds, out) = (begin.elapsed().as_secs_f64(), text(child));
        assert!(seconds < 5.0, "{name}: {seconds} s");
        assert_eq!(status.code(), Some(2), "{name}: {out}");
        assert!(out.contains("interrupted") && out.contains("report: "), "{name}: {out}");
        let report = json(&data);
        assert_eq!((&report["interrupted"], &report["mode"]), (&true.into(), &"full".into()));
        assert_eq!(report["comparisons"].as_u64() > Some(0), delay == 0, "{name}: {report}");
    }
}

/// Under `nohup`, or in a script's background, a process starts with the signal ignored.
#[test]
fn an_ignored_signal_stays_ignored() {
    if common::device().is_none() {
        return;
    }
    let script = r#"trap '' HUP; exec "$0" check --op relu --quick --seconds 4"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_wgrad")]).env("WGRAD_TEST_PIPELINE_DELAY", "600000");
    let begin = Instant::now();
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    std::thread::sleep(Duration::from_secs(2));
    signal(&child, "HUP");
    ended(&mut child, Duration::from_secs(30));
    let out = text(child);
    assert!(begin.elapsed().as_secs_f64() > 4.0 && !out.contains("interrupted"), "{out}");
}

#[test]
fn a_signal_ends_a_bench_which_still_saves_finished_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = ["INT", "TERM", "HUP"].map(|name| {
        let file = folder.path().join(name);
        let path = file.to_str().expect("UTF-8");
        // The second task would take an hour.
        let words = ["bench", "relu", "10", "64", "--no-peak", "--device", "cpu", "--json", "--save", path];
        let child = slow(&[&words[..], &["--seconds", "3"]].concat(), 0).spawn().expect("starts");
        (name, file, child)
    });
    for (name, file, mut child) in started {
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut first).expect("a line");
        std::thread::sleep(Duration::from_millis(500));
        signal(&child, name);
        let begin = Instant::now();
        let status = ended(&mut child, Duration::from_secs(20));
        let seconds = begin.elapsed().as_secs_f64();
        let out = text(child);
        assert!(seconds < 2.0, "{name}: {seconds} s");
        assert_eq!(status.code(), Some(2), "{name}: {out}");
        assert!(out.contains("interrupted"), "{name}: {out}");
        assert_eq!(fs::read_to_string(&file).expect("saved"), first, "{name}: the finished task");
    }
    // If nothing was timed, the file of an earlier run is kept.
    let file = folder.path().join("earlier");
    fs::write(&file, "figures\n").expect("writable");
    let words = ["bench", "relu", "10", "--no-peak", "--device", "cpu", "--seconds", "60", "--save"];
    let mut child = slow(&[&words[..], &[file.to_str().expect("UTF-8")]].concat(), 0).spawn().expect("starts");
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, "TERM");
    assert_eq!(ended(&mut child, Duration::from_secs(20)).code(), Some(2), "{}", text(child));
    assert_eq!(fs::read_to_string(&file).expect("there"), "figures\n");
}

/// Output files do not depend on readers of stdout and stderr.
#[test]
fn files_are_written_after_stdout_is_closed() {
    if common::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (page, saved) = (at("page.html"), at("saved.jsonl"));
    let check = ["check", "--op", "relu", "--case", "0", "--html", &page];
    let bench = ["bench", "relu", "10", "64", "--no-peak", "--seconds", "0", "--save", &saved];
    for (args, file, last) in [(&check[..], &page, "device: "), (&bench[..], &saved, "relu ")] {
        let mut child = slow(args, 0).spawn().expect("starts");
        // Read up to this line, then close the pipe.
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.starts_with(last) {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line") > 0, "no `{last}`");
        }
        drop((stdout, child.stderr.take()));
        assert_eq!(ended(&mut child, Duration::from_secs(60)).code(), Some(2), "{args:?}: not a panic");
        assert!(fs::metadata(file).is_ok_and(|about| about.len() > 50), "{args:?}: nothing was written");
    }
}
