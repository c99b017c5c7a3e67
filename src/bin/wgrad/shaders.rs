//! `wgrad shaders --dump`: the WGSL that ships, one complete shader a file.

use std::fs;
use std::path::Path;

use wgrad::check::shipped;

use crate::output::{Out, Stop};

/// Writes every shader to `folder`. What else is there stays, except shaders of an earlier dump.
pub fn run(folder: &Path, out: &mut Out) -> Result<bool, Stop> {
    let shaders = shipped()?;
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
        fs::write(&path, &*shader.wgsl).map_err(|e| at(&path, e))?;
    }
    let software = shaders.iter().filter(|shader| shader.software).count();
    out.line(format!(
        "{} shaders written to {}; {software} of them are for software adapters alone (.software in the name)",
        shaders.len(),
        folder.display()
    ))?;
    Ok(true)
}

/// Whether a file bears a name such as this command gives: `-`, eight hexadecimal digits, perhaps
/// `.software`, `.wgsl`.
fn is_dumped(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let Some(stem) = name.strip_suffix(".wgsl") else { return false };
    let hash = stem.strip_suffix(".software").unwrap_or(stem).rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && path.is_file()
}
