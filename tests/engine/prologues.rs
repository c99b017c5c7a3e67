//! Pointwise ops in the prologue of a reduction.

use wgrad::{DType, Graph, Session, Tensor};

use crate::common;
use crate::plan::{assert_valid, labels, plan};

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
