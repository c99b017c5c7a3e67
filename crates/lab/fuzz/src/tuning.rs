//! Tuning files: whatever loads survives a save and load unchanged; anything else only gives notes.

use wgrad::{Device, Session};

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    // Replaces a placeholder with the hash of the kernels, which differs between builds.
    let mut session = Session::new(Device::cpu());
    session.save_tuning(&path).expect("writable");
    let own = std::fs::read_to_string(&path).expect("there");
    let kernels = own.split("\"kernels\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a hash");
    let text = String::from_utf8_lossy(bytes).replace("KERNELS", kernels);
    std::fs::write(&path, text).expect("writable");
    let notes = session.load_tuning(&path);
    assert!(notes.iter().all(|note| note.contains("/x: ") && note.len() < 1000), "{notes:?}");
    session.save_tuning(&path).expect("saves what it has loaded");
    let mut again = Session::new(Device::cpu());
    again.load_tuning(&path);
    assert_eq!(again.choices(), session.choices());
}
