//! How long calls take, roughly, and where a step is cut into submissions: drivers of GPUs that also
//! draw the screen end what runs for two seconds, and lose the device.

use std::ops::Range;

use super::layout::op_of;
use super::{KernelCall, Plan};
use crate::TensorType;
use crate::graph::Nodes;
use crate::profile::Profile;

/// What one submission may take, in seconds.
const LONGEST: f64 = 0.25;

/// Terms of sums that a device adds in a second, and bytes that it moves, at the least that is to be
/// expected of it. `None` for what nobody watches.
fn pace(profile: &Profile) -> Option<(f64, f64)> {
    match profile.kind.as_str() {
        "software" | "reference" => None,
        "discrete GPU" => Some((2e11, 5e10)),
        _ => Some((2e10, 5e9)),
    }
}

impl Plan {
    /// The calls of each submission of a step, in order: as many as are estimated to take a quarter of
    /// a second on that device. Software adapters take everything at once.
    pub fn submissions(&self, profile: &Profile) -> Vec<Range<usize>> {
        let all = 0..self.calls.len();
        let Some(pace) = pace(profile) else { return vec![all] };
        let mut cuts = vec![0];
        let mut taken = 0.0;
        for (number, call) in self.calls.iter().enumerate() {
            let seconds = call.seconds(&self.nodes, pace);
            if taken > 0.0 && taken + seconds > LONGEST {
                cuts.push(number);
                taken = 0.0;
            }
            taken += seconds;
        }
        cuts.push(all.end);
        cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
    }
}

impl KernelCall {
    /// A rough estimate: the terms of its sums, or the bytes of what it reads and writes.
    fn seconds(&self, nodes: &Nodes, (terms_per_second, bytes_per_second): (f64, f64)) -> f64 {
        let terms = self.computed(nodes).into_iter().filter(|id| id.output == 0).map(|id| {
            let node = &nodes.nodes[id.node];
            let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
            let each = op_of(nodes, id.node).map_or(1, |op| op.reduction_len(&inputs));
            each as f64 * node.outputs[0].shape.numel() as f64
        });
        let bytes: usize = self.reads.iter().chain(&self.writes).map(|stored| stored.ty.bytes()).sum();
        (terms.sum::<f64>() / terms_per_second).max(bytes as f64 / bytes_per_second)
    }
}
