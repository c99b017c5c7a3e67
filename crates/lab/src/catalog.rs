//! The list of ops, from the registry: the ops that its cases use, with their properties.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use wgrad::check::{CaseGraph, tolerance};
use wgrad::graph::{Graph, Node, NodeKind, Nodes, ValueId};
use wgrad::op::{Backward, Case, Lowering, Op};
use wgrad::{DType, Result, Value};

/// An op, or an expression that is composed of ops.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    /// Types of inputs, each with the narrow types that may be stored instead, and of outputs if they differ.
    pub dtypes: String,
    /// How it runs: `pointwise`, `view`, or its kernel variants, best first; for composed entries, their ops.
    pub forward: Vec<String>,
    /// The ops of its gradient; `None` if it has none.
    pub backward: Option<Vec<String>>,
    /// Its tolerance classes, see [`wgrad::check`].
    pub tolerance: Vec<String>,
    /// How NaN propagates, and whether subnormal numbers are preserved; empty without float inputs.
    pub special: Vec<String>,
    /// Number of registry cases with its name.
    pub cases: usize,
    /// Whether it is composed of other ops.
    pub composed: bool,
}

/// What all cases show about one op.
#[derive(Default)]
struct Seen {
    inputs: BTreeSet<&'static str>,
    outputs: BTreeSet<&'static str>,
    forward: Vec<String>,
    backward: BTreeSet<String>,
    differentiable: bool,
    tolerance: BTreeSet<String>,
    special: BTreeSet<String>,
}

/// Every op that the cases of the registry use, forward or backward, by name; then the composed ones.
///
/// # Errors
/// When a case does not build.
pub fn catalog() -> Result<Vec<Entry>> {
    let mut ops: BTreeMap<String, Seen> = BTreeMap::new();
    let mut composed: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let cases = wgrad::ops::cases();
    for case in &cases {
        let graph = CaseGraph::new(case)?;
        let nodes = graph.graph.nodes();
        *counts.entry(case.op).or_default() += 1;
        for (number, node) in nodes.nodes.iter().enumerate() {
            let NodeKind::Op(op) = &node.kind else { continue };
            let seen = ops.entry(op.name().to_owned()).or_default();
            seen.add_types(&nodes, node);
            // The same op may have different kernels for other types.
            let more = forward(op.as_ref()).into_iter().filter(|kernel| !seen.forward.contains(kernel));
            seen.forward.extend(more.collect::<Vec<_>>());
            if !seen.differentiable {
                seen.add_gradient(&graph.graph, op.as_ref(), number, node);
            }
            seen.tolerance.extend(tolerance(&nodes, op.name()));
            let floats = (0..node.inputs.len()).filter(|&i| nodes.ty(node.inputs[i]).dtype == DType::F32);
            seen.special.extend(floats.flat_map(|i| special(op.as_ref(), i)));
        }
        if !nodes.nodes.iter().any(|node| node.name() == case.op) {
            let seen = composed.entry(case.op).or_default();
            seen.add_case(&graph, &nodes, case.differentiable);
        }
    }
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_narrow()) {
        for case in wgrad::ops::cases().into_iter().filter_map(|case| stored_as(case, dtype)) {
            // An op that does not admit the type records an error.
            let Ok(graph) = CaseGraph::new(&case) else { continue };
            let nodes = graph.graph.nodes();
            for node in &nodes.nodes {
                if let Some(seen) = ops.get_mut(node.name()) {
                    seen.inputs.extend(node.inputs.iter().filter_map(|&id| stored(&nodes, id)).map(DType::name));
                }
            }
            if let Some(seen) = composed.get_mut(case.op) {
                seen.inputs.extend(graph.inputs[..graph.own.0].iter().map(|(_, v, _)| v.dtype().name()));
            }
        }
    }
    let of = |name: &str, seen: Seen, composed: bool| Entry {
        name: name.to_owned(),
        dtypes: seen.dtypes(),
        backward: seen.differentiable.then(|| seen.backward.into_iter().collect()),
        forward: seen.forward,
        tolerance: seen.tolerance.into_iter().collect(),
        special: seen.special.into_iter().collect(),
        cases: counts.get(name).copied().unwrap_or(0),
        composed,
    };
    let own = ops.into_iter().map(|(name, seen)| of(&name, seen, false)).collect::<Vec<_>>();
    let composed = composed.into_iter().filter(|(name, _)| !own.iter().any(|op| op.name == *name));
    let composed: Vec<Entry> = composed.map(|(name, seen)| of(name, seen, true)).collect();
    Ok([own, composed].concat())
}

/// The case with inputs in a narrow type instead of its wide one; `None` if it has none of those.
fn stored_as(mut case: Case, dtype: DType) -> Option<Case> {
    let mut wide = case.inputs.iter_mut().filter(|input| input.ty.dtype == dtype.wide()).peekable();
    wide.peek()?;
    wide.for_each(|input| input.ty.dtype = dtype);
    Some(case)
}

/// The type in which an operand is stored: for one that was widened, the narrow one; `None` if an integer is read as a
/// float.
fn stored(nodes: &Nodes, id: ValueId) -> Option<DType> {
    let (node, dtype) = (&nodes.nodes[id.node], nodes.ty(id).dtype);
    if node.name() != "widen" {
        return Some(dtype);
    }
    Some(nodes.ty(node.inputs[0]).dtype).filter(|narrow| narrow.wide() == dtype)
}

/// How an op runs.
fn forward(op: &dyn Op) -> Vec<String> {
    match op.lowering() {
        Lowering::Pointwise(_) => vec!["pointwise".into()],
        Lowering::View(_) => vec!["view".into()],
        Lowering::Kernel(kernel) => kernel.variants().iter().map(|variant| variant.name.to_owned()).collect(),
    }
}

/// How an op treats special values of an input.
fn special(op: &dyn Op, input: usize) -> Vec<String> {
    match op.lowering() {
        Lowering::View(_) => vec!["moves".into()],
        _ if op.reads_subnormals() => vec![op.nan(input).to_string(), "reads subnormals".into()],
        _ => vec![op.nan(input).to_string()],
    }
}

impl Seen {
    fn add_types(&mut self, nodes: &Nodes, node: &Node) {
        self.inputs.extend(node.inputs.iter().map(|&id| nodes.ty(id).dtype.name()));
        self.outputs.extend(node.outputs.iter().map(|ty| ty.dtype.name()));
    }

    /// Asks the op for its gradient, and records the nodes that this adds to the graph.
    fn add_gradient(&mut self, graph: &Graph, op: &dyn Op, number: usize, node: &Node) {
        let inputs: Vec<Value> = node.inputs.iter().filter_map(|&id| graph.find(id)).collect();
        let outputs: Vec<Value> =
            (0..node.outputs.len()).filter_map(|output| graph.find(ValueId { node: number, output })).collect();
        let needs: Vec<bool> = inputs.iter().map(|v| v.dtype() == DType::F32).collect();
        if !needs.contains(&true) || outputs.iter().all(|y| y.dtype() != DType::F32) {
            return;
        }
        let dys: Vec<Option<Value>> = outputs
            .iter()
            .map(|y| (y.dtype() == DType::F32).then(|| graph.scalar("dy", 1.0).broadcast_to(y.shape())))
            .collect();
        let before = graph.nodes().nodes.len();
        let gradient = op.gradient(&Backward { inputs: &inputs, outputs: &outputs, dys: &dys, needs: &needs });
        let given = gradient.iter().zip(&needs).any(|(dx, need)| *need && dx.as_ref().is_some_and(Value::is_valid));
        if given {
            self.differentiable = true;
            self.backward = op_names(&graph.nodes().nodes[before..]);
            if self.backward.is_empty() {
                self.backward.insert("dy".to_owned()); // passed on unchanged
            }
        }
    }

    /// Records the ops of a composed expression.
    fn add_case(&mut self, graph: &CaseGraph, nodes: &Nodes, differentiable: bool) {
        let (inputs, outputs) = graph.own;
        self.inputs.extend(graph.inputs[..inputs].iter().map(|(_, v, _)| v.dtype().name()));
        self.outputs.extend(graph.outputs[..outputs].iter().map(|(_, v)| v.dtype().name()));
        self.differentiable |= differentiable;
        // The gradient's nodes follow the last output.
        let last = graph.outputs[..outputs].iter().map(|(_, v)| v.id().node).max().unwrap_or(0);
        let known: BTreeSet<String> = self.forward.drain(..).collect();
        self.forward =
            known.into_iter().chain(op_names(&nodes.nodes[..=last])).collect::<BTreeSet<_>>().into_iter().collect();
        self.backward.extend(op_names(&nodes.nodes[last + 1..]));
        self.tolerance.extend(tolerance(nodes, ""));
    }

    /// `f32 (f16 bf16) i32 (i8)`, or `f32 (f16 bf16) -> bool`.
    fn dtypes(&self) -> String {
        let wide = DType::ALL.into_iter().filter(|dtype| !dtype.is_narrow()).map(DType::name);
        let wide: BTreeSet<&str> = wide.filter(|name| self.inputs.contains(name)).collect();
        match (list(&self.inputs), list(&self.outputs)) {
            (inputs, outputs) if inputs.is_empty() => outputs,
            (inputs, _) if wide == self.outputs || self.inputs == self.outputs => inputs,
            (inputs, outputs) => format!("{inputs} -> {outputs}"),
        }
    }
}

/// The names of types; narrow ones in parentheses after their wide type, if that is among them.
fn list(of: &BTreeSet<&str>) -> String {
    let seen = |dtype: &DType| of.contains(dtype.name());
    let words = DType::ALL.into_iter().filter(seen).filter_map(|dtype| {
        if dtype.is_narrow() {
            return (!seen(&dtype.wide())).then(|| dtype.name().to_owned());
        }
        let narrow = DType::ALL.into_iter().filter(seen).filter(|other| other.is_narrow() && other.wide() == dtype);
        let narrow: Vec<&str> = narrow.map(DType::name).collect();
        Some(if narrow.is_empty() { dtype.name().to_owned() } else { format!("{dtype} ({})", narrow.join(" ")) })
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The names of the ops of these nodes, except constants and moves, which every gradient contains.
fn op_names(nodes: &[Node]) -> BTreeSet<String> {
    const COMMON: &[&str] = &["full", "reshape", "permute", "broadcast"];
    let ops = nodes.iter().filter(|node| matches!(node.kind, NodeKind::Op(_)));
    let names: BTreeSet<String> = ops.map(|node| node.name().to_owned()).collect();
    let specific: BTreeSet<String> = names.iter().filter(|name| !COMMON.contains(&name.as_str())).cloned().collect();
    if specific.is_empty() { names } else { specific }
}

/// The list as Markdown: the content of docs/OPS.md.
pub fn markdown(entries: &[Entry]) -> String {
    let mut page = String::from(
        "# Ops\n\n\
         This page is generated from the registry by `wgrad ops > docs/OPS.md`; a test fails if it is stale. Names are\n\
         those of methods of `Value`, or of ops that these methods create; their documentation has formulas, shapes and\n\
         errors.\n\n\
         - **dtypes**: of the inputs in the cases, and of the outputs if they differ. In parentheses: narrow types, which\n  \
           may be stored instead of the type before them. The op computes in the wide type; if all float operands have\n  \
           one narrow type, a float result is rounded to it, once; integer results have 32 bits. Views keep the type.\n\
         - **kernels**: `pointwise` is a function of `shaders/scalar.wgsl`, fused with its neighbours; `view` is a\n  \
           change of strides; all others are kernel variants, best first; device and shapes decide which one runs.\n\
         - **gradient**: the ops that compute it, except constants and views; `-` if it has none.\n\
         - **tolerance**: how much rounding `wgrad check` allows a device: `exact`, a number of `ulp`, a `sum` of\n  \
           products, or a specific `bound` (see the module `check`).\n\
         - **NaN**: `spreads`: every element that depends on a NaN is NaN, on every device, as in PyTorch. `moves`: a\n  \
           view moves it. `is the extreme`: NaN counts as the minimum or maximum that is searched for, or sorts as the\n  \
           largest number. Comparisons and casts give a fixed value (see `op::Nan`; a test checks every op). Infinities\n  \
           follow IEEE 754, also in `pow`. Devices may flush subnormal numbers to 0, as WGSL allows, except in ops with\n  \
           `reads subnormals`.\n\
         - **cases**: the number of cases with that name in the registry, or `with others` if only cases of other ops use\n  \
           it; `wgrad check --op NAME` runs them.\n",
    );
    let join = |words: &[String]| words.join(", ");
    let mut table = |title: &str, kernels: &str, composed: bool| {
        let _ = write!(
            page,
            "\n## {title}\n\n| op | dtypes | {kernels} | gradient | tolerance | NaN | cases |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for e in entries.iter().filter(|entry| entry.composed == composed) {
            let backward = e.backward.as_ref().map_or_else(|| "-".to_owned(), |ops| join(ops));
            let cases = if e.cases == 0 { "with others".to_owned() } else { e.cases.to_string() };
            let (forward, tolerance) = (join(&e.forward), join(&e.tolerance));
            let special = if e.special.is_empty() { "-".to_owned() } else { join(&e.special) };
            let _ = writeln!(
                page,
                "| {} | {} | {forward} | {backward} | {tolerance} | {special} | {cases} |",
                e.name, e.dtypes
            );
        }
    };
    table("Graph ops", "kernels", false);
    table("Composed ops", "composed of", true);
    page
}
