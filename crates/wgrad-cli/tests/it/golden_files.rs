//! `wgrad check --golden` refuses damaged folders. Needs no GPU.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::safetensors_bytes;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs `wgrad check --golden` on the folder, which must fail without a panic. Returns stderr.
fn refused(folder: &Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_wgrad"))
        .args(["check", "--device", "cpu", "--golden"])
        .arg(folder)
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    assert_ne!(out.status.code(), Some(0), "was accepted");
    assert!(out.status.code().is_some(), "ended by a signal");
    text
}

const CASE: &str = r#"{"format":1,"cases":[{"name":"a","op":"relu","inputs":["x"],"outputs":["y"]}]}"#;

fn tensors() -> Vec<u8> {
    let header = r#"{"a/x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"a/y":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}"#;
    safetensors_bytes(header, &[0; 16])
}

#[test]
fn damaged_folders_are_refused() {
    let folder = folder();
    let (json, data) = (folder.path().join("ops.json"), folder.path().join("ops.safetensors"));
    fs::write(&json, CASE).expect("writable");
    // Truncations at points spread over the file.
    for cut in (0..tensors().len()).step_by(9) {
        fs::write(&data, &tensors()[..cut]).expect("writable");
        assert!(refused(folder.path()).contains("ops.safetensors"), "cut to {cut}");
    }
    fs::write(&data, tensors()).expect("writable");
    for cut in (1..CASE.len()).step_by(9) {
        fs::write(&json, &CASE[..cut]).expect("writable");
        assert!(refused(folder.path()).contains("ops.json"), "cut to {cut}");
    }
    fs::write(&json, "[".repeat(200_000)).expect("writable");
    assert!(refused(folder.path()).contains("ops.json"));
    fs::write(&json, [0xff, 0xfe, 0]).expect("writable");
    assert!(refused(folder.path()).contains("ops.json"));
    let huge = CASE.replace(r#""op":"relu""#, r#""op":"reshape","attrs":{"shape":[9223372036854775807,-1]}"#);
    fs::write(&json, huge).expect("writable");
    refused(folder.path());
    fs::remove_file(&json).expect("there");
    fs::create_dir(&json).expect("a folder");
    assert!(refused(folder.path()).contains("not a regular file"));
}

#[cfg(unix)]
#[test]
fn sparse_files_are_refused() {
    let folder = folder();
    let json = folder.path().join("ops.json");
    fs::write(&json, "[").expect("writable");
    fs::OpenOptions::new().write(true).open(&json).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    assert!(refused(folder.path()).contains("stores only"));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_blocking() {
    let folder = folder();
    let (json, data) = (folder.path().join("ops.json"), folder.path().join("ops.safetensors"));
    assert!(Command::new("mkfifo").arg(&json).status().expect("mkfifo is installed").success());
    assert!(refused(folder.path()).contains("not a regular file"));
    fs::remove_file(&json).expect("there");
    fs::write(&json, CASE).expect("writable");
    std::os::unix::fs::symlink("/dev/zero", &data).expect("a link");
    assert!(refused(folder.path()).contains("not a regular file"));
}
