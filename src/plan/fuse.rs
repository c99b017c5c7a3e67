//! Clusters of nodes that run as one launch: pointwise ops joined into groups, groups joined to
//! the kernels whose output they work on.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::{Layout, Origin, constant_of, op_of};
use super::{Options, choose};
use crate::graph::{NodeKind, Nodes, ValueId};
use crate::op::{Args, Kernel, Lowering, Variant};
use crate::profile::Profile;
use crate::shape::View;
use crate::{DType, TensorType};

/// A cluster: at most one kernel node, and pointwise nodes in the order of the graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub kernel: Option<(usize, &'static Variant)>,
    pub pointwise: Vec<usize>,
}

/// The kernel of a node that has one.
pub(crate) fn kernel_of(nodes: &Nodes, node: usize) -> Option<&dyn Kernel> {
    match op_of(nodes, node)?.lowering() {
        Lowering::Kernel(kernel) => Some(kernel),
        _ => None,
    }
}

/// The clusters of a graph.
pub(crate) struct Clusters {
    /// By number; merged ones are empty.
    pub all: Vec<Cluster>,
    /// For each node its cluster, if it is a live kernel or pointwise node.
    pub of: Vec<Option<usize>>,
    /// Kernels for which no variant runs: node and reason.
    pub refused: Vec<(usize, String)>,
    /// Who reads what.
    users: Users,
}

impl Clusters {
    pub fn new(nodes: &Nodes, layout: &Layout, targets: &[ValueId], profile: &Profile, options: &Options) -> Clusters {
        let users = users(nodes, layout, targets);
        let of = vec![None; nodes.nodes.len()];
        let mut clusters = Clusters { all: Vec::new(), of, refused: Vec::new(), users };
        for node in (0..nodes.nodes.len()).filter(|&n| layout.live[n]) {
            let Some(op) = op_of(nodes, node) else { continue };
            let cluster = match op.lowering() {
                Lowering::View(_) => continue,
                Lowering::Pointwise(_) if op.constant_value().is_some() => continue,
                Lowering::Pointwise(_) => Cluster { kernel: None, pointwise: vec![node] },
                Lowering::Kernel(kernel) => {
                    let inputs: Vec<&TensorType> = nodes.nodes[node].inputs.iter().map(|&id| nodes.ty(id)).collect();
                    let views = kernel_views(nodes, layout, node, kernel);
                    let outputs = &nodes.nodes[node].outputs;
                    match choose(op, kernel, &Args { inputs: &inputs, views: &views, outputs, profile }, options) {
                        Ok(variant) => Cluster { kernel: Some((node, variant)), pointwise: Vec::new() },
                        Err(why) => {
                            clusters.refused.push((node, why));
                            continue;
                        }
                    }
                }
            };
            clusters.of[node] = Some(clusters.all.len());
            clusters.all.push(cluster);
        }
        if options.fuse {
            let limit = profile.usable_storage_buffers();
            clusters.join_pointwise(nodes, layout, limit);
            clusters.join_epilogues(nodes, layout, limit);
            clusters.sink(nodes, layout, limit);
        }
        clusters
    }

    /// Joins each pointwise node to the groups whose values it reads at its own element number.
    fn join_pointwise(&mut self, nodes: &Nodes, layout: &Layout, limit: usize) {
        for node in 0..nodes.nodes.len() {
            for producer in self.elementwise_producers(nodes, layout, node) {
                let (Some(a), Some(b)) = (self.of[producer], self.of[node]) else { continue };
                let pointwise = |c: usize| self.all[c].kernel.is_none();
                if a != b && pointwise(a) && pointwise(b) {
                    self.try_join(nodes, layout, limit, a, b);
                }
            }
        }
    }

    /// Joins to each kernel with an epilogue one group that reads its output element by element.
    fn join_epilogues(&mut self, nodes: &Nodes, layout: &Layout, limit: usize) {
        for node in 0..nodes.nodes.len() {
            let Some(b) = self.of[node] else { continue };
            if self.all[b].kernel.is_some() {
                continue;
            }
            for producer in self.elementwise_producers(nodes, layout, node) {
                let (Some(a), Some(b)) = (self.of[producer], self.of[node]) else { continue };
                let slot_free = self.all[a].pointwise.is_empty()
                    && self.all[a].kernel.is_some_and(|(n, variant)| n == producer && variant.epilogue);
                let float = nodes.nodes[producer].outputs[0].dtype == DType::F32;
                let update = slot_free && self.updates(nodes, layout, b, producer);
                if a != b && slot_free && float && !update && self.all[b].kernel.is_none() {
                    self.try_join(nodes, layout, limit, a, b);
                }
            }
        }
    }

    /// Moves nodes from the cluster that computes what they read to the one that reads them, where
    /// that saves a buffer: what they read lies in one anyway. Such is the mask of a relu, which
    /// the backward pass computes from the relu's output.
    fn sink(&mut self, nodes: &Nodes, layout: &Layout, limit: usize) {
        for node in (0..nodes.nodes.len()).rev() {
            let Some((a, b)) = self.sinks(nodes, layout, node) else { continue };
            let mut taken = self.all[b].clone();
            taken.pointwise.push(node);
            taken.pointwise.sort_unstable();
            if bindings(nodes, layout, &self.users, &taken) <= limit {
                self.all[a].pointwise.retain(|&member| member != node);
                self.all[b] = taken;
                self.of[node] = Some(b);
            }
        }
    }

    /// The cluster of a pointwise node that reads just one value, which its cluster stores for others
    /// too, and the one other cluster that reads the node.
    fn sinks(&self, nodes: &Nodes, layout: &Layout, node: usize) -> Option<(usize, usize)> {
        let a = self.of[node].filter(|_| kernel_of(nodes, node).is_none())?;
        let inputs = nodes.nodes[node].inputs.iter();
        let roots = inputs.filter_map(|&id| sources(layout, id)).filter(|&root| constant_of(nodes, root).is_none());
        let mut roots: Vec<ValueId> = roots.collect();
        roots.dedup();
        let [root] = roots[..] else { return None };
        let elsewhere = |id: ValueId| {
            let users = self.users.get(&id).into_iter().flatten();
            users
                .filter(|&&user| user != node)
                .map(|&user| self.of.get(user).copied().flatten())
                .collect::<BTreeSet<_>>()
        };
        let stored = elsewhere(root).iter().any(|&cluster| cluster != Some(a));
        let readers: Vec<Option<usize>> = elsewhere(ValueId { node, output: 0 }).into_iter().collect();
        match readers[..] {
            [Some(b)] if b != a && stored && self.of[root.node] == Some(a) => Some((a, b)),
            _ => None,
        }
    }

    /// Whether the cluster computes a variable's new value and the kernel reads the old one: together
    /// they could not update it in place.
    fn updates(&self, nodes: &Nodes, layout: &Layout, cluster: usize, kernel: usize) -> bool {
        let mut updated = nodes.assignments.iter().filter(|assignment| {
            sources(layout, assignment.value).is_some_and(|root| self.of[root.node] == Some(cluster))
        });
        updated.any(|assignment| {
            let variable = ValueId { node: assignment.variable, output: 0 };
            nodes.nodes[kernel].inputs.iter().any(|&id| sources(layout, id) == Some(variable))
        })
    }

    /// The nodes whose first output the pointwise node reads at its own element number.
    fn elementwise_producers(&self, nodes: &Nodes, layout: &Layout, node: usize) -> Vec<usize> {
        if self.of[node].is_none() || kernel_of(nodes, node).is_some() {
            return Vec::new();
        }
        let inputs = nodes.nodes[node].inputs.iter().filter(|&&id| direct(nodes, layout, node, id));
        inputs.filter_map(|&id| sources(layout, id)).map(|root| root.node).collect()
    }

    /// Joins cluster `b` to its producer `a` where that makes no cycle and few enough bindings.
    fn try_join(&mut self, nodes: &Nodes, layout: &Layout, limit: usize, a: usize, b: usize) {
        if !self.reads_directly(nodes, layout, a, b) || self.path_around(nodes, layout, a, b) {
            return;
        }
        let mut joined = self.all[a].clone();
        joined.kernel = joined.kernel.or(self.all[b].kernel);
        joined.pointwise.extend(&self.all[b].pointwise);
        joined.pointwise.sort_unstable();
        if bindings(nodes, layout, &self.users, &joined) > limit {
            return;
        }
        for &node in &self.all[b].pointwise {
            self.of[node] = Some(a);
        }
        self.all[a] = joined;
        self.all[b] = Cluster::default();
    }

    /// Whether `b` reads what `a` computes only at its own element number: a launch cannot read
    /// elements that other invocations of it write.
    fn reads_directly(&self, nodes: &Nodes, layout: &Layout, a: usize, b: usize) -> bool {
        let inputs =
            self.all[b].pointwise.iter().flat_map(|&node| nodes.nodes[node].inputs.iter().map(move |&id| (node, id)));
        inputs.filter(|&(_, id)| sources(layout, id).is_some_and(|root| self.of[root.node] == Some(a))).all(
            |(node, id)| direct(nodes, layout, node, id) && sources(layout, id).is_some_and(|root| root.output == 0),
        )
    }

    /// Whether cluster `b` depends on `a` by way of a third cluster.
    fn path_around(&self, nodes: &Nodes, layout: &Layout, a: usize, b: usize) -> bool {
        let oldest = self.all[a].members().min().unwrap_or(0);
        let mut open: Vec<usize> = self.producers(nodes, layout, b).into_iter().filter(|&c| c != a).collect();
        let mut seen: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(cluster) = open.pop() {
            if cluster == a {
                return true;
            }
            if self.all[cluster].members().max().is_some_and(|newest| newest < oldest) {
                continue;
            }
            open.extend(self.producers(nodes, layout, cluster).into_iter().filter(|&c| seen.insert(c)));
        }
        false
    }

    /// The other clusters whose values a cluster reads.
    pub fn producers(&self, nodes: &Nodes, layout: &Layout, cluster: usize) -> BTreeSet<usize> {
        self.all[cluster]
            .members()
            .flat_map(|node| &nodes.nodes[node].inputs)
            .flat_map(|&id| sources(layout, id))
            .filter_map(|id| self.of[id.node])
            .filter(|&c| c != cluster)
            .collect()
    }

    /// The values that a cluster must store: those that anything outside it reads.
    pub fn stored(&self, nodes: &Nodes, cluster: usize) -> Vec<ValueId> {
        stored(nodes, &self.users, &self.all[cluster])
    }
}

impl Cluster {
    /// Its nodes, the kernel first.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.kernel.iter().map(|&(node, _)| node).chain(self.pointwise.iter().copied())
    }
}

/// How each input of a kernel is read: through its strides where the kernel can, else from a copy.
pub(crate) fn kernel_views(nodes: &Nodes, layout: &Layout, node: usize, kernel: &dyn Kernel) -> Vec<View> {
    let inputs = nodes.nodes[node].inputs.iter().enumerate();
    inputs
        .map(|(i, &id)| match kernel_reads_in_place(nodes, layout, kernel, i, id) {
            true => layout.of(id).view.clone(),
            false => View::contiguous(&nodes.ty(id).shape),
        })
        .collect()
}

/// Whether a kernel reads the value where it lies, without a copy.
pub(crate) fn kernel_reads_in_place(
    nodes: &Nodes,
    layout: &Layout,
    kernel: &dyn Kernel,
    i: usize,
    id: ValueId,
) -> bool {
    let place = layout.of(id);
    let in_buffer = match place.origin {
        Origin::Copy(_) => true,
        Origin::Value(root) => {
            constant_of(nodes, root).is_none() && !matches!(nodes.nodes[root.node].kind, NodeKind::Scalar(_))
        }
    };
    in_buffer && kernel.reads(i, &place.view)
}

/// The values outside of views and copies that a value's elements come from (one, for now).
pub(crate) fn sources(layout: &Layout, id: ValueId) -> Option<ValueId> {
    match layout.of(id).origin {
        Origin::Value(root) => Some(root),
        Origin::Copy(copied) => sources(layout, copied),
    }
}

/// For each value with elements of its own the nodes that read it; [`OUTSIDE`] for the host, for
/// variables, and for readers that do not read it at their own element number.
type Users = BTreeMap<ValueId, BTreeSet<usize>>;

const OUTSIDE: usize = usize::MAX;

fn users(nodes: &Nodes, layout: &Layout, targets: &[ValueId]) -> Users {
    let mut users = Users::new();
    let mut add = |id: ValueId, user: usize| {
        if let Some(root) = sources(layout, id) {
            users.entry(root).or_default().insert(user);
        }
    };
    for node in (0..nodes.nodes.len()).filter(|&n| layout.live[n]) {
        let lowering = op_of(nodes, node).map(|op| op.lowering());
        if let Some(Lowering::Pointwise(_) | Lowering::Kernel(_)) = lowering {
            for &id in &nodes.nodes[node].inputs {
                add(id, if direct(nodes, layout, node, id) { node } else { OUTSIDE });
            }
        }
    }
    for id in targets.iter().copied().chain(nodes.assignments.iter().map(|a| a.value)) {
        add(id, OUTSIDE);
    }
    users
}

/// Whether a pointwise node reads the value at its own element number, with no copy between.
pub(crate) fn direct(nodes: &Nodes, layout: &Layout, node: usize, id: ValueId) -> bool {
    let pointwise = op_of(nodes, node).is_some_and(|op| matches!(op.lowering(), Lowering::Pointwise(_)));
    let place = layout.of(id);
    let n = nodes.nodes[node].outputs[0].shape.numel();
    match place.origin {
        Origin::Value(root) => {
            pointwise
                && place.view.is_contiguous()
                && place.view.shape.numel() == n
                && nodes.ty(root).shape.numel() == n
        }
        Origin::Copy(_) => false,
    }
}

fn stored(nodes: &Nodes, users: &Users, cluster: &Cluster) -> Vec<ValueId> {
    let members: BTreeSet<usize> = cluster.members().collect();
    let outputs = members
        .iter()
        .flat_map(|&node| (0..nodes.nodes[node].outputs.len()).map(move |output| ValueId { node, output }));
    outputs
        .filter(|id| {
            let read_outside = users.get(id).is_some_and(|users| users.iter().any(|user| !members.contains(user)));
            // A kernel writes all of its outputs, wanted or not.
            let kernels = cluster.kernel.is_some_and(|(node, _)| node == id.node)
                && (id.output > 0 || cluster.pointwise.is_empty());
            read_outside || kernels
        })
        .collect()
}

/// An upper bound of the storage buffers that a cluster binds.
fn bindings(nodes: &Nodes, layout: &Layout, users: &Users, cluster: &Cluster) -> usize {
    let members: BTreeSet<usize> = cluster.members().collect();
    // What the kernel and the ops behind it read, each binds for itself.
    let kernel = cluster.kernel.map(|(node, _)| node);
    let read: BTreeSet<(bool, ValueId)> = members
        .iter()
        .flat_map(|&node| nodes.nodes[node].inputs.iter().map(move |&id| (Some(node) == kernel, id)))
        .filter_map(|(by_kernel, id)| Some((by_kernel, sources(layout, id)?)))
        .filter(|(_, id)| !members.contains(&id.node) && constant_of(nodes, *id).is_none())
        .filter(|(_, id)| !matches!(nodes.nodes[id.node].kind, NodeKind::Scalar(_)))
        .collect();
    // Copies of a value are buffers besides the value.
    let copies = members
        .iter()
        .flat_map(|&n| &nodes.nodes[n].inputs)
        .filter(|&&id| matches!(layout.of(id).origin, Origin::Copy(_)))
        .count();
    let scratch = if cluster.kernel.is_some() { 1 } else { 0 };
    read.len() + copies + stored(nodes, users, cluster).len().max(1) + scratch
}
