//! Assigns intermediate values to shared buffers, by lifetime.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A value's size, and the first and last kernel call that use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifetime {
    /// Its size.
    pub bytes: u64,
    /// The first kernel call.
    pub first: usize,
    /// The last kernel call.
    pub last: usize,
}

/// Shared objects, greedy by size (Pisarchyk and Lee, *Efficient Memory Management for Deep Neural
/// Net Inference*, arXiv:2001.03288): values are assigned from large to small, each to the buffer that is
/// free for its whole lifetime and wastes the least space. Values with overlapping lifetimes never share
/// a buffer, so no launch binds one buffer for two of them. Returns each value's buffer and the buffer sizes.
///
/// Values of equal size are processed in order of their first use. A sweep over the kernel calls tracks how
/// long each buffer stays free, and a tree finds the first that is free long enough.
pub fn assign(values: &[Lifetime]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&v| (Reverse(values[v].bytes), values[v].first));
    let mut buffers: Vec<Shared> = Vec::new();
    let mut assigned = vec![0; values.len()];
    let mut larger: Vec<usize> = Vec::new(); // the buffers for larger values, smallest first
    for class in order.chunk_by(|&v, &w| values[v].bytes == values[w].bytes) {
        // Each buffer has a slot, in order of preference: first the new buffers of this size.
        let (new, begin) = (buffers.len(), values[class[0]].first);
        let buffer_of = |slot: usize| if slot < class.len() { new + slot } else { larger[slot - class.len()] };
        let slots = class.len() + larger.len();
        let mut free = Largest::new(slots);
        let mut due = vec![begin; slots];
        let mut changes: BinaryHeap<_> = (class.len()..slots).map(|slot| Reverse((begin, slot))).collect();
        for &v in class {
            let Lifetime { bytes, first, last } = values[v];
            while let Some(&Reverse((at, slot))) = changes.peek().filter(|Reverse((at, _))| *at <= first) {
                changes.pop();
                if due[slot] == at {
                    let (until, next) = buffers[buffer_of(slot)].from(first);
                    free.set(slot, until);
                    due[slot] = next;
                    changes.push(Reverse((next, slot)));
                }
            }
            let slot = free.first_above(last).unwrap_or_else(|| {
                buffers.push(Shared { bytes, tenants: BTreeMap::new() });
                buffers.len() - 1 - new
            });
            assigned[v] = buffer_of(slot);
            buffers[assigned[v]].tenants.insert(first, last);
            free.set(slot, 0);
            due[slot] = last + 1;
            changes.push(Reverse((last + 1, slot)));
        }
        larger.splice(..0, new..buffers.len());
    }
    (assigned, buffers.into_iter().map(|buffer| buffer.bytes).collect())
}

/// A buffer, and the first and last use of each value in it.
struct Shared {
    bytes: u64,
    tenants: BTreeMap<usize, usize>,
}

impl Shared {
    /// The kernel call before which the buffer must be free again if used from call `at` on (0 if it is in
    /// use), and the call at which this changes.
    fn from(&self, at: usize) -> (usize, usize) {
        if let Some((_, &last)) = self.tenants.range(..=at).next_back().filter(|&(_, &last)| last >= at) {
            return (0, last + 1);
        }
        let next = self.tenants.range(at..).next().map_or(usize::MAX, |(&first, _)| first);
        (next, next)
    }
}

/// A max tree over numbers in slots, to find the first slot with a number above a bound.
struct Largest {
    slots: usize,
    /// A binary tree: node `i` holds the maximum of nodes `2 i` and `2 i + 1`; the slots are its leaves.
    tree: Vec<usize>,
}

impl Largest {
    fn new(slots: usize) -> Largest {
        let slots = slots.next_power_of_two();
        Largest { slots, tree: vec![0; 2 * slots] }
    }

    fn set(&mut self, slot: usize, number: usize) {
        let mut at = self.slots + slot;
        self.tree[at] = number;
        while at > 1 {
            at /= 2;
            self.tree[at] = self.tree[2 * at].max(self.tree[2 * at + 1]);
        }
    }

    fn first_above(&self, bound: usize) -> Option<usize> {
        let mut at = 1;
        while self.tree[at] > bound && at < self.slots {
            at *= 2;
            at += usize::from(self.tree[at] <= bound);
        }
        (self.tree[at] > bound).then(|| at - self.slots)
    }
}

/// The peak number of live bytes: a lower bound for any assignment.
pub fn lower_bound(values: &[Lifetime]) -> u64 {
    let mut changes: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for value in values {
        changes.entry(value.first).or_default().0 += value.bytes;
        changes.entry(value.last + 1).or_default().1 += value.bytes;
    }
    let alive = changes.into_values().scan(0, |alive, (begun, ended)| {
        *alive = *alive + begun - ended;
        Some(*alive)
    });
    alive.max().unwrap_or(0)
}
