//! Compiles a graph to a plan: plain data that says what a device runs, in order, on which buffers.
//!
//! `rewrite` simplifies the graph and merges duplicate ops; `layout` resolves views; `fuse` fuses pointwise ops into
//! groups, and groups into kernel epilogues; `schedule` orders the jobs and decides which variables are updated in
//! place; `lower` turns jobs into kernel calls, with the help of `narrow` for narrow types; `memory` shares buffers
//! between values and `bind` binds them; `lint` checks the plan against a device's limits; `pace` splits a step into
//! submissions; `exchange` tells what ranks exchange; `choices` holds measured variants; `sites` isolates the kernels to
//! measure; `explain` lists the choices of a plan, `print` its launches.

mod bind;
mod choices;
pub(crate) mod codegen;
pub(crate) mod exchange;
mod explain;
pub(crate) mod fuse;
mod indices;
pub(crate) mod layout;
pub(crate) mod lint;
mod live;
mod lower;
mod memory;
mod narrow;
mod order;
mod pace;
mod print;
mod rewrite;
mod schedule;
pub(crate) mod sites;
mod transpose;

/// Functions of the planner that are public only for tests.
#[doc(hidden)]
pub mod internals {
    pub use super::lint::check_limits;
    pub use super::memory::{Lifetime, assign, lower_bound};
    pub use super::order::Order;
    pub use super::sites::{Site, sites};
}

pub use choices::Choices;
pub use exchange::{Bucket, Phase};
pub use lint::{Finding, Limit, lint};
pub use live::LiveValue;
pub use rewrite::{RULES, Rule};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::graph::{Nodes, Scalar, ValueId};
use crate::op::{Precision, Variant};
use crate::profile::Profile;
use crate::shader::Source;
use crate::{DType, Error, Graph, Result, Tensor, TensorType, Value};

/// Compile options.
///
/// ```
/// use wgrad::plan::Options;
/// use wgrad::{DType, Device, Graph, Profile, Session, plan::Plan};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [4096]).exp().sin();
/// let launches = |fuse: bool| {
///     let options = Options { fuse, ..Options::default() };
///     Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &options).map(|(plan, _)| plan.dispatches())
/// };
/// assert_eq!((launches(true)?, launches(false)?), (1, 2));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to fuse pointwise ops with each other and into epilogues.
    pub fuse: bool,
    /// A variant to use for every op that has a variant of this name that the device can run and that
    /// supports the shapes. Other ops use `choices` or the estimated costs.
    pub variant: Option<String>,
    /// The fastest variants by measurement. For all others, the cheapest by [`Kernel::cost`](crate::op::Kernel::cost)
    /// is used, as it is where [`Precision::Mixed`] adds kernels.
    pub choices: Choices,
    /// How precise matrix products must be at least.
    pub precision: Precision,
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true, variant: None, choices: Choices::default(), precision: Precision::default() }
    }
}

/// Padding bytes after a tensor that kernels may read but must not write.
const SLACK: u64 = 64;

/// The buffer size for a tensor of `bytes` bytes.
pub(crate) fn padded(bytes: usize) -> u64 {
    (bytes as u64 + SLACK).next_multiple_of(16)
}

/// The largest buffer on a device. Its tensor must fit into a binding; the padding need not.
pub(crate) fn largest_buffer(profile: &Profile) -> u64 {
    let binding = profile.max_binding / 16 * 16; // as `padded` rounds
    profile.max_buffer.min(binding.saturating_add(SLACK))
}

/// Index of a device buffer in [`Plan::buffers`]. Example: [`Plan`].
pub type BufferId = usize;

/// A device buffer that the plan needs. Example: [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Its size in bytes, including the padding after the tensor.
    pub bytes: u64,
    /// What it is for.
    pub role: Role,
}

/// What a buffer is for. Example: [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// An input, written at each run.
    Input,
    /// A variable of the session, by name.
    Variable(String),
    /// A constant, written once.
    Constant,
    /// Intermediate values; several may use it, one after another.
    Temporary,
}

/// A graph value stored contiguously in a buffer. Example: [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The graph value.
    pub value: ValueId,
    /// Its type.
    pub ty: TensorType,
    /// Its buffer.
    pub buffer: BufferId,
}

/// One dispatch, bound to buffers. Example: [`Plan`].
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Its name in profiles.
    pub label: String,
    /// The complete WGSL.
    pub wgsl: Source,
    /// The entry point.
    pub entry: String,
    /// The bindings of group 0, by binding number.
    pub bindings: Vec<Bound>,
    /// The grid, in workgroups.
    pub workgroups: [u32; 3],
}

/// A resource that a dispatch binds. Example: [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A uniform with these words.
    Uniform(Vec<u32>),
    /// A storage buffer.
    Storage {
        /// The buffer.
        buffer: BufferId,
        /// Whether the kernel writes it.
        write: bool,
    },
    /// A uniform with these step scalars, by their indices in [`Plan::scalars`].
    Scalars(Vec<usize>),
    /// The status buffer.
    Status,
}

/// A kernel op with its fused pointwise ops, or a group of pointwise ops: one or more dispatches that are checked
/// together. Example: [`Plan`].
#[derive(Clone, Debug)]
pub struct KernelCall {
    /// What it computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The kernel's op and variant, if it has one.
    pub kernel: Option<(&'static str, &'static str)>,
    /// The dispatches, in order.
    pub dispatches: Vec<Dispatch>,
    /// The values it reads, as they were before the kernel call.
    pub reads: Vec<Stored>,
    /// The values it writes.
    pub writes: Vec<Stored>,
    /// Its scratch buffers, shared by its dispatches, and the bytes used of each.
    pub scratch: Vec<(BufferId, usize)>,
}

/// An input of the program. Example: [`Plan`].
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its value and buffer; `None` if no launch reads it.
    pub stored: Option<Stored>,
    /// Its type.
    pub ty: TensorType,
    /// For an index input, the exclusive upper bound.
    pub bound: Option<usize>,
}

/// A compiled graph: what a device runs, in order, on which buffers.
///
/// ```
/// use wgrad::plan::{Options, Plan};
/// use wgrad::{DType, Graph, Profile};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [64, 64]);
/// let (plan, refused) = Plan::of(&graph, &[&x.matmul(&x).relu()], &Profile::webgpu_defaults(), &Options::default())?;
/// assert!(refused.is_empty() && plan.calls.len() == 1); // relu is part of the product's kernel
/// assert_eq!(plan.calls[0].kernel.map(|(op, _)| op), Some("matmul"));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The source graph after constant folding and merging of duplicate nodes.
    pub nodes: Nodes,
    /// The buffers.
    pub buffers: Vec<Buffer>,
    /// The kernel calls, in order.
    pub calls: Vec<KernelCall>,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// The constants, written once.
    pub constants: Vec<(Arc<Tensor>, Stored)>,
    /// The variables: name, and the value and buffer at the start of the step.
    pub variables: Vec<(String, Stored)>,
    /// Copies of new values into variables, after the kernel calls and the read-backs.
    pub commits: Vec<Commit>,
    /// The outputs to read back, in the requested order; `None` for empty tensors.
    pub outputs: Vec<(TensorType, Option<BufferId>)>,
    /// The step scalars.
    pub scalars: Vec<(ValueId, Scalar, DType)>,
    /// The counters that they depend on, without duplicates.
    pub counters: Vec<String>,
    /// The peak size of live intermediate values, in bytes: a lower bound on temporary memory for this
    /// order.
    pub least_temporary_bytes: u64,
    /// Whether a kernel may report an out-of-range index that the host could not check on upload.
    pub watches_status: bool,
    /// The device and the options that it was planned for, with which [`Plan::explain`] repeats the choices.
    pub origin: Option<Arc<(Profile, Options)>>,
}

/// A copy of a new value into its variable at the end of the step.
///
/// If some indices are computed on the device, a step may fail there and must then have no effect: no
/// variable is updated in place, and each copy is a dispatch that checks the status word first.
///
/// Example: [`Plan`].
#[derive(Clone, Debug)]
pub struct Commit {
    /// The source buffer.
    pub from: BufferId,
    /// The variable's buffer.
    pub to: BufferId,
    /// The number of bytes.
    pub bytes: u64,
    /// The dispatch that copies unless the step has failed; `None` if steps cannot fail.
    pub guarded: Option<Dispatch>,
}

impl KernelCall {
    /// The precision of its matrix products.
    pub fn precision(&self) -> Precision {
        let cooperative = self.dispatches.iter().any(|dispatch| dispatch.wgsl.cooperative);
        if cooperative { Precision::Mixed } else { Precision::Highest }
    }

    /// The values that it computes from those it reads, in graph order.
    pub(crate) fn computed(&self, nodes: &Nodes) -> Vec<ValueId> {
        let written: BTreeSet<ValueId> = self.writes.iter().map(|stored| stored.value).collect();
        let read: BTreeSet<ValueId> = self.reads.iter().map(|stored| stored.value).collect();
        let mut found = BTreeSet::new();
        let mut open: Vec<ValueId> = written.iter().copied().collect();
        while let Some(id) = open.pop() {
            let inside = written.contains(&id) || !read.contains(&id);
            if inside && nodes.nodes[id.node].op().is_some() && found.insert(id) {
                open.extend(&nodes.nodes[id.node].inputs);
            }
        }
        found.into_iter().collect()
    }
}

impl Plan {
    /// Plans a graph that reads back `targets` and performs the assignments.
    ///
    /// # Errors
    /// [`Error::Graph`] with all errors made while the graph was built; [`Error::Limit`] if it
    /// exceeds the device's limits.
    pub fn new(nodes: Nodes, targets: &[ValueId], profile: &Profile, options: &Options) -> Result<Plan> {
        let (plan, findings) = Plan::draft(nodes, targets, profile, options)?;
        if findings.is_empty() {
            return Ok(plan);
        }
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Err(Error::Limit(findings.join("\n")))
    }

    /// Plans a graph for a device profile; the device need not be present. If there are findings, the
    /// plan is incomplete or cannot run on that device.
    ///
    /// # Errors
    /// [`Error::Graph`] with all errors made while the graph was built; [`Error::Input`] if an
    /// output does not belong to this graph.
    pub fn of(graph: &Graph, outputs: &[&Value], profile: &Profile, options: &Options) -> Result<(Plan, Vec<Finding>)> {
        let nodes = graph.nodes();
        if !nodes.errors.is_empty() {
            return Err(Error::Graph(nodes.errors));
        }
        Plan::draft(nodes, &graph.outputs(outputs)?, profile, options)
    }

    /// [`Plan::of`] for nodes.
    pub(crate) fn draft(
        mut nodes: Nodes,
        targets: &[ValueId],
        profile: &Profile,
        options: &Options,
    ) -> Result<(Plan, Vec<Finding>)> {
        if !nodes.errors.is_empty() {
            return Err(Error::Graph(nodes.errors));
        }
        let mut targets = targets.to_vec();
        rewrite::simplify(&mut nodes, &mut targets, options.fuse);
        let targets = &targets[..];
        let layout = layout::Layout::new(&nodes, targets);
        let clusters = fuse::Clusters::new(&layout, targets, profile, options);
        let schedule = schedule::Schedule::new(&layout, &clusters, targets);
        let (mut plan, mut findings) = lower::lower(targets, &layout, &clusters, &schedule, profile);
        plan.nodes = nodes;
        findings.extend(lint::check_limits(&plan, profile));
        plan.origin = Some(Arc::new((profile.clone(), options.clone())));
        Ok((plan, findings))
    }

    /// Bytes of the buffers for intermediate values.
    pub fn temporary_bytes(&self) -> u64 {
        self.bytes_of(|role| *role == Role::Temporary)
    }

    /// Bytes of all buffers: the program's peak device memory, including variables.
    pub fn total_bytes(&self) -> u64 {
        self.bytes_of(|_| true)
    }

    fn bytes_of(&self, wanted: impl Fn(&Role) -> bool) -> u64 {
        self.buffers.iter().filter(|b| wanted(&b.role)).map(|b| b.bytes).sum()
    }

    /// The number of dispatches.
    pub fn dispatches(&self) -> usize {
        self.launches().count()
    }

    /// The dispatches in order: those of the kernel calls, then the commits.
    pub(crate) fn launches(&self) -> impl Iterator<Item = &Dispatch> {
        let commits = self.commits.iter().filter_map(|commit| commit.guarded.as_ref());
        self.calls.iter().flat_map(|call| &call.dispatches).chain(commits)
    }

    /// A hash of everything that determines the exact results: kernels, grids, bindings, order.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for dispatch in self.launches() {
            (&*dispatch.wgsl.text, &dispatch.entry, dispatch.workgroups).hash(&mut hasher);
            format!("{:?}", dispatch.bindings).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Why a kernel has its variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reason {
    /// [`Options::variant`] names it.
    Forced,
    /// It is the measured choice in [`Options::choices`].
    Tuned,
    /// It is the cheapest.
    Cheapest,
}

/// The variant to use: the one requested in the options if it can run, else the measured choice, else the cheapest.
pub(crate) fn choose(
    node: &layout::KernelNode<'_>,
    profile: &Profile,
    options: &Options,
) -> std::result::Result<(&'static Variant, Reason), String> {
    let (kernel, args) = (node.kernel, node.args(profile));
    let candidates = kernel.candidates(&args, options.precision);
    let named = |name: Option<&str>, why| candidates.iter().find(|(v, _)| name == Some(v.name)).map(|(v, _)| (*v, why));
    // Choices are measured among the most precise kernels.
    let precise = candidates.iter().all(|(variant, _)| variant.precision() == Precision::Highest);
    let tuned = || options.choices.wanted(&**node.op, &args).filter(|_| precise);
    named(options.variant.as_deref(), Reason::Forced)
        .or_else(|| named(tuned(), Reason::Tuned))
        .or_else(|| candidates.first().map(|(v, _)| (*v, Reason::Cheapest)))
        .ok_or_else(|| {
            let lacks = |v: &Variant| v.lacking(profile).unwrap_or("support for these shapes".into());
            let lacking: Vec<String> =
                kernel.variants().iter().map(|v| format!("{} lacks {}", v.name, lacks(v))).collect();
            format!("no variant runs on {}: {}", profile.name, lacking.join("; "))
        })
}
