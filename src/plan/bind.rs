//! Assigns buffers to the values of kernel calls, and binds their dispatches.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::indices::index_bounds;
use super::layout::{Layout, Origin};
use super::memory::{Lifetime, assign, lower_bound};
use super::schedule::Schedule;
use super::{Bound, Buffer, BufferId, Commit, Dispatch, Input, KernelCall, Plan, Role, Stored, padded};
use crate::Tensor;
use crate::graph::{NodeKind, Scalar, ValueId};
use crate::op::{Binding, Launch, Slot};
use crate::profile::Profile;
use crate::shader::Shader;

/// A binding of a draft dispatch, before buffers are assigned.
#[derive(Clone, Debug)]
pub(super) enum Draft {
    Uniform(Vec<u32>),
    Origin(Origin, bool),
    Scratch(usize),
    Scalars(Vec<usize>),
    Status,
}

pub(super) struct DraftDispatch {
    pub launch: Launch,
    pub bindings: Vec<Draft>,
}

/// A kernel call before buffers are assigned.
pub(super) struct DraftCall {
    pub label: String,
    pub kernel: Option<(&'static str, &'static str)>,
    pub dispatches: Vec<DraftDispatch>,
    pub scratch: Vec<usize>,
    pub reads: Vec<Origin>,
    pub writes: Vec<Origin>,
}

/// Assigns every origin to a buffer and binds the dispatches. Also returns the variables whose update cannot be
/// dispatched, and why.
pub(super) fn bind(
    layout: &Layout<'_>,
    schedule: &Schedule,
    scalars: &BTreeMap<ValueId, usize>,
    targets: &[ValueId],
    calls: &[DraftCall],
    profile: &Profile,
) -> (Plan, Vec<(usize, String)>) {
    let mut buffers = Buffers { layout, schedule, profile, of: HashMap::new(), all: Vec::new() };
    let mut plan = Plan { watches_status: schedule.may_fail, ..Plan::default() };
    buffers.leaves(calls, targets, &mut plan);
    buffers.copied_constants(calls, &mut plan);
    let scratch = buffers.temporaries(calls, targets, &mut plan);
    for (number, call) in calls.iter().enumerate() {
        plan.calls.push(buffers.call(call, &scratch[number]));
    }
    for &id in targets {
        let ty = layout.ty(id).clone();
        let buffer = (ty.shape.numel() > 0).then(|| buffers.buffer(&buffers.materialized_at(id, false)));
        plan.outputs.push((ty, buffer));
    }
    let mut refused = Vec::new();
    for assignment in &layout.nodes.assignments {
        let to = Origin::Value(ValueId { node: assignment.variable, output: 0 });
        let from = buffers.materialized_at(assignment.value, true);
        let bytes = layout.ty(to.value()).bytes() as u64;
        if bytes > 0 && buffers.buffer_origin(&from) != to {
            let (from, to) = (buffers.buffer(&from), buffers.buffer(&to));
            let guarded = plan.watches_status.then(|| guarded_copy(from, to, bytes / 4, profile));
            match guarded.transpose() {
                Ok(guarded) => plan.commits.push(Commit { from, to, bytes, guarded }),
                Err(why) => refused.push((assignment.variable, why)),
            }
        }
    }
    plan.buffers = buffers.all;
    let mut counters = BTreeSet::new();
    for &id in scalars.keys() {
        if let NodeKind::Scalar(scalar) = &layout.node(id.node).kind {
            if let Scalar::Counted { counter, .. } = scalar {
                counters.insert(counter.clone());
            }
            plan.scalars.push((id, scalar.clone(), layout.ty(id).dtype));
        }
    }
    plan.counters = counters.into_iter().collect();
    (plan, refused)
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
struct Buffers<'a> {
    layout: &'a Layout<'a>,
    schedule: &'a Schedule,
    profile: &'a Profile,
    of: HashMap<Origin, BufferId>,
    all: Vec<Buffer>,
}

impl Buffers<'_> {
    /// The origin that stores a fetched or assigned value contiguously.
    fn materialized_at(&self, id: ValueId, assigned: bool) -> Origin {
        if self.layout.wants_copy(id, assigned) { Origin::Copy(id) } else { self.layout.of(id).origin.clone() }
    }

    /// The origin whose buffer stores this origin.
    fn buffer_origin(&self, origin: &Origin) -> Origin {
        match origin {
            Origin::Value(id) => Origin::Value(self.schedule.in_place.get(id).copied().unwrap_or(*id)),
            copy => copy.clone(),
        }
    }

    fn add(&mut self, bytes: u64, role: Role) -> BufferId {
        self.all.push(Buffer { bytes, role });
        self.all.len() - 1
    }

    fn buffer(&self, origin: &Origin) -> BufferId {
        self.of.get(&self.buffer_origin(origin)).copied().unwrap_or(0)
    }

    /// Assigns buffers to inputs, constants and variables that are read, fetched or assigned.
    fn leaves(&mut self, calls: &[DraftCall], targets: &[ValueId], plan: &mut Plan) {
        let nodes = self.layout.nodes;
        let mut used: HashSet<Origin> = calls.iter().flat_map(|call| call.reads.iter().cloned()).collect();
        used.extend(targets.iter().map(|&id| self.materialized_at(id, false)));
        used.extend(nodes.assignments.iter().map(|a| Origin::Value(ValueId { node: a.variable, output: 0 })));
        let bounds = index_bounds(self.layout);
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
        let layout = self.layout;
        let written: HashSet<&Origin> = calls.iter().flat_map(|call| &call.writes).collect();
        for origin in calls.iter().flat_map(|call| &call.reads) {
            let Origin::Copy(id) = *origin else { continue };
            let made = self.of.contains_key(origin) || written.contains(origin);
            if let Some(value) = layout.copied_constant(id).filter(|_| !made) {
                let ty = layout.ty(id).clone();
                let tensor = Tensor::of(&ty.shape, vec![value as f32; ty.shape.numel()]);
                let buffer = self.add(padded(ty.bytes()), Role::Constant);
                self.of.insert(origin.clone(), buffer);
                plan.constants.push((Arc::new(tensor), Stored { value: id, ty, buffer }));
            }
        }
    }

    /// Assigns buffers to the results of kernel calls, shared by lifetime or one each. Returns each call's scratch
    /// buffers.
    fn temporaries(&mut self, calls: &[DraftCall], targets: &[ValueId], plan: &mut Plan) -> Vec<Vec<BufferId>> {
        let mut numbers: HashMap<Origin, usize> = HashMap::new();
        let mut lives: Vec<Lifetime> = Vec::new();
        let mut scratch: Vec<Vec<usize>> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            for origin in &call.writes {
                if !self.of.contains_key(&self.buffer_origin(origin)) {
                    numbers.insert(origin.clone(), lives.len());
                    let bytes = padded(self.layout.ty(origin.value()).bytes());
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
        let fetched = targets.iter().map(|&id| self.materialized_at(id, false));
        let assigned = self.layout.nodes.assignments.iter().map(|a| self.materialized_at(a.value, true));
        for origin in fetched.chain(assigned) {
            if let Some(&number) = numbers.get(&origin) {
                lives[number].last = calls.len();
            }
        }
        // Values that are never written are empty, but kernels still bind them.
        let empty = calls.iter().flat_map(|call| &call.reads).filter(|o| !numbers.contains_key(o));
        let empty: Vec<Origin> = empty.filter(|o| !self.of.contains_key(&self.buffer_origin(o))).cloned().collect();
        for origin in empty {
            let dummy = self.add(padded(0), Role::Temporary);
            self.of.insert(origin, dummy);
        }
        plan.least_temporary_bytes = lower_bound(&lives);
        let (assigned, sizes) = if shares(&lives, self.profile) {
            assign(&lives)
        } else {
            ((0..lives.len()).collect(), lives.iter().map(|life| life.bytes).collect())
        };
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
                let value = origin.value();
                Stored { value, ty: self.layout.ty(value).clone(), buffer: self.buffer(origin) }
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

/// Temporary bytes up to which values on a GPU have buffers of their own. Larger steps spend little time between
/// dispatches.
const APART: u64 = 64 << 20;

/// Whether values share buffers. On a GPU, a dispatch that reuses a buffer waits for all earlier dispatches: wgpu inserts
/// a barrier before a dispatch that uses a buffer in another way than the one before.
fn shares(values: &[Lifetime], profile: &Profile) -> bool {
    profile.software || values.iter().map(|value| value.bytes).sum::<u64>() > APART
}

/// Whether a dispatch writes this scratch buffer.
fn draft_writes(draft: &DraftDispatch, number: usize) -> bool {
    draft.launch.bindings.contains(&Binding::Write(Slot::Scratch(number)))
}
