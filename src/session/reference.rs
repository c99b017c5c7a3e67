//! Steps on the reference.

use std::collections::HashMap;

use super::Program;
use super::feeds::Feeds;
use crate::cpu::{self, Values};
use crate::distributed::World;
use crate::graph::{NodeKind, Nodes, ValueId};
use crate::plan::exchange::{depths, of_node};
use crate::trace::span;
use crate::{Data, Result, Tensor};

/// The values of the graph's leaves.
pub(super) fn leaves(program: &Program, feeds: &Feeds<'_>, variables: &HashMap<String, Tensor>) -> Values {
    let nodes = &program.nodes;
    let mut values: Values = feeds.scalar_values(false).into_iter().collect();
    for (number, node) in nodes.nodes.iter().enumerate() {
        let id = ValueId { node: number, output: 0 };
        match &node.kind {
            NodeKind::Variable(name) => {
                if let Some(value) = variables.get(name) {
                    values.insert(id, value.clone());
                }
            }
            NodeKind::Input(name) => {
                if let Some(tensor) = feeds.input(name) {
                    values.insert(id, tensor.to_reference());
                }
            }
            _ => {}
        }
    }
    values
}

/// Runs a step, and updates the variables.
pub(super) fn run_on_cpu(
    program: &Program,
    feeds: &Feeds<'_>,
    variables: &mut HashMap<String, Tensor>,
    world: Option<&World>,
) -> Result<Vec<Tensor>> {
    let _span = span!("compute");
    let nodes = &program.nodes;
    let assigned = nodes.assignments.iter().map(|a| a.value);
    let wanted: Vec<ValueId> = program.targets.iter().copied().chain(assigned).collect();
    let results = evaluate(nodes, &wanted, leaves(program, feeds, variables), world)?;
    for assignment in &nodes.assignments {
        if let (NodeKind::Variable(name), Some(value)) =
            (&nodes.nodes[assignment.variable].kind, results.get(&assignment.value))
        {
            variables.insert(name.clone(), value.clone());
        }
    }
    let output = |id: &ValueId| Some(results.get(id)?.clone().stored_as(nodes.ty(*id).dtype));
    Ok(program.targets.iter().filter_map(output).collect())
}

/// Evaluates a graph on the reference, with exchanges among the ranks: one phase after the other. The sums are in f64.
fn evaluate(nodes: &Nodes, wanted: &[ValueId], mut feeds: Values, world: Option<&World>) -> Result<Values> {
    let Some(world) = world.filter(|world| world.ranks() > 1) else { return cpu::evaluate(nodes, wanted, feeds) };
    let needed = needed(nodes, wanted);
    let depths = depths(nodes);
    let mut exchanges: Vec<usize> =
        (0..nodes.nodes.len()).filter(|&node| needed[node] && of_node(nodes, node).is_some()).collect();
    exchanges.sort_by_key(|&node| depths[node]);
    for phase in exchanges.chunk_by(|&a, &b| depths[a] == depths[b]) {
        let operands: Vec<ValueId> = phase.iter().map(|&node| nodes.nodes[node].inputs[0]).collect();
        let values = cpu::evaluate(nodes, &operands, feeds.clone())?;
        let all: Vec<f64> = operands.iter().filter_map(|id| values.get(id)).flat_map(Tensor::to_f64).collect();
        let sums = world.sum(&all)?;
        let mut rest = &sums[..];
        for &node in phase {
            let shape = &nodes.nodes[node].outputs[0].shape;
            let (own, others) = rest.split_at_checked(shape.numel()).unwrap_or_default();
            rest = others;
            let mean = of_node(nodes, node).is_some_and(|exchange| exchange.mean);
            let divisor = if mean { world.ranks() as f64 } else { 1.0 };
            let result = own.iter().map(|sum| sum / divisor).collect();
            feeds.insert(ValueId { node, output: 0 }, Tensor::of(shape, Data::F64(result)));
        }
    }
    cpu::evaluate(nodes, wanted, feeds)
}

/// Which nodes these values depend on.
fn needed(nodes: &Nodes, wanted: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; nodes.nodes.len()];
    let mut open: Vec<usize> = wanted.iter().map(|id| id.node).collect();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut needed[node], true) {
            open.extend(nodes.nodes[node].inputs.iter().map(|id| id.node));
        }
    }
    needed
}
