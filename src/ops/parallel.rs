//! Parallel loops of the reference. They take trait objects, so that rayon is compiled once and not for every op.

use rayon::prelude::*;

/// Calls `f` with the number and the elements of each chunk of `size` elements of `out`.
pub(super) fn for_chunks(out: &mut [f64], size: usize, f: &(dyn Fn(usize, &mut [f64]) + Sync)) {
    out.par_chunks_mut(size.max(1)).enumerate().for_each(|(number, chunk)| f(number, chunk));
}

/// `f` of each number below `n`.
pub(super) fn map<T: Send>(n: usize, f: &(dyn Fn(usize) -> T + Sync)) -> Vec<T> {
    (0..n).into_par_iter().map(f).collect()
}
