//! Case files (`wgrad check --replay`): whatever loads survives a save and load unchanged. Nothing is run, since the
//! kernels need a device.

use wgrad::Device;
use wgrad::check::KernelCase;

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x");
    // libFuzzer mutates the text; the length prefix that the format requires is computed here.
    let text = &bytes[..bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len())];
    let data = bytes.get(text.len() + 1..).unwrap_or(&[]);
    let file = [&(text.len() as u64).to_le_bytes()[..], text, data].concat();
    std::fs::write(&path, file).expect("writable");
    match KernelCase::load(&path) {
        Ok(case) => {
            let again = folder.path().join("again");
            case.save(&again).expect("saves what it has loaded");
            let back = KernelCase::load(&again).expect("loads what it has saved");
            // Compared as text, since NaN differs from itself.
            assert_eq!(format!("{back:?}"), format!("{case:?}"));
            case.replay(&Device::cpu()).expect_err("the reference has nothing to replay");
        }
        Err(error) => assert!(error.to_string().contains("/x: "), "{error}"),
    }
}
