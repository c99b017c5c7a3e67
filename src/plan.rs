//! Graph to plan, as plain data: what a device runs, in order, on which buffers.
//!
//! `layout` finds which values are mere views and which ops are the same; `fuse`
//! joins pointwise ops into groups and groups into kernels' epilogues; `schedule` orders the
//! calls and decides which variables are updated in place; `memory` puts values into buffers;
//! `lower` turns calls into launches; `lint` holds them against a device's limits; `pace` cuts a step
//! into submissions.

pub(crate) mod choices;
pub(crate) mod codegen;
pub(crate) mod fuse;
pub(crate) mod layout;
pub(crate) mod lint;
mod lower;
mod memory;
mod pace;
mod schedule;

pub use choices::Choices;
pub use lint::{Finding, Limit, lint};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::graph::{Nodes, Scalar, ValueId};
use crate::op::{Args, Kernel, Op, Variant};
use crate::profile::Profile;
use crate::{DType, Error, Graph, Result, Tensor, TensorType, Value};

/// How to plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to fuse pointwise ops with each other and into epilogues.
    pub fuse: bool,
    /// A variant to take wherever an op has one of that name that the device can run and that
    /// computes the shapes; elsewhere the heuristic decides.
    pub variant: Option<String>,
    /// Variants that were measured to be the fastest here; elsewhere the heuristic decides.
    pub choices: Choices,
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true, variant: None, choices: Choices::default() }
    }
}

/// Bytes behind a tensor's end that kernels may read and must not write.
const SLACK: u64 = 64;

/// The size of a buffer for a tensor of so many bytes.
pub(crate) fn padded(bytes: usize) -> u64 {
    (bytes as u64 + SLACK).next_multiple_of(16)
}

/// The largest buffer on a device: its tensor fits into a binding, which may end before the slack does.
pub(crate) fn largest_buffer(profile: &Profile) -> u64 {
    let binding = profile.max_binding / 16 * 16; // what `padded` makes of all tensors from here to the next 16
    profile.max_buffer.min(binding.saturating_add(SLACK))
}

/// Number of a device buffer in [`Plan::buffers`].
pub type BufferId = usize;

/// A device buffer that the plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Its size in bytes, the slack behind the tensor included.
    pub bytes: u64,
    /// Whose it is.
    pub role: Role,
}

/// What a buffer is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Fed at each run.
    Input,
    /// The session's, by name.
    Variable(String),
    /// Filled once.
    Constant,
    /// Values between launches; several may share it one after another.
    Temporary,
}

/// A graph value in a buffer, contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The graph value.
    pub value: ValueId,
    /// Its type.
    pub ty: TensorType,
    /// Its buffer.
    pub buffer: BufferId,
}

/// One dispatch, bound to buffers.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What profiles call it.
    pub label: String,
    /// The complete WGSL.
    pub wgsl: Arc<str>,
    /// The entry point.
    pub entry: String,
    /// Entry number = binding number of group 0.
    pub bindings: Vec<Bound>,
    /// The grid.
    pub workgroups: [u32; 3],
}

/// What a dispatch binds.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A uniform of these words.
    Uniform(Vec<u32>),
    /// A storage buffer.
    Storage {
        /// The buffer.
        buffer: BufferId,
        /// Whether the kernel writes it.
        write: bool,
    },
    /// A uniform of those of the step's scalars, by their numbers in [`Plan::scalars`].
    Scalars(Vec<usize>),
    /// The status words.
    Status,
}

/// One or several dispatches that compute certain graph values from others: what is checked as one.
#[derive(Clone, Debug)]
pub struct KernelCall {
    /// What it computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The kernel's op and variant, if it has one.
    pub kernel: Option<(&'static str, &'static str)>,
    /// The dispatches, in order.
    pub dispatches: Vec<Dispatch>,
    /// What it reads, as it was before the call ran.
    pub reads: Vec<Stored>,
    /// What it writes.
    pub writes: Vec<Stored>,
    /// Buffers for what its dispatches hand on to each other, and how many bytes of each they use.
    pub scratch: Vec<(BufferId, usize)>,
}

/// An input of the program.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its value and buffer; `None` where no launch reads it.
    pub stored: Option<Stored>,
    /// Its type.
    pub ty: TensorType,
    /// For indices: they must be below it.
    pub bound: Option<usize>,
}

/// What a device runs, in order, on which buffers.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The graph it came from, with readers of duplicate nodes led to the first.
    pub nodes: Nodes,
    /// The buffers.
    pub buffers: Vec<Buffer>,
    /// The calls, in order.
    pub calls: Vec<KernelCall>,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// Constants to fill once.
    pub constants: Vec<(Arc<Tensor>, Stored)>,
    /// Variables: name, value at the step's start, buffer.
    pub variables: Vec<(String, Stored)>,
    /// After the calls and the read-backs: copies of new values into variables.
    pub commits: Vec<Commit>,
    /// What is read back, in the order asked for; `None` for empty tensors.
    pub outputs: Vec<(TensorType, Option<BufferId>)>,
    /// The step's scalars.
    pub scalars: Vec<(ValueId, Scalar, DType)>,
    /// The counters that they depend on, each once.
    pub counters: Vec<String>,
    /// The most bytes of values between launches that are alive at one time: no plan with this
    /// order needs less.
    pub least_temporary_bytes: u64,
    /// Whether a kernel may report an index that the host cannot check on upload.
    pub watches_status: bool,
}

/// A copy of a new value into its variable at the step's end.
///
/// Where the host has not seen all indices a step may fail on the device, and must then leave no trace: no
/// variable is updated in place, and each copy is a launch that looks at the status word first.
#[derive(Clone, Debug)]
pub struct Commit {
    /// From.
    pub from: BufferId,
    /// To: the variable's buffer.
    pub to: BufferId,
    /// How many bytes.
    pub bytes: u64,
    /// The launch that copies unless the step has failed; `None` where no step can.
    pub guarded: Option<Dispatch>,
}

impl KernelCall {
    /// The values that it computes from what it reads, in the graph's order.
    pub(crate) fn computed(&self, nodes: &Nodes) -> Vec<ValueId> {
        let written: BTreeSet<ValueId> = self.writes.iter().map(|stored| stored.value).collect();
        let read: BTreeSet<ValueId> = self.reads.iter().map(|stored| stored.value).collect();
        let mut found = BTreeSet::new();
        let mut open: Vec<ValueId> = written.iter().copied().collect();
        while let Some(id) = open.pop() {
            let inside = written.contains(&id) || !read.contains(&id);
            if inside && layout::op_of(nodes, id.node).is_some() && found.insert(id) {
                open.extend(&nodes.nodes[id.node].inputs);
            }
        }
        found.into_iter().collect()
    }
}

impl Plan {
    /// Plans a graph: `targets` are read back, assignments are carried out.
    ///
    /// # Errors
    /// [`Error::Graph`] with all mistakes made while the graph was built; [`Error::Limit`] where
    /// the device cannot hold or run it.
    pub fn new(nodes: Nodes, targets: &[ValueId], profile: &Profile, options: &Options) -> Result<Plan> {
        let (plan, findings) = Plan::draft(nodes, targets, profile, options)?;
        if findings.is_empty() {
            return Ok(plan);
        }
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Err(Error::Limit(findings.join("\n")))
    }

    /// Plans a graph for a device that need not be here, as far as it holds it: with findings the
    /// plan is incomplete, or not to be run there.
    ///
    /// # Errors
    /// [`Error::Graph`] with all mistakes made while the graph was built; [`Error::Input`] where an
    /// output is not of this graph.
    pub fn of(graph: &Graph, outputs: &[&Value], profile: &Profile, options: &Options) -> Result<(Plan, Vec<Finding>)> {
        let nodes = graph.nodes();
        if !nodes.mistakes.is_empty() {
            return Err(Error::Graph(nodes.mistakes));
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
        if !nodes.mistakes.is_empty() {
            return Err(Error::Graph(nodes.mistakes));
        }
        let mut targets = targets.to_vec();
        if options.fuse {
            layout::fold_constants(&mut nodes);
        }
        layout::merge_duplicates(&mut nodes, &mut targets);
        let targets = &targets[..];
        let layout = layout::Layout::new(&nodes, targets);
        let clusters = fuse::Clusters::new(&nodes, &layout, targets, profile, options);
        let schedule = schedule::Schedule::new(&nodes, &layout, &clusters, targets);
        Ok(lower::lower(nodes, targets, &layout, &clusters, &schedule, profile, options))
    }

    /// Bytes of the buffers for values between launches.
    pub fn temporary_bytes(&self) -> u64 {
        self.bytes_of(|role| *role == Role::Temporary)
    }

    /// Bytes of all buffers: the program's peak device memory, variables included.
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

    /// The dispatches in order: those of the calls, and those that commit.
    pub(crate) fn launches(&self) -> impl Iterator<Item = &Dispatch> {
        let commits = self.commits.iter().filter_map(|commit| commit.guarded.as_ref());
        self.calls.iter().flat_map(|call| &call.dispatches).chain(commits)
    }

    /// A hash of everything that decides which bits come out: kernels, grids, order.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        for dispatch in self.launches() {
            (&*dispatch.wgsl, &dispatch.entry, dispatch.workgroups).hash(&mut hasher);
            format!("{:?}", dispatch.bindings).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The variant to take: the wanted one where it fits, else the one that was measured to be the
/// fastest, else what the kernel's heuristic takes.
pub(crate) fn choose(
    op: &dyn Op,
    kernel: &dyn Kernel,
    args: &Args<'_>,
    options: &Options,
) -> std::result::Result<&'static Variant, String> {
    let runnable = kernel.runnable(args);
    let named = |name: Option<&str>| runnable.iter().find(|v| name == Some(v.name)).copied();
    let wanted = named(options.variant.as_deref()).or_else(|| named(options.choices.wanted(op, args)));
    wanted.or_else(|| kernel.heuristic(&runnable, args)).ok_or_else(|| {
        let lacking: Vec<String> = kernel
            .variants()
            .iter()
            .map(|v| {
                format!("{} lacks {}", v.name, v.lacking(args.profile).unwrap_or("support for these shapes".into()))
            })
            .collect();
        format!("no variant runs on {}: {}", args.profile.name, lacking.join("; "))
    })
}
