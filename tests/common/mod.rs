//! The device that GPU tests run on.

/// The best adapter; `None`, with a line that says so, where there is none. With `CI` or
/// `WGRAD_REQUIRE_GPU` set a missing adapter fails the test.
#[allow(dead_code)]
pub fn device() -> Option<wgrad::Device> {
    let required = std::env::var_os("CI").is_some() || std::env::var_os("WGRAD_REQUIRE_GPU").is_some();
    match wgrad::Device::gpu() {
        Ok(device) => Some(device),
        Err(error) if required => panic!("a GPU test cannot run: {error}"),
        Err(error) => {
            eprintln!("skipped, no GPU: {error}");
            None
        }
    }
}

/// The reference, and the best adapter where there is one.
#[allow(dead_code)]
pub fn devices() -> Vec<wgrad::Device> {
    [Some(wgrad::Device::cpu()), device()].into_iter().flatten().collect()
}
