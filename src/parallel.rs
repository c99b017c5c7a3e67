//! Loops on all cores; in browsers, on one thread. They take trait objects, so that rayon is compiled once and not for
//! every op.

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;

/// Calls `f` with the number and the elements of each chunk of `size` elements of `out`.
pub(crate) fn for_chunks<T: Send>(out: &mut [T], size: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
    #[cfg(not(target_family = "wasm"))]
    let chunks = out.par_chunks_mut(size.max(1));
    #[cfg(target_family = "wasm")]
    let chunks = out.chunks_mut(size.max(1));
    chunks.enumerate().for_each(|(number, chunk)| f(number, chunk));
}

/// `f` of each number below `n`.
pub(crate) fn map<T: Send>(n: usize, f: &(dyn Fn(usize) -> T + Sync)) -> Vec<T> {
    #[cfg(not(target_family = "wasm"))]
    let numbers = (0..n).into_par_iter();
    #[cfg(target_family = "wasm")]
    let numbers = 0..n;
    numbers.map(f).collect()
}
