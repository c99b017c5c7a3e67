//! Tuning files: whatever loads survives a save and load unchanged; anything else only gives notes.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use wgrad::{Device, Session};

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("x"));

fuzz_target!(|bytes: &[u8]| {
    // Replaces a placeholder with the hash of the kernels, which differs between builds.
    let mut session = Session::new(Device::cpu());
    session.save_tuning(&PATH).expect("writable");
    let own = std::fs::read_to_string(&*PATH).expect("there");
    let kernels = own.split("\"kernels\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a hash");
    let text = String::from_utf8_lossy(bytes).replace("KERNELS", kernels);
    std::fs::write(&*PATH, text).expect("writable");
    let notes = session.load_tuning(&PATH);
    assert!(notes.iter().all(|note| note.contains("/x: ") && note.len() < 1000), "{notes:?}");
    session.save_tuning(&PATH).expect("saves what it has loaded");
    let mut again = Session::new(Device::cpu());
    again.load_tuning(&PATH);
    assert_eq!(again.choices(), session.choices());
});
