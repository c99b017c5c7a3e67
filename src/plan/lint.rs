//! Checks plans against the limits of this or another device: what would not run, which line it comes
//! from, and what to change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::panic::Location;

use super::{Bound, BufferId, Dispatch, KernelCall, Options, Plan, Role, Stored, largest_buffer, padded};
use crate::graph::{NodeKind, Nodes, ValueId};
use crate::op::{Lowering, Variant};
use crate::profile::Profile;
use crate::{Graph, Result, Value};

/// A limit or feature of a device. Example: [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Total size of all buffers.
    Memory,
    /// Size of a buffer that a kernel binds.
    Binding,
    /// Storage buffers per kernel.
    StorageBuffers,
    /// Size of a kernel's largest uniform.
    Uniform,
    /// Workgroups per dispatch, over all dimensions.
    Workgroups,
    /// Workgroups per dispatch in one dimension.
    Grid,
    /// Invocations per workgroup.
    Invocations,
    /// Workgroup memory.
    WorkgroupMemory,
    /// Subgroup operations with a certain subgroup size.
    Subgroups,
    /// 16-bit floats.
    F16,
    /// Cooperative matrices.
    CooperativeMatrices,
    /// None of the above: an error reported by the op.
    Kernel,
}

impl Limit {
    /// A short machine-readable name.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Binding => "binding",
            Limit::StorageBuffers => "storage_buffers",
            Limit::Uniform => "uniform",
            Limit::Workgroups => "workgroups",
            Limit::Grid => "grid",
            Limit::Invocations => "invocations",
            Limit::WorkgroupMemory => "workgroup_memory",
            Limit::Subgroups => "subgroups",
            Limit::F16 => "f16",
            Limit::CooperativeMatrices => "cooperative_matrices",
            Limit::Kernel => "kernel",
        }
    }
}

/// Something that exceeds a device's limits, and what to change.
///
/// ```
/// use wgrad::{DType, Graph, Limit, Profile, lint};
/// let graph = Graph::new();
/// let y = graph.input("photos", DType::F32, [1 << 13, 1 << 13]).exp(); // 256 MiB
/// let found = lint(&graph, &[&y], &Profile::webgpu_defaults())?;
/// assert!(found[0].limit == Limit::Binding && found[0].refused);
/// assert!(found[0].to_string().starts_with("input `photos` f32[8192, 8192] needs a buffer of 268435520 bytes"));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The exceeded limit.
    pub limit: Limit,
    /// The tensor or kernel call.
    pub what: String,
    /// The line of user code that created it.
    pub location: Option<&'static Location<'static>>,
    /// The amount needed.
    pub needs: u64,
    /// The amount allowed.
    pub allows: u64,
    /// The device's name.
    pub profile: String,
    /// Whether the graph cannot run on the device at all. Otherwise only this plan cannot: compiled for the
    /// device, the graph gets another plan.
    pub refused: bool,
    /// What to change, or what would be planned instead.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { what, needs: n, allows, profile, advice, .. } = self;
        let needs = match self.limit {
            Limit::Memory => format!("needs {n} bytes of memory"),
            Limit::Binding => format!("needs a buffer of {n} bytes"),
            Limit::StorageBuffers => format!("binds {n} storage buffers"),
            Limit::Uniform => format!("binds a uniform of {n} bytes"),
            Limit::Workgroups => format!("needs {n} workgroups in one launch"),
            Limit::Grid => format!("needs {n} workgroups in one dimension"),
            Limit::Invocations => format!("needs workgroups of {n} invocations"),
            Limit::WorkgroupMemory => format!("needs {n} bytes of workgroup memory"),
            Limit::Subgroups if *n == 0 => "needs subgroups".into(),
            Limit::Subgroups => format!("needs subgroups of {n}"),
            Limit::F16 => "needs 16-bit floats".into(),
            Limit::CooperativeMatrices => "needs cooperative matrices".into(),
            Limit::Kernel => String::new(),
        };
        match (self.limit, allows) {
            (Limit::Kernel, _) => write!(f, "{what}: {advice}")?,
            (Limit::Subgroups | Limit::F16 | Limit::CooperativeMatrices, 0) => {
                write!(f, "{what} {needs}, and {profile} has none; {advice}")?
            }
            (Limit::Subgroups, _) => write!(f, "{what} {needs}, and {profile} has others, up to {allows}; {advice}")?,
            _ => write!(f, "{what} {needs}, and {profile} allows {allows}; {advice}")?,
        }
        self.location.map_or(Ok(()), |location| write!(f, "\n  at {location}"))
    }
}

const SMALLER: &str = "use a smaller batch or split it";

/// Checks a graph against a device profile; the device need not be present. Returns the reasons why it would not
/// compile there; if there are none, it runs.
///
/// # Errors
/// [`Error::Graph`](crate::Error::Graph) with all errors made while the graph was built;
/// [`Error::Input`](crate::Error::Input) if an output does not belong to this graph.
pub fn lint(graph: &Graph, outputs: &[&Value], profile: &Profile) -> Result<Vec<Finding>> {
    Ok(Plan::of(graph, outputs, profile, &Options::default())?.1)
}

/// Checks a plan made for one device against another: what prevents its graph from running there, then
/// what prevents only this plan, with what would be planned instead.
pub(crate) fn explain_for(plan: &Plan, nodes: &Nodes, targets: &[ValueId], profile: &Profile) -> Vec<Finding> {
    // A draft fails only for graphs with errors, which have no plan either.
    let draft = Plan::draft(nodes.clone(), targets, profile, &Options::default());
    let Ok((there, mut findings)) = draft else { return Vec::new() };
    for mut finding in check_limits(plan, profile) {
        if findings.iter().any(|f| f.limit == finding.limit && f.location == finding.location) {
            continue;
        }
        if matches!(finding.limit, Limit::Memory | Limit::Binding) {
            findings.push(finding);
            continue;
        }
        let call = plan.calls.iter().find(|call| call.label == finding.what && place(plan, call) == finding.location);
        let value = call.and_then(|call| call.writes.first()).map(|stored| stored.value);
        let instead = there.calls.iter().find(|call| call.writes.iter().any(|w| Some(w.value) == value));
        finding.refused = false;
        finding.advice = match instead {
            Some(call) if call.label != finding.what => format!("there it is planned as {}", call.label),
            Some(_) => "there it is planned with another workgroup or grid".into(),
            None => "there it is planned as other launches".into(),
        };
        findings.push(finding);
    }
    findings
}

/// The source location of a kernel call: the line of user code for the first value it writes.
fn place(plan: &Plan, call: &KernelCall) -> Option<&'static Location<'static>> {
    let node = plan.nodes.nodes.get(call.writes.first()?.value.node)?;
    Some(node.location)
}

/// Everything in a plan that exceeds the device's limits.
pub fn check_limits(plan: &Plan, profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let add = |findings: &mut Vec<Finding>, limit, what, location, (needs, allows), advice: &str| {
        findings.push(Finding {
            limit,
            what,
            location,
            needs,
            allows,
            profile: profile.name.clone(),
            refused: true,
            advice: advice.into(),
        });
    };
    let most = largest_buffer(profile);
    for (number, buffer) in plan.buffers.iter().enumerate().filter(|(_, buffer)| buffer.bytes > most) {
        let (what, location) = owner(plan, number);
        let allows = profile.max_binding.min(profile.max_buffer);
        add(&mut findings, Limit::Binding, what, location, (buffer.bytes, allows), SMALLER);
    }
    if let Some(memory) = profile.memory.filter(|&memory| plan.total_bytes() > memory) {
        let largest = (0..plan.buffers.len()).max_by_key(|&number| plan.buffers[number].bytes);
        let (what, location) = largest.map_or((String::new(), None), |number| owner(plan, number));
        let advice = format!("use a smaller batch; the largest buffer is {what}");
        add(&mut findings, Limit::Memory, "the program".into(), location, (plan.total_bytes(), memory), &advice);
    }
    let kernels = kernels(&plan.nodes);
    for call in &plan.calls {
        let variant = call.kernel.and_then(|(name, variant)| kernels.get(name)?.iter().find(|v| v.name == variant));
        let mut needs: Vec<(Limit, u64, u64, &str)> = Vec::new();
        let usable = profile.usable_storage_buffers() as u64;
        for dispatch in &call.dispatches {
            let storage = dispatch.bindings.iter().filter(|b| matches!(b, Bound::Storage { .. } | Bound::Status));
            needs.push((Limit::StorageBuffers, storage.count() as u64, usable, "compute it from fewer tensors"));
            let grid = dispatch.workgroups.iter().copied().max().unwrap_or(0);
            needs.push((Limit::Grid, grid.into(), profile.max_workgroups.into(), SMALLER));
            needs.push((
                Limit::Invocations,
                dispatch.wgsl.invocations.into(),
                profile.max_invocations.into(),
                "use another op",
            ));
            needs.push((
                Limit::Uniform,
                uniform(dispatch),
                profile.max_uniform,
                "use tensors of fewer axes, or fewer scalars",
            ));
            if dispatch.wgsl.f16 && !profile.f16 {
                needs.push((Limit::F16, 1, 0, "compute in f32"));
            }
            if dispatch.wgsl.cooperative && profile.cooperative_matrices.is_empty() {
                needs.push((Limit::CooperativeMatrices, 1, 0, "compile with Precision::Highest"));
            }
        }
        let mut subgroups = call.dispatches.iter().filter_map(|dispatch| dispatch.wgsl.subgroups).max();
        if let Some(variant) = variant {
            let memory = variant.workgroup_memory.into();
            needs.push((Limit::WorkgroupMemory, memory, profile.max_workgroup_memory.into(), "use another op"));
            subgroups = subgroups.max(variant.subgroup);
        }
        let there = profile.subgroups;
        if subgroups.is_some_and(|size| if size > 0 { there != Some((size, size)) } else { there.is_none() }) {
            // Only the exact size is usable; a smaller one is not.
            let figures = (subgroups.map_or(0, u64::from), there.map_or(0, |(_, largest)| u64::from(largest)));
            add(&mut findings, Limit::Subgroups, call.label.clone(), place(plan, call), figures, "use another op");
        }
        let mut seen = Vec::new();
        for (limit, needs, allows, advice) in needs {
            if needs > allows && !seen.contains(&limit) {
                seen.push(limit);
                add(&mut findings, limit, call.label.clone(), place(plan, call), (needs, allows), advice);
            }
        }
    }
    findings
}

/// The variants of the kernels in a graph, by op.
fn kernels(nodes: &Nodes) -> HashMap<&'static str, &'static [Variant]> {
    let mut kernels = HashMap::new();
    for node in &nodes.nodes {
        let NodeKind::Op(op) = &node.kind else { continue };
        if let Entry::Vacant(new) = kernels.entry(op.name())
            && let Lowering::Kernel(kernel) = op.lowering()
        {
            new.insert(kernel.variants());
        }
    }
    kernels
}

/// The size of a dispatch's largest uniform, in bytes.
fn uniform(dispatch: &Dispatch) -> u64 {
    let words = dispatch.bindings.iter().map(|bound| match bound {
        Bound::Uniform(words) => words.len() as u64,
        Bound::Scalars(numbers) => numbers.len() as u64,
        _ => 0,
    });
    (words.max().unwrap_or(0) * 4).next_multiple_of(16)
}

/// A description of what a buffer stores, and the line that created it.
fn owner(plan: &Plan, buffer: BufferId) -> (String, Option<&'static Location<'static>>) {
    let role = &plan.buffers[buffer].role;
    let of_calls = plan.calls.iter().flat_map(|call| call.writes.iter().chain(&call.reads));
    let others = plan.inputs.iter().filter_map(|input| input.stored.as_ref());
    let others = others.chain(plan.constants.iter().map(|(_, s)| s)).chain(plan.variables.iter().map(|(_, s)| s));
    let holds = |stored: &&Stored| stored.buffer == buffer && padded(stored.ty.bytes()) == plan.buffers[buffer].bytes;
    let Some(stored) = others.chain(of_calls).find(holds) else {
        let uses = |call: &&KernelCall| {
            let bindings = call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
            bindings.into_iter().any(|b| matches!(b, Bound::Storage { buffer: used, .. } if *used == buffer))
        };
        let call = plan.calls.iter().find(uses);
        let what = call.map_or_else(String::new, |call| format!(" of {}", call.label));
        return (format!("scratch memory{what}"), call.and_then(|call| place(plan, call)));
    };
    let node = &plan.nodes.nodes[stored.value.node];
    let what = match (role, &node.kind) {
        (Role::Variable(name), _) => format!("variable `{name}` {}", stored.ty),
        (_, NodeKind::Input(name)) => format!("input `{name}` {}", stored.ty),
        (Role::Constant, _) => format!("a constant {}", stored.ty),
        _ => format!("the result of {} {}", node.name(), stored.ty),
    };
    (what, Some(node.location))
}

/// Creates findings for nodes that cannot be lowered.
pub(super) struct Refusal<'a> {
    pub nodes: &'a Nodes,
    pub profile: &'a Profile,
}

impl Refusal<'_> {
    /// The node formatted as a call, such as `matmul(f32[2, 3], f32[3, 4])`.
    fn call(&self, node: usize) -> String {
        let node = &self.nodes.nodes[node];
        let inputs: Vec<String> = node.inputs.iter().map(|&id| self.nodes.ty(id).to_string()).collect();
        format!("{}({})", node.name(), inputs.join(", "))
    }

    fn finding(&self, node: usize, limit: Limit, figures: (u64, u64), advice: &str) -> Finding {
        Finding {
            limit,
            what: self.call(node),
            location: Some(self.nodes.nodes[node].location),
            needs: figures.0,
            allows: figures.1,
            profile: self.profile.name.clone(),
            refused: true,
            advice: advice.into(),
        }
    }

    /// An error reported by the op.
    pub fn kernel(&self, node: usize, why: &str) -> Finding {
        self.finding(node, Limit::Kernel, (0, 0), why)
    }

    /// No variant can run: reports what the least demanding one lacks.
    pub fn variants(&self, node: usize, why: &str) -> Finding {
        let Some(Lowering::Kernel(kernel)) = self.nodes.nodes[node].op().map(|op| op.lowering()) else {
            return self.kernel(node, why);
        };
        let Some(last) = kernel.variants().last() else { return self.kernel(node, why) };
        let (profile, advice) = (self.profile, format!("use another op ({why})"));
        if last.invocations > profile.max_invocations {
            let figures = (last.invocations.into(), profile.max_invocations.into());
            return self.finding(node, Limit::Invocations, figures, &advice);
        }
        if last.workgroup_memory > profile.max_workgroup_memory {
            let figures = (last.workgroup_memory.into(), profile.max_workgroup_memory.into());
            return self.finding(node, Limit::WorkgroupMemory, figures, &advice);
        }
        self.kernel(node, why)
    }

    /// Too many workgroups for the grid.
    pub fn workgroups(&self, node: usize, workgroups: u64) -> Finding {
        let most = u64::from(self.profile.max_workgroups).saturating_pow(3);
        self.finding(node, Limit::Workgroups, (workgroups, most), SMALLER)
    }
}

/// The profile without a grid limit, to find out how large the grid would be.
pub(super) fn without_grid_limit(profile: &Profile) -> Profile {
    Profile { max_workgroups: u32::MAX, ..profile.clone() }
}
