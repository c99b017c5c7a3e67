//! `wgrad shaders --dump`: writes the WGSL that ships, one complete shader per file, and optionally its SPIR-V.

use std::fs;
use std::path::Path;

use wgrad_lab::output::{Out, Stop, matches};
use wgrad_lab::shipped::{shipped, shipped_of};

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
