//! `wgrad lint`: checks the models against the limits of devices that need not be present.

use serde_json::{Value as Json, json};
use wgrad::plan::{Bound, Options, Plan};
use wgrad::{Finding, Graph, Profile, Value, models};

use crate::devices::size;
use wgrad_lab::output::{Out, Stop};

/// Profiles for tests, excluded by default.
const TESTS: [&str; 2] = ["low", "low-1mib"];

/// A model's requirements on a device.
struct Verdict {
    profile: &'static str,
    model: &'static str,
    /// Why it cannot run.
    findings: Vec<Finding>,
    launches: usize,
    memory: u64,
    binding: u64,
    storage: usize,
    workgroups: u64,
}

impl Verdict {
    fn new(
        name: &'static str,
        profile: &Profile,
        (model, graph, outputs): &(&'static str, Graph, Vec<Value>),
    ) -> Result<Verdict, Stop> {
        let outputs: Vec<&Value> = outputs.iter().collect();
        let (plan, findings) = Plan::of(graph, &outputs, profile, &Options::default())?;
        let dispatches = || plan.calls.iter().flat_map(|call| &call.dispatches);
        let storage = |bound: &&Bound| matches!(bound, Bound::Storage { .. } | Bound::Status);
        let grid = |workgroups: [u32; 3]| workgroups.iter().map(|&n| u64::from(n)).product();
        Ok(Verdict {
            profile: name,
            model,
            launches: plan.dispatches(),
            memory: plan.total_bytes(),
            binding: plan.buffers.iter().map(|buffer| buffer.bytes).max().unwrap_or(0),
            storage: dispatches().map(|d| d.bindings.iter().filter(storage).count()).max().unwrap_or(0),
            workgroups: dispatches().map(|d| grid(d.workgroups)).max().unwrap_or(0),
            findings,
        })
    }

    fn runs(&self) -> bool {
        !self.findings.iter().any(|finding| finding.refused)
    }
}

/// Lints one model or all, for one profile or the default ones. False if a model does not run.
pub fn run(profile: Option<&str>, model: Option<&str>, as_json: bool, out: &mut Out) -> Result<bool, Stop> {
    let mut profiles = Profile::named();
    let known: Vec<&str> = profiles.iter().map(|(name, _)| *name).collect();
    match profile {
        Some(wanted) if !known.contains(&wanted) => {
            return Err(Stop::Error(format!("there is no profile `{wanted}`; profiles: {}", known.join(", "))));
        }
        Some(wanted) => profiles.retain(|(name, _)| *name == wanted),
        None => profiles.retain(|(name, _)| !TESTS.contains(name)),
    }
    let mut models = models::programs();
    let names: Vec<&str> = models.iter().map(|(name, ..)| *name).collect();
    if let Some(wanted) = model {
        if !names.contains(&wanted) {
            return Err(Stop::Error(format!("there is no model `{wanted}`; models: {}", names.join(", "))));
        }
        models.retain(|(name, ..)| *name == wanted);
    }
    let mut verdicts = Vec::new();
    for (name, limits) in &profiles {
        for model in &models {
            verdicts.push(Verdict::new(name, limits, model)?);
        }
    }
    if as_json {
        let limits: Vec<Json> = profiles.iter().map(|(name, limits)| limits_json(name, limits)).collect();
        let verdicts: Vec<Json> = verdicts.iter().map(verdict_json).collect();
        out.line(format!("{:#}", json!({ "profiles": limits, "verdicts": verdicts })))?;
    } else {
        table(&profiles, &verdicts, out)?;
        if profile.is_none() {
            out.line(format!("--profile takes one of {}.", known.join(", ")))?;
        }
    }
    Ok(verdicts.iter().all(Verdict::runs))
}

fn table(profiles: &[(&'static str, Profile)], verdicts: &[Verdict], out: &mut Out) -> Result<(), Stop> {
    for (name, limits) in profiles {
        out.line(format!(
            "{name}: {}. Allows bindings of {}, {} storage buffers, workgroups of {} invocations and {}, {} workgroups per \
             dimension, uniforms of {}{}",
            limits.name,
            size(limits.max_binding.min(limits.max_buffer)),
            limits.usable_storage_buffers(),
            limits.max_invocations,
            size(limits.max_workgroup_memory.into()),
            limits.max_workgroups,
            size(limits.max_uniform),
            limits.memory.map_or_else(String::new, |bytes| format!(", {} of memory", size(bytes))),
        ))?;
        for verdict in verdicts.iter().filter(|verdict| verdict.profile == *name) {
            let Verdict { model, launches, storage, workgroups, .. } = verdict;
            if verdict.runs() {
                out.line(format!(
                    "  {model:<20} runs: {launches} launches, {} of memory, largest buffer {}, at most {storage} storage \
                     buffers and {workgroups} workgroups a launch",
                    size(verdict.memory),
                    size(verdict.binding),
                ))?;
            } else {
                out.line(format!("  {model:<20} does not run:"))?;
            }
            for finding in &verdict.findings {
                out.line(format!("    {}", finding.to_string().replace('\n', "\n    ")))?;
            }
        }
    }
    Ok(())
}

fn limits_json(name: &str, limits: &Profile) -> Json {
    json!({
        "profile": name,
        "name": limits.name,
        "binding_bytes": limits.max_binding,
        "buffer_bytes": limits.max_buffer,
        "uniform_bytes": limits.max_uniform,
        "memory_bytes": limits.memory,
        "storage_buffers": limits.usable_storage_buffers(),
        "invocations_per_workgroup": limits.max_invocations,
        "workgroup_memory_bytes": limits.max_workgroup_memory,
        "workgroups_per_dimension": limits.max_workgroups,
        "subgroup_sizes": limits.subgroups.map(|(min, max)| [min, max]),
        "f16": limits.f16,
    })
}

fn verdict_json(verdict: &Verdict) -> Json {
    let findings: Vec<Json> = verdict.findings.iter().map(finding_json).collect();
    json!({
        "profile": verdict.profile,
        "model": verdict.model,
        "runs": verdict.runs(),
        "launches": verdict.launches,
        "memory_bytes": verdict.memory,
        "largest_binding_bytes": verdict.binding,
        "storage_buffers": verdict.storage,
        "workgroups": verdict.workgroups,
        "findings": findings,
    })
}

fn finding_json(finding: &Finding) -> Json {
    json!({
        "limit": finding.limit.name(),
        "what": finding.what,
        "at": finding.location.map(ToString::to_string),
        "needs": finding.needs,
        "allows": finding.allows,
        "advice": finding.advice,
        "message": finding.to_string(),
    })
}
