//! Splits a step into submissions: by the estimated time of its kernel calls, because drivers of GPUs that also drive a
//! display stop submissions that run for two seconds, and the device is lost; and so that an idle device starts early.

use std::ops::Range;

use super::{KernelCall, Plan};
use crate::TensorType;
use crate::graph::Nodes;
use crate::profile::Profile;

/// Maximum estimated time per submission, in seconds.
const MAX_SECONDS: f64 = 0.25;

/// Minimum launches per submission of a step that starts when the device is idle. On an H100, recording a small launch
/// takes about as long as running it.
const EARLY: usize = 8;

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
    /// that device, unless a single call takes longer. Software adapters have no such limit.
    ///
    /// If the step starts when the device is `idle`, the first submission has about eight launches, and each later
    /// one half as many as all before it: the device runs them while the host records the next.
    pub fn submissions(&self, profile: &Profile, idle: bool) -> Vec<Range<usize>> {
        let pace = pace(profile);
        let mut left: usize = self.calls.iter().map(|call| call.dispatches.len()).sum();
        let (mut submitted, mut recorded, mut taken) = (0, 0, 0.0);
        let mut cuts = vec![0];
        for (number, call) in self.calls.iter().enumerate() {
            let seconds = pace.map_or(0.0, |pace| call.seconds(&self.nodes, pace));
            let long = taken > 0.0 && taken + seconds > MAX_SECONDS;
            let early = idle && recorded >= EARLY.max(submitted / 2) && left >= EARLY;
            if long || early {
                cuts.push(number);
                submitted += recorded;
                (recorded, taken) = (0, 0.0);
            }
            taken += seconds;
            recorded += call.dispatches.len();
            left -= call.dispatches.len();
        }
        cuts.push(self.calls.len());
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
