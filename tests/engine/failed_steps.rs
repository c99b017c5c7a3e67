//! A step that fails on the device because an index computed there is out of range has no effect: variables,
//! optimiser state and counters keep their values, as on the reference.

use wgrad::optim::{Adam, Optimizer};
use wgrad::{DType, Device, Error, Graph, Profile, Program, Session, Tensor};

use crate::common;

/// The counter of one parameter's updates.
const STEP: &str = "scale.adam.step";

/// Adam on a table indexed by `rows`, which is fed as floats and converted to indices on the device.
fn training(device: &Device) -> (Session, Program) {
    let graph = Graph::new();
    let table = graph.parameter("table", Tensor::new([3, 2], [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("fits"));
    let scale = graph.parameter("scale", Tensor::new([2], [1.0f32, 0.5]).expect("fits"));
    let total = graph.variable("total", Tensor::scalar(10.0));
    let rows = graph.input("rows", DType::F32, [2]).cast(DType::I32);
    let picked = table.embedding(&rows) * &scale;
    let loss = picked.square().sum_all();
    Adam::new().lr(0.1).minimize(&graph, &loss);
    graph.assign(&total, &(&total + &loss));
    let mut session = Session::new(device.clone());
    let program = session.compile(&graph, &[&loss]).expect("compiles");
    (session, program)
}

fn rows(numbers: [f32; 2]) -> Tensor {
    Tensor::new([2], numbers).expect("fits")
}

/// Variables and counters by name.
type State = (Vec<(String, Vec<f32>)>, Vec<(String, u64)>);

fn state(session: &Session) -> State {
    let variables = session.names().into_iter().map(|name| (name.clone(), session.get(&name).expect("known").to_f32()));
    (variables.collect(), session.counters().iter().map(|(name, count)| (name.clone(), *count)).collect())
}

fn out_of_range<T>(result: wgrad::Result<T>) {
    match result {
        Err(Error::Input(why)) => assert!(why.contains("out of range"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the index is out of range"),
    }
}

#[test]
fn a_failed_step_has_no_effect() {
    for device in common::devices() {
        for bad in [[0.0, 3.0], [-1.0, 0.0], [1e9, 1.0]] {
            let (mut session, program) = training(&device);
            let fresh = state(&session);
            let feeds = [("rows", &rows(bad))];
            out_of_range(session.run(&program, &feeds));
            assert_eq!(state(&session), fresh, "{bad:?} on {device}");
            // The same for every other way to run a step.
            out_of_range(session.find_nan(&program, &feeds));
            assert_eq!(state(&session), fresh, "find_nan: {bad:?} on {device}");
            if !device.is_cpu() {
                out_of_range(session.check(&program, &feeds));
                assert_eq!(state(&session), fresh, "check: {bad:?} on {device}");
                out_of_range(session.time_calls(&program, &feeds));
                assert_eq!(state(&session), fresh, "time_calls: {bad:?} on {device}");
                if device.profile().timestamps {
                    out_of_range(session.submit_timed(&program, &feeds));
                    assert_eq!(state(&session), fresh, "submit_timed: {bad:?} on {device}");
                }
            }
            // Training continues as if the failed step had not run.
            let good = [("rows", &rows([0.0, 2.0]))];
            let loss = session.run(&program, &good).expect("runs")[0].item().expect("a scalar");
            assert_eq!(loss, 1.0 + 1.0 + 25.0 + 9.0);
            assert_eq!(session.counter(STEP), 1);
            let (mut other, program) = training(&device);
            other.run(&program, &good).expect("runs");
            assert_eq!(state(&session), state(&other));
            let table = session.get("table").expect("table").to_f32();
            let want = [0.9, 1.9, 3.0, 4.0, 4.9, 5.9];
            assert!(table.iter().zip(want).all(|(x, y)| (x - y).abs() < 1e-5), "the first step of Adam: {table:?}");
            assert_eq!(session.get("total").expect("total").item().expect("a scalar"), 46.0);
        }
    }
}

/// Steps queued behind a failing step, before its failure is known, start from the state before that step.
#[test]
fn steps_queued_behind_a_failed_step_ignore_it() {
    for device in common::devices() {
        let graph = Graph::new();
        let table = graph.variable("table", Tensor::new([3], [1.0f32, 2.0, 4.0]).expect("fits"));
        let sum = graph.variable("sum", Tensor::scalar(0.0));
        let row = graph.input("row", DType::F32, [1]).cast(DType::I32);
        let picked = table.index_select(0, &row).reshape(&[]);
        let count = graph.step_scalar("steps", DType::F32, |n| n as f64);
        let (new, doubled) = (&sum + &picked, &table * 2.0);
        graph.assign(&sum, &new);
        graph.assign(&table, &doubled);
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&new, &count]).expect("compiles");
        let row = |number: f32| Tensor::new([1], [number]).expect("fits");
        let mut pending = Vec::new();
        let mut failed = 0;
        for number in [0.0, 7.0, 1.0, -1.0, 2.0, 3.0, 0.0] {
            match session.start(&program, &[("row", &row(number))]) {
                Ok(step) => pending.push(step),
                Err(error) if device.is_cpu() => {
                    out_of_range(Err::<(), _>(error));
                    failed += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        let mut sums = Vec::new();
        let mut counts = Vec::new();
        for step in pending {
            match step.outputs() {
                Ok(outputs) => {
                    sums.push(outputs[0].item().expect("a scalar"));
                    counts.push(outputs[1].item().expect("a scalar"));
                }
                Err(error) => {
                    out_of_range(Err::<(), _>(error));
                    failed += 1;
                }
            }
        }
        assert_eq!(failed, 3, "{device}");
        assert_eq!(sums, [1.0, 1.0 + 4.0, 5.0 + 16.0, 21.0 + 8.0], "{device}");
        assert_eq!(session.get("table").expect("table").to_f32(), [16.0, 32.0, 64.0], "{device}");
        assert_eq!(session.get("sum").expect("sum").to_f32(), [29.0], "{device}");
        // A step in flight has already advanced the counter, so later steps see the following numbers.
        let (want, total) = if device.is_cpu() { ([0.0, 1.0, 2.0, 3.0], 4) } else { ([0.0, 2.0, 4.0, 6.0], 7) };
        assert_eq!((counts, session.counter("steps")), (want.to_vec(), total), "{device}");

        // A failing step whose outputs are never read does not commit either.
        let before = state(&session).0;
        let _ = session.submit(&program, &[("row", &row(3.0))]);
        session.wait().expect("waits");
        assert_eq!(state(&session).0, before, "{device}");
        session.submit(&program, &[("row", &row(1.0))]).expect("starts");
        assert_eq!(session.get("sum").expect("sum").to_f32(), [61.0], "{device}");
    }
}

/// A step that cannot fail on the device updates in place and needs no commit dispatch.
#[test]
fn only_steps_that_may_fail_need_commit_dispatches() {
    let Some(device) = common::device() else { return };
    let plan = |from_the_host: bool| {
        let graph = Graph::new();
        let table = graph.parameter("table", Tensor::new([3, 2], vec![1.0f32; 6]).expect("fits"));
        let rows = match from_the_host {
            true => graph.input("rows", DType::I32, [2]),
            false => graph.input("rows", DType::F32, [2]).cast(DType::I32),
        };
        Adam::new().minimize(&graph, &table.embedding(&rows).square().sum_all());
        let program = Session::new(device.clone()).compile(&graph, &[]).expect("compiles");
        let plan = program.plan();
        let guarded = plan.commits.iter().filter(|commit| commit.guarded.is_some()).count();
        (plan.watches_status, plan.commits.len(), guarded)
    };
    assert_eq!(plan(true), (false, 0, 0));
    assert_eq!(plan(false), (true, 3, 3));
}

/// Commits of many sizes, with grids folded into several dimensions: a successful step writes all of a variable,
/// a failed step writes nothing.
#[test]
fn variables_of_all_sizes_are_committed_completely_or_not_at_all() {
    let Some(whole) = common::device() else { return };
    let limits = Profile { max_workgroups: 3, ..whole.profile().clone() };
    let device = Device::open_within(None, Some(&limits)).expect("opens");
    for size in [1, 63, 64, 65, 192, 193, 577, 1728] {
        let graph = Graph::new();
        let first: Vec<f32> = (0..size).map(|i| i as f32).collect();
        let table = graph.variable("table", Tensor::new([size], first.clone()).expect("fits"));
        let mask = graph.variable("mask", Tensor::new([size], vec![7i32; size]).expect("fits"));
        let row = graph.input("row", DType::F32, [1]).cast(DType::I32);
        let picked = table.index_select(0, &row);
        graph.assign(&table, &(&table + 1.0));
        graph.assign(&mask, &(&mask + &mask));
        let mut session = Session::new(device.clone());
        let program = session.compile(&graph, &[&picked]).expect("compiles");
        let row = |number: usize| Tensor::new([1], [number as f32]).expect("fits");
        session.run(&program, &[("row", &row(size - 1))]).expect("runs");
        out_of_range(session.run(&program, &[("row", &row(size))]));
        let want: Vec<f32> = first.iter().map(|x| x + 1.0).collect();
        assert_eq!(session.get("table").expect("table").to_f32(), want, "{size}");
        assert_eq!(session.get("mask").expect("mask").to_f64(), vec![14.0; size], "{size}");
    }
}
