//! Measured choices of variants, by op and shape class, as plain data. `choose` consults them before the
//! estimated costs; the measuring is done elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fuse::{kernel_of, kernel_reads_in_place, kernel_views};
use super::layout::{Layout, Origin, fold_constants, merge_duplicates, op_of};
use crate::TensorType;
use crate::graph::{Node, NodeKind, Nodes, ValueId};
use crate::op::{Args, Op, Variant};
use crate::profile::Profile;
use crate::shape::View;

/// Variants by op and shape class.
///
/// The *shape class* of a kernel is a string: the op with its attributes, then the type of each input
/// and output. Sizes above 8 are rounded to the nearest power of two, to limit the number of measurements,
/// and are marked with `~` if they are not a multiple of 4, because vectorised kernels then fall back to
/// scalar loads. A non-contiguous input is followed by `@` and its strides, rounded likewise:
/// `Matmul f32[64,1024] f32[1024,16~]@1,1024 -> f32[64,16~]`.
///
/// A choice is ignored if the op has no such variant, the device cannot run it, or it does not support
/// the shapes. The same choices always give the same plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeMap<String, BTreeMap<String, String>>);

impl Choices {
    /// Sets the variant of an op for a class.
    pub fn set(&mut self, op: &str, class: &str, variant: &str) {
        self.0.entry(op.to_owned()).or_default().insert(class.to_owned(), variant.to_owned());
    }

    /// The variant of an op for a class.
    pub fn get(&self, op: &str, class: &str) -> Option<&str> {
        self.0.get(op)?.get(class).map(String::as_str)
    }

    /// All choices: op, class, variant.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().flat_map(|(op, classes)| classes.iter().map(move |(class, v)| (&**op, &**class, &**v)))
    }

    /// The number of choices.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are no choices.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The variant for an op being planned.
    pub(super) fn wanted(&self, op: &dyn Op, args: &Args<'_>) -> Option<&str> {
        // Look up the op first: without choices for it, there is no need to build the class string.
        self.0.get(op.name())?.get(&class(op, args)).map(String::as_str)
    }
}

/// The shape class; see [`Choices`].
fn class(op: &dyn Op, args: &Args<'_>) -> String {
    let tensor = |ty: &TensorType| {
        let size = |&n: &usize| {
            let mark = if n > EXACT && !n.is_multiple_of(4) { "~" } else { "" };
            format!("{}{mark}", rounded(n))
        };
        format!("{}[{}]", ty.dtype, ty.shape.iter().map(size).collect::<Vec<_>>().join(","))
    };
    let mut text = attributes(&format!("{op:?}"));
    for (ty, view) in args.inputs.iter().zip(args.views) {
        text += &format!(" {}", tensor(ty));
        if !view.is_contiguous() {
            let strides = view.strides.iter().map(|&stride| rounded(stride).to_string());
            text += &format!("@{}", strides.collect::<Vec<_>>().join(","));
        }
    }
    let outputs: Vec<String> = args.outputs.iter().map(tensor).collect();
    format!("{text} -> {}", outputs.join(" "))
}

/// Sizes up to this are not rounded: window sizes, small channel counts.
const EXACT: usize = 8;

/// The nearest power of two, rounding up from 1.5 times a power; sizes up to [`EXACT`] unchanged.
fn rounded(n: usize) -> usize {
    if n <= EXACT {
        return n;
    }
    let below = 1 << n.ilog2();
    if n < below + below / 2 { below } else { below.saturating_mul(2) }
}

/// An op's attributes with numbers rounded and spaces removed.
fn attributes(debug: &str) -> String {
    let mut text = String::with_capacity(debug.len());
    let mut rest = debug;
    while let Some(c) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        match rest[..digits].parse() {
            Ok(n) => text += &rounded(n).to_string(),
            _ if c == ' ' => {}
            _ => text.push_str(&rest[..digits.max(c.len_utf8())]),
        }
        rest = &rest[digits.max(c.len_utf8())..];
    }
    text
}

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
    fold_constants(&mut nodes);
    merge_duplicates(&mut nodes, &mut targets);
    let layout = Layout::new(&nodes, &targets);
    let (mut sites, mut seen) = (Vec::new(), BTreeSet::new());
    for node in (0..nodes.nodes.len()).filter(|&node| layout.live[node]) {
        let (Some(op), Some(kernel)) = (op_of(&nodes, node), kernel_of(&nodes, node)) else { continue };
        let inputs: Vec<&TensorType> = nodes.nodes[node].inputs.iter().map(|&id| nodes.ty(id)).collect();
        let views: Vec<View> = kernel_views(&nodes, &layout, node, kernel);
        let outputs = &nodes.nodes[node].outputs;
        let args = Args { inputs: &inputs, views: &views, outputs, profile };
        let mut candidates: Vec<_> = kernel.candidates(&args).into_iter().map(|(variant, _)| variant).collect();
        if candidates.len() < 2 || outputs.iter().all(|ty| ty.shape.numel() == 0) {
            continue;
        }
        let class = class(op, &args);
        if !seen.insert((op.name(), class.clone())) {
            continue;
        }
        candidates.truncate(most);
        let results: usize = outputs.iter().map(|ty| ty.shape.numel()).sum();
        let operands: usize = inputs.iter().map(|ty| ty.shape.numel()).sum();
        let sums = outputs[0].shape.numel() as f64 * op.reduction_len(&inputs) as f64;
        let work = sums.max((results + operands) as f64 * 8.0); // one or two function calls per element
        let (alone, targets) = alone(&nodes, &layout, node);
        sites.push(Site { op: op.name(), class, candidates, nodes: alone, targets, work });
    }
    sites
}

/// A graph with a single kernel node, whose operands are views of inputs as in the full graph.
fn alone(nodes: &Nodes, layout: &Layout, node: usize) -> (Nodes, Vec<ValueId>) {
    let mut graph = Nodes::default();
    let mut leaves: HashMap<ValueId, ValueId> = HashMap::new();
    let mut inputs = Vec::new();
    for (i, &id) in nodes.nodes[node].inputs.iter().enumerate() {
        let in_place = kernel_of(nodes, node).is_some_and(|k| kernel_reads_in_place(nodes, layout, k, i, id));
        let base = match layout.of(id).origin {
            Origin::Value(base) | Origin::Copy(base) if in_place => base,
            _ => id, // the kernel reads a contiguous copy
        };
        // The views from the operand up to its buffer.
        let mut views = Vec::new();
        let mut at = id;
        while at != base {
            views.push(at.node);
            at = nodes.nodes[at.node].inputs[0];
        }
        let mut value = *leaves.entry(base).or_insert_with(|| {
            let kind = NodeKind::Input(format!("x{}", graph.nodes.len()));
            let outputs = vec![nodes.ty(base).clone()];
            push(&mut graph, Node { kind, inputs: Vec::new(), outputs, location: nodes.nodes[base.node].location })
        });
        for &view in views.iter().rev() {
            value = push(&mut graph, Node { inputs: vec![value], ..nodes.nodes[view].clone() });
        }
        inputs.push(value);
    }
    let ValueId { node: number, .. } = push(&mut graph, Node { inputs, ..nodes.nodes[node].clone() });
    let targets = (0..nodes.nodes[node].outputs.len()).map(|output| ValueId { node: number, output });
    (graph, targets.collect())
}

fn push(graph: &mut Nodes, node: Node) -> ValueId {
    graph.nodes.push(node);
    ValueId { node: graph.nodes.len() - 1, output: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;
    use crate::{DType, Graph};

    #[test]
    fn sizes_and_attributes_are_rounded() {
        let nearest = [0, 1, 7, 8, 9, 11, 12, 24, 511, 512, 767, 768, 784, usize::MAX].map(rounded);
        assert_eq!(nearest[..13], [0, 1, 7, 8, 8, 8, 16, 32, 512, 512, 512, 1024, 1024]);
        assert!(nearest[13] > 1 << 60);
        assert_eq!(attributes("InputGrad([57, 3]) é"), "InputGrad([64,3])é");
        assert_eq!(attributes("99999999999999999999999"), "99999999999999999999999");
    }

    #[test]
    fn an_isolated_site_has_the_layout_of_the_graph() {
        let graph = Graph::new();
        let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 98]));
        let y = (&a * 2.0).matmul(&b.t()).relu();
        let again = (&b + 1.0).matmul(&a.t()); // the same class
        let profile = Profile::webgpu_defaults();
        let sites = sites(graph.nodes(), &[y.id(), again.id()], &profile, 6);
        let [site] = &sites[..] else { panic!("{} sites", sites.len()) };
        assert_eq!(site.class, "Matmul f32[128,128~] f32[128~,128]@1,128 -> f32[128,128]");
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

    #[test]
    fn unusable_choices_are_ignored() {
        let graph = Graph::new();
        let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [64, 64]));
        let y = a.matmul(&b);
        let profile = Profile::webgpu_defaults();
        let plan = |variant: Option<&str>| {
            let site = &sites(graph.nodes(), &[y.id()], &profile, 6)[0];
            let mut choices = Choices::default();
            variant.iter().for_each(|name| choices.set(site.op, &site.class, name));
            let options = Options { choices, ..Options::default() };
            crate::plan::Plan::new(graph.nodes(), &[y.id()], &profile, &options).expect("plans")
        };
        let (heuristic, other) = (plan(None), plan(Some("register8")));
        assert_eq!(other.calls[0].label, "matmul.register8");
        assert_ne!(heuristic.fingerprint(), other.fingerprint());
        assert_eq!(other.fingerprint(), plan(Some("register8")).fingerprint());
        // Needs subgroups; empty; unknown; a variant of another op.
        for name in ["shuffle32", "", "warp", "direct"] {
            assert_eq!(plan(Some(name)).fingerprint(), heuristic.fingerprint(), "{name}");
        }
    }
}
