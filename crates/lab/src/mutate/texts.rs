//! The specialisations of the shaders, and the runs of cases that use them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use wgrad::check::{CaseGraph, ways};
use wgrad::op::Case;
use wgrad::plan::{Bound, Options, Plan};
use wgrad::{Device, Profile, Value};

use crate::faults::plan;
use crate::output::Stop;

/// The code that the plan generates around the functions of scalar.wgsl.
const GENERATED: &str = "generated";

/// The code that the plan inserts into other kernels, and a marker for it.
const EPILOGUES: &str = "epilogues";
const EPILOGUE_MARK: &str = " e_args:";

/// A specialisation of a shader, and the runs of cases that use it.
pub struct Text {
    pub wgsl: Arc<str>,
    pub runs: Vec<Arc<Run>>,
}

/// A case and a way to run it.
pub struct Run {
    /// Sequential number.
    pub number: usize,
    /// Index into [`cases`].
    pub case: usize,
    pub options: Options,
    /// Index into [`NARROW`] for a device that allows few workgroups.
    pub narrow: Option<usize>,
    /// Number of elements.
    pub size: usize,
}

/// Workgroups per dimension above which a grid is folded. Real devices allow 65,535, which only large cases exceed.
pub const NARROW: [u32; 2] = [8, 3];

/// A device's profile with fewer workgroups per dimension.
pub fn narrowed(profile: &Profile, most: u32) -> Profile {
    Profile { max_workgroups: most, ..profile.clone() }
}

/// The cases, and how many of them must agree with the reference; the rest must fail with an index out of range.
pub fn cases() -> (Vec<Case>, usize) {
    let mut cases = wgrad::ops::cases();
    let ordinary = cases.len();
    cases.extend(wgrad::ops::out_of_range_cases());
    (cases, ordinary)
}

/// The shaders of these cases, or of all, by the source files that they contain.
pub fn texts(
    device: &Device,
    only: &[usize],
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<Text>>, Stop> {
    let mut known: BTreeMap<Arc<str>, (String, Vec<Arc<Run>>)> = BTreeMap::new();
    let mut number = 0;
    let (cases, ordinary) = cases();
    for (case, built) in cases.iter().enumerate().filter(|(case, _)| only.is_empty() || only.contains(case)) {
        let graph = CaseGraph::new(built)?;
        let values = graph.inputs.iter().map(|(_, v, _)| v).chain(graph.outputs.iter().map(|(_, v)| v));
        let size = values.map(|v: &Value| v.shape().numel()).sum();
        let narrow = (0..NARROW.len()).map(|at| (narrowed(device.profile(), NARROW[at]), Some(at)));
        let mut seen = HashSet::new();
        for (profile, narrow) in std::iter::once((device.profile().clone(), None)).chain(narrow) {
            for options in ways(&graph, device.profile()) {
                let outputs = graph.outputs.iter().map(|(_, value)| value);
                let plan = match plan(&graph.graph, outputs, &profile, &options) {
                    Err(_) if narrow.is_some() => continue, // too large for this device
                    plan => plan?,
                };
                if !seen.insert(plan.fingerprint()) {
                    continue;
                }
                let run = Arc::new(Run { number, case, options, narrow, size });
                number += 1;
                for (wgsl, entry) in used(&plan, narrow.is_some(), case >= ordinary) {
                    let (_, runs) = known.entry(wgsl).or_insert_with(|| (entry, Vec::new()));
                    runs.push(run.clone());
                }
            }
        }
    }
    let mut found: BTreeMap<String, Vec<Text>> = BTreeMap::new();
    for (wgsl, (entry, runs)) in known {
        for shader in shaders_of(&entry, &wgsl).into_iter().filter(|shader| wanted(shader)) {
            found.entry(shader).or_default().push(Text { wgsl: wgsl.clone(), runs: runs.clone() });
        }
    }
    Ok(found)
}

/// The shaders and entry points of a plan that its run can test: on a narrow device those whose grid is folded, in a
/// case with an index out of range those that report it.
fn used(plan: &Plan, narrow: bool, out_of_range: bool) -> HashMap<Arc<str>, String> {
    let dispatches = plan.calls.iter().flat_map(|call| &call.dispatches);
    dispatches
        .filter(|d| !narrow || d.workgroups[1] > 1)
        .filter(|d| !out_of_range || d.bindings.contains(&Bound::Status))
        .map(|d| (d.wgsl.text.clone(), d.entry.clone()))
        .collect()
}

/// The file that declares a function or constant of a shader, from the comment `// shaders/FILE.wgsl:LINE` above it.
/// `None` for generated code.
fn file_of<'a>(wgsl: &'a str, name: &str) -> Option<&'a str> {
    let at = wgsl.find(&format!("\nfn {name}(")).or_else(|| wgsl.find(&format!("\nconst {name}:")))?;
    let mark = wgsl[..at].rfind("\n// shaders/")?;
    wgsl[mark + "\n// shaders/".len()..].split_once(".wgsl:").map(|(file, _)| file)
}

/// The files that a shader has declarations of. The functions that all kernels share are mutated only in pointwise
/// kernels.
fn shaders_of(entry: &str, wgsl: &str) -> Vec<String> {
    let files = wgsl.lines().filter_map(|line| line.strip_prefix("// shaders/")?.split_once(".wgsl:"));
    let mut names: BTreeSet<&str> = files.map(|(file, _)| file).collect();
    match entry {
        "pointwise" => drop(names.insert(GENERATED)),
        _ => names.retain(|name| !["prelude", "scalar"].contains(name)),
    }
    if wgsl.contains(EPILOGUE_MARK) {
        names.insert(EPILOGUES);
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Whether to mutate a function or constant of a shader as part of this file. Constants are mutated only in
/// scalar.wgsl: those of other files are set by their ops.
pub fn belongs(name: &str, wgsl: &str, shader: &str) -> bool {
    if name.starts_with("epilogue") {
        return shader == EPILOGUES;
    }
    match file_of(wgsl, name) {
        Some("scalar") => shader == "scalar",
        _ if name.starts_with(|c: char| c.is_ascii_uppercase()) => false,
        file => file.unwrap_or(GENERATED) == shader,
    }
}
