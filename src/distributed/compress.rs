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

/// Values that are converted at a time: they stay in the processor's first cache.
const BLOCK: usize = 1024;

/// The messages to all ranks, one after another, each with a part of the values. Replaces the contents of `words`.
pub(super) fn messages(values: &[f32], ranks: usize, words: &mut Vec<u16>) {
    let part = part(values.len(), ranks);
    words.clear();
    words.reserve(ranks * message_words(part));
    for rank in 0..ranks {
        let values = values.get(rank * part..).unwrap_or_default();
        add_message(&values[..values.len().min(part)], part, words);
    }
}

/// Appends a message with up to `part` values, padded with zeros: the factor that restores them, in two words, and the
/// f16 numbers.
fn add_message(values: &[f32], part: usize, words: &mut Vec<u16>) {
    let end = words.len() + message_words(part);
    // Magnitudes compare like their bits. Signed integers, because every processor can compare vectors of them.
    let magnitude = |x: &f32| match (x.to_bits() & (u32::MAX >> 1)) as i32 {
        finite if finite < f32::INFINITY.to_bits() as i32 => finite,
        _ => 0,
    };
    let largest = f32::from_bits(values.iter().map(magnitude).fold(0, i32::max) as u32);
    // A power of two, so that scaling does not round. Neither it nor its inverse leaves the normal numbers.
    let exponent = if largest > 0.0 { largest.log2().floor() as i32 } else { 0 };
    let factor = 2f32.powi((exponent - 15).max(-126));
    words.extend([factor.to_bits() as u16, (factor.to_bits() >> 16) as u16]);
    let (inverse, most) = (1.0 / factor, f16::MAX.to_f32());
    let (mut scaled, mut halves) = ([0.0f32; BLOCK], [f16::ZERO; BLOCK]);
    for block in values.chunks(BLOCK) {
        let (scaled, halves) = (&mut scaled[..block.len()], &mut halves[..block.len()]);
        for (scaled, x) in scaled.iter_mut().zip(block) {
            // The largest is below 2^16, or a little above, because log2 rounds. f16 ends at 65504.
            let y = x * inverse;
            let beyond = y.abs() > most && y.abs() < f32::INFINITY;
            *scaled = if beyond { most.copysign(y) } else { y };
        }
        halves.convert_from_f32_slice(scaled);
        words.extend_from_slice(halves.reinterpret_cast());
    }
    words.resize(end, 0);
}

/// Calls `f` with each value of a message and the element of `values` at its position. A message may be longer than
/// `values`: it is padded.
fn unpack(message: &[u16], values: &mut [f32], f: impl Fn(&mut f32, f32)) -> Result<()> {
    let Some((&[low, high], halves)) = message.split_first_chunk::<2>() else {
        return Err(Error::Distributed("internal: a message without a factor".into()));
    };
    let factor = f32::from_bits(u32::from(low) | u32::from(high) << 16);
    let mut unpacked = [0.0f32; BLOCK];
    for (block, values) in halves.reinterpret_cast::<f16>().chunks(BLOCK).zip(values.chunks_mut(BLOCK)) {
        let unpacked = &mut unpacked[..block.len()];
        block.convert_to_f32_slice(unpacked);
        values.iter_mut().zip(unpacked).for_each(|(value, x)| f(value, *x * factor));
    }
    Ok(())
}

/// Replaces the values by those in the messages of all ranks.
pub(super) fn restore<'a>(messages: impl ExactSizeIterator<Item = &'a [u16]>, values: &mut [f32]) -> Result<()> {
    let part = part(values.len(), messages.len());
    messages
        .zip(values.chunks_mut(part))
        .try_for_each(|(message, values)| unpack(message, values, |value, x| *value = x))
}

/// The sum of messages with the same part, in their order, as a message. Replaces the contents of `sum` and `words`.
pub(super) fn sum<'a>(
    received: impl Iterator<Item = &'a [u16]>,
    part: usize,
    sum: &mut Vec<f32>,
    words: &mut Vec<u16>,
) -> Result<()> {
    sum.clear();
    sum.resize(part, 0.0);
    for message in received {
        unpack(message, sum, |sum, x| *sum += x)?;
    }
    words.clear();
    words.reserve(message_words(part));
    add_message(sum, part, words);
    Ok(())
}
