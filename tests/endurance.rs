//! Long runs and scarce resources: memory stays flat over sessions and steps, and after a failed
//! allocation the session still works. `WGRAD_SESSIONS` and `WGRAD_STEPS` set the length; figures of long
//! runs are in `docs/ROBUSTNESS.md`.

#![cfg(target_os = "linux")]

use std::process::{Command, Output};

use wgrad::{DType, Error, Graph, Session, Tensor, models};

mod common;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Resident memory of this process in KiB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux provides it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is listed");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Runs `act` `times` times. Returns the memory growth in KiB between the first tenth and the end.
fn growth(what: &str, times: usize, mut act: impl FnMut()) -> i64 {
    let begin = resident();
    (0..times / 10).for_each(|_| act());
    let early = resident();
    (times / 10..times).for_each(|_| act());
    let end = resident();
    println!("{times} {what}: {begin} KiB before, {early} KiB after a tenth, {end} KiB at the end");
    end - early
}

/// One test, because both parts measure the whole process.
#[test]
fn memory_is_flat_over_sessions_and_steps() {
    let Some(device) = common::device() else { return };
    let x = Tensor::new([4, 2], [0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).expect("four pairs");
    let y = Tensor::new([4, 1], [0.0f32, 1.0, 1.0, 0.0]).expect("four labels");
    let graph = Graph::new();
    let (loss, _) = models::xor_training(&graph, 0);
    let feeds = [("x", &x), ("y", &y)];
    let grown = growth("sessions", number("WGRAD_SESSIONS", 100), || {
        // Half a MiB of extra variables makes a leak obvious.
        let graph = graph_with_ballast();
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph.0, &[&graph.1]).expect("compiles");
        session.run(&program, &feeds).expect("runs");
    });
    assert!(grown < 12 << 10, "closed sessions leaked {grown} KiB");
    let mut session = Session::new(device);
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    let steps = number("WGRAD_STEPS", 2000);
    let grown = growth("steps", steps, || {
        session.run(&program, &feeds).expect("runs");
    });
    assert!(grown < 8 << 10, "steps leaked {grown} KiB");
    assert!(session.run(&program, &feeds).expect("runs")[0].item().expect("one").is_finite());
}

fn graph_with_ballast() -> (Graph, wgrad::Value) {
    let graph = Graph::new();
    let ballast = graph.variable("ballast", Tensor::new([1 << 17], vec![0.5f32; 1 << 17]).expect("half a MiB"));
    let (loss, _) = models::xor_training(&graph, 0);
    graph.assign(&ballast, &(&ballast * 0.5));
    (graph, loss)
}

/// If set, the test is the child process with a limited address space.
const SMALL: &str = "WGRAD_TEST_SMALL";

fn run_limited(test: &str, shell: &str) -> Output {
    let exe = std::env::current_exe().expect("this test");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$0\" --exact {test} --nocapture")]).arg(exe).env(SMALL, "1");
    command.output().expect("the shell starts")
}

#[test]
fn a_failed_allocation_is_an_error_and_the_session_still_works() {
    if std::env::var_os(SMALL).is_none() {
        let Some(device) = common::device() else { return };
        if !device.profile().software {
            eprintln!("skipped: on a real GPU, an address space limit does not limit device memory");
            return;
        }
        // 16 GiB of buffers that are never written would stay virtual; with 6 GiB of address space the
        // driver refuses them.
        let out = run_limited("a_failed_allocation_is_an_error_and_the_session_still_works", "ulimit -v 6291456");
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{text}");
        assert!(text.contains("the session still works"), "{text}");
        return;
    }
    let device = common::device().expect("the parent process found one");
    let mut session = Session::new(device);
    let small = Graph::new();
    let w = small.parameter("w", Tensor::new([3], [1.0f32, 2.0, 3.0]).expect("three"));
    small.assign(&w, &(&w * 2.0));
    let small = session.compile(&small, &[&w]).expect("compiles");
    session.run(&small, &[]).expect("runs");

    // Each buffer is within the device's limits, but their total is not.
    let graph = Graph::new();
    let inputs: Vec<_> = (0..160).map(|i| graph.input(&format!("x{i}"), DType::F32, [25 << 20])).collect();
    let sums: Vec<_> = inputs.iter().map(|x| x.sum_all()).collect();
    let error = session.compile(&graph, &sums.iter().collect::<Vec<_>>()).err().expect("does not fit");
    assert!(matches!(error, Error::OutOfMemory(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the program needs 160") && text.contains("smaller batch"), "{text}");

    assert_eq!(session.get("w").expect("w").to_f32(), [2.0, 4.0, 6.0]);
    let before = session.run(&small, &[]).expect("runs");
    assert_eq!(before[0].to_f32(), [2.0, 4.0, 6.0]);
    println!("{text}; the session still works");
}
