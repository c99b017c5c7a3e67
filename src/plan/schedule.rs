//! The order of the units, the copies they need, and which variables are updated in place.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use super::fuse::{Clusters, direct, kernel_of, kernel_reads_in_place, sources};
use super::layout::{Layout, Origin, constant_of};
use super::lower::may_fail;
use crate::DType;
use crate::graph::{NodeKind, Nodes, ValueId};

/// Something to launch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// A cluster, by number.
    Cluster(usize),
    /// A contiguous copy of a value.
    Copy(ValueId),
}

pub(crate) struct Schedule {
    /// In the order of execution.
    pub jobs: Vec<Job>,
    /// New values that are computed right into their variables' buffers: value to variable.
    pub in_place: HashMap<ValueId, ValueId>,
    /// Whether a launch may find that the step fails. Then no variable is updated in place: whoever
    /// computes a new value cannot know yet whether it counts.
    pub may_fail: bool,
}

impl Schedule {
    pub fn new(nodes: &Nodes, layout: &Layout, clusters: &Clusters, targets: &[ValueId]) -> Schedule {
        let mut edges = Edges::new(nodes, layout, clusters, targets);
        let mut in_place = HashMap::new();
        let may_fail = may_fail(nodes, layout);
        for assignment in nodes.assignments.iter().filter(|_| !may_fail) {
            let variable = ValueId { node: assignment.variable, output: 0 };
            if let Some((value, job)) = updatable(nodes, layout, clusters, targets, variable, assignment.value) {
                let readers: Vec<Job> = edges.readers(variable).filter(|reader| *reader != job).collect();
                let used = in_place.contains_key(&value);
                if !used && !readers.iter().any(|reader| edges.depends(reader, &job)) {
                    readers.into_iter().for_each(|reader| edges.before(reader, job.clone()));
                    in_place.insert(value, variable);
                }
            }
        }
        Schedule { jobs: edges.order(clusters), in_place, may_fail }
    }
}

/// The copies that somebody outside the clusters needs: what is fetched or assigned must lie
/// contiguous in a buffer, and what is assigned in one that no other assignment changes.
pub(crate) fn wants_copy(nodes: &Nodes, layout: &Layout, id: ValueId, assigned: bool) -> bool {
    let place = layout.of(id);
    let leaf = match place.origin {
        Origin::Copy(_) => false,
        Origin::Value(root) => match nodes.nodes[root.node].kind {
            NodeKind::Scalar(_) => true,
            NodeKind::Op(_) => constant_of(nodes, root).is_some(),
            _ => assigned,
        },
    };
    leaf || !place.view.is_contiguous() || place.view.shape.numel() != origin_numel(nodes, &place.origin)
}

fn origin_numel(nodes: &Nodes, origin: &Origin) -> usize {
    match origin {
        Origin::Value(id) | Origin::Copy(id) => nodes.ty(*id).shape.numel(),
    }
}

/// The number that a contiguous copy of a value holds everywhere, where that is known.
pub(crate) fn copied_constant(nodes: &Nodes, layout: &Layout, id: ValueId) -> Option<f64> {
    sources(layout, id).and_then(|root| constant_of(nodes, root)).filter(|_| nodes.ty(id).dtype == DType::F32)
}

/// The new value and its job, if it may be written over the old one by the job that computes it.
fn updatable(
    nodes: &Nodes,
    layout: &Layout,
    clusters: &Clusters,
    targets: &[ValueId],
    variable: ValueId,
    value: ValueId,
) -> Option<(ValueId, Job)> {
    let Origin::Value(root) = layout.of(value).origin else { return None };
    let cluster = clusters.of[root.node]?;
    let fetched = targets.iter().any(|&id| sources(layout, id) == Some(variable));
    if wants_copy(nodes, layout, value, true) || fetched {
        return None;
    }
    let harmless = |node: usize, id: ValueId| sources(layout, id) != Some(variable) || direct(nodes, layout, node, id);
    let mut reads = clusters.all[cluster].members().flat_map(|n| nodes.nodes[n].inputs.iter().map(move |&id| (n, id)));
    reads.all(|(node, id)| harmless(node, id)).then_some((root, Job::Cluster(cluster)))
}

/// Which job must run before which.
struct Edges {
    needs: BTreeMap<Job, BTreeSet<Job>>,
    /// For each leaf the jobs that read it.
    leaf_readers: HashMap<ValueId, BTreeSet<Job>>,
}

impl Edges {
    fn new(nodes: &Nodes, layout: &Layout, clusters: &Clusters, targets: &[ValueId]) -> Edges {
        let mut edges = Edges { needs: BTreeMap::new(), leaf_readers: HashMap::new() };
        let fetched = targets.iter().map(|&id| (id, false));
        let assigned = nodes.assignments.iter().map(|a| (a.value, true));
        for (id, assigned) in fetched.chain(assigned) {
            if wants_copy(nodes, layout, id, assigned) {
                edges.copy(nodes, layout, clusters, id);
            } else if let Origin::Copy(copied) = layout.of(id).origin {
                edges.copy(nodes, layout, clusters, copied);
            }
        }
        for (number, cluster) in clusters.all.iter().enumerate() {
            for node in cluster.members() {
                edges.needs.entry(Job::Cluster(number)).or_default();
                let kernel = kernel_of(nodes, node);
                for (i, &id) in nodes.nodes[node].inputs.iter().enumerate() {
                    let copied = kernel.is_some_and(|kernel| !kernel_reads_in_place(nodes, layout, kernel, i, id));
                    let origin = if copied { Origin::Copy(id) } else { layout.of(id).origin.clone() };
                    edges.read(nodes, layout, clusters, Job::Cluster(number), origin);
                }
            }
        }
        edges
    }

    /// Lets `job` run after whoever makes the origin.
    fn read(&mut self, nodes: &Nodes, layout: &Layout, clusters: &Clusters, job: Job, origin: Origin) {
        let maker = match origin {
            // Constants are copied once, when the program is made, unless a step makes a copy anyway.
            Origin::Copy(id) if copied_constant(nodes, layout, id).is_some() => {
                Some(Job::Copy(id)).filter(|job| self.needs.contains_key(job))
            }
            Origin::Copy(id) => {
                self.copy(nodes, layout, clusters, id);
                Some(Job::Copy(id))
            }
            Origin::Value(id) => {
                let cluster = clusters.of[id.node].map(Job::Cluster);
                if cluster.is_none() {
                    self.leaf_readers.entry(id).or_default().insert(job.clone());
                }
                cluster
            }
        };
        if let Some(maker) = maker.filter(|maker| *maker != job) {
            self.before(maker, job);
        }
    }

    /// Makes the copy of a value a job.
    fn copy(&mut self, nodes: &Nodes, layout: &Layout, clusters: &Clusters, id: ValueId) {
        if let Entry::Vacant(vacant) = self.needs.entry(Job::Copy(id)) {
            vacant.insert(BTreeSet::new());
            self.read(nodes, layout, clusters, Job::Copy(id), layout.of(id).origin.clone());
        }
    }

    fn before(&mut self, first: Job, then: Job) {
        self.needs.entry(then).or_default().insert(first);
    }

    fn readers(&self, leaf: ValueId) -> impl Iterator<Item = Job> + '_ {
        self.leaf_readers.get(&leaf).into_iter().flatten().cloned()
    }

    /// Whether `late` runs after `early`, directly or not.
    fn depends(&self, late: &Job, early: &Job) -> bool {
        let mut open = vec![late];
        let mut seen = BTreeSet::new();
        while let Some(job) = open.pop() {
            if job == early {
                return true;
            }
            open.extend(self.needs[job].iter().filter(|&needed| seen.insert(needed)));
        }
        false
    }

    /// Topological order; among those that are ready the one made first in the graph.
    fn order(&self, clusters: &Clusters) -> Vec<Job> {
        let age = |job: &Job| match job {
            Job::Cluster(number) => clusters.all[*number].members().max().unwrap_or(0),
            Job::Copy(id) => id.node,
        };
        let mut waiting: BTreeMap<&Job, usize> = self.needs.iter().map(|(job, needs)| (job, needs.len())).collect();
        let mut followers: BTreeMap<&Job, Vec<&Job>> = BTreeMap::new();
        for (job, needs) in &self.needs {
            needs.iter().for_each(|first| followers.entry(first).or_default().push(job));
        }
        let entry = |job: &Job| std::cmp::Reverse((age(job), job.clone()));
        let mut ready: BinaryHeap<_> = waiting.iter().filter(|(_, n)| **n == 0).map(|(job, _)| entry(job)).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(std::cmp::Reverse((_, job))) = ready.pop() {
            for follower in followers.get(&job).into_iter().flatten() {
                if let Some(left) = waiting.get_mut(follower) {
                    *left -= 1;
                    if *left == 0 {
                        ready.push(entry(follower));
                    }
                }
            }
            order.push(job);
        }
        debug_assert_eq!(order.len(), self.needs.len(), "the units depend on each other in a circle");
        order
    }
}
