//! Identifies this build's kernels by a hash of the shaders and of the code that specializes them.
//! Tuning results for other kernels are stale.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let mut found = Vec::new();
    for folder in ["shaders", "src/ops"] {
        println!("cargo:rerun-if-changed={folder}");
        files(Path::new(folder), &mut found)?;
    }
    found.sort();
    let mut hasher = DefaultHasher::new();
    for path in found {
        std::fs::read(path)?.hash(&mut hasher);
    }
    println!("cargo:rustc-env=WGRAD_KERNELS={:016x}", hasher.finish());
    Ok(())
}
