//! `Op::attributes`: what printed graphs and exports know of an op.

use std::collections::HashMap;
use std::sync::Arc;

use wgrad::check::CaseGraph;
use wgrad::graph::NodeKind;
use wgrad::op::Op;
use wgrad::ops;

/// No two different ops have the same name, attributes and types, so no attribute has been forgotten.
#[test]
fn names_attributes_and_types_determine_an_op() {
    let mut known: HashMap<String, Arc<dyn Op>> = HashMap::new();
    for case in ops::families().iter().flat_map(|family| (family.cases)()) {
        let graph = CaseGraph::new(&case).expect("a case").graph.nodes();
        for node in &graph.nodes {
            let NodeKind::Op(op) = &node.kind else { continue };
            let inputs: Vec<String> = node.inputs.iter().map(|&id| graph.ty(id).to_string()).collect();
            let key = format!("{} {:?} {inputs:?} {:?}", op.name(), op.attributes(), node.outputs);
            let first = known.entry(key.clone()).or_insert_with(|| op.clone());
            assert!(**first == **op, "{first:?} and {op:?} are both {key}");
        }
    }
    assert!(known.len() > 1000, "only {}", known.len());
}
