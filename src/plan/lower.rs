//! Lowers jobs to kernel calls with bound buffers, and checks the device's limits.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::codegen::{self, Generated, Group};
use super::fuse::{Clusters, kernel_of, kernel_reads_in_place, kernel_views};
use super::indices::index_bounds;
use super::layout::{Layout, Origin, op_of};
use super::lint::{self, Finding, Refusal};
use super::memory::{Lifetime, assign, lower_bound};
use super::schedule::{Job, Schedule, copied_constant, wants_copy};
use super::{Bound, Buffer, BufferId, Commit, Dispatch, Input, KernelCall, Plan, Role, Stored, padded};
use crate::graph::{NodeKind, Nodes, Scalar, ValueId};
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};
use crate::profile::Profile;
use crate::shader::{Shader, complete, splice};
use crate::{DType, Tensor, TensorType};

/// A binding of a draft dispatch, before buffers are assigned.
#[derive(Clone, Debug)]
enum Draft {
    Uniform(Vec<u32>),
    Origin(Origin, bool),
    Scratch(usize),
    Scalars(Vec<usize>),
    Status,
}

struct DraftDispatch {
    launch: Launch,
    bindings: Vec<Draft>,
}

/// A kernel call before buffers are assigned.
struct DraftCall {
    label: String,
    kernel: Option<(&'static str, &'static str)>,
    dispatches: Vec<DraftDispatch>,
    scratch: Vec<usize>,
    reads: Vec<Origin>,
    writes: Vec<Origin>,
}

struct Lowering<'a> {
    nodes: &'a Nodes,
    layout: &'a Layout,
    clusters: &'a Clusters,
    schedule: &'a Schedule,
    profile: &'a Profile,
    scalars: BTreeMap<ValueId, usize>,
    findings: Vec<Finding>,
    /// Cache of lowered kernels, by op, variant, and the types and views of inputs and outputs.
    lowered: HashMap<String, Lowered>,
    /// Cache of completed sources, by the kernel's source (for an epilogue) and the generated code.
    texts: HashMap<(Option<Arc<str>>, String), Arc<str>>,
}

pub(super) fn lower(
    nodes: Nodes,
    targets: &[ValueId],
    layout: &Layout,
    clusters: &Clusters,
    schedule: &Schedule,
    profile: &Profile,
) -> (Plan, Vec<Finding>) {
    let scalars = number_scalars(&nodes, layout);
    let mut lowering = Lowering {
        nodes: &nodes,
        layout,
        clusters,
        schedule,
        profile,
        scalars,
        findings: Vec::new(),
        lowered: HashMap::new(),
        texts: HashMap::new(),
    };
    for (node, why) in &clusters.refused {
        let finding = lowering.refusal().variants(*node, why);
        lowering.findings.push(finding);
    }
    let mut calls = Vec::new();
    for job in &schedule.jobs {
        calls.extend(lowering.call(job));
    }
    let mut plan = lowering.bind(targets, &calls);
    let mut findings = lowering.findings;
    plan.nodes = nodes;
    findings.extend(lint::check_limits(&plan, profile));
    (plan, findings)
}

/// Numbers the live step scalars.
fn number_scalars(nodes: &Nodes, layout: &Layout) -> BTreeMap<ValueId, usize> {
    let live = (0..nodes.nodes.len()).filter(|&n| layout.live[n] && matches!(nodes.nodes[n].kind, NodeKind::Scalar(_)));
    live.enumerate().map(|(number, node)| (ValueId { node, output: 0 }, number)).collect()
}

impl Lowering<'_> {
    fn refusal(&self) -> Refusal<'_> {
        Refusal { nodes: self.nodes, profile: self.profile }
    }

    fn complain(&mut self, node: usize, why: &str) {
        let finding = self.refusal().kernel(node, why);
        self.findings.push(finding);
    }

    /// Records why a kernel cannot be lowered: its grid is too large, or the kernel's own error.
    fn complain_of(&mut self, kernel: &dyn Kernel, variant: &Variant, node: usize, args: &Args<'_>, why: &str) {
        let unlimited = lint::without_grid_limit(self.profile);
        let finding = match kernel.lower(variant, &Args { profile: &unlimited, ..*args }) {
            Ok(lowered) => {
                let sizes = lowered.launches.iter().map(|l| l.workgroups.iter().map(|&n| u64::from(n)).product());
                self.refusal().workgroups(node, sizes.max().unwrap_or(0))
            }
            Err(_) => self.refusal().kernel(node, why),
        };
        self.findings.push(finding);
    }

    /// The value that an origin stores, and its type.
    fn value_of(&self, origin: &Origin) -> (ValueId, TensorType) {
        match origin {
            Origin::Value(id) | Origin::Copy(id) => (*id, self.nodes.ty(*id).clone()),
        }
    }

    fn group<'b>(&'b self, members: &'b [usize], stores: &'b [Origin]) -> Group<'b> {
        Group {
            nodes: self.nodes,
            layout: self.layout,
            members,
            given: None,
            stores,
            returns: None,
            in_place: &self.schedule.in_place,
        }
    }

    fn call(&mut self, job: &Job) -> Option<DraftCall> {
        match job {
            Job::Copy(id) => self.pointwise(&[], vec![Origin::Copy(*id)]),
            Job::Cluster(number) => {
                let cluster = &self.clusters.all[*number];
                let stored: Vec<Origin> =
                    self.clusters.stored(self.nodes, *number).into_iter().map(Origin::Value).collect();
                match cluster.kernel {
                    Some((node, variant)) => self.kernel(node, variant, &cluster.pointwise, stored),
                    None => self.pointwise(&cluster.pointwise, stored),
                }
            }
        }
    }

    /// A generated kernel.
    fn pointwise(&mut self, members: &[usize], stores: Vec<Origin>) -> Option<DraftCall> {
        let n = self.value_of(stores.first()?).1.shape.numel();
        if n == 0 {
            return None;
        }
        let group = self.group(members, &stores);
        let generated = codegen::kernel(&group, n);
        let label = codegen::label(&group);
        let workgroups = match self.profile.grid(codegen::workgroups(n)) {
            Ok(grid) => grid,
            Err(_) => {
                let node = self.value_of(&stores[0]).0.node;
                let finding = self.refusal().workgroups(node, codegen::workgroups(n));
                self.findings.push(finding);
                return None;
            }
        };
        let reads = self.operands_read(&generated);
        let mut bindings = vec![Draft::Uniform(generated.args.clone())];
        bindings.extend(self.tail(&generated));
        let wgsl = match self.texts.entry((None, generated.text)) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => match complete(&new.key().1) {
                Ok(text) => new.insert(text).clone(),
                Err(why) => {
                    let node = self.value_of(&stores[0]).0.node;
                    self.complain(node, &why);
                    return None;
                }
            },
        };
        let launch = Launch { label: label.clone(), wgsl, entry: "pointwise", bindings: Vec::new(), workgroups };
        let dispatches = vec![DraftDispatch { launch, bindings }];
        Some(DraftCall { label, kernel: None, dispatches, scratch: Vec::new(), reads, writes: stores })
    }

    /// The origins that generated code reads.
    fn operands_read(&self, generated: &Generated) -> Vec<Origin> {
        let leaf = |origin: &Origin| match origin {
            Origin::Value(id) => self.clusters.of[id.node].is_none(),
            Origin::Copy(_) => false,
        };
        generated.operands.iter().filter(|o| !o.write || leaf(&o.origin)).map(|o| o.origin.clone()).collect()
    }

    /// An op's kernel, with the fused group as its epilogue.
    fn kernel(
        &mut self,
        node: usize,
        variant: &'static Variant,
        members: &[usize],
        stored: Vec<Origin>,
    ) -> Option<DraftCall> {
        let nodes = self.nodes;
        let kernel = kernel_of(nodes, node)?;
        let outputs = &nodes.nodes[node].outputs;
        if outputs.iter().all(|ty| ty.shape.numel() == 0) {
            return None;
        }
        let inputs: Vec<&TensorType> = nodes.nodes[node].inputs.iter().map(|&id| nodes.ty(id)).collect();
        let views = kernel_views(nodes, self.layout, node, kernel);
        let args = Args { inputs: &inputs, views: &views, outputs, profile: self.profile };
        let op = op_of(nodes, node)?;
        let key = format!("{op:?} {} {inputs:?} {views:?} {outputs:?}", variant.name);
        let lowered = match self.lowered.get(&key).cloned().map_or_else(|| kernel.lower(variant, &args), Ok) {
            Ok(lowered) => self.lowered.entry(key).or_insert(lowered).clone(),
            Err(why) => {
                self.complain_of(kernel, variant, node, &args, &why);
                return None;
            }
        };
        let origins: Vec<Origin> = (nodes.nodes[node].inputs.iter().enumerate())
            .map(|(i, &id)| match kernel_reads_in_place(nodes, self.layout, kernel, i, id) {
                true => self.layout.of(id).origin.clone(),
                false => Origin::Copy(id),
            })
            .collect();
        let given = ValueId { node, output: 0 };
        let returned = self.returned(given, members, &stored);
        let output =
            |o: usize| if o == 0 { Origin::Value(returned) } else { Origin::Value(ValueId { node, output: o }) };
        let extra: Vec<Origin> = (stored.iter())
            .filter(|origin| **origin != Origin::Value(returned))
            .filter(|origin| !matches!(origin, Origin::Value(id) if id.node == node && id.output > 0))
            .cloned()
            .collect();
        let mut reads = origins.clone();
        let mut dispatches = Vec::new();
        let Lowered { launches, scratch } = lowered;
        let last = launches.len().saturating_sub(1);
        for (number, mut launch) in launches.into_iter().enumerate() {
            let mut bindings: Vec<Draft> = Vec::new();
            for binding in &launch.bindings {
                let origin = |slot: &Slot, write: bool| match slot {
                    Slot::Input(i) => Draft::Origin(origins[*i].clone(), write),
                    Slot::Output(o) => Draft::Origin(output(*o), write),
                    Slot::Scratch(s) => Draft::Scratch(*s),
                };
                bindings.push(match binding {
                    Binding::Uniform(words) => Draft::Uniform(words.clone()),
                    Binding::Read(slot) => origin(slot, false),
                    Binding::Write(slot) => origin(slot, true),
                    Binding::Status => Draft::Status,
                });
            }
            let slot =
                ["epilogue", "epilogue4"].into_iter().find(|slot| launch.wgsl.contains(&format!("\nfn {slot}(")));
            if let Some(slot) = slot.filter(|_| !members.is_empty() && number == last) {
                let group = Group { given: Some(given), returns: Some(returned), ..self.group(members, &extra) };
                let generated = match slot {
                    "epilogue4" => codegen::epilogue4(&group, bindings.len()),
                    _ => codegen::epilogue(&group, bindings.len()),
                };
                reads.extend(self.operands_read(&generated));
                bindings.push(Draft::Uniform(generated.args.clone()));
                bindings.extend(self.tail(&generated));
                let key = (Some(launch.wgsl.clone()), generated.text);
                match self.texts.get(&key).cloned().map_or_else(|| splice(&launch.wgsl, slot, &key.1), Ok) {
                    Ok(text) => launch.wgsl = self.texts.entry(key).or_insert(text).clone(),
                    Err(why) => self.complain(node, &why),
                }
            }
            dispatches.push(DraftDispatch { launch, bindings });
        }
        let op = nodes.nodes[node].name();
        let mut label = format!("{op}.{}", variant.name);
        if !members.is_empty() {
            label = format!("{label} + {}", codegen::label(&self.group(members, &[])));
        }
        let name = op_of(nodes, node).map_or("", |op| op.name());
        let mut writes = stored;
        for o in 0..outputs.len() {
            if !writes.contains(&output(o)) {
                writes.push(output(o));
            }
        }
        Some(DraftCall { label, kernel: Some((name, variant.name)), dispatches, scratch, reads, writes })
    }

    /// The value that the kernel stores in place of its first output. Never a value that overwrites a
    /// variable in place: the epilogue reads the old value, so the variable's buffer would be bound twice.
    fn returned(&self, given: ValueId, members: &[usize], stored: &[Origin]) -> ValueId {
        if members.is_empty() || stored.contains(&Origin::Value(given)) {
            return given;
        }
        let fits = |id: &ValueId| {
            members.contains(&id.node)
                && self.nodes.ty(*id).dtype == DType::F32
                && !self.schedule.in_place.contains_key(id)
        };
        let float = stored.iter().find_map(|origin| match origin {
            Origin::Value(id) if fits(id) => Some(*id),
            _ => None,
        });
        float.unwrap_or(given)
    }

    /// Assigns every origin to a buffer and binds the dispatches.
    fn bind(&mut self, targets: &[ValueId], calls: &[DraftCall]) -> Plan {
        let mut buffers = Buffers { lowering: self, of: HashMap::new(), all: Vec::new() };
        let mut plan = Plan { watches_status: self.schedule.may_fail, ..Plan::default() };
        buffers.leaves(calls, targets, &mut plan);
        buffers.copied_constants(calls, &mut plan);
        let scratch = buffers.temporaries(calls, targets, &mut plan);
        for (number, call) in calls.iter().enumerate() {
            plan.calls.push(buffers.call(call, &scratch[number]));
        }
        for &id in targets {
            let ty = self.nodes.ty(id).clone();
            let buffer = (ty.shape.numel() > 0).then(|| buffers.buffer(&self.materialized_at(id, false)));
            plan.outputs.push((ty, buffer));
        }
        let mut complaints = Vec::new();
        for assignment in &self.nodes.assignments {
            let to = Origin::Value(ValueId { node: assignment.variable, output: 0 });
            let from = self.materialized_at(assignment.value, true);
            let bytes = self.value_of(&to).1.bytes() as u64;
            if bytes > 0 && self.buffer_origin(&from) != to {
                let (from, to) = (buffers.buffer(&from), buffers.buffer(&to));
                let guarded = plan.watches_status.then(|| guarded_copy(from, to, bytes / 4, self.profile));
                match guarded.transpose() {
                    Ok(guarded) => plan.commits.push(Commit { from, to, bytes, guarded }),
                    Err(why) => complaints.push((assignment.variable, why)),
                }
            }
        }
        plan.buffers = buffers.all;
        let mut counters = BTreeSet::new();
        for (node, why) in complaints {
            self.complain(node, &why);
        }
        for &id in self.scalars.keys() {
            if let NodeKind::Scalar(scalar) = &self.nodes.nodes[id.node].kind {
                if let Scalar::Counted { counter, .. } = scalar {
                    counters.insert(counter.clone());
                }
                plan.scalars.push((id, scalar.clone(), self.nodes.ty(id).dtype));
            }
        }
        plan.counters = counters.into_iter().collect();
        plan
    }

    /// The bindings of generated code that follow its arguments.
    fn tail(&self, generated: &Generated) -> Vec<Draft> {
        let operands = generated.operands.iter().map(|o| Draft::Origin(o.origin.clone(), o.write));
        let scalars: Vec<usize> = generated.scalars.iter().map(|id| self.scalars[id]).collect();
        operands.chain((!scalars.is_empty()).then_some(Draft::Scalars(scalars))).collect()
    }

    /// The origin that stores a fetched or assigned value contiguously.
    fn materialized_at(&self, id: ValueId, assigned: bool) -> Origin {
        if wants_copy(self.nodes, self.layout, id, assigned) {
            Origin::Copy(id)
        } else {
            self.layout.of(id).origin.clone()
        }
    }

    /// The origin whose buffer stores this origin.
    fn buffer_origin(&self, origin: &Origin) -> Origin {
        match origin {
            Origin::Value(id) => Origin::Value(self.schedule.in_place.get(id).copied().unwrap_or(*id)),
            copy => copy.clone(),
        }
    }
}

/// The dispatch that copies `words` words unless the step has failed.
fn guarded_copy(from: BufferId, to: BufferId, words: u64, profile: &Profile) -> Result<Dispatch, String> {
    Ok(Dispatch {
        label: "commit".into(),
        wgsl: Shader::new("commit").finish()?,
        entry: "commit".into(),
        bindings: vec![
            Bound::Uniform(vec![words as u32]),
            Bound::Storage { buffer: from, write: false },
            Bound::Storage { buffer: to, write: true },
            Bound::Status,
        ],
        workgroups: profile.grid(words.div_ceil(64))?,
    })
}

/// The buffers assigned so far.
struct Buffers<'a, 'b> {
    lowering: &'a Lowering<'b>,
    of: HashMap<Origin, BufferId>,
    all: Vec<Buffer>,
}

impl Buffers<'_, '_> {
    fn add(&mut self, bytes: u64, role: Role) -> BufferId {
        self.all.push(Buffer { bytes, role });
        self.all.len() - 1
    }

    fn buffer(&self, origin: &Origin) -> BufferId {
        self.of.get(&self.lowering.buffer_origin(origin)).copied().unwrap_or(0)
    }

    /// Assigns buffers to inputs, constants and variables that are read, fetched or assigned.
    fn leaves(&mut self, calls: &[DraftCall], targets: &[ValueId], plan: &mut Plan) {
        let nodes = self.lowering.nodes;
        let mut used: HashSet<Origin> = calls.iter().flat_map(|call| call.reads.iter().cloned()).collect();
        used.extend(targets.iter().map(|&id| self.lowering.materialized_at(id, false)));
        used.extend(nodes.assignments.iter().map(|a| Origin::Value(ValueId { node: a.variable, output: 0 })));
        let bounds = index_bounds(nodes, self.lowering.layout);
        for (number, node) in nodes.nodes.iter().enumerate() {
            let id = ValueId { node: number, output: 0 };
            let wanted = used.contains(&Origin::Value(id));
            let ty = node.outputs[0].clone();
            let mut place = |role: Role| {
                let buffer = self.add(padded(ty.bytes()), role);
                self.of.insert(Origin::Value(id), buffer);
                Stored { value: id, ty: ty.clone(), buffer }
            };
            match &node.kind {
                NodeKind::Input(name) => {
                    let stored = wanted.then(|| place(Role::Input));
                    let bound = bounds.get(&id).copied();
                    plan.inputs.push(Input { name: name.clone(), stored, ty, bound });
                }
                NodeKind::Constant(tensor) if wanted => plan.constants.push((tensor.clone(), place(Role::Constant))),
                NodeKind::Variable(name) if wanted => {
                    plan.variables.push((name.clone(), place(Role::Variable(name.clone()))));
                }
                _ => {}
            }
        }
    }

    /// Assigns buffers to copies of constants that kernels read and no kernel call creates.
    fn copied_constants(&mut self, calls: &[DraftCall], plan: &mut Plan) {
        let lowering = self.lowering;
        let written: HashSet<&Origin> = calls.iter().flat_map(|call| &call.writes).collect();
        for origin in calls.iter().flat_map(|call| &call.reads) {
            let Origin::Copy(id) = *origin else { continue };
            let made = self.of.contains_key(origin) || written.contains(origin);
            if let Some(value) = copied_constant(lowering.nodes, lowering.layout, id).filter(|_| !made) {
                let ty = lowering.nodes.ty(id).clone();
                let tensor = Tensor::of(&ty.shape, vec![value as f32; ty.shape.numel()]);
                let buffer = self.add(padded(ty.bytes()), Role::Constant);
                self.of.insert(origin.clone(), buffer);
                plan.constants.push((Arc::new(tensor), Stored { value: id, ty, buffer }));
            }
        }
    }

    /// Assigns buffers to the results of kernel calls, shared by lifetime. Returns each call's scratch buffers.
    fn temporaries(&mut self, calls: &[DraftCall], targets: &[ValueId], plan: &mut Plan) -> Vec<Vec<BufferId>> {
        let lowering = self.lowering;
        let mut numbers: HashMap<Origin, usize> = HashMap::new();
        let mut lives: Vec<Lifetime> = Vec::new();
        let mut scratch: Vec<Vec<usize>> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            for origin in &call.writes {
                if !self.of.contains_key(&lowering.buffer_origin(origin)) {
                    numbers.insert(origin.clone(), lives.len());
                    let bytes = padded(lowering.value_of(origin).1.bytes());
                    lives.push(Lifetime { bytes, first: at, last: at });
                }
            }
            for origin in &call.reads {
                if let Some(&number) = numbers.get(origin) {
                    lives[number].last = at;
                }
            }
            let sizes = call.scratch.iter().map(|&bytes| Lifetime { bytes: padded(bytes), first: at, last: at });
            scratch.push((lives.len()..lives.len() + call.scratch.len()).collect());
            lives.extend(sizes);
        }
        let fetched = targets.iter().map(|&id| lowering.materialized_at(id, false));
        let assigned = lowering.nodes.assignments.iter().map(|a| lowering.materialized_at(a.value, true));
        for origin in fetched.chain(assigned) {
            if let Some(&number) = numbers.get(&origin) {
                lives[number].last = calls.len();
            }
        }
        // Values that are never written are empty, but kernels still bind them.
        let empty = calls.iter().flat_map(|call| &call.reads).filter(|o| !numbers.contains_key(o));
        let empty: Vec<Origin> = empty.filter(|o| !self.of.contains_key(&lowering.buffer_origin(o))).cloned().collect();
        for origin in empty {
            let dummy = self.add(padded(0), Role::Temporary);
            self.of.insert(origin, dummy);
        }
        plan.least_temporary_bytes = lower_bound(&lives);
        let (assigned, sizes) = assign(&lives);
        let ids: Vec<BufferId> = sizes.into_iter().map(|bytes| self.add(bytes, Role::Temporary)).collect();
        for (origin, number) in numbers {
            self.of.insert(origin, ids[assigned[number]]);
        }
        scratch.into_iter().map(|call| call.into_iter().map(|number| ids[assigned[number]]).collect()).collect()
    }

    fn stored(&self, origins: &[Origin]) -> Vec<Stored> {
        let mut unique: Vec<&Origin> = Vec::new();
        origins.iter().for_each(|origin| {
            if !unique.contains(&origin) {
                unique.push(origin)
            }
        });
        unique
            .into_iter()
            .map(|origin| {
                let (value, ty) = self.lowering.value_of(origin);
                Stored { value, ty, buffer: self.buffer(origin) }
            })
            .collect()
    }

    fn call(&self, call: &DraftCall, scratch: &[BufferId]) -> KernelCall {
        let dispatches = call.dispatches.iter().map(|draft| Dispatch {
            label: draft.launch.label.clone(),
            wgsl: draft.launch.wgsl.clone(),
            entry: draft.launch.entry.to_owned(),
            workgroups: draft.launch.workgroups,
            bindings: draft
                .bindings
                .iter()
                .map(|binding| match binding {
                    Draft::Uniform(words) => Bound::Uniform(words.clone()),
                    Draft::Origin(origin, write) => Bound::Storage { buffer: self.buffer(origin), write: *write },
                    Draft::Scratch(number) => {
                        let write = draft_writes(draft, *number);
                        Bound::Storage { buffer: scratch[*number], write }
                    }
                    Draft::Scalars(numbers) => Bound::Scalars(numbers.clone()),
                    Draft::Status => Bound::Status,
                })
                .collect(),
        });
        KernelCall {
            label: call.label.clone(),
            kernel: call.kernel,
            dispatches: dispatches.collect(),
            reads: self.stored(&call.reads),
            writes: self.stored(&call.writes),
            scratch: scratch.iter().copied().zip(call.scratch.iter().copied()).collect(),
        }
    }
}

/// Whether a dispatch writes this scratch buffer.
fn draft_writes(draft: &DraftDispatch, number: usize) -> bool {
    draft.launch.bindings.contains(&Binding::Write(Slot::Scratch(number)))
}
