//! Pointwise ops in the prologues of reductions, and updates that share a launch.

use wgrad::plan::Options;
use wgrad::{DType, Graph, Session, Tensor};

use crate::common;
use crate::plan::{assert_valid, labels, plan, plan_with};

/// A reduction computes its terms as it reads their operands.
#[test]
fn pointwise_ops_join_the_reduction_that_reads_them() {
    let graph = Graph::new();
    let [x, y] = ["x", "y"].map(|name| graph.input(name, DType::F32, [64, 96]));
    let w = graph.input("w", DType::F32, [96, 32]);
    let (products, row) = (|| &x * &y, graph.input("row", DType::F32, [96]));

    assert_eq!(labels(&plan(&graph, &[&products().sum_all()])), ["mul + sum.invocation"]);
    let both = (products() - &row).exp().sum(&[1], false).log() + 1.0;
    let fused = plan(&graph, &[&both]);
    assert_eq!(labels(&fused), ["mul + sub + exp + sum.invocation + log + add"]);
    assert_valid(&fused);
    // As an epilogue, the square needs no launch either.
    let squares = x.matmul(&w).square().sum_all();
    assert_eq!(labels(&plan(&graph, &[&squares])), ["matmul.register4 + square", "sum.invocation"]);
    // The product is stored for its other reader, so the sum reads that.
    let product = x.matmul(&w);
    let both = plan(&graph, &[&product.square().sum_all(), &product]);
    assert_eq!(labels(&both), ["matmul.register4", "square + sum.invocation"]);
    let shared = products();
    assert_eq!(labels(&plan(&graph, &[&shared.sum_all(), &shared])), ["mul", "sum.invocation"]);
    // Two readers: computed once.
    let (most, least) = (shared.max(&[1], false), shared.min(&[1], false));
    assert_eq!(labels(&plan(&graph, &[&most, &least])), ["mul", "max.invocation", "min.invocation"]);
    // Each element would be computed three times.
    let repeated = x.exp().reshape(&[64, 1, 96]).broadcast_to(&[64, 3, 96].into()).sum(&[0], false);
    assert_eq!(labels(&plan(&graph, &[&repeated])), ["exp", "sum.invocation"]);
    // The kernel can bind no operand in place of the products: each is read at other positions, too.
    let square = graph.input("square", DType::F32, [48, 48]);
    let crossed = (&square * square.t()).sum_all();
    assert_eq!(labels(&plan(&graph, &[&crossed])), ["mul", "sum.invocation"]);
}

/// A launch that reads a variable at other elements than it writes cannot update it in place, nor bind it twice.
#[test]
fn a_reduction_does_not_overwrite_the_variable_that_its_prologue_reads() {
    let graph = Graph::new();
    let x = graph.input("x", DType::F32, [64]);
    let start: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let v = graph.variable("v", Tensor::new([64], start.clone()).expect("a vector"));
    let terms = (&v * &x).reshape(&[8, 8]);
    let sums = terms.sum(&[1], true).broadcast_to(&[8, 8].into()).reshape(&[64]);
    graph.assign(&v, &(&v - &sums));
    let w = graph.variable("w", Tensor::new([64], start.clone()).expect("a vector"));
    // As many sums as terms.
    graph.assign(&w, &((&w * &x).reshape(&[64, 1]).sum(&[1], false) + 1.0));

    let halves = Tensor::new([64], vec![0.5f32; 64]).expect("a vector");
    let sum = |row: usize| (8 * row..8 * row + 8).map(|i| i as f32 * 0.5).sum::<f32>();
    let new_v: Vec<f32> = (0..64).map(|i| i as f32 - sum(i / 8)).collect();
    let new_w: Vec<f32> = (0..64).map(|i| i as f32 * 0.5 + 1.0).collect();
    for device in common::devices() {
        let mut session = Session::new(device);
        let step = session.compile(&graph, &[]).expect("compiles");
        assert_valid(step.plan());
        let labels = labels(step.plan());
        assert!(labels.iter().any(|label| label.starts_with("mul + sum.")), "{labels:?}");
        session.run(&step, &[("x", &halves)]).expect("runs");
        assert_eq!(session.get("v").expect("a variable").to_f32(), new_v);
        assert_eq!(session.get("w").expect("a variable").to_f32(), new_w);
    }
}

/// Small updates that nothing reads share a launch.
#[test]
fn small_updates_of_the_same_size_share_a_launch() {
    let numbers = |n: usize, from: usize| {
        let numbers: Vec<f32> = (from..from + n).map(|i| i as f32).collect();
        Tensor::new([n], numbers).expect("a vector")
    };
    let build = || {
        let graph = Graph::new();
        let x = graph.input("x", DType::F32, [6]);
        let [a, b, c] = [1, 2, 3].map(|i| graph.variable(&format!("v{i}"), numbers(6, i)));
        let long = graph.variable("long", numbers(7, 4));
        let count = graph.variable("count", Tensor::new([6], vec![5i32; 6]).expect("a vector"));
        graph.assign(&a, &(&a * 0.5 + &x));
        graph.assign(&b, &(&b * 2.0 - &x));
        graph.assign(&count, &(&count + &count.ones_like()));
        graph.assign(&long, &(&long + 1.0));
        // The new value is read, so it cannot wait for the other updates.
        let new = &c + &x;
        graph.assign(&c, &new);
        let sums = new.reshape(&[2, 3]).sum(&[1], false);
        (graph, sums)
    };
    let (graph, sums) = build();
    let labels_of = |options: &Options| {
        let plan = plan_with(&graph, &[&sums], options);
        assert_valid(&plan);
        labels(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let fused = labels_of(&Options::default());
    assert!(fused.contains(&"mul + add + mul + sub + add".to_owned()) && fused.len() == 4, "{fused:?}");
    for device in common::devices() {
        let values = [true, false].map(|fuse| {
            let mut session = Session::new(device.clone());
            let options = Options { fuse, ..Options::default() };
            let step = session.compile_with(&graph, &[&sums], &options).expect("compiles");
            for i in 0..2 {
                session.run(&step, &[("x", &numbers(6, i))]).expect("runs");
            }
            ["v1", "v2", "v3", "long", "count"].map(|name| session.get(name).expect("a variable").to_f64())
        });
        assert_eq!(values[0], values[1]);
        assert_eq!(values[0][0], [1.25, 3.0, 4.75, 6.5, 8.25, 10.0]);
        assert_eq!(values[0][4], [7.0; 6]);
    }
}
