//! Splits a step into submissions by the estimated time of its kernel calls: drivers of GPUs that also drive
//! a display stop submissions that run for two seconds, and the device is lost.

use std::ops::Range;

use super::{KernelCall, Plan};
use crate::TensorType;
use crate::graph::Nodes;
use crate::profile::Profile;

/// Maximum estimated time per submission, in seconds.
const MAX_SECONDS: f64 = 0.25;

/// Conservative throughput of a device: terms summed per second, and bytes moved per second. `None` for
/// devices without a watchdog timeout.
fn pace(profile: &Profile) -> Option<(f64, f64)> {
    match profile.kind.as_str() {
        "software" | "reference" => None,
        "discrete GPU" => Some((2e11, 5e10)),
        _ => Some((2e10, 5e9)),
    }
}

impl Plan {
    /// The kernel calls of each submission of a step, in order: at most an estimated quarter of a second on
    /// that device, unless a single call takes longer. Software adapters get one submission.
    pub fn submissions(&self, profile: &Profile) -> Vec<Range<usize>> {
        let all = 0..self.calls.len();
        let Some(pace) = pace(profile) else { return vec![all] };
        let mut cuts = vec![0];
        let mut taken = 0.0;
        for (number, call) in self.calls.iter().enumerate() {
            let seconds = call.seconds(&self.nodes, pace);
            if taken > 0.0 && taken + seconds > MAX_SECONDS {
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
    /// A rough time estimate from the terms it sums or the bytes it reads and writes, whichever is larger.
    fn seconds(&self, nodes: &Nodes, (terms_per_second, bytes_per_second): (f64, f64)) -> f64 {
        let terms = self.computed(nodes).into_iter().filter(|id| id.output == 0).map(|id| {
            let node = &nodes.nodes[id.node];
            let inputs: Vec<&TensorType> = node.inputs.iter().map(|&id| nodes.ty(id)).collect();
            let each = node.op().map_or(1, |op| op.reduction_len(&inputs));
            each as f64 * node.outputs[0].shape.numel() as f64
        });
        let bytes: usize = self.reads.iter().chain(&self.writes).map(|stored| stored.ty.bytes()).sum();
        (terms.sum::<f64>() / terms_per_second).max(bytes as f64 / bytes_per_second)
    }
}
