//! Several threads on one graph, and several sessions on one device: names stay unique, nodes record the line of
//! the thread that created them, and a session receives only its own errors.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use wgrad::plan::Options;
use wgrad::{DType, Device, Error, Graph, Session, Tensor, Value};

use crate::common;

/// Declares a name, with a type that depends on the size.
type Declare = fn(&Graph, usize) -> Value;

const DECLARATIONS: &[(&str, Declare)] = &[
    ("input", |g, size| g.input("name", DType::F32, [size])),
    ("parameter", |g, size| g.parameter("name", Tensor::new([size], vec![1.0f32; size]).expect("fits"))),
    ("variable", |g, size| g.variable("name", Tensor::new([size], vec![1.0f32; size]).expect("fits"))),
    ("input and scalar", |g, size| if size == 2 { g.input("name", DType::F32, [2]) } else { g.scalar("name", 1.0) }),
    ("parameter and variable", |g, size| {
        let ones = Tensor::new([size], vec![1.0f32; size]).expect("fits");
        if size == 2 { g.parameter("name", ones) } else { g.variable("name", ones) }
    }),
];

#[test]
fn two_threads_cannot_declare_the_same_name() {
    const ROUNDS: usize = 2000;
    for (what, declare) in DECLARATIONS {
        let graphs: Vec<Graph> = (0..ROUNDS).map(|_| Graph::new()).collect();
        let barrier = Barrier::new(2);
        let on_a_thread = |size: usize| {
            let (graphs, barrier) = (&graphs, &barrier);
            move || {
                let each = graphs.iter().map(|graph| {
                    barrier.wait();
                    declare(graph, size).is_valid()
                });
                each.collect::<Vec<bool>>()
            }
        };
        let (a, b) = thread::scope(|scope| {
            let threads = [2, 3].map(|size| scope.spawn(on_a_thread(size)));
            let [a, b] = threads.map(|thread| thread.join().expect("declares"));
            (a, b)
        });
        for (round, graph) in graphs.iter().enumerate() {
            let (nodes, errors) = (graph.nodes().nodes.len(), graph.errors().len());
            assert_eq!((a[round] as usize + b[round] as usize, nodes, errors), (1, 1, 1), "{what}, round {round}");
        }
    }
}

/// Nodes that one thread adds while others build gradients record the right line, also afterwards.
#[test]
fn nodes_record_the_line_of_the_thread_that_created_them() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [3]);
    const PUSHED: usize = 2000;
    let barrier = Barrier::new(3);
    let line = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..200 {
                    // These add nodes on behalf of other nodes.
                    let _ = wgrad::gradients(&(x.tanh() * &x).sum_all(), &[&x]);
                    let _ = x.split(&[1, 2], 0);
                }
            });
        }
        barrier.wait();
        let mut line = 0;
        for _ in 0..PUSHED {
            line = line!() + 1;
            let _ = x.sqrt();
            thread::yield_now();
        }
        line
    });
    let _ = x.sqrt(); // no thread's location is left over
    let expected = std::iter::repeat_n(line, PUSHED).chain([line!() - 1]);
    let nodes = graph.nodes().nodes;
    let found = nodes.iter().filter(|node| node.name() == "sqrt").map(|node| node.location.line());
    assert!(found.eq(expected));
}

/// Two random nodes of a graph never draw the same bits, whichever threads declare them.
#[test]
fn random_nodes_of_several_threads_use_different_streams() {
    const EACH: usize = 200;
    let graph = Graph::new();
    let counter = graph.step_scalar("steps", DType::U32, |n| n as f64);
    let barrier = Barrier::new(4);
    let bits = || {
        barrier.wait();
        (0..EACH).map(|_| graph.random_bits([4], &counter, &counter)).collect::<Vec<Value>>()
    };
    let all: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(bits)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("declares")).collect()
    });
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &all.iter().collect::<Vec<_>>()).expect("compiles");
    let drawn = session.run(&program, &[]).expect("runs");
    let distinct: BTreeSet<Vec<u64>> =
        drawn.iter().map(|bits| bits.to_f64().into_iter().map(|x| x as u64).collect()).collect();
    assert_eq!(distinct.len(), 4 * EACH);
}

/// wgpu refuses some threads' steps repeatedly while valid steps of other threads run on the same device.
#[test]
fn a_session_receives_only_its_own_errors() {
    const STEPS: usize = 300;
    let Some(device) = common::device() else { return };
    let graph = Graph::new();
    let w = graph.variable("w", Tensor::new([8], vec![0.0f32; 8]).expect("fits"));
    let x = graph.input("x", DType::F32, [8]);
    let new = &w + &x;
    graph.assign(&w, &new);
    let barrier = Barrier::new(4);
    let one = Tensor::new([8], vec![1.0f32; 8]).expect("fits");
    let feeds = [("x", &one)];
    let sound = || {
        let mut session = Session::new(device.clone());
        barrier.wait();
        for step in 1..=STEPS {
            // Compiling, running and reading all succeed.
            let program = session.compile(&graph, &[&new])?;
            let outputs = session.run(&program, &feeds)?;
            assert_eq!(outputs[0].to_f32(), [step as f32; 8]);
            assert_eq!(session.get("w")?.to_f32(), [step as f32; 8]);
        }
        Ok::<(), Error>(())
    };
    let wrong = |kind: usize| {
        let mut session = Session::new(device.clone());
        let beyond = device.profile().max_workgroups + 1;
        let edit = |plan: &mut wgrad::plan::Plan| {
            match kind {
                0 => plan.calls[0].dispatches[0].workgroups[0] = beyond, // refused at submission
                _ => plan.calls[0].dispatches[0].wgsl.text = "fn".into(), // refused at compilation
            }
            Ok(())
        };
        barrier.wait();
        for _ in 0..STEPS {
            let run = |session: &mut Session| {
                let program = session.compile_edited(&graph, &[&new], &Options::default(), edit)?;
                session.run(&program, &feeds)
            };
            let refused = run(&mut session).expect_err("refused");
            assert!(matches!(refused, Error::Gpu(_)), "{refused}");
        }
        assert_eq!(session.get("w").expect("w").to_f32(), [0.0; 8]);
    };
    thread::scope(|scope| {
        let good = [0, 1].map(|_| scope.spawn(sound));
        let bad = [0, 1].map(|kind| scope.spawn(move || wrong(kind)));
        let _ = bad.map(|thread| thread.join().expect("is refused each time"));
        let _ = good.map(|thread| thread.join().expect("succeeds each time").expect("no other session's error"));
    });
}
