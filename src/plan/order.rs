//! The order of clusters while they are joined.

use std::collections::BTreeMap;

/// A topological order of clusters: each has a key larger than those of its direct and indirect dependencies.
pub struct Order {
    key: Vec<u64>,
    /// The clusters by key.
    at: BTreeMap<u64, usize>,
}

impl Order {
    /// The clusters `0..count`.
    pub fn new(count: usize) -> Order {
        let mut order = Order { key: vec![0; count], at: BTreeMap::new() };
        order.spread(0..count);
        order
    }

    /// Assigns evenly spaced keys to clusters in order.
    fn spread(&mut self, clusters: impl ExactSizeIterator<Item = usize>) {
        let step = u64::MAX / (clusters.len() as u64 + 1);
        self.at = clusters.enumerate().map(|(number, cluster)| ((number as u64 + 1) * step, cluster)).collect();
        self.at.iter().for_each(|(&key, &cluster)| self.key[cluster] = key);
    }

    /// The clusters in order.
    pub fn clusters(&self) -> Vec<usize> {
        self.at.values().copied().collect()
    }

    /// Whether `cluster` comes after `other`.
    pub fn after(&self, cluster: usize, other: usize) -> bool {
        self.key[cluster] > self.key[other]
    }

    /// Removes a cluster.
    pub fn remove(&mut self, cluster: usize) {
        self.at.remove(&self.key[cluster]);
    }

    /// Moves clusters directly before `cluster`, keeping their relative order.
    pub fn put_before(&mut self, cluster: usize, mut moved: Vec<usize>) {
        if moved.is_empty() {
            return;
        }
        moved.sort_unstable_by_key(|&cluster| self.key[cluster]);
        moved.iter().for_each(|&cluster| self.remove(cluster));
        let before = |order: &Order| order.at.range(..order.key[cluster]).next_back().map_or(0, |(&key, _)| key);
        let count = moved.len() as u64;
        if self.key[cluster] - before(self) <= count {
            self.spread(self.clusters().into_iter());
        }
        let before = before(self);
        let step = (self.key[cluster] - before) / (count + 1);
        for (number, cluster) in moved.into_iter().enumerate() {
            self.key[cluster] = before + (number as u64 + 1) * step;
            self.at.insert(self.key[cluster], cluster);
        }
    }
}
