//! Long runs and scarce resources: memory stays flat over sessions and steps, and after a failed
//! allocation the session still works. `WGRAD_SESSIONS` and `WGRAD_STEPS` set the length; figures of long
//! runs are in `docs/ROBUSTNESS.md`.

#![cfg(target_os = "linux")]

use std::process::{Command, Output};

use wgrad::{DType, Error, Graph, Program, Session, Tensor, models};

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

/// If set, the test is the child process with limited resources.
const SMALL: &str = "WGRAD_TEST_SMALL";

/// Runs a test of this program in a child process, after a command of the shell.
fn run_limited(test: &str, shell: &str) -> (Output, String) {
    let exe = std::env::current_exe().expect("this test");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$0\" --exact {test} --nocapture")]).arg(exe).env(SMALL, "1");
    let out = command.output().expect("the shell starts");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out, text)
}

/// A program of six functions, a different one for each number below 64, and its result for `x = 0.5`.
fn functions(session: &mut Session, number: usize) -> (Program, f64) {
    let graph = Graph::new();
    let start = (graph.input("x", DType::F32, [5]), 0.5f64);
    let (y, expected) = (0..6).fold(start, |(x, value), bit| match number >> bit & 1 {
        0 => (x.tanh(), value.tanh()),
        _ => (x.sin() + 0.5, value.sin() + 0.5),
    });
    (session.compile(&graph, &[&y]).expect("compiles"), expected)
}

#[test]
fn pipelines_that_no_program_uses_are_dropped() {
    if std::env::var_os(SMALL).is_none() {
        if common::device().is_some() {
            let limit = "export WGRAD_TEST_UNUSED_PIPELINES=10";
            let (out, text) = run_limited("pipelines_that_no_program_uses_are_dropped", limit);
            assert!(out.status.success() && text.contains("all are right"), "{text}");
        }
        return;
    }
    let device = common::device().expect("the parent process found one");
    let mut session = Session::new(device.clone());
    let x = Tensor::new([5], [0.5f32; 5]).expect("five");
    let right = |session: &mut Session, (program, expected): &(Program, f64)| {
        let y = session.run(program, &[("x", &x)]).expect("runs")[0].to_f32();
        assert!(
            y.len() == 5 && y.iter().all(|y| (f64::from(*y) - expected).abs() < 1e-5),
            "{y:?} instead of {expected}"
        );
    };
    let kept = functions(&mut session, 0);
    let mut most = 0;
    for number in 1..64 {
        let program = functions(&mut session, number);
        right(&mut session, &program);
        most = most.max(device.pipelines());
    }
    assert!((11..=13).contains(&most), "{most} pipelines");
    // The most recent ones are still there, and so are those of programs.
    let held = device.pipelines();
    let recent = functions(&mut session, 63);
    let same = functions(&mut session, 0);
    assert_eq!(device.pipelines(), held);
    // One that was dropped is made again.
    let dropped = functions(&mut session, 1);
    assert_eq!(device.pipelines(), held + 1);
    for program in [&kept, &recent, &same, &dropped] {
        right(&mut session, program);
    }
    println!("all are right");
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
        let test = "a_failed_allocation_is_an_error_and_the_session_still_works";
        let (out, text) = run_limited(test, "ulimit -v 6291456");
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
