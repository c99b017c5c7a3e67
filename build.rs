//! Lists the files of `shaders/`, and identifies this build's kernels by a hash of the shaders and of the code that
//! specializes them: tuning results for other kernels are stale. A WebAssembly module gets the shaders without their
//! comments, since it is downloaded.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// The files at or below a path.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    std::fs::read_dir(path)?.try_for_each(|entry| files(&entry?.path(), found))
}

/// WGSL without comments, on the same lines.
fn without_comments(text: &str) -> String {
    text.lines().flat_map(|line| [line.split("//").next().unwrap_or_default().trim_end(), "\n"]).collect()
}

fn main() -> std::io::Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let is_wasm = std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm");
    let mut found = Vec::new();
    for folder in ["shaders", "src/ops", "src/shader", "src/shader.rs"] {
        println!("cargo:rerun-if-changed={folder}");
        files(Path::new(folder), &mut found)?;
    }
    found.sort();
    let mut hasher = DefaultHasher::new();
    let mut shaders = String::from("&[\n");
    for path in found {
        std::fs::read(&path)?.hash(&mut hasher);
        if path.extension().is_some_and(|extension| extension == "wgsl") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let path = if is_wasm {
                let small = out.join(format!("{name}.wgsl"));
                std::fs::write(&small, without_comments(&std::fs::read_to_string(&path)?))?;
                small
            } else {
                std::env::current_dir()?.join(&path)
            };
            writeln!(shaders, "({name:?}, include_str!({path:?})),").map_err(std::io::Error::other)?;
        }
    }
    shaders.push(']');
    std::fs::write(out.join("shaders.rs"), shaders)?;
    println!("cargo:rustc-env=WGRAD_KERNELS={:016x}", hasher.finish());
    Ok(())
}
