//! What a training step consists of, for the report: layers, kernel calls, memory, and times.

use serde_json::{Value as Json, json};

use super::programs::{Compiled, types};
use super::{Batch, Trainer};
use crate::graph::Summary;
use crate::plan::{Plan, Role};
use crate::timing::{Phases, launches};
use crate::{Result, StepProfile};

/// Values that are listed where a step needs the most memory.
const LARGEST: usize = 12;
/// Kernel calls and layers of a step that a report lists.
const MOST: usize = 2000;

impl Trainer {
    /// The step of a batch as `{"rows", "layers", "calls", "memory", "profile"}`. The profile is null unless
    /// [`Trainer::profile`] was called.
    pub(super) fn description(&self, program: &Compiled, batch: &Batch) -> Result<Json> {
        let step = self.training_graph(&types(batch));
        let summary = step.graph.summary(&step.outputs.first().into_iter().collect::<Vec<_>>())?;
        let plan = program.program.plan();
        Ok(json!({
            "rows": batch.values().next().and_then(|tensor| tensor.shape().first().copied()),
            "layers": layers(&summary),
            "calls": calls(plan),
            "memory": memory(plan),
            "profile": self.profiled.as_ref().map(profile),
        }))
    }
}

fn layers(summary: &Summary) -> Json {
    let rows = summary.rows.iter().take(MOST).map(|row| {
        json!({
            "layer": row.layer, "ops": row.ops, "output": row.output.to_string(), "parameters": row.parameters,
            "other_variables": row.other_variables, "multiply_adds": row.multiply_adds, "kept_bytes": row.kept_bytes,
            "inputs": row.inputs.iter().map(|(from, _)| from).collect::<Vec<_>>(),
        })
    });
    let (parameters, multiply_adds) = (summary.parameters(), summary.multiply_adds());
    json!({
        "rows": rows.collect::<Vec<_>>(), "parameters": parameters, "multiply_adds": multiply_adds,
        "kept_bytes": summary.kept_bytes(),
    })
}

fn calls(plan: &Plan) -> Vec<Json> {
    let calls = launches(plan).into_iter().zip(&plan.calls).take(MOST).map(|(launch, call)| {
        let writes: Vec<String> = launch.writes.iter().map(ToString::to_string).collect();
        json!({
            "label": launch.label, "op": launch.op(), "layer": launch.layer, "writes": writes.join(", "),
            "line": format!("{}:{}", launch.location.file(), launch.location.line()),
            "bytes": launch.bytes, "flops": launch.flops, "dispatches": call.dispatches.len(),
        })
    });
    calls.collect()
}

/// The bytes of each kind of buffer, those of the intermediate values at each kernel call, and the largest values where
/// these are most.
fn memory(plan: &Plan) -> Json {
    let bytes_of = |wanted: fn(&Role) -> bool| -> u64 {
        plan.buffers.iter().filter(|buffer| wanted(&buffer.role)).map(|buffer| buffer.bytes).sum()
    };
    let values = plan.live_values();
    let mut live = vec![0u64; plan.calls.len()];
    for value in &values {
        live.iter_mut().take(value.last + 1).skip(value.first).for_each(|bytes| *bytes += value.bytes);
    }
    let peak = (0..live.len()).max_by_key(|&at| (live[at], std::cmp::Reverse(at))).unwrap_or(0);
    let mut largest: Vec<_> = values.iter().filter(|value| value.first <= peak && peak <= value.last).collect();
    largest.sort_by_key(|value| std::cmp::Reverse(value.bytes));
    let described = largest.into_iter().take(LARGEST).map(|value| {
        let (what, ty) = match value.value {
            Some(id) => (plan.nodes.nodes[id.node].name(), plan.nodes.ty(id).to_string()),
            None => ("scratch memory", String::new()),
        };
        json!({"what": what, "type": ty, "bytes": value.bytes, "first": value.first, "last": value.last})
    });
    json!({
        "variables": bytes_of(|role| matches!(role, Role::Variable(_))),
        "inputs": bytes_of(|role| *role == Role::Input),
        "constants": bytes_of(|role| *role == Role::Constant),
        "temporary": plan.temporary_bytes(),
        "peak": peak,
        "largest": described.collect::<Vec<_>>(),
        "live": live.into_iter().take(MOST).collect::<Vec<_>>(),
    })
}

fn profile(profile: &StepProfile) -> Json {
    let Phases { upload, submit, readback } = profile.host;
    let seconds: Vec<f64> = profile.launches.iter().take(MOST).map(|launch| launch.seconds).collect();
    json!({
        "device": profile.device, "timestamps": profile.timestamps, "seconds": seconds,
        "upload": upload, "submit": submit, "readback": readback,
    })
}
