//! Every WGSL shader that can reach a driver.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use rayon::prelude::*;

use wgrad::check::{CaseGraph, variants};
use wgrad::graph::{NodeKind, Nodes, ValueId};
use wgrad::op::{Case, Lowering, Variant};
use wgrad::plan::{Options, Plan};
use wgrad::shader::Source;
use wgrad::{Graph, Precision, Profile, Result, Tensor, Value, models};

/// A complete shader.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// A file name without extension: what the shader computes, a hash of its text, and `.software` if only software
    /// adapters use it.
    pub name: String,
    /// The text.
    pub wgsl: Source,
    /// The entry point.
    pub entry: String,
    /// Whether only software adapters use it.
    pub software: bool,
    /// Whether it needs subgroup operations.
    pub subgroups: bool,
}

/// All distinct shaders of every case and every model of [`models`], with every variant, fused and unfused,
/// regardless of the adapters present. Sorted by name.
///
/// # Errors
/// When a case or model does not compile.
pub fn shipped() -> Result<Vec<Shipped>> {
    let mut texts = of_cases(&all_cases())?;
    for (_, graph, outputs) in models::programs() {
        let outputs: Vec<ValueId> = outputs.iter().map(Value::id).collect();
        collect(&mut texts, &graph.nodes(), &outputs)?;
    }
    let (may_fail, picked) = step_that_may_fail()?;
    collect(&mut texts, &may_fail.nodes(), &[picked.id()])?;
    Ok(sorted(texts))
}

/// As [`shipped`], for the cases of the ops that `wanted` selects.
///
/// # Errors
/// When a case does not compile.
pub fn shipped_of(wanted: impl Fn(&str) -> bool) -> Result<Vec<Shipped>> {
    let cases: Vec<Case> = all_cases().into_iter().filter(|case| wanted(case.op)).collect();
    Ok(sorted(of_cases(&cases)?))
}

/// The cases, and those with narrow floats.
fn all_cases() -> Vec<Case> {
    [wgrad::ops::cases(), wgrad::ops::narrow_cases()].into_iter().flatten().collect()
}

fn of_cases(cases: &[Case]) -> Result<Texts> {
    let of_case = |mut texts, case: &Case| {
        let graph = CaseGraph::new(case)?;
        let outputs: Vec<ValueId> = graph.outputs.iter().map(|(_, value)| value.id()).collect();
        collect(&mut texts, &graph.graph.nodes(), &outputs)?;
        Ok(texts)
    };
    let merge = |mut texts, others: Texts| {
        others.into_values().for_each(|shipped| add(&mut texts, shipped));
        Ok(texts)
    };
    cases.par_iter().try_fold(Texts::new, of_case).try_reduce(Texts::new, merge)
}

fn sorted(texts: Texts) -> Vec<Shipped> {
    let mut all: Vec<Shipped> = texts.into_values().collect();
    for shader in all.iter_mut().filter(|shader| shader.software) {
        shader.name.push_str(".software");
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// A step with an index that the host has not checked, and the value that it selects: the variables of such a step
/// are committed by separate kernels.
fn step_that_may_fail() -> Result<(Graph, Value)> {
    let graph = Graph::new();
    let index = graph.variable("index", Tensor::new([1], [0])?);
    let table = graph.variable("table", Tensor::new([1], [0.0f32])?);
    let picked = table.index_select(0, &index);
    graph.assign(&table, &(&picked + 1.0));
    Ok((graph, picked))
}

/// A device that can run every variant.
fn generous() -> Profile {
    Profile {
        name: "every variant".into(),
        max_invocations: 1024,
        max_workgroup_memory: 64 << 10,
        max_storage_buffers: 16,
        max_binding: 1 << 30,
        max_buffer: 1 << 30,
        subgroups: Some((8, 8)),
        f16: true,
        ..Profile::webgpu_defaults()
    }
}

/// Distinct texts.
type Texts = BTreeMap<Arc<str>, Shipped>;

/// Adds a shader. A duplicate keeps the shorter name, and counts as software-only if both are.
fn add(texts: &mut Texts, shipped: Shipped) {
    let known = texts.entry(shipped.wgsl.text.clone()).or_insert_with(|| shipped.clone());
    known.software &= shipped.software;
    if shipped.name.len() < known.name.len() {
        known.name = shipped.name;
    }
}

fn collect(texts: &mut Texts, nodes: &Nodes, outputs: &[ValueId]) -> Result<()> {
    let generous = generous();
    let names = variants(nodes, &generous);
    for variant in names.iter().map(|name| Some((*name).to_owned())).chain([None]) {
        // A software adapter may use another form of the same variant, fewer bindings change the fusion groups, and
        // fewer invocations the workgroup sizes. Without subgroups, workgroups combine their values by trees.
        let eight = generous.subgroups;
        for (fuse, software, max_storage_buffers, max_invocations, subgroups) in [
            (true, false, 16, 1024, eight),
            (false, false, 16, 1024, eight),
            (true, true, 16, 1024, eight),
            (true, false, 10, 1024, eight),
            (true, false, 8, 1024, None),
            (true, false, 8, 128, None),
        ] {
            let options = Options { fuse, variant: variant.clone(), ..Options::default() };
            let profile = Profile { software, max_storage_buffers, max_invocations, subgroups, ..generous.clone() };
            add_plan(texts, nodes, &Plan::new(nodes.clone(), outputs, &profile, &options)?);
        }
    }
    // NVIDIA's GPUs; AMD's, whose subgroups may be smaller than the largest; Apple's; lavapipe.
    for (side, subgroups, backend) in
        [(16, (32, 32), "vulkan"), (16, (32, 64), "vulkan"), (8, (32, 32), "metal"), (8, (8, 8), "vulkan")]
    {
        let cooperative_matrices = vec![side];
        let (subgroups, backend) = (Some(subgroups), backend.into());
        let profile = Profile { cooperative_matrices, subgroups, backend, ..generous.clone() };
        for variant in variants(nodes, &profile).into_iter().filter(|name| !names.contains(name)) {
            for fuse in [true, false] {
                let (variant, precision) = (Some(variant.to_owned()), Precision::Mixed);
                let options = Options { fuse, variant, precision, ..Options::default() };
                add_plan(texts, nodes, &Plan::new(nodes.clone(), outputs, &profile, &options)?);
            }
        }
    }
    Ok(())
}

/// Adds the shaders of a plan.
fn add_plan(texts: &mut Texts, nodes: &Nodes, plan: &Plan) {
    for commit in plan.commits.iter().filter_map(|commit| commit.guarded.as_ref()) {
        let name = file_name(&commit.label, &commit.label, &commit.wgsl.text);
        let (wgsl, entry) = (commit.wgsl.clone(), commit.entry.clone());
        add(texts, Shipped { name, wgsl, entry, software: false, subgroups: false });
    }
    for call in &plan.calls {
        let software = call.kernel.is_some_and(|(op, variant)| is_software(nodes, op, variant));
        for dispatch in &call.dispatches {
            let name = file_name(&call.label, &dispatch.label, &dispatch.wgsl.text);
            let (wgsl, entry) = (dispatch.wgsl.clone(), dispatch.entry.clone());
            let subgroups = wgsl.subgroups.is_some();
            add(texts, Shipped { name, wgsl, entry, software, subgroups });
        }
    }
}

/// Whether only software adapters use a variant: it needs subgroups of 8, or is among [`CHOSEN_BY_SOFTWARE`] and not
/// the op's last variant, which every device may need.
fn is_software(nodes: &Nodes, name: &str, variant: &str) -> bool {
    nodes.nodes.iter().any(|node| match &node.kind {
        NodeKind::Op(op) if op.name() == name => match op.lowering() {
            Lowering::Kernel(kernel) => kernel.variants().split_last().is_some_and(|(last, others)| {
                let chosen = |v: &&Variant| *v != last && CHOSEN_BY_SOFTWARE.contains(v.name);
                let eight = |v: &&Variant| v.subgroup == Some(8);
                others.iter().chain([last]).any(|v| v.name == variant && (eight(&v) || chosen(&v)))
            }),
            _ => false,
        },
        _ => false,
    })
}

/// The variants that the planner chooses in a case for software adapters without subgroups, but in none for GPUs.
static CHOSEN_BY_SOFTWARE: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let gpu = Profile { subgroups: None, ..generous() };
    let software = Profile { software: true, ..gpu.clone() };
    let chosen = |profile: &Profile| -> BTreeSet<&'static str> {
        let of_case = |case: &Case| {
            let graph = CaseGraph::new(case).ok()?;
            let outputs: Vec<&Value> = graph.outputs.iter().map(|(_, value)| value).collect();
            let (plan, _) = Plan::of(&graph.graph, &outputs, profile, &Options::default()).ok()?;
            Some(plan.calls.iter().filter_map(|call| Some(call.kernel?.1)).collect::<Vec<_>>())
        };
        wgrad::ops::cases().par_iter().filter_map(of_case).flatten().collect()
    };
    &chosen(&software) - &chosen(&gpu)
});

fn file_name(call: &str, dispatch: &str, text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let what =
        if call.contains('.') && !call.starts_with(dispatch) { format!("{call}-{dispatch}") } else { call.to_owned() };
    let mut what: String = what.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    while what.contains("--") {
        what = what.replace("--", "-");
    }
    what.truncate(80);
    format!("{what}-{:08x}", hasher.finish() as u32)
}
