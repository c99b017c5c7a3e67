//! `wgrad shaders`: writes the WGSL that ships, one complete shader per file, and optionally its SPIR-V; or shows the
//! plan of a task, and the WGSL of a launch with the ops that are fused into it.

use std::fs;
use std::path::Path;

use wgrad::plan::{Options, Plan};
use wgrad::{DType, Device, OpenOptions, Precision, Profile, Value};
use wgrad_lab::output::{Out, Stop, matches};
use wgrad_lab::shipped::{shipped, shipped_of};

use crate::bench::tasks::{TASKS, Work, find};

/// Writes all shaders, or those of the ops that match `pattern`, to `folder`; with `spirv` also as SPIR-V.
/// Shaders of an earlier dump are removed; other files in the folder stay.
pub fn run(folder: &Path, pattern: Option<&str>, spirv: bool, out: &mut Out) -> Result<bool, Stop> {
    let shaders = match pattern {
        Some(pattern) => shipped_of(|op| matches(pattern, op))?,
        None => shipped()?,
    };
    if let Some(pattern) = pattern.filter(|_| shaders.is_empty()) {
        return Err(Stop::Error(format!("no op with a kernel matches `{pattern}`; `wgrad ops` lists them")));
    }
    let at = |path: &Path, error: std::io::Error| Stop::Error(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|e| at(folder, e))?;
    for old in fs::read_dir(folder).map_err(|e| at(folder, e))? {
        let path = old.map_err(|e| at(folder, e))?.path();
        if is_dumped(&path) {
            fs::remove_file(&path).map_err(|e| at(&path, e))?;
        }
    }
    for shader in &shaders {
        let path = folder.join(format!("{}.wgsl", shader.name));
        fs::write(&path, &*shader.wgsl.text).map_err(|e| at(&path, e))?;
        if spirv {
            let words = translate(&shader.wgsl.text).map_err(|e| Stop::Error(format!("{}: {e}", path.display())))?;
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            let path = path.with_extension("spv");
            fs::write(&path, bytes).map_err(|e| at(&path, e))?;
        }
    }
    let software = shaders.iter().filter(|shader| shader.software).count();
    out.line(format!(
        "{} shaders written to {}; {software} of them are only for software adapters (.software in the name)",
        shaders.len(),
        folder.display()
    ))?;
    Ok(true)
}

/// The device to plan for: a named profile, or an adapter.
pub fn profile(name: Option<&str>, device: Option<&str>, precision: Precision) -> Result<Profile, Stop> {
    let Some(name) = name else {
        return Ok(Device::open_with(device, &OpenOptions::of(precision))?.profile().clone());
    };
    let named = Profile::named();
    let known: Vec<&str> = named.iter().map(|(known, _)| *known).collect();
    let why = format!("there is no profile `{name}`; profiles: {}", known.join(", "));
    named.into_iter().find(|(known, _)| *known == name).map(|(_, profile)| profile).ok_or(Stop::Error(why))
}

/// A task of `wgrad bench`, with its name and shape.
pub fn work(name: &str, shape: Option<&str>, dtype: Option<DType>) -> Result<(String, Work), Stop> {
    let Some(task) = find(name) else {
        let known: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        return Err(Stop::Error(format!("there is no task `{name}`; tasks: {}", known.join(", "))));
    };
    let shape = shape.unwrap_or(task.shapes[0]);
    let sizes = task.sizes(shape).map_err(Stop::Error)?;
    Ok((format!("{name} {shape}"), task.build(&sizes, dtype.unwrap_or(DType::F32)).map_err(Stop::Error)?))
}

/// Shows the plan of a task, or the WGSL of one of its launches.
pub fn of_task(
    (name, work): &(String, Work),
    launch: Option<usize>,
    profile: &Profile,
    options: &Options,
    out: &mut Out,
) -> Result<bool, Stop> {
    let outputs: Vec<&Value> = work.outputs.iter().collect();
    let (plan, findings) = Plan::of(&work.graph, &outputs, profile, options)?;
    if let Some(finding) = findings.first() {
        return Err(Stop::Error(format!("{name} cannot run on {}: {finding}", profile.name)));
    }
    let Some(number) = launch else {
        out.line(format!("{name} on {}", profile.name))?;
        out.line(plan.to_string().trim_end())?;
        out.line("--launch N prints the WGSL of a launch.")?;
        return Ok(true);
    };
    let commits = plan.commits.iter().filter_map(|commit| commit.guarded.as_ref()).map(|dispatch| ("commit", dispatch));
    let of_calls = plan.calls.iter().flat_map(|call| call.dispatches.iter().map(|dispatch| (&*call.label, dispatch)));
    let Some((label, dispatch)) = of_calls.chain(commits).nth(number) else {
        return Err(Stop::Error(format!("{name} has launches 0 to {}, not {number}", plan.dispatches().max(1) - 1)));
    };
    let [x, y, z] = dispatch.workgroups;
    out.line(format!("// Launch {number} of {name} on {}: {label}", profile.name))?;
    out.line(format!("// Entry point {}, {x} x {y} x {z} workgroups", dispatch.entry))?;
    out.line(dispatch.wgsl.text.trim_end())?;
    Ok(true)
}

/// Translates WGSL to SPIR-V as wgpu does for Vulkan, without bounds checks.
fn translate(wgsl: &str) -> Result<Vec<u32>, String> {
    let (module, info) = wgrad_lab::wgsl::parse(wgsl)?;
    let options =
        naga::back::spv::Options { lang_version: wgrad_lab::wgsl::spirv_version(&module), ..Default::default() };
    naga::back::spv::write_vec(&module, &info, &options, None).map_err(|e| e.to_string())
}

/// Whether a file name has the form that this command writes: `-`, eight hexadecimal digits, optionally
/// `.software`, then `.wgsl` or `.spv`.
fn is_dumped(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let Some(stem) = name.strip_suffix(".wgsl").or(name.strip_suffix(".spv")) else { return false };
    let hash = stem.strip_suffix(".software").unwrap_or(stem).rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && path.is_file()
}
