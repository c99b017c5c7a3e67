//! Runs the examples with `--quick`; each asserts its own result. `cargo test` builds them; before
//! `cargo test --test library` run `cargo build --examples`.

use crate::common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The names of all examples, sorted.
fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = folder.read_dir().expect("the folder of examples").map(|entry| entry.expect("an entry").path());
    let sources = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut names: Vec<String> = sources.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// Cargo puts tests into `deps` and examples into the sibling folder `examples`.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let folder = test.ancestors().nth(2).expect("a folder of the profile");
    folder.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

/// Runs the examples in a temporary folder, which receives their output files. All run even if one fails.
fn run_all(names: &[&str], device: Option<&str>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let results = common::in_parallel(names, |_, name| {
        let mut command = Command::new(binary(name));
        command.arg("--quick").args(device.map(|device| format!("--device={device}"))).current_dir(folder.path());
        let started = Instant::now();
        let output = command.output().unwrap_or_else(|e| panic!("{name}: {e}; `cargo build --examples` builds it"));
        println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            return Err(format!("{name}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)));
        }
        if device.is_none() && text(&output.stdout).contains("CPU reference") {
            return Err(format!("{name} ran on the reference:\n{}", text(&output.stdout)));
        }
        Ok(())
    });
    let failed: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), names.len(), failed.join("\n\n"));
}

#[test]
fn all_examples_run_on_the_gpu() {
    let names = names();
    assert!(names.len() >= 8, "only {names:?}");
    if common::device().is_some() {
        run_all(&names.iter().map(String::as_str).collect::<Vec<_>>(), None);
    }
}

/// The examples that take a second or two on the reference.
#[test]
fn small_examples_run_on_the_reference() {
    run_all(
        &["imbalanced", "iris", "linear_regression", "logistic_regression", "matmul", "parity", "xor"],
        Some("cpu"),
    );
}
