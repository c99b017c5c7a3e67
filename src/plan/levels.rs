//! Which dispatches of a step may run at the same time.
//!
//! GPUs overlap dispatches that no barrier separates. wgpu inserts the barriers: within a compute pass, before each
//! dispatch that uses a buffer in another way than before; between passes, one for all buffers. A dispatch that
//! waits for another one takes 5 us on an H100, however small it is. So the engine executes independent dispatches
//! together and begins a pass before them, which takes the host about 3 us (measured with lavapipe).

use std::collections::HashMap;
use std::ops::Range;

use super::{Bound, BufferId, Dispatch, Plan};
use crate::profile::Profile;

/// A dispatch of a plan: the numbers of its kernel call, and of the dispatch in it.
pub type DispatchId = (usize, usize);

/// The level from which a buffer may be read or written again.
#[derive(Clone, Copy, Default)]
struct Free {
    to_read: usize,
    to_write: usize,
}

impl Plan {
    /// The dispatches of these kernel calls by level. A dispatch has the lowest level above those of all earlier
    /// dispatches that write a buffer which it uses, or read a buffer which it writes. So the dispatches of a level are
    /// independent of each other, and running level by level gives the same results as running in order.
    pub fn levels(&self, calls: Range<usize>) -> Vec<Vec<DispatchId>> {
        let mut free: HashMap<Option<BufferId>, Free> = HashMap::new();
        let mut levels: Vec<Vec<DispatchId>> = Vec::new();
        for call in calls {
            for (number, dispatch) in self.calls[call].dispatches.iter().enumerate() {
                let first = |(buffer, write)| {
                    let free = free.get(&buffer).copied().unwrap_or_default();
                    if write { free.to_write } else { free.to_read }
                };
                let level = uses(dispatch).map(first).max().unwrap_or(0);
                for (buffer, write) in uses(dispatch) {
                    let free = free.entry(buffer).or_default();
                    free.to_write = free.to_write.max(level + 1);
                    if write {
                        free.to_read = level + 1;
                    }
                }
                if levels.len() <= level {
                    levels.resize(level + 1, Vec::new());
                }
                levels[level].push((call, number));
            }
        }
        levels
    }

    /// The dispatches of these kernel calls by compute pass, for a device. On a GPU, each level of several dispatches
    /// begins a pass. Software adapters run dispatches one after the other and get one pass.
    pub(crate) fn passes(&self, calls: Range<usize>, profile: &Profile) -> Vec<Vec<DispatchId>> {
        if profile.software {
            let all = calls.flat_map(|call| (0..self.calls[call].dispatches.len()).map(move |number| (call, number)));
            return vec![all.collect()];
        }
        let mut passes: Vec<Vec<DispatchId>> = vec![Vec::new()];
        for level in self.levels(calls) {
            match passes.last_mut() {
                Some(pass) if pass.is_empty() || level.len() == 1 => pass.extend(level),
                _ => passes.push(level),
            }
        }
        passes
    }
}

/// The buffers that a dispatch uses, and whether it writes them. `None` is the status buffer.
fn uses(dispatch: &Dispatch) -> impl Iterator<Item = (Option<BufferId>, bool)> {
    dispatch.bindings.iter().filter_map(|bound| match *bound {
        Bound::Storage { buffer, write } => Some((Some(buffer), write)),
        Bound::Status => Some((None, true)),
        Bound::Uniform(_) | Bound::Scalars(_) => None,
    })
}
