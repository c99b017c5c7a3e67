//! Each op's reference keeps the op's promise about NaN (`Op::nan`).

use std::collections::BTreeMap;

use wgrad::check::CaseGraph;
use wgrad::cpu::evaluate;
use wgrad::graph::NodeKind;
use wgrad::op::{Lowering, Nan, Op};
use wgrad::{DType, Tensor, TensorType};

/// The tensor with `alter` applied to each element.
fn altered(x: &Tensor, alter: impl Fn(f64) -> f64) -> Tensor {
    Tensor::new(x.shape(), x.to_f64().into_iter().map(alter).collect::<Vec<f64>>()).expect("same shape")
}

/// Floats in double precision and integers in 32 bits, as the reference uses them.
fn doubles(x: &Tensor) -> Tensor {
    if x.dtype().is_float() { altered(x, |x| x) } else { x.cast(x.dtype().wide()) }
}

/// The number of output elements that break the op's promise if input `i` is NaN.
fn broken(op: &dyn Op, inputs: &[&Tensor], i: usize, types: &[TensorType]) -> usize {
    let with = |x: &Tensor| {
        let inputs: Vec<&Tensor> = (0..inputs.len()).map(|k| if k == i { x } else { inputs[k] }).collect();
        op.reference(&inputs, types).iter().flat_map(Tensor::to_f64).collect::<Vec<f64>>()
    };
    let (given, moved) = (with(inputs[i]), with(&altered(inputs[i], |x| 0.7 * x + 0.3)));
    let (nan, equal) = (with(&altered(inputs[i], |_| f64::NAN)), with(&altered(inputs[i], |_| 0.25)));
    let floats: Vec<bool> = types.iter().flat_map(|ty| vec![ty.dtype.is_float(); ty.shape.numel()]).collect();
    let is_broken = |&k: &usize| match op.nan(i) {
        Nan::Spreads => floats[k] && given[k] != moved[k] && !nan[k].is_nan(),
        Nan::Extreme => nan[k] != equal[k],
        Nan::Compares(result) => nan[k] != f64::from(u8::from(result)),
        Nan::Casts if floats[k] => !nan[k].is_nan(),
        Nan::Casts => nan[k] != f64::from(u8::from(types[0].dtype == DType::Bool)),
    };
    (0..floats.len()).filter(is_broken).count()
}

#[test]
fn each_op_keeps_its_promise_about_nan() {
    let (mut tried, mut failures) = (BTreeMap::<String, usize>::new(), Vec::new());
    for case in wgrad::ops::cases() {
        if !case.inputs.iter().all(|input| input.ty.shape.numel() < 5000) {
            continue;
        }
        let graph = CaseGraph::new(&case).expect("builds");
        let nodes = graph.graph.nodes();
        let feeds = || graph.inputs.iter().zip(graph.sample(1)).map(|((_, v, _), t)| (v.id(), doubles(&t))).collect();
        for node in &nodes.nodes {
            let NodeKind::Op(op) = &node.kind else { continue };
            let count = tried.entry(op.name().to_owned()).or_default();
            if *count > 30 || matches!(op.lowering(), Lowering::View(_)) {
                continue;
            }
            let values = evaluate(&nodes, &node.inputs, feeds()).expect("computes");
            let inputs: Vec<&Tensor> = node.inputs.iter().map(|id| &values[id]).collect();
            for i in (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F32) {
                *count += 1;
                let broken = broken(&**op, &inputs, i, &node.outputs);
                if broken > 0 {
                    failures.push(format!("{} ({}): {op:?}, input {i}: {broken} elements", case.op, case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(tried.values().filter(|&&n| n > 0).count() > 60, "{tried:?}");
}
