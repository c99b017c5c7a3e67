//! Sums by messages of half the size.
//!
//! Each rank is responsible for one part of the values. A rank sends each part as f16, multiplied by a power of two, to
//! the rank that is responsible for it. That rank adds up the parts in f32, in the order of the ranks, and sends the
//! sum as f16 to all: two roundings to f16, whatever the number of ranks. With `m` the largest magnitude of a part, an
//! element of a sum `s` of terms `x[r]` is wrong by at most
//!
//! `2^-11 (sum of |x[r]| + |s|) + 2^-40 (sum of m[r] + m)`,
//!
//! to the first order, beyond the rounding of the sum in f32. All ranks get the same bits.

use half::f16;

use crate::{Error, Result};

/// The largest magnitude is scaled to at least this and less than twice as much.
const LARGEST: f32 = 32768.0;

/// Elements per part, for that many ranks.
pub(super) fn part(values: usize, ranks: usize) -> usize {
    values.div_ceil(ranks).max(1)
}

/// Bytes of a message with a part.
pub(super) fn message_bytes(part: usize) -> usize {
    4 + 2 * part
}

/// The messages to all ranks, one after another, each with a part of the values.
pub(super) fn messages(values: &[f32], ranks: usize) -> Vec<u8> {
    let part = part(values.len(), ranks);
    (0..ranks).flat_map(|rank| message(values.get(rank * part..).unwrap_or_default(), part)).collect()
}

/// A message with up to `part` values, padded with zeros: the factor that restores them, and numbers of 16 bits.
pub(super) fn message(values: &[f32], part: usize) -> Vec<u8> {
    let values = &values[..values.len().min(part)];
    let largest = values.iter().filter(|x| x.is_finite()).fold(0.0f32, |most, x| most.max(x.abs()));
    // Powers of two, so that scaling does not round. The factor stays normal.
    let exponent = if largest > 0.0 { largest.log2().floor() as i32 } else { 0 };
    let factor = 2f32.powi((exponent - 15).max(-126));
    let mut bytes = factor.to_le_bytes().to_vec();
    for x in values {
        let mut scaled = f64::from(*x) / f64::from(factor);
        if x.is_finite() {
            // log2 may round up to the next power of two.
            scaled = scaled.clamp(-f64::from(f16::MAX), f64::from(f16::MAX));
        }
        bytes.extend(f16::from_f64(scaled).to_le_bytes());
    }
    bytes.resize(message_bytes(part), 0);
    debug_assert!(largest == 0.0 || largest / factor >= LARGEST / 2.0 || factor == f32::MIN_POSITIVE);
    bytes
}

/// The values of a message.
pub(super) fn values(message: &[u8]) -> Result<Vec<f32>> {
    let Some((factor, halves)) = message.split_first_chunk::<4>() else {
        return Err(Error::Distributed("a message of no bytes".into()));
    };
    let factor = f64::from(f32::from_le_bytes(*factor));
    let halves = halves.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f64());
    Ok(halves.map(|x| (x * factor) as f32).collect())
}

/// The sum of messages with the same part, in their order, as a message.
pub(super) fn sum<'a>(received: impl Iterator<Item = &'a [u8]>, part: usize) -> Result<Vec<u8>> {
    let mut sum = vec![0.0f32; part];
    for message in received {
        sum.iter_mut().zip(values(message)?).for_each(|(sum, x)| *sum += x);
    }
    Ok(message(&sum, part))
}
