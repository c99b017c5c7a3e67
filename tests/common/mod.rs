//! Shared helpers: the device for GPU tests, a parallel map, safetensors bytes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The best adapter, or `None` (with a message) if there is none. If `CI` or `WGRAD_REQUIRE_GPU`
/// is set, a missing adapter fails the test.
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

/// The best adapter with cooperative matrices enabled, or `None` (with a message, even if output is captured) if it has
/// none.
#[allow(dead_code)]
pub fn cooperative_device() -> Option<wgrad::Device> {
    use std::io::Write;
    let device = device()?;
    let device = wgrad::Device::open_with(None, &wgrad::OpenOptions::of(wgrad::Precision::Mixed)).unwrap_or(device);
    if device.profile().cooperative_matrices.is_empty() {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "skipped {test}: {device} has no cooperative matrices");
        return None;
    }
    Some(device)
}

/// The CPU reference, and the best adapter if there is one.
#[allow(dead_code)]
pub fn devices() -> Vec<wgrad::Device> {
    [Some(wgrad::Device::cpu()), device()].into_iter().flatten().collect()
}

/// Whether to run the sweeps over all cases in full (`WGRAD_THOROUGH=1`). Otherwise each case runs in some of its ways
/// only, and the other cases of its op in others.
#[allow(dead_code)]
pub fn thorough() -> bool {
    std::env::var_os("WGRAD_THOROUGH").is_some_and(|value| value == "1")
}

/// The first way and every `n`-th of the others, with an offset that varies from case to case; all ways if
/// [`thorough`].
#[allow(dead_code)]
pub fn sampled<T>(ways: Vec<T>, case: usize, n: usize) -> Vec<T> {
    let wanted = |at: usize| at == 0 || thorough() || (at + case).is_multiple_of(n);
    ways.into_iter().enumerate().filter(|(at, _)| wanted(*at)).map(|(_, way)| way).collect()
}

/// The `n` of [`sampled`] for an op: larger than `usual` where a software adapter takes seconds to compile a kernel that
/// is made for GPUs.
#[allow(dead_code)]
pub fn sampling(op: &str, usual: usize) -> usize {
    match op {
        _ if op.starts_with("attention") => 60,
        _ if op.starts_with("conv") => 30,
        _ => usual,
    }
}

/// Maps each item and its index with `f`, on one thread per core. The results keep the order of the items.
#[allow(dead_code)]
pub fn in_parallel<T: Sync, R: Send>(items: &[T], f: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    in_parallel_with(items, || (), |(), number, item| f(number, item))
}

/// [`in_parallel`] with a state per thread: a device of its own, for example, because a software adapter compiles the
/// kernels of one device on one core.
#[allow(dead_code)]
pub fn in_parallel_with<S, T: Sync, R: Send>(
    items: &[T],
    state: impl Fn() -> S + Sync,
    f: impl Fn(&S, usize, &T) -> R + Sync,
) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let work = || {
        let state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return };
            let result = f(&state, number, item);
            done.lock().expect("no thread panics with it").push((number, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("no thread panics with it");
    done.sort_by_key(|&(number, _)| number);
    assert_eq!(done.len(), items.len());
    done.into_iter().map(|(_, result)| result).collect()
}

/// The bytes of a safetensors file with this header.
#[allow(dead_code)]
pub fn safetensors_bytes(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}
