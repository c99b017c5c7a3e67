//! Which values share a buffer, by lifetime.

/// A value's size and the first and last unit that touch it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lifetime {
    pub bytes: u64,
    pub first: usize,
    pub last: usize,
}

/// Shared objects, greedy by size (Pisarchyk and Lee, *Efficient Memory Management for Deep Neural
/// Net Inference*, arXiv:2001.03288): values from large to small, each into the buffer that is free
/// all its life and wastes least. Values that live at one time never share a buffer, so no launch
/// sees one buffer twice. Returns each value's buffer and the buffers' sizes.
pub(crate) fn assign(values: &[Lifetime]) -> (Vec<usize>, Vec<u64>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&v| (std::cmp::Reverse(values[v].bytes), values[v].first));
    let mut buffers: Vec<(u64, Vec<usize>)> = Vec::new();
    let mut assigned = vec![0; values.len()];
    for v in order {
        let free = |tenants: &[usize]| {
            tenants.iter().all(|&t| values[t].last < values[v].first || values[v].last < values[t].first)
        };
        let best = (0..buffers.len()).filter(|&b| free(&buffers[b].1)).min_by_key(|&b| buffers[b].0);
        let buffer = best.unwrap_or_else(|| {
            buffers.push((values[v].bytes, Vec::new()));
            buffers.len() - 1
        });
        buffers[buffer].1.push(v);
        assigned[v] = buffer;
    }
    (assigned, buffers.into_iter().map(|(bytes, _)| bytes).collect())
}

/// The most bytes that are alive at one time: no plan needs less.
pub(crate) fn lower_bound(values: &[Lifetime]) -> u64 {
    let end = values.iter().map(|v| v.last + 1).max().unwrap_or(0);
    let alive = |at: usize| values.iter().filter(|v| v.first <= at && at <= v.last).map(|v| v.bytes).sum();
    (0..end).map(alive).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tenants_of_one_buffer_never_meet(lives in prop::collection::vec((1u64..1000, 0usize..40, 0usize..12), 0..60)) {
            let values: Vec<Lifetime> =
                lives.iter().map(|&(bytes, first, length)| Lifetime { bytes, first, last: first + length }).collect();
            let (assigned, sizes) = assign(&values);
            for (a, x) in values.iter().enumerate() {
                prop_assert!(sizes[assigned[a]] >= x.bytes);
                for (b, y) in values.iter().enumerate().skip(a + 1) {
                    let meet = x.first <= y.last && y.first <= x.last;
                    prop_assert!(!(meet && assigned[a] == assigned[b]), "{x:?} and {y:?} share");
                }
            }
            prop_assert!(sizes.iter().sum::<u64>() >= lower_bound(&values));
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 100, first: i, last: i + 1 }).collect();
        let (_, sizes) = assign(&chain);
        assert_eq!(sizes, [100, 100]);
        assert_eq!(lower_bound(&chain), 200);
    }
}
