//! The specialisations of the shaders, and the runs of cases that use them.

use std::collections::{BTreeMap, HashMap, HashSet};
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
        .map(|d| (d.wgsl.clone(), d.entry.clone()))
        .collect()
}

const SCALAR: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/scalar.wgsl"));

/// A source file that several kernels include.
struct Shared {
    name: &'static str,
    text: &'static str,
    /// Text that identifies shaders that contain it.
    mark: &'static str,
}

macro_rules! shared {
    ($name:literal, $mark:literal) => {
        Shared {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/", $name, ".wgsl")),
            mark: $mark,
        }
    };
}

const SHARED: &[Shared] = &[
    shared!("matmul_operands", "fn rows_of_a("),
    shared!("matmul_blocks", "fn left_terms("),
    shared!("conv2d_phases", "i32(channel / SX % SY)"), // before the text in which it replaces a function
    shared!("conv2d_product", "  by_plane: vec2<u32>, by_width: vec2<u32>,"),
    shared!("conv2d_weight_product", "outputs: u32, channels: u32, taps: u32, fold: u32,"),
    shared!("max_pool2d_window", "fn first_maximum("),
    shared!("max_pool2d_pair", "fn upper_of("),
    shared!("norm_rows", "fn part_of("),
    shared!("pool2d", "struct Pool {"),
    shared!("recurrent_places", "fn in_slot("),
    shared!("recurrent_rnn", "activate(x[in_step(at, 1u)] + state(i))"),
    shared!("recurrent_rnn_grad", "@binding(4) var<storage, read> hs:"),
    shared!("recurrent_lstm", "@binding(5) var<storage, read_write> cs:"),
    shared!("recurrent_lstm_grad", "@binding(6) var<storage, read> dcs:"),
    shared!("recurrent_gru", "@binding(5) var<storage, read> bias:"),
    shared!("reduce_walk", "fn start_of(row: u32)"),
    shared!("sort_run", "const LAST: bool ="),
    shared!("recurrent_gru_grad", "@binding(6) var<storage, read_write> dx:"),
];

/// Whether a shader defines a function or constant with this name.
fn defines(text: &str, name: &str) -> bool {
    text.contains(&format!("\nfn {name}(")) || text.contains(&format!("\nconst {name}:"))
}

fn shaders_of(entry: &str, wgsl: &str) -> Vec<String> {
    let mut names = match entry {
        "pointwise" => vec!["scalar", GENERATED],
        _ => vec![entry],
    };
    names.extend(SHARED.iter().filter(|shared| wgsl.contains(shared.mark)).map(|shared| shared.name));
    if wgsl.contains(EPILOGUE_MARK) {
        names.push(EPILOGUES);
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Whether a function or constant of a shader comes from this source file. Functions of scalar.wgsl are mutated only
/// in pointwise kernels, and constants of other files, which their ops set, not at all.
pub fn belongs(name: &str, wgsl: &str, shader: &str) -> bool {
    if defines(SCALAR, name) || shader == "scalar" {
        return shader == "scalar" && defines(SCALAR, name);
    }
    if name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return false;
    }
    if name.starts_with("epilogue") || shader == EPILOGUES {
        return shader == EPILOGUES && name.starts_with("epilogue");
    }
    let shared = SHARED.iter().find(|shared| wgsl.contains(shared.mark) && defines(shared.text, name));
    match shared {
        Some(shared) => shared.name == shader,
        None => SHARED.iter().all(|shared| shared.name != shader),
    }
}
