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
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::{Error, Result};

/// Elements per part, for that many ranks.
pub(super) fn part(values: usize, ranks: usize) -> usize {
    values.div_ceil(ranks).max(1)
}

/// The length of a message with a part, in words of 16 bits.
pub(super) fn message_words(part: usize) -> usize {
    2 + part
}

/// The messages to all ranks, one after another, each with a part of the values.
pub(super) fn messages(values: &[f32], ranks: usize) -> Vec<u16> {
    let part = part(values.len(), ranks);
    let message = |rank| message(values.get(rank * part..).unwrap_or_default(), part);
    (0..ranks).map(message).collect::<Vec<_>>().concat()
}

/// A message with up to `part` values, padded with zeros: the factor that restores them, in two words, and the f16
/// numbers.
pub(super) fn message(values: &[f32], part: usize) -> Vec<u16> {
    let values = &values[..values.len().min(part)];
    // Magnitudes compare as their bits do, which the compiler turns into vector instructions.
    let magnitude = |x: &f32| match x.to_bits() & (u32::MAX >> 1) {
        finite if finite < f32::INFINITY.to_bits() => finite,
        _ => 0,
    };
    let largest = f32::from_bits(values.iter().map(magnitude).fold(0, u32::max));
    // A power of two, so that scaling does not round. Neither it nor its inverse leaves the normal numbers.
    let exponent = if largest > 0.0 { largest.log2().floor() as i32 } else { 0 };
    let factor = 2f32.powi((exponent - 15).max(-126));
    let inverse = 1.0 / factor;
    let most = f16::MAX.to_f32();
    // The largest may be a little too large, because log2 rounds.
    let scale = |x: &f32| if x.is_finite() { (x * inverse).clamp(-most, most) } else { *x };
    let scaled: Vec<f32> = values.iter().map(scale).collect();
    let mut halves = vec![f16::ZERO; part];
    halves[..scaled.len()].convert_from_f32_slice(&scaled);
    let bits = factor.to_bits();
    [&[bits as u16, (bits >> 16) as u16], halves.reinterpret_cast()].concat()
}

/// The values of a message.
pub(super) fn values(message: &[u16]) -> Result<Vec<f32>> {
    let Some((&[low, high], halves)) = message.split_first_chunk::<2>() else {
        return Err(Error::Distributed("internal: a message without a factor".into()));
    };
    let factor = f32::from_bits(u32::from(low) | u32::from(high) << 16);
    let mut values = vec![0.0; halves.len()];
    halves.reinterpret_cast::<f16>().convert_to_f32_slice(&mut values);
    values.iter_mut().for_each(|x| *x *= factor);
    Ok(values)
}

/// The sum of messages with the same part, in their order, as a message.
pub(super) fn sum<'a>(received: impl Iterator<Item = &'a [u16]>, part: usize) -> Result<Vec<u16>> {
    let mut sum = vec![0.0f32; part];
    for message in received {
        sum.iter_mut().zip(values(message)?).for_each(|(sum, x)| *sum += x);
    }
    Ok(message(&sum, part))
}
