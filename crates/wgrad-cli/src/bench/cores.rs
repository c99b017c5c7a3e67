//! Measures the CPU cores without an adapter: an f32 multiply-add loop on every core, for each instruction set. A
//! software adapter runs on these cores.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::times::rounded;

/// Iterations per measurement.
const ROUNDS: usize = 500_000;
/// Accumulators: enough to hide the latency of a multiply-add (4 to 5 cycles at two per cycle).
const CHAINS: usize = 12;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, ROUNDS};

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() -> f32 {
        let (m, c) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut a = [_mm256_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..ROUNDS {
            for x in &mut a {
                *x = _mm256_fmadd_ps(*x, m, c);
            }
        }
        _mm256_cvtss_f32(a.into_iter().fold(m, |sum, x| _mm256_add_ps(sum, x)))
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512() -> f32 {
        let (m, c) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut a = [_mm512_set1_ps(black_box(1.0)); CHAINS];
        for _ in 0..ROUNDS {
            for x in &mut a {
                *x = _mm512_fmadd_ps(*x, m, c);
            }
        }
        _mm512_cvtss_f32(a.into_iter().fold(m, |sum, x| _mm512_add_ps(sum, x)))
    }
}

/// Vectors of four, which every compiler vectorises on its own.
fn base() -> f32 {
    let (m, c) = (black_box(0.999f32), black_box(0.001f32));
    let mut a = [[black_box(1.0f32); 4]; CHAINS];
    for _ in 0..ROUNDS {
        for lane in &mut a {
            // aarch64 always has a multiply-add; elsewhere `mul_add` might be a function call.
            *lane = lane.map(|x| if cfg!(target_arch = "aarch64") { x.mul_add(m, c) } else { x * m + c });
        }
    }
    a.iter().flatten().sum()
}

/// An instruction set's name, its floats per vector, and its loop.
type Loop = (&'static str, usize, fn() -> f32);

/// The instruction sets to try.
fn loops() -> Vec<Loop> {
    let mut loops: Vec<Loop> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            // SAFETY: the CPU supports the required features.
            loops.push(("avx2", 8, || unsafe { x86::avx2() }));
        }
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU supports the required features.
            loops.push(("avx512", 16, || unsafe { x86::avx512() }));
        }
    }
    if loops.is_empty() {
        loops.push(("base", 4, base));
    }
    loops
}

/// The total rate of all cores per instruction set, in GFLOP/s.
pub fn measure() -> Json {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let rates = loops().into_iter().map(|(name, width, run)| {
        let flop = (2 * ROUNDS * CHAINS * width * threads) as f64;
        let best = (0..50).map(|_| together(threads, run)).fold(f64::INFINITY, f64::min);
        (name.to_owned(), json!(rounded(flop / best / 1e9)))
    });
    json!({ "threads": threads, "gflops": serde_json::Map::from_iter(rates) })
}

/// Seconds until all threads have finished.
fn together(threads: usize, run: fn() -> f32) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || black_box(run()));
        }
    });
    start.elapsed().as_secs_f64()
}
