//! Fusion: pointwise ops are joined into groups, and groups to the kernels whose output they process.
//! The result is clusters of nodes, each of which runs as one kernel call.

use std::collections::HashMap;

use super::layout::{KernelNode, Layout, Origin};
use super::narrow::{lower_kernel, store_narrow};
use super::order::Order;
use super::{Options, choose, codegen};
use crate::DType;
use crate::graph::{NodeKind, ValueId};
use crate::op::{Lowering, Variant};
use crate::ops::cast::without_rounding;
use crate::profile::Profile;
use crate::shader::{Width, lines_called};

/// Maximum pointwise ops per cluster, and maximum lines of `scalar.wgsl` that they call. Shader compile time grows
/// faster than linearly in both: see ARCHITECTURE.md.
const MAX_OPS: usize = 64;
const MAX_LINES: usize = 1024;

/// Maximum elements of updates that share a launch. Larger ones take longer to compute than a launch takes to start.
const SMALL: usize = 1 << 14;

/// Maximum ops of such a launch on software adapters, which compile slowly.
const MAX_SHARED_OPS: usize = 16;

/// Maximum clusters that a join may move: those between the two joined ones in the order.
const MAX_BETWEEN: usize = 1000;

/// A cluster: at most one kernel node, pointwise nodes in graph order, and those that compute the kernel's first input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub kernel: Option<(usize, &'static Variant)>,
    pub pointwise: Vec<usize>,
    pub prologue: Option<Prologue>,
}

/// The pointwise nodes that compute the first input of a kernel as it reads it.
#[derive(Clone, Debug)]
pub(crate) struct Prologue {
    /// In graph order.
    pub members: Vec<usize>,
    /// The value that the kernel binds in place of that input. The members read it at their own element index only.
    pub given: ValueId,
}

/// The clusters of a graph.
pub(crate) struct Clusters {
    /// By number; clusters merged into others are empty.
    pub all: Vec<Cluster>,
    /// For each node, its cluster, if it is a live kernel or pointwise node.
    pub of: Vec<Option<usize>>,
    /// Kernel nodes without a variant that can run, and the reason.
    pub refused: Vec<(usize, String)>,
    /// The readers of each value.
    users: Users,
}

impl Clusters {
    pub fn new(layout: &Layout<'_>, targets: &[ValueId], profile: &Profile, options: &Options) -> Clusters {
        let users = users(layout, targets);
        let of = vec![None; layout.live.len()];
        let mut clusters = Clusters { all: Vec::new(), of, refused: Vec::new(), users };
        for node in layout.live_nodes() {
            let cluster = match layout.kernel(node) {
                Some(kernel) => match choose(&kernel, profile, options) {
                    Ok((variant, _)) => Cluster { kernel: Some((node, variant)), ..Cluster::default() },
                    Err(why) => {
                        clusters.refused.push((node, why));
                        continue;
                    }
                },
                None if !layout.pointwise[node] || layout.op(node).is_none_or(|op| op.fill_value().is_some()) => {
                    continue;
                }
                None => Cluster { pointwise: vec![node], ..Cluster::default() },
            };
            clusters.of[node] = Some(clusters.all.len());
            clusters.all.push(cluster);
        }
        match options.fuse {
            true => Fusion::new(layout, clusters, profile).run(),
            false => clusters,
        }
    }

    /// The values that a cluster must store, in graph order: those that are read outside it.
    pub fn stored(&self, layout: &Layout<'_>, cluster: usize) -> Vec<ValueId> {
        let inside = |node| self.cluster(node) == Some(cluster);
        let Cluster { kernel, pointwise, .. } = &self.all[cluster];
        let kernel = kernel.map(|(node, _)| node);
        let mut all: Vec<ValueId> = stored(layout, &self.users, kernel, pointwise.iter().copied(), inside).collect();
        all.sort_unstable();
        all
    }

    /// The cluster of a value's reader; `None` for [`OUTSIDE`].
    fn cluster(&self, user: usize) -> Option<usize> {
        self.of.get(user).copied().flatten()
    }
}

impl Cluster {
    /// Its nodes.
    pub fn members(&self) -> impl Iterator<Item = usize> + '_ {
        let prologue = self.prologue.iter().flat_map(|prologue| prologue.members.iter().copied());
        prologue.chain(self.kernel.iter().map(|&(node, _)| node)).chain(self.pointwise.iter().copied())
    }

    /// The last of its nodes in graph order.
    pub fn newest(&self) -> Option<usize> {
        self.kernel.map(|(node, _)| node).max(self.pointwise.last().copied())
    }
}

/// The state while clusters are joined.
struct Fusion<'a> {
    layout: &'a Layout<'a>,
    profile: &'a Profile,
    /// Storage buffers that a launch may bind.
    limit: usize,
    clusters: Clusters,
    /// For each cluster, the nodes outside it that it reads, in order.
    reads: Vec<Vec<usize>>,
    /// The variables that each node's value is assigned to.
    updates: HashMap<usize, Vec<usize>>,
    /// The lines that each pointwise node calls.
    lines: Vec<usize>,
    order: Order,
    /// For each cluster, the last search that visited it; then the number of searches.
    met: Vec<usize>,
    searches: usize,
}

impl<'a> Fusion<'a> {
    fn new(layout: &'a Layout<'a>, clusters: Clusters, profile: &'a Profile) -> Fusion<'a> {
        let limit = profile.usable_storage_buffers();
        let reads = |cluster: &Cluster| {
            let inputs = cluster.members().flat_map(|node| &layout.node(node).inputs);
            let mut reads: Vec<usize> = inputs.map(|&id| layout.source(id).node).collect();
            reads.retain(|&node| clusters.of[node].is_some());
            reads.sort_unstable();
            reads.dedup();
            reads
        };
        let reads = clusters.all.iter().map(reads).collect();
        let mut updates: HashMap<usize, Vec<usize>> = HashMap::new();
        for assignment in &layout.nodes.assignments {
            updates.entry(layout.source(assignment.value).node).or_default().push(assignment.variable);
        }
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut lines = vec![0; layout.live.len()];
        for node in (0..lines.len()).filter(|&node| clusters.of[node].is_some()) {
            if let Some(Lowering::Pointwise(call)) = layout.op(node).map(|op| op.lowering()) {
                let called = known.entry(codegen::function(layout.nodes, node, &call));
                lines[node] = *called.or_insert_with_key(|function| lines_called(function));
            }
        }
        let (order, met) = (Order::new(clusters.all.len()), vec![0; clusters.all.len()]);
        Fusion { layout, profile, limit, clusters, reads, updates, lines, order, met, searches: 0 }
    }

    fn run(mut self) -> Clusters {
        self.join_pointwise();
        self.join_epilogues();
        self.sink();
        self.join_prologues();
        self.join_updates();
        self.clusters
    }

    /// Joins each pointwise node to the groups whose values it reads at its own element index.
    fn join_pointwise(&mut self) {
        for node in 0..self.layout.live.len() {
            for producer in self.elementwise_producers(node) {
                let (Some(a), Some(b)) = (self.clusters.of[producer], self.clusters.of[node]) else { continue };
                let pointwise = |c: usize| self.clusters.all[c].kernel.is_none();
                if a != b && pointwise(a) && pointwise(b) {
                    self.try_join(a, b);
                }
            }
        }
    }

    /// Joins to each kernel with an epilogue slot one group that reads its output element by element.
    fn join_epilogues(&mut self) {
        for node in 0..self.layout.live.len() {
            let Some(b) = self.clusters.of[node] else { continue };
            if self.clusters.all[b].kernel.is_some() {
                continue;
            }
            for producer in self.elementwise_producers(node) {
                let (Some(a), Some(b)) = (self.clusters.of[producer], self.clusters.of[node]) else { continue };
                let cluster = &self.clusters.all[a];
                let slot_free = cluster.pointwise.is_empty()
                    && cluster
                        .kernel
                        .is_some_and(|(n, variant)| n == producer && (variant.epilogue || self.rounds(b, n)));
                let float = self.layout.node(producer).outputs[0].dtype == DType::F32;
                let update = slot_free && self.updates(b, producer);
                if a != b && slot_free && float && !update && self.can_store(a, b) {
                    self.try_join(a, b);
                }
            }
        }
    }

    /// Whether a cluster only rounds the first output of a kernel, which nothing else reads: a kernel without an
    /// epilogue can do that as it stores.
    fn rounds(&self, cluster: usize, kernel: usize) -> bool {
        let Cluster { kernel: None, pointwise, .. } = &self.clusters.all[cluster] else { return false };
        let [cast] = pointwise[..] else { return false };
        let alone = self.clusters.users[kernel].iter().all(|&(output, user)| output > 0 || user == cast);
        alone && self.layout.op(cast).is_some_and(|op| without_rounding(op).is_some())
    }

    /// Whether the epilogue of kernel cluster `a` can store what cluster `b`, without a kernel, computes. Elements of a
    /// narrow type must be stored by whole words, four at a time.
    fn can_store(&self, a: usize, b: usize) -> bool {
        let Cluster { kernel, pointwise, .. } = &self.clusters.all[b];
        let narrow = pointwise.iter().copied().filter(|&node| self.layout.node(node).outputs[0].dtype.is_narrow());
        let narrow: Vec<usize> = narrow.collect();
        kernel.is_none() && (narrow.is_empty() || self.stores_words(a, &narrow))
    }

    /// Whether the kernel of a cluster stores whole words, so that it can store the results of these nodes, or only
    /// round and store one.
    fn stores_words(&self, cluster: usize, narrow: &[usize]) -> bool {
        let Some((node, variant)) = self.clusters.all[cluster].kernel else { return false };
        let Some(kernel) = self.layout.kernel(node) else { return false };
        if kernel.args(self.profile).outputs.iter().all(|ty| ty.shape.numel() == 0) {
            return false; // not lowered
        }
        let lowered = lower_kernel(kernel.kernel, variant, &kernel.args(self.profile));
        let Some(mut launch) = lowered.ok().and_then(|mut lowered| lowered.launches.pop()) else { return false };
        // An epilogue for single elements returns one narrow value in place of the kernel's output; it cannot store
        // others.
        let group = self.clusters.of[narrow[0]];
        let mut readers = self.clusters.users[node].iter().filter(|&&(output, _)| output == 0);
        let inside = readers.all(|&(_, user)| self.clusters.cluster(user) == group);
        let returned = narrow.len() == 1 && inside && !self.updates.contains_key(&narrow[0]);
        let fits = returned || launch.wgsl.epilogue == Some(Width::Four);
        fits && store_narrow(&mut launch, self.layout.node(narrow[0]).outputs[0].dtype).is_ok()
    }

    /// Moves nodes to the cluster that reads them if their input is stored in a buffer anyway, which saves a buffer for
    /// their result. Examples are the mask of a relu and the slope `1 - y^2` of a tanh, which the backward pass then
    /// computes from the results of the forward pass.
    fn sink(&mut self) {
        for node in (0..self.layout.live.len()).rev() {
            let Some((a, b, chain)) = self.sinks(node) else { continue };
            let inside = |other: usize| chain.contains(&other) || self.clusters.cluster(other) == Some(b);
            let target = &self.clusters.all[b];
            let members = target.pointwise.iter().chain(&chain).copied();
            if self.short(members.clone()) && self.bindings(target.kernel, members, inside) <= self.limit {
                self.clusters.all[a].pointwise.retain(|member| !chain.contains(member));
                let members = &mut self.clusters.all[b].pointwise;
                members.extend(&chain);
                members.sort_unstable();
                for &node in &chain {
                    self.clusters.of[node] = Some(b);
                }
            }
        }
    }

    /// For a node that [`Fusion::sink`] can move, its cluster, the cluster of its only readers, and the nodes to move:
    /// the node and those of its cluster that only it needs. Together they read one value, which the cluster stores for
    /// other readers, too.
    fn sinks(&self, node: usize) -> Option<(usize, usize, Vec<usize>)> {
        let a = self.clusters.of[node].filter(|_| self.layout.pointwise[node])?;
        let mut of_node = self.readers(ValueId { node, output: 0 }).map(|user| self.clusters.cluster(user));
        let b = of_node.next().flatten()?;
        if b == a || of_node.any(|cluster| cluster != Some(b)) {
            return None;
        }
        let mut chain = vec![node];
        loop {
            let roots = self.roots(&chain);
            if let [root] = roots[..]
                && self.clusters.of[root.node] == Some(a)
                && self.stored_without(root, a, &chain)
            {
                return Some((a, b, chain));
            }
            // The newest root that nothing else needs; older ones may be needed by newer ones.
            let movable = |root: &&ValueId| self.clusters.of[root.node] == Some(a) && self.only_for(**root, &chain);
            chain.push(roots.iter().rev().find(movable)?.node);
        }
    }

    /// Joins small groups over equally many elements that no other cluster reads: outputs, and updates of variables, such
    /// as the running means and variances of a layer.
    fn join_updates(&mut self) {
        let mut needed = vec![false; self.clusters.all.len()];
        for node in self.layout.live_nodes() {
            for source in self.layout.node(node).inputs.iter().map(|&id| self.layout.source(id).node) {
                if let Some(cluster) =
                    self.clusters.of[source].filter(|_| self.clusters.of[source] != self.clusters.of[node])
                {
                    needed[cluster] = true;
                }
            }
        }
        let mut open: HashMap<usize, usize> = HashMap::new();
        for b in (0..needed.len()).filter(|&b| !needed[b]) {
            let Cluster { kernel: None, pointwise, .. } = &self.clusters.all[b] else { continue };
            let Some(&first) = pointwise.first() else { continue };
            let n = self.layout.node(first).outputs[0].shape.numel();
            if n > SMALL {
                continue;
            }
            match open.get(&n).copied().filter(|&a| self.can_share(a, b)) {
                Some(a) => self.merge(a, b),
                None => _ = open.insert(n, b),
            }
        }
    }

    /// Whether two groups without kernels, neither of which depends on the other, can be one launch.
    fn can_share(&self, a: usize, b: usize) -> bool {
        let members = || [a, b].into_iter().flat_map(|cluster| self.clusters.all[cluster].pointwise.iter().copied());
        let inside = |node: usize| self.clusters.cluster(node).is_some_and(|cluster| cluster == a || cluster == b);
        let most = if self.profile.software { MAX_SHARED_OPS } else { MAX_OPS };
        members().count() <= most && self.short(members()) && self.bindings(None, members(), inside) <= self.limit
    }

    /// Moves the pointwise nodes of cluster `b`, which has no kernel, to cluster `a`.
    fn merge(&mut self, a: usize, b: usize) {
        let group = std::mem::take(&mut self.clusters.all[b]).pointwise;
        for &node in &group {
            self.clusters.of[node] = Some(a);
        }
        let joined = &mut self.clusters.all[a].pointwise;
        joined.extend(group);
        joined.sort_unstable();
    }

    /// The nodes that read a value.
    fn readers(&self, id: ValueId) -> impl Iterator<Item = usize> {
        self.clusters.users[id.node].iter().filter(move |&&(output, _)| output == id.output).map(|&(_, user)| user)
    }

    /// What these nodes read of others, except constants.
    fn roots(&self, nodes: &[usize]) -> Vec<ValueId> {
        let inputs = nodes.iter().flat_map(|&member| &self.layout.node(member).inputs);
        let sources = inputs.map(|&id| self.layout.source(id)).filter(|&id| self.layout.constant(id).is_none());
        let mut roots: Vec<ValueId> = sources.filter(|id| !nodes.contains(&id.node)).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Whether cluster `a` must store a value of its own even without these nodes.
    fn stored_without(&self, id: ValueId, a: usize, nodes: &[usize]) -> bool {
        self.readers(id).any(|user| self.clusters.cluster(user) != Some(a) && !nodes.contains(&user))
    }

    /// Whether a value is that of a pointwise node, and only these nodes read it.
    fn only_for(&self, id: ValueId, nodes: &[usize]) -> bool {
        self.layout.pointwise[id.node] && self.readers(id).all(|user| nodes.contains(&user))
    }

    /// Moves pointwise nodes that compute the first input of a kernel, and nothing else, to the kernel, if what they read
    /// is stored anyway. That saves a launch or a store.
    fn join_prologues(&mut self) {
        for b in 0..self.clusters.all.len() {
            let Some((a, prologue)) = self.prologue(b) else { continue };
            let inside = |node: usize| prologue.members.contains(&node) || self.clusters.cluster(node) == Some(b);
            let target = &self.clusters.all[b];
            let members = target.pointwise.iter().chain(&prologue.members).copied();
            if self.short(prologue.members.iter().copied())
                && self.bindings(target.kernel, members, inside) <= self.limit
            {
                self.clusters.all[a].pointwise.retain(|member| !prologue.members.contains(member));
                for &node in &prologue.members {
                    self.clusters.of[node] = Some(b);
                }
                self.clusters.all[b].prologue = Some(prologue);
            }
        }
    }

    /// The prologue that cluster `b` can have, and the cluster of its nodes.
    fn prologue(&self, b: usize) -> Option<(usize, Prologue)> {
        let (node, _) = self.clusters.all[b].kernel.filter(|(_, variant)| variant.prologue)?;
        let kernel = self.layout.kernel(node).filter(|kernel| kernel.in_place.first() == Some(&true))?;
        let place = self.layout.of(*self.layout.node(node).inputs.first()?);
        let Origin::Value(result) = place.origin else { return None };
        let a = self.clusters.of[result.node]?;
        let ty = self.layout.ty(result);
        let once = self.readers(result).count() == 1 && place.view.shape.numel() <= ty.shape.numel();
        if !self.layout.pointwise[result.node] || !once || ty.dtype != DType::F32 {
            return None;
        }
        let mut members = vec![result.node];
        let computed = |roots: &[ValueId], members: &[usize]| {
            let not_stored =
                |root: &&ValueId| self.clusters.of[root.node] == Some(a) && !self.stored_without(**root, a, members);
            roots.iter().rev().find(not_stored).copied()
        };
        let mut roots = self.roots(&members);
        while let Some(root) = computed(&roots, &members) {
            if !self.only_for(root, &members) {
                return None;
            }
            members.push(root.node);
            roots = self.roots(&members);
        }
        members.sort_unstable();
        let given = roots.into_iter().find(|&root| self.can_be_given(root, &members, &kernel))?;
        Some((a, Prologue { members, given }))
    }

    /// Whether a kernel can bind this value as its first input, and pass its elements to the members: they read it at
    /// their own index only.
    fn can_be_given(&self, id: ValueId, members: &[usize], kernel: &KernelNode<'_>) -> bool {
        let dtype = self.layout.ty(id).dtype;
        let scalar = matches!(self.layout.node(id.node).kind, NodeKind::Scalar(_));
        let reads = members.iter().flat_map(|&node| self.layout.node(node).inputs.iter().map(move |&id| (node, id)));
        let mut reads = reads.filter(|&(_, read)| self.layout.source(read) == id);
        let loads = dtype == DType::F32 || dtype.is_float() && kernel.kernel.widens(0);
        !scalar && loads && reads.all(|(node, read)| self.layout.same_index(node, read))
    }

    /// Whether the group computes a variable's new value and the kernel reads the old one. Fused, they
    /// could not update it in place.
    fn updates(&self, group: usize, kernel: usize) -> bool {
        let inputs = &self.layout.node(kernel).inputs;
        let read = |&variable: &usize| {
            let variable = ValueId { node: variable, output: 0 };
            inputs.iter().any(|&id| self.layout.source(id) == variable)
        };
        let mut updated = self.clusters.all[group].pointwise.iter().filter_map(|node| self.updates.get(node)).flatten();
        updated.any(read)
    }

    /// The nodes whose first output the pointwise node reads at its own element index.
    fn elementwise_producers(&self, node: usize) -> Vec<usize> {
        if self.clusters.of[node].is_none() || !self.layout.pointwise[node] {
            return Vec::new();
        }
        let inputs = self.layout.node(node).inputs.iter().filter(|&&id| self.layout.same_index(node, id));
        inputs.map(|&id| self.layout.source(id).node).collect()
    }

    /// Joins cluster `b` to its producer `a` unless that creates a cycle or exceeds the limits on bindings or
    /// code size.
    fn try_join(&mut self, a: usize, b: usize) {
        let (producer, group) = (&self.clusters.all[a], &self.clusters.all[b]);
        let kernel = producer.kernel.or(group.kernel);
        let members = producer.pointwise.iter().chain(&group.pointwise).copied();
        let inside = |node: usize| self.clusters.cluster(node).is_some_and(|cluster| cluster == a || cluster == b);
        if !self.short(members.clone())
            || !self.reads_directly(a, b)
            || self.bindings(kernel, members, inside) > self.limit
        {
            return;
        }
        let Some(between) = self.between(a, b) else { return };
        self.order.remove(b);
        self.order.put_before(a, between);
        self.merge(a, b);
        let read = std::mem::take(&mut self.reads[b]);
        let reads = &mut self.reads[a];
        reads.extend(read);
        reads.retain(|&node| self.clusters.of[node] != Some(a));
        reads.sort_unstable();
        reads.dedup();
    }

    /// Whether the pointwise nodes stay within [`MAX_OPS`] and [`MAX_LINES`].
    fn short(&self, pointwise: impl Iterator<Item = usize>) -> bool {
        let (ops, lines) = pointwise.fold((0, 0), |(ops, lines), node| (ops + 1, lines + self.lines[node]));
        ops <= MAX_OPS && lines <= MAX_LINES
    }

    /// Whether `b` reads results of `a` only at its own element index: a launch cannot read elements that
    /// its other invocations write.
    fn reads_directly(&self, a: usize, b: usize) -> bool {
        self.clusters.all[b].pointwise.iter().all(|&node| {
            self.layout.node(node).inputs.iter().all(|&id| {
                let source = self.layout.source(id);
                self.clusters.of[source.node] != Some(a) || (source.output == 0 && self.layout.same_index(node, id))
            })
        })
    }

    /// The dependencies of cluster `b` that come after `a` in the order. `None` if one of them depends on `a`, or
    /// if there are more than [`MAX_BETWEEN`].
    fn between(&mut self, a: usize, b: usize) -> Option<Vec<usize>> {
        self.searches += 1;
        let (mut found, mut open, mut at) = (Vec::new(), Vec::new(), b);
        loop {
            // Visit the oldest first: in a backward pass, this reaches the forward pass soonest.
            for cluster in self.reads[at].iter().rev().filter_map(|&node| self.clusters.of[node]) {
                if cluster == a && at != b {
                    return None;
                }
                if self.order.after(cluster, a) && self.met[cluster] != self.searches {
                    self.met[cluster] = self.searches;
                    open.push(cluster);
                }
            }
            let Some(next) = open.pop() else { return Some(found) };
            if found.len() == MAX_BETWEEN {
                return None;
            }
            found.push(next);
            at = next;
        }
    }

    /// An upper bound on the storage buffers that a cluster binds.
    fn bindings(
        &self,
        kernel: Option<(usize, &'static Variant)>,
        pointwise: impl Iterator<Item = usize> + Clone,
        inside: impl Fn(usize) -> bool,
    ) -> usize {
        let kernel = kernel.map(|(node, _)| node);
        let members = kernel.into_iter().chain(pointwise.clone());
        let inputs = members.flat_map(|node| self.layout.node(node).inputs.iter().map(move |&id| (node, id)));
        let (mut read, mut copies) = (Vec::new(), 0);
        for (node, id) in inputs {
            let place = self.layout.of(id);
            // A copy of a value has its own buffer.
            copies += usize::from(matches!(place.origin, Origin::Copy(_)));
            let source = place.source;
            let scalar = || matches!(self.layout.node(source.node).kind, NodeKind::Scalar(_));
            if !inside(source.node) && self.layout.constant(source).is_none() && !scalar() {
                // A value read by both the kernel and its epilogue is bound twice.
                read.push((Some(node) == kernel, source));
            }
        }
        read.sort_unstable();
        read.dedup();
        let stored = stored(self.layout, &self.clusters.users, kernel, pointwise, inside).count();
        read.len() + copies + stored.max(1) + usize::from(kernel.is_some())
    }
}

/// For each node, pairs of an output and a node that reads it. The reader is [`OUTSIDE`] for the host, for
/// assignments, and for nodes that do not read at their own element index.
type Users = Vec<Vec<(usize, usize)>>;

const OUTSIDE: usize = usize::MAX;

fn users(layout: &Layout<'_>, targets: &[ValueId]) -> Users {
    let mut users = vec![Vec::new(); layout.live.len()];
    let mut add = |id: ValueId, user: usize| {
        let source = layout.source(id);
        users[source.node].push((source.output, user));
    };
    for node in layout.live_nodes() {
        let lowering = layout.op(node).map(|op| op.lowering());
        if let Some(Lowering::Pointwise(_) | Lowering::Kernel(_)) = lowering {
            for &id in &layout.node(node).inputs {
                add(id, if layout.same_index(node, id) { node } else { OUTSIDE });
            }
        }
    }
    for id in targets.iter().copied().chain(layout.nodes.assignments.iter().map(|a| a.value)) {
        add(id, OUTSIDE);
    }
    users
}

/// The values of a cluster that are read outside it, plus the outputs that its kernel always writes.
fn stored(
    layout: &Layout<'_>,
    users: &Users,
    kernel: Option<usize>,
    pointwise: impl Iterator<Item = usize> + Clone,
    inside: impl Fn(usize) -> bool,
) -> impl Iterator<Item = ValueId> {
    let bare = pointwise.clone().next().is_none();
    let members = kernel.into_iter().chain(pointwise);
    let outputs =
        members.flat_map(|node| (0..layout.node(node).outputs.len()).map(move |output| ValueId { node, output }));
    outputs.filter(move |id| {
        let mut readers = users[id.node].iter().filter(|(output, _)| *output == id.output);
        let written = kernel == Some(id.node) && (id.output > 0 || bare);
        written || readers.any(|&(_, user)| !inside(user))
    })
}
