//! The order of the calls, the copies they need, and which variables are updated in place.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::fuse::{Clusters, kernel_of, kernel_reads_in_place, same_index};
use super::layout::{Layout, Origin, constant_of};
use super::lower::may_fail;
use crate::DType;
use crate::graph::{NodeKind, Nodes, ValueId};

/// Something to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        let may_fail = may_fail(nodes, layout);
        let fetched: HashSet<ValueId> = targets.iter().map(|&id| layout.source(id)).collect();
        let mut updates = Vec::new();
        for assignment in nodes.assignments.iter().filter(|_| !may_fail) {
            let variable = ValueId { node: assignment.variable, output: 0 };
            let cluster = updating(nodes, layout, clusters, variable, assignment.value);
            if let Some(cluster) = cluster.filter(|_| !fetched.contains(&variable)) {
                updates.push((variable, layout.source(assignment.value), cluster));
            }
        }
        let late = updates.iter().map(|&(_, _, cluster)| cluster).collect();
        let mut order = Order::new(Edges::new(nodes, layout, clusters, targets), clusters, &late);
        let mut in_place = HashMap::new();
        for (variable, value, cluster) in updates {
            if !in_place.contains_key(&value) && order.put_behind_readers(cluster, variable) {
                in_place.insert(value, variable);
            }
        }
        let edges = order.edges;
        let jobs = edges.order(clusters, &HashSet::new()).into_iter().map(|job| edges.jobs[job]).collect();
        Schedule { jobs, in_place, may_fail }
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
    constant_of(nodes, layout.source(id)).filter(|_| nodes.ty(id).dtype == DType::F32)
}

/// The cluster that computes a variable's new value, if it may write that over the old one as far as
/// its own reads go.
fn updating(nodes: &Nodes, layout: &Layout, clusters: &Clusters, variable: ValueId, value: ValueId) -> Option<usize> {
    let Origin::Value(root) = layout.of(value).origin else { return None };
    let cluster = clusters.of[root.node]?;
    if wants_copy(nodes, layout, value, true) {
        return None;
    }
    let harmless = |node: usize, id: ValueId| layout.source(id) != variable || same_index(nodes, layout, node, id);
    let mut reads = clusters.all[cluster].members().flat_map(|n| nodes.nodes[n].inputs.iter().map(move |&id| (n, id)));
    reads.all(|(node, id)| harmless(node, id)).then_some(cluster)
}

/// Which job must run before which. Jobs have numbers: the clusters' own, then those of the copies.
struct Edges {
    jobs: Vec<Job>,
    copies: HashMap<ValueId, usize>,
    /// For each job those that must run before it, some more than once.
    needs: Vec<Vec<usize>>,
    /// For each leaf the jobs that read it, some more than once.
    leaf_readers: HashMap<ValueId, Vec<usize>>,
}

impl Edges {
    fn new(nodes: &Nodes, layout: &Layout, clusters: &Clusters, targets: &[ValueId]) -> Edges {
        let count = clusters.all.len();
        let mut edges = Edges {
            jobs: (0..count).map(Job::Cluster).collect(),
            copies: HashMap::new(),
            needs: vec![Vec::new(); count],
            leaf_readers: HashMap::new(),
        };
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
                let kernel = kernel_of(nodes, node);
                for (i, &id) in nodes.nodes[node].inputs.iter().enumerate() {
                    let copied = kernel.is_some_and(|kernel| !kernel_reads_in_place(nodes, layout, kernel, i, id));
                    let origin = if copied { &Origin::Copy(id) } else { &layout.of(id).origin };
                    edges.read(nodes, layout, clusters, number, origin);
                }
            }
        }
        edges
    }

    /// Lets `job` run after whoever makes the origin. Copies that nobody has asked for before become
    /// jobs, and read in turn.
    fn read(&mut self, nodes: &Nodes, layout: &Layout, clusters: &Clusters, mut job: usize, origin: &Origin) {
        let mut origin = origin.clone();
        loop {
            match origin {
                // Constants are copied once, when the program is made, unless a step makes a copy anyway.
                Origin::Copy(id) if copied_constant(nodes, layout, id).is_some() => {
                    if let Some(&copy) = self.copies.get(&id) {
                        self.before(copy, job);
                    }
                    return;
                }
                Origin::Copy(id) => {
                    let (copy, new) = self.copy_number(id);
                    self.before(copy, job);
                    if !new {
                        return;
                    }
                    (job, origin) = (copy, layout.of(id).origin.clone());
                }
                Origin::Value(id) => {
                    match clusters.of[id.node] {
                        Some(maker) if maker != job => self.before(maker, job),
                        Some(_) => {}
                        None => self.leaf_readers.entry(id).or_default().push(job),
                    }
                    return;
                }
            }
        }
    }

    /// Makes the copy of a value a job.
    fn copy(&mut self, nodes: &Nodes, layout: &Layout, clusters: &Clusters, id: ValueId) {
        if let (copy, true) = self.copy_number(id) {
            self.read(nodes, layout, clusters, copy, &layout.of(id).origin);
        }
    }

    /// The number of the copy of a value, and whether it is a new one.
    fn copy_number(&mut self, id: ValueId) -> (usize, bool) {
        match self.copies.entry(id) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(vacant) => {
                self.jobs.push(Job::Copy(id));
                self.needs.push(Vec::new());
                (*vacant.insert(self.jobs.len() - 1), true)
            }
        }
    }

    fn before(&mut self, first: usize, then: usize) {
        self.needs[then].push(first);
    }

    /// Topological order, `late` jobs as late as possible; among those that are ready the one made
    /// first in the graph.
    fn order(&self, clusters: &Clusters, late: &HashSet<usize>) -> Vec<usize> {
        let age = |job: usize| match self.jobs[job] {
            Job::Cluster(number) => clusters.all[number].newest(),
            Job::Copy(id) => Some(id.node),
        };
        let entry = |job: usize| age(job).map(|age| Reverse((late.contains(&job), age, self.jobs[job], job)));
        let mut waiting: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); self.jobs.len()];
        for (job, needs) in self.needs.iter().enumerate() {
            needs.iter().for_each(|&first| followers[first].push(job));
        }
        // Clusters that were merged into others have no age.
        let mut ready: BinaryHeap<_> =
            (0..self.jobs.len()).filter(|&job| waiting[job] == 0).filter_map(entry).collect();
        let mut order = Vec::with_capacity(self.jobs.len());
        while let Some(Reverse((.., job))) = ready.pop() {
            for &follower in &followers[job] {
                waiting[follower] -= 1;
                if waiting[follower] == 0 {
                    ready.extend(entry(follower));
                }
            }
            order.push(job);
        }
        debug_assert!(waiting.iter().all(|&left| left == 0), "the calls depend on each other in a circle");
        order
    }
}

/// A topological order of jobs that is kept while edges are added: after Pearce and Kelly, *A Dynamic
/// Topological Sort Algorithm for Directed Acyclic Graphs* (JEA 11, 2006), only what lies between the
/// two jobs of an edge is looked at.
struct Order {
    edges: Edges,
    sequence: Vec<usize>,
    /// Where each job stands in the sequence.
    position: Vec<usize>,
}

impl Order {
    fn new(edges: Edges, clusters: &Clusters, late: &HashSet<usize>) -> Order {
        let sequence = edges.order(clusters, late);
        let mut order = Order { position: vec![0; edges.jobs.len()], edges, sequence };
        order.number(0, order.sequence.len());
        order
    }

    fn number(&mut self, from: usize, to: usize) {
        for at in from..to {
            self.position[self.sequence[at]] = at;
        }
    }

    /// Lets all other readers of a leaf run before `job`; false where one of them depends on it.
    fn put_behind_readers(&mut self, job: usize, leaf: ValueId) -> bool {
        let mut readers = self.edges.leaf_readers.get(&leaf).cloned().unwrap_or_default();
        readers.retain(|&reader| reader != job);
        readers.dedup();
        if readers.iter().any(|&reader| self.needed(reader, self.position[job]).contains(&job)) {
            return false;
        }
        for reader in readers {
            self.put_before(reader, job);
        }
        true
    }

    /// The jobs from a position on that `job` depends on, and `job` itself.
    fn needed(&self, job: usize, from: usize) -> HashSet<usize> {
        let mut needed = HashSet::new();
        let mut open = vec![job];
        while let Some(job) = open.pop() {
            if self.position[job] >= from && needed.insert(job) {
                open.extend(&self.edges.needs[job]);
            }
        }
        needed
    }

    /// Adds an edge to a job that `first` does not depend on.
    fn put_before(&mut self, first: usize, then: usize) {
        self.edges.before(first, then);
        let (from, to) = (self.position[then], self.position[first] + 1);
        if from < to {
            let needed = self.needed(first, from);
            let (before, behind): (Vec<usize>, Vec<usize>) =
                self.sequence[from..to].iter().partition(|job| needed.contains(job));
            self.sequence.splice(from..to, before.into_iter().chain(behind));
            self.number(from, to);
        }
    }
}
