//! How a step is split into submissions. Needs no GPU.

use std::ops::Range;

use wgrad::ops::attention::Attention;
use wgrad::ops::recurrent::{Activation, Cell, Weights};
use wgrad::plan::{Options, Plan};
use wgrad::{DType, Graph, Profile, Value};

#[test]
fn long_steps_are_split_into_submissions_on_devices_with_a_watchdog() {
    let graph = Graph::new();
    let mut x = graph.input("x", DType::F32, [2048, 2048]);
    for _ in 0..20 {
        x = x.matmul(&x).tanh();
    }
    let cut = |kind: &str| {
        let profile = Profile { kind: kind.into(), software: kind == "software", ..Profile::webgpu_defaults() };
        let (plan, _) = Plan::of(&graph, &[&x], &profile, &Options::default()).expect("plans");
        let cut = plan.submissions(&profile, false);
        let covered: Vec<usize> = cut.iter().cloned().flatten().collect();
        assert_eq!(covered, (0..plan.calls.len()).collect::<Vec<_>>());
        cut.len()
    };
    // 8.6e9 terms each: 43 ms at the assumed lowest speed of a discrete GPU, 430 ms on other GPUs.
    assert_eq!((cut("software"), cut("discrete GPU"), cut("integrated GPU")), (1, 4, 20));
}

#[test]
fn a_step_on_an_idle_device_is_split_into_submissions_that_grow() {
    let launches = |count: usize, idle: bool| {
        let graph = Graph::new();
        let mut x = graph.input("x", DType::F32, [64, 64]);
        for _ in 0..count {
            x = x.matmul(&x);
        }
        let profile = Profile::webgpu_defaults();
        let (plan, _) = Plan::of(&graph, &[&x], &profile, &Options::default()).expect("plans");
        let cut = plan.submissions(&profile, idle);
        let covered: Vec<usize> = cut.iter().cloned().flatten().collect();
        assert_eq!(covered, (0..plan.calls.len()).collect::<Vec<_>>());
        let launches = |calls: &Range<usize>| plan.calls[calls.clone()].iter().map(|call| call.dispatches.len()).sum();
        cut.iter().map(launches).collect::<Vec<usize>>()
    };
    assert_eq!(launches(15, true), [15]); // a second submission would be too short
    assert_eq!(launches(16, true), [8, 8]);
    assert_eq!(launches(100, true), [8, 8, 8, 12, 18, 27, 19]);
    assert_eq!(launches(100, false), [100]);
}

#[test]
fn attention_and_recurrent_layers_count_their_matmul_work() {
    let profile = Profile { kind: "integrated GPU".into(), software: false, ..Profile::webgpu_defaults() };
    let cut = |graph: &Graph, y: &Value, wrt: &Value| {
        let dx = wgrad::gradients(&y.square().sum_all(), &[wrt]);
        let (plan, _) = Plan::of(graph, &[&dx[0]], &profile, &Options::default()).expect("plans");
        plan.submissions(&profile, false).len()
    };
    // 17e9 terms: 0.9 s; the backward pass takes twice that.
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [8, 4096, 64]);
    assert!(cut(&graph, &x.scaled_dot_product_attention(&x, &x, &Attention::default()), &x) >= 3);
    // 6.7e9 terms: 0.3 s.
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [64, 100, 512]);
    let [w_ih, w_hh] = ["w_ih", "w_hh"].map(|name| graph.input(name, DType::F32, [2048, 512]));
    let weights = Weights { w_ih, w_hh, b_ih: None, b_hh: None };
    assert!(cut(&graph, &x.recurrent(Cell::Lstm, Activation::Tanh, &weights, &[], false).y, &x) >= 3);
}
