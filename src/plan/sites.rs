//! The kernels of a graph that have a choice of variants, each isolated in a graph of its own, to measure them.

use std::collections::{BTreeSet, HashMap};

use super::choices::class;
use super::layout::{Layout, Origin};
use super::rewrite::{merge_duplicates, rewrite};
use crate::graph::{Node, NodeKind, Nodes, ValueId};
use crate::op::Variant;
use crate::profile::Profile;

/// A kernel in a graph for which there is a choice of variants.
pub(crate) struct Site {
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
pub(crate) fn sites(mut nodes: Nodes, targets: &[ValueId], profile: &Profile, most: usize) -> Vec<Site> {
    let mut targets = targets.to_vec();
    // As `Plan::draft` does.
    rewrite(&mut nodes);
    merge_duplicates(&mut nodes, &mut targets);
    let layout = Layout::new(&nodes, &targets);
    let (mut sites, mut seen) = (Vec::new(), BTreeSet::new());
    for node in layout.live_nodes() {
        let Some(kernel) = layout.kernel(node) else { continue };
        let (op, args) = (kernel.op, kernel.args(profile));
        let mut candidates: Vec<_> = kernel.kernel.candidates(&args).into_iter().map(|(v, _)| v).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Graph};

    #[test]
    fn an_isolated_site_has_the_layout_of_the_graph() {
        let graph = Graph::new();
        let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 98]));
        let y = (&a * 2.0).matmul(&b.t()).relu();
        let again = (&b + 1.0).matmul(&a.t()); // the same class
        let profile = Profile::webgpu_defaults();
        let sites = sites(graph.nodes(), &[y.id(), again.id()], &profile, 6);
        let [site] = &sites[..] else { panic!("{} sites", sites.len()) };
        assert_eq!(site.class, "f32[128,128~] f32[128~,128]@1,128 -> f32[128,128]");
        assert_eq!(site.work, 96.0 * 96.0 * 98.0);
        let class_alone = super::sites(site.nodes.clone(), &site.targets, &profile, 6);
        assert_eq!((class_alone.len(), &class_alone[0].class), (1, &site.class));
    }

    #[test]
    fn the_cheapest_candidates_are_kept() {
        let graph = Graph::new();
        let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 96]));
        let y = a.matmul(&b);
        let gpu = Profile { kind: "discrete GPU".into(), ..Profile::webgpu_defaults() };
        let software = Profile { software: true, subgroups: Some((8, 8)), ..gpu.clone() };
        let names = |profile: &Profile| {
            let site = sites(graph.nodes(), &[y.id()], profile, 6).remove(0);
            site.candidates.iter().map(|v| v.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&gpu)[0], "tile32");
        assert!(!names(&gpu).contains(&"register8"), "{:?}", names(&gpu));
        assert_eq!(names(&software)[..3], ["shuffle32", "register8", "register4"]);
    }
}
