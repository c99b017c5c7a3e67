//! Every case's gradient rule against finite differences of the reference. Needs no GPU.

use wgrad::check::CaseGraph;

#[test]
fn gradients_match_finite_differences() {
    let mut compared = 0;
    let mut failures = Vec::new();
    for (number, case) in wgrad::ops::cases().iter().enumerate() {
        let name = format!("{} ({})", case.op, case.name);
        match CaseGraph::new(case) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(graph) if case.differentiable => match graph.check_gradients(number as u64, 24) {
                Ok(n) => compared += n,
                Err(why) => failures.push(format!("{name}: {why}")),
            },
            Ok(graph) => {
                let outputs = graph.reference(&graph.sample(number as u64)).expect("the reference runs");
                assert_eq!(outputs.len(), graph.outputs.len(), "{name}");
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 1000, "only {compared} comparisons");
}
