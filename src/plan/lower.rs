//! Lowers jobs to kernel calls: launches and the values that they bind.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Plan;
use super::bind::{Draft, DraftCall, DraftDispatch, bind};
use super::codegen::{self, Generated, Group};
use super::fuse::{Cluster, Clusters, Prologue};
use super::layout::{Layout, Origin};
use super::lint::{self, Finding, Refusal};
use super::narrow::{lower_kernel, store_narrow};
use super::schedule::{Job, Schedule};
use super::transpose::transpose;
use crate::graph::{NodeKind, ValueId};
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Op, Slot, Variant};
use crate::profile::Profile;
use crate::shader::{Fused, Source, Width, complete, splice};
use crate::shape::View;
use crate::{DType, TensorType};

/// What determines the launches of a kernel on one device: op, variant, types of the inputs, the types in their
/// buffers, their views, types of the outputs.
type Lowerable = (Arc<dyn Op>, &'static str, Vec<TensorType>, Vec<DType>, Vec<View>, Vec<TensorType>);

struct Lowerer<'a> {
    layout: &'a Layout<'a>,
    clusters: &'a Clusters,
    schedule: &'a Schedule,
    profile: &'a Profile,
    scalars: BTreeMap<ValueId, usize>,
    findings: Vec<Finding>,
    lowered: HashMap<Lowerable, Lowered>,
    /// Cache of completed sources, by the kernel's source (for an epilogue) and the generated code.
    texts: HashMap<(Option<Arc<str>>, String), Arc<str>>,
}

pub(super) fn lower(
    targets: &[ValueId],
    layout: &Layout<'_>,
    clusters: &Clusters,
    schedule: &Schedule,
    profile: &Profile,
) -> (Plan, Vec<Finding>) {
    let scalars = number_scalars(layout);
    let mut lowerer = Lowerer {
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
        let finding = lowerer.refusal().variants(*node, why);
        lowerer.findings.push(finding);
    }
    let mut calls = Vec::new();
    for job in &schedule.jobs {
        calls.extend(lowerer.call(job));
    }
    let (plan, refused) = bind(layout, schedule, &lowerer.scalars, targets, &calls, profile);
    for (node, why) in refused {
        lowerer.complain(node, &why);
    }
    (plan, lowerer.findings)
}

/// Numbers the live step scalars.
fn number_scalars(layout: &Layout<'_>) -> BTreeMap<ValueId, usize> {
    let live = layout.live_nodes().filter(|&node| matches!(layout.node(node).kind, NodeKind::Scalar(_)));
    live.enumerate().map(|(number, node)| (ValueId { node, output: 0 }, number)).collect()
}

impl<'a> Lowerer<'a> {
    fn refusal(&self) -> Refusal<'_> {
        Refusal { nodes: self.layout.nodes, profile: self.profile }
    }

    fn complain(&mut self, node: usize, why: &str) {
        let finding = self.refusal().kernel(node, why);
        self.findings.push(finding);
    }

    /// Records why a kernel cannot be lowered: its grid is too large, or the kernel's own error.
    fn complain_of(&mut self, kernel: &dyn Kernel, variant: &Variant, node: usize, args: &Args<'_>, why: &str) {
        let unlimited = lint::without_grid_limit(self.profile);
        let finding = match lower_kernel(kernel, variant, &Args { profile: &unlimited, ..*args }) {
            Ok(lowered) => {
                let sizes = lowered.launches.iter().map(|l| l.workgroups.iter().map(|&n| u64::from(n)).product());
                self.refusal().workgroups(node, sizes.max().unwrap_or(0))
            }
            Err(_) => self.refusal().kernel(node, why),
        };
        self.findings.push(finding);
    }

    fn group<'b>(&self, members: &'b [usize], stores: &'b [Origin]) -> Group<'b>
    where
        'a: 'b,
    {
        Group { layout: self.layout, members, given: None, stores, returns: None, in_place: &self.schedule.in_place }
    }

    fn call(&mut self, job: &Job) -> Option<DraftCall> {
        match job {
            Job::Copy(id) => self.transpose(*id).or_else(|| self.pointwise(&[], vec![Origin::Copy(*id)])),
            Job::Cluster(number) => {
                let cluster = &self.clusters.all[*number];
                let stored: Vec<Origin> =
                    self.clusters.stored(self.layout, *number).into_iter().map(Origin::Value).collect();
                match cluster.kernel {
                    Some((node, variant)) => self.kernel(node, variant, cluster, stored),
                    None => self.pointwise(&cluster.pointwise, stored),
                }
            }
        }
    }

    /// A copy by tiles, where that is faster.
    fn transpose(&self, id: ValueId) -> Option<DraftCall> {
        let place = self.layout.of(id);
        let stored = self.layout.ty(place.origin.value()).dtype;
        if stored.is_narrow() || stored != self.layout.ty(id).dtype {
            return None;
        }
        let found = transpose(&place.view, self.profile)?;
        let workgroups = self.profile.grid(found.workgroups).ok()?;
        let (label, copy) = ("transpose".to_owned(), Origin::Copy(id));
        let bindings = vec![
            Draft::Uniform(found.words),
            Draft::Origin(place.origin.clone(), false),
            Draft::Origin(copy.clone(), true),
        ];
        let launch =
            Launch { label: label.clone(), wgsl: found.wgsl, entry: "transpose", bindings: Vec::new(), workgroups };
        let dispatches = vec![DraftDispatch { launch, bindings }];
        let (reads, writes) = (vec![place.origin.clone()], vec![copy]);
        Some(DraftCall { label, kernel: None, dispatches, scratch: Vec::new(), reads, writes })
    }

    /// A generated kernel.
    fn pointwise(&mut self, members: &[usize], stores: Vec<Origin>) -> Option<DraftCall> {
        let root = stores.first()?.value();
        let n = self.layout.ty(root).shape.numel();
        if n == 0 {
            return None;
        }
        let group = self.group(members, &stores);
        let generated = codegen::kernel(&group, n, self.profile);
        let label = codegen::label(&group);
        let workgroups = codegen::workgroups(n, self.profile);
        let workgroups = match self.profile.grid(workgroups) {
            Ok(grid) => grid,
            Err(_) => {
                let finding = self.refusal().workgroups(root.node, workgroups);
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
                    self.complain(root.node, &why);
                    return None;
                }
            },
        };
        let wgsl = Source::new(wgsl, codegen::WORKGROUP);
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

    /// An op's kernel, with the fused groups as its prologue and epilogue.
    fn kernel(
        &mut self,
        node: usize,
        variant: &'static Variant,
        cluster: &Cluster,
        stored: Vec<Origin>,
    ) -> Option<DraftCall> {
        let (layout, members, prologue) = (self.layout, &cluster.pointwise[..], cluster.prologue.as_ref());
        let mut found = layout.kernel(node)?;
        if let Some(prologue) = prologue {
            found.stored[0] = layout.ty(prologue.given).dtype;
        }
        let (op, kernel, args) = (found.op, found.kernel, found.args(self.profile));
        if args.outputs.iter().all(|ty| ty.shape.numel() == 0) {
            return None;
        }
        let inputs = args.inputs.iter().map(|&ty| ty.clone()).collect();
        let (stored_in, views) = (args.stored.to_vec(), args.views.to_vec());
        let key: Lowerable = (op.clone(), variant.name, inputs, stored_in, views, args.outputs.to_vec());
        let lowered = match self.lowered.get(&key).cloned().map_or_else(|| lower_kernel(kernel, variant, &args), Ok) {
            Ok(lowered) => self.lowered.entry(key).or_insert(lowered).clone(),
            Err(why) => {
                self.complain_of(kernel, variant, node, &args, &why);
                return None;
            }
        };
        let mut origins: Vec<Origin> = (layout.node(node).inputs.iter().zip(&found.in_place))
            .map(|(&id, in_place)| if *in_place { layout.of(id).origin.clone() } else { Origin::Copy(id) })
            .collect();
        if let Some(prologue) = prologue {
            origins[0] = Origin::Value(prologue.given);
        }
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
            let dtype = layout.ty(returned).dtype;
            if dtype.is_narrow()
                && number == last
                && let Err(why) = store_narrow(&mut launch, dtype)
            {
                self.complain(node, &why);
            }
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
            let reads_first = |binding: &Binding| matches!(binding, Binding::Read(Slot::Input(0)));
            if prologue.is_some() && number > 0 && launch.bindings.iter().any(reads_first) {
                self.complain(node, "its variant declares `prologue: true`, but a later launch reads the first input");
            }
            if let Some(Prologue { members, given }) = prologue.filter(|_| number == 0) {
                let returns = Some(layout.source(layout.node(node).inputs[0]));
                let group = Group { given: Some(*given), returns, ..self.group(members, &[]) };
                reads.extend(self.splice(&group, Fused::Prologue, node, &mut launch.wgsl, &mut bindings));
            }
            // Without an epilogue, it only rounds, which `store_narrow` does.
            if !members.is_empty() && number == last && (variant.epilogue || launch.wgsl.epilogue.is_some()) {
                let group = Group { given: Some(given), returns: Some(returned), ..self.group(members, &extra) };
                reads.extend(self.splice(&group, Fused::Epilogue, node, &mut launch.wgsl, &mut bindings));
            }
            dispatches.push(DraftDispatch { launch, bindings });
        }
        let mut label = format!("{}.{}", op.name(), variant.name);
        if !members.is_empty() {
            label = format!("{label} + {}", codegen::label(&self.group(members, &[])));
        }
        if let Some(prologue) = prologue {
            label = format!("{} + {label}", codegen::label(&self.group(&prologue.members, &[])));
        }
        let mut writes = stored;
        for o in 0..args.outputs.len() {
            if !writes.contains(&output(o)) {
                writes.push(output(o));
            }
        }
        Some(DraftCall { label, kernel: Some((op.name(), variant.name)), dispatches, scratch, reads, writes })
    }

    /// Puts a group in place of a slot's function, and binds the group's operands. Returns what the group reads.
    fn splice(
        &mut self,
        group: &Group<'_>,
        slot: Fused,
        node: usize,
        wgsl: &mut Source,
        bindings: &mut Vec<Draft>,
    ) -> Vec<Origin> {
        let width = match slot {
            Fused::Prologue => wgsl.prologue,
            Fused::Epilogue => wgsl.epilogue,
        };
        let Some(width) = width else {
            let function = slot.function(Width::One);
            self.complain(node, &format!("its variant declares `{function}: true`, but the shader does not call it"));
            return Vec::new();
        };
        let generated = codegen::fused(group, slot, width, bindings.len());
        bindings.push(Draft::Uniform(generated.args.clone()));
        bindings.extend(self.tail(&generated));
        let reads = self.operands_read(&generated);
        let key = (Some(wgsl.text.clone()), generated.text);
        let spliced = self.texts.get(&key).cloned();
        match spliced.map_or_else(|| splice(&wgsl.text, slot.function(width), &key.1), Ok) {
            Ok(spliced) => wgsl.text = self.texts.entry(key).or_insert(spliced).clone(),
            Err(why) => self.complain(node, &why),
        }
        reads
    }

    /// The value that the kernel stores in place of its first output. Never a value that overwrites a
    /// variable in place: the epilogue reads the old value, so the variable's buffer would be bound twice.
    fn returned(&self, given: ValueId, members: &[usize], stored: &[Origin]) -> ValueId {
        if members.is_empty() || stored.contains(&Origin::Value(given)) {
            return given;
        }
        let fits = |id: &ValueId| {
            members.contains(&id.node)
                && self.layout.ty(*id).dtype.is_float()
                && !self.schedule.in_place.contains_key(id)
        };
        let floats = stored.iter().filter_map(|origin| match origin {
            Origin::Value(id) if fits(id) => Some(*id),
            _ => None,
        });
        // A narrow one, if there is one: an epilogue for single elements could not store it.
        floats.max_by_key(|id| self.layout.ty(*id).dtype.is_narrow()).unwrap_or(given)
    }

    /// The bindings of generated code that follow its arguments.
    fn tail(&self, generated: &Generated) -> Vec<Draft> {
        let operands = generated.operands.iter().map(|o| Draft::Origin(o.origin.clone(), o.write));
        let scalars: Vec<usize> = generated.scalars.iter().map(|id| self.scalars[id]).collect();
        operands.chain((!scalars.is_empty()).then_some(Draft::Scalars(scalars))).collect()
    }
}
