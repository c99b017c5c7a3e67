//! Every case's gradient rule, compared with finite differences of the reference. Needs no GPU.

use wgrad::check::CaseGraph;
use wgrad::op::{Case, Fill};

use crate::common;

#[test]
fn gradients_match_finite_differences() {
    let results = common::in_parallel(&wgrad::ops::cases(), |number, case| {
        let graph = CaseGraph::new(case).map_err(|error| error.to_string())?;
        if case.differentiable {
            // Each element costs an evaluation of the whole graph. Large cases test kernels, not the rule.
            let large = graph.inputs.iter().any(|(_, value, _)| value.shape().numel() > 50_000);
            return graph.check_gradients(number as u64, if large { 3 } else { 24 });
        }
        let outputs = graph.reference(&graph.sample(number as u64)).expect("the reference runs");
        assert_eq!(outputs.len(), graph.outputs.len(), "{} ({})", case.op, case.name);
        Ok(0)
    });
    let (mut compared, mut failures) = (0, Vec::new());
    for (case, result) in wgrad::ops::cases().iter().zip(results) {
        match result {
            Ok(n) => compared += n,
            Err(why) => failures.push(format!("{} ({}): {why}", case.op, case.name)),
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 1000, "only {compared} comparisons");
}

/// Relative gradient errors of 1e-5 to 1e-4, created with `stop_gradient`, are detected.
#[test]
fn slightly_wrong_gradients_are_detected() {
    type Build = fn(&wgrad::Value) -> wgrad::Value;
    let kinds: [(&'static str, Build); 3] = [
        ("a line", |x| x + x.stop_gradient() * 1e-5),
        ("a curve", |x| x.sin() + x.stop_gradient().sin() * 1e-4),
        ("a kink", |x| x.abs() + x.stop_gradient().abs() * 1e-5),
    ];
    for (name, build) in kinds {
        for (low, high) in [(0.2, 1.0), (-1000.505, -1000.5)] {
            let fill = Fill::Uniform(low, high);
            let ty = wgrad::TensorType::new(wgrad::DType::F32, [5]);
            let case = Case::new("add", name, move |x| vec![build(&x[0])]).input("x", ty, fill);
            let graph = CaseGraph::new(&case).expect("builds");
            for seed in 0..8 {
                let found = graph.check_gradients(seed, 24);
                assert!(found.is_err_and(|why| why.contains("by finite differences")), "{name} near {low}, {seed}");
            }
        }
    }
}
