//! The kernels of a graph that have a choice of variants, each isolated in a graph of its own, to measure them.

use std::collections::{BTreeSet, HashMap};

use super::choices::class;
use super::layout::{Layout, Origin};
use super::rewrite::simplify;
use crate::graph::{Node, NodeKind, Nodes, ValueId};
use crate::op::{Precision, Variant};
use crate::profile::Profile;

/// A kernel in a graph for which there is a choice of variants.
pub struct Site {
    /// The op's name.
    pub op: &'static str,
    /// The shape class.
    pub class: String,
    /// The variants that the device can run, cheapest first: the first is the choice without tuning.
    pub candidates: Vec<&'static Variant>,
    /// A graph with only this kernel, whose inputs have the same layout as in the full graph.
    pub nodes: Nodes,
    /// The kernel's outputs in that graph.
    pub targets: Vec<ValueId>,
    /// Approximate number of operations of the reference.
    pub work: f64,
}

/// The kernels of a graph that have a choice of variants: one per op and class, in graph order, with at
/// most `most` candidates each. The graph must have no errors.
pub fn sites(mut nodes: Nodes, targets: &[ValueId], profile: &Profile, most: usize) -> Vec<Site> {
    let mut targets = targets.to_vec();
    // As `Plan::draft` does.
    simplify(&mut nodes, &mut targets, true);
    let layout = Layout::new(&nodes, &targets);
    let (mut sites, mut seen) = (Vec::new(), BTreeSet::new());
    for node in layout.live_nodes() {
        let Some(kernel) = layout.kernel(node) else { continue };
        let (op, args) = (kernel.op, kernel.args(profile));
        let mut candidates: Vec<_> =
            kernel.kernel.candidates(&args, Precision::Highest).into_iter().map(|(v, _)| v).collect();
        if candidates.len() < 2 || args.outputs.iter().all(|ty| ty.shape.numel() == 0) {
            continue;
        }
        let class = class(&**op, &args);
        if !seen.insert((op.name(), class.clone())) {
            continue;
        }
        candidates.truncate(most);
        let results: usize = args.outputs.iter().map(|ty| ty.shape.numel()).sum();
        let operands: usize = args.inputs.iter().map(|ty| ty.shape.numel()).sum();
        let sums = args.outputs[0].shape.numel() as f64 * op.reduction_len(args.inputs) as f64;
        let work = sums.max((results + operands) as f64 * 8.0); // one or two function calls per element
        let (alone, targets) = alone(&layout, node);
        sites.push(Site { op: op.name(), class, candidates, nodes: alone, targets, work });
    }
    sites
}

/// A graph with a single kernel node, whose operands are views of inputs as in the full graph.
fn alone(layout: &Layout<'_>, node: usize) -> (Nodes, Vec<ValueId>) {
    let mut graph = Nodes::default();
    let mut leaves: HashMap<ValueId, ValueId> = HashMap::new();
    let mut inputs = Vec::new();
    let in_place = layout.kernel(node).map_or(Vec::new(), |kernel| kernel.in_place);
    for (&id, in_place) in layout.node(node).inputs.iter().zip(in_place) {
        let base = match layout.of(id).origin {
            Origin::Value(base) | Origin::Copy(base) if in_place => base,
            _ => id, // the kernel reads a contiguous copy
        };
        // The views from the operand up to its buffer.
        let mut views = Vec::new();
        let mut at = id;
        while at != base {
            views.push(at.node);
            at = layout.node(at.node).inputs[0];
        }
        let mut value = *leaves.entry(base).or_insert_with(|| {
            let kind = NodeKind::Input(format!("x{}", graph.nodes.len()));
            let outputs = vec![layout.ty(base).clone()];
            push(&mut graph, Node { kind, inputs: Vec::new(), outputs, location: layout.node(base.node).location })
        });
        for &view in views.iter().rev() {
            value = push(&mut graph, Node { inputs: vec![value], ..layout.node(view).clone() });
        }
        inputs.push(value);
    }
    let ValueId { node: number, .. } = push(&mut graph, Node { inputs, ..layout.node(node).clone() });
    let targets = (0..layout.node(node).outputs.len()).map(|output| ValueId { node: number, output });
    (graph, targets.collect())
}

fn push(graph: &mut Nodes, node: Node) -> ValueId {
    graph.nodes.push(node);
    ValueId { node: graph.nodes.len() - 1, output: 0 }
}
