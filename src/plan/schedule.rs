//! Schedules jobs: their order, the copies they need, and which variables are updated in place.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::exchange;
use super::fuse::Clusters;
use super::indices::may_fail;
use super::layout::{Layout, Origin};
use crate::graph::ValueId;

/// Something to run: becomes a kernel call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// A cluster, by number.
    Cluster(usize),
    /// A contiguous copy of a value.
    Copy(ValueId),
}

pub(crate) struct Schedule {
    /// In execution order.
    pub jobs: Vec<Job>,
    /// New values that are computed directly into their variables' buffers: value to variable.
    pub in_place: HashMap<ValueId, ValueId>,
    /// Whether the step may fail on the device. Then no variable is updated in place, because a later
    /// kernel may still invalidate the step.
    pub may_fail: bool,
}

impl Schedule {
    pub fn new(layout: &Layout<'_>, clusters: &Clusters, targets: &[ValueId]) -> Schedule {
        let may_fail = may_fail(layout);
        let fetched = targets.iter().map(|&id| layout.source(id));
        // Otherwise an exchange could have to wait for one of the same phase.
        let fetched: HashSet<ValueId> = fetched.chain(exchanged(layout)).collect();
        let mut updates = Vec::new();
        for assignment in layout.nodes.assignments.iter().filter(|_| !may_fail) {
            let variable = ValueId { node: assignment.variable, output: 0 };
            let cluster = updating(layout, clusters, variable, assignment.value);
            if let Some(cluster) = cluster.filter(|_| !fetched.contains(&variable)) {
                updates.push((variable, layout.source(assignment.value), cluster));
            }
        }
        let late = updates.iter().map(|&(_, _, cluster)| cluster).collect();
        let mut order = Order::new(Edges::new(layout, clusters, targets), layout, clusters, &late);
        let mut in_place = HashMap::new();
        for (variable, value, cluster) in updates {
            if !in_place.contains_key(&value) && order.put_behind_readers(cluster, variable) {
                in_place.insert(value, variable);
            }
        }
        let edges = order.edges;
        let jobs = edges.order(layout, clusters, &HashSet::new()).into_iter().map(|job| edges.jobs[job]).collect();
        Schedule { jobs, in_place, may_fail }
    }
}

/// The operands of exchanges.
fn exchanged<'a>(layout: &'a Layout<'_>) -> impl Iterator<Item = ValueId> + 'a {
    let exchanges = layout.live_nodes().filter(|&node| exchange::of_node(layout.nodes, node).is_some());
    exchanges.flat_map(|node| &layout.node(node).inputs).map(|&id| layout.source(id))
}

/// The cluster that computes a variable's new value, if its own reads allow it to overwrite the old value.
fn updating(layout: &Layout<'_>, clusters: &Clusters, variable: ValueId, value: ValueId) -> Option<usize> {
    let Origin::Value(root) = layout.of(value).origin else { return None };
    let cluster = clusters.of[root.node]?;
    if layout.wants_copy(value, true) {
        return None;
    }
    let joined = &clusters.all[cluster];
    // A prologue reads elements that other invocations write.
    let in_prologue = |node: usize| joined.prologue.as_ref().is_some_and(|prologue| prologue.members.contains(&node));
    let harmless =
        |node: usize, id: ValueId| layout.source(id) != variable || layout.same_index(node, id) && !in_prologue(node);
    let mut reads = joined.members().flat_map(|n| layout.node(n).inputs.iter().map(move |&id| (n, id)));
    reads.all(|(node, id)| harmless(node, id)).then_some(cluster)
}

/// Dependencies between jobs. Jobs are numbered: first the clusters, then the copies.
struct Edges {
    jobs: Vec<Job>,
    copies: HashMap<ValueId, usize>,
    /// For each job, those that must run before it; may contain duplicates.
    needs: Vec<Vec<usize>>,
    /// For each leaf, the jobs that read it; may contain duplicates.
    leaf_readers: HashMap<ValueId, Vec<usize>>,
}

impl Edges {
    fn new(layout: &Layout<'_>, clusters: &Clusters, targets: &[ValueId]) -> Edges {
        let count = clusters.all.len();
        let mut edges = Edges {
            jobs: (0..count).map(Job::Cluster).collect(),
            copies: HashMap::new(),
            needs: vec![Vec::new(); count],
            leaf_readers: HashMap::new(),
        };
        let fetched = targets.iter().map(|&id| (id, false));
        let assigned = layout.nodes.assignments.iter().map(|a| (a.value, true));
        for (id, assigned) in fetched.chain(assigned) {
            if layout.wants_copy(id, assigned) {
                edges.copy(layout, clusters, id);
            } else if let Origin::Copy(copied) = layout.of(id).origin {
                edges.copy(layout, clusters, copied);
            }
        }
        for (number, cluster) in clusters.all.iter().enumerate() {
            for node in cluster.members() {
                let kernel = layout.kernel(node);
                for (i, &id) in layout.node(node).inputs.iter().enumerate() {
                    let copied = kernel.as_ref().is_some_and(|kernel| !kernel.in_place[i]);
                    let origin = if copied { &Origin::Copy(id) } else { &layout.of(id).origin };
                    edges.read(layout, clusters, number, origin);
                }
            }
        }
        edges
    }

    /// Makes `job` depend on the producer of the origin. A copy that is needed for the first time becomes
    /// a job with its own dependencies.
    fn read(&mut self, layout: &Layout<'_>, clusters: &Clusters, mut job: usize, origin: &Origin) {
        let mut origin = origin.clone();
        loop {
            match origin {
                // Constants are copied once, when the program is created, unless each step makes a copy anyway.
                Origin::Copy(id) if layout.copied_constant(id).is_some() => {
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

    /// Adds a job that copies a value.
    fn copy(&mut self, layout: &Layout<'_>, clusters: &Clusters, id: ValueId) {
        if let (copy, true) = self.copy_number(id) {
            self.read(layout, clusters, copy, &layout.of(id).origin);
        }
    }

    /// The job number of a value's copy, and whether it is new.
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

    /// A topological order that defers `late` jobs as long as possible, and otherwise follows graph order
    /// among ready jobs. Exchanges wait until nothing else is ready; then all that are ready follow each other, a
    /// [phase](exchange::Phase).
    fn order(&self, layout: &Layout<'_>, clusters: &Clusters, late: &HashSet<usize>) -> Vec<usize> {
        let age = |job: usize| match self.jobs[job] {
            Job::Cluster(number) => clusters.all[number].newest(),
            Job::Copy(id) => Some(id.node),
        };
        let entry = |job: usize| age(job).map(|age| Reverse((late.contains(&job), age, self.jobs[job], job)));
        let exchanges = |job: usize| match self.jobs[job] {
            Job::Cluster(number) => {
                clusters.all[number].kernel.is_some_and(|(node, _)| exchange::of_node(layout.nodes, node).is_some())
            }
            Job::Copy(_) => false,
        };
        let mut waiting: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); self.jobs.len()];
        for (job, needs) in self.needs.iter().enumerate() {
            needs.iter().for_each(|&first| followers[first].push(job));
        }
        // Clusters that were merged into others have no age.
        let mut ready: BinaryHeap<_> =
            (0..self.jobs.len()).filter(|&job| waiting[job] == 0).filter_map(entry).collect();
        let mut order = Vec::with_capacity(self.jobs.len());
        let (mut waiting_exchanges, mut phase) = (Vec::new(), Vec::new());
        loop {
            let job = match phase.pop() {
                Some(job) => job,
                None => match ready.pop() {
                    Some(Reverse((.., job))) if exchanges(job) => {
                        waiting_exchanges.push(job);
                        continue;
                    }
                    Some(Reverse((.., job))) => job,
                    None if waiting_exchanges.is_empty() => break,
                    None => {
                        phase.extend(waiting_exchanges.drain(..).rev());
                        continue;
                    }
                },
            };
            for &follower in &followers[job] {
                waiting[follower] -= 1;
                if waiting[follower] == 0 {
                    ready.extend(entry(follower));
                }
            }
            order.push(job);
        }
        debug_assert!(waiting.iter().all(|&left| left == 0), "the dependencies between jobs form a cycle");
        order
    }
}

/// A topological order of jobs that is maintained while edges are added. As in Pearce and Kelly, *A Dynamic
/// Topological Sort Algorithm for Directed Acyclic Graphs* (JEA 11, 2006), only the jobs between the two
/// ends of a new edge are visited.
struct Order {
    edges: Edges,
    sequence: Vec<usize>,
    /// The position of each job in the sequence.
    position: Vec<usize>,
}

impl Order {
    fn new(edges: Edges, layout: &Layout<'_>, clusters: &Clusters, late: &HashSet<usize>) -> Order {
        let sequence = edges.order(layout, clusters, late);
        let mut order = Order { position: vec![0; edges.jobs.len()], edges, sequence };
        order.number(0, order.sequence.len());
        order
    }

    fn number(&mut self, from: usize, to: usize) {
        for at in from..to {
            self.position[self.sequence[at]] = at;
        }
    }

    /// Moves `job` after all other readers of a leaf; returns false if one of them depends on it.
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

    /// `job` and its dependencies, from position `from` on.
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

    /// Adds an edge from `first` to `then`; `first` must not depend on `then`.
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
