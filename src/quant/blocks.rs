//! Numbers of 4 or 8 bits, packed into the words of [`Value::quantized_matmul`](crate::Value::quantized_matmul).

use crate::Tensor;
use crate::ops::quantized_matmul::BLOCK;

/// Rounds scales to f16. Where one rounds to 0, all numbers of the block become 0.
pub(super) fn round_scales(steps: &mut [(f64, f64)]) -> Result<(), String> {
    for step in steps {
        let rounded = half::f16::from_f64(step.0).to_f64();
        if rounded.is_infinite() {
            return Err(format!("a block needs steps of {:e}, more than f16 can represent", step.0));
        }
        *step = if rounded == 0.0 { (1.0, 0.0) } else { (rounded, step.1) };
    }
    Ok(())
}

/// The words `[N, blocks bits]` of integers `[N, K]`, which become unsigned; the rest of a row's last block is its zero
/// point, so that it stands for 0.
pub(super) fn pack(integers: &[i8], zeros: &[u8], columns: usize, bits: u32) -> Tensor {
    let (blocks, bits) = (columns.div_ceil(BLOCK), bits as usize);
    let offset = 1i16 << (bits - 1);
    let mut words = vec![0u32; zeros.len() * bits];
    for (block, (words, &zero)) in words.chunks_exact_mut(bits).zip(zeros).enumerate() {
        let (row, first) = (block / blocks, block % blocks * BLOCK);
        for i in 0..BLOCK {
            let own = (first + i < columns).then(|| i16::from(integers[row * columns + first + i]) + offset);
            let u = own.map_or(u32::from(zero), |u| u as u32);
            words[i * bits / 32] |= u << (i * bits % 32);
        }
    }
    Tensor::of(&[zeros.len() / blocks, blocks * bits].into(), words)
}

/// The integers `[N, K]` of [`pack`]; the words must match.
pub(super) fn unpack(words: &Tensor, columns: usize, bits: u32) -> Vec<f64> {
    let (blocks, bits) = (columns.div_ceil(BLOCK), bits as usize);
    let (words, offset) = (words.device_words(), f64::from(1u32 << (bits - 1)));
    let number = |row: &[u32], column: usize| {
        let (block, bit) = (column / BLOCK, column % BLOCK * bits);
        f64::from((row[block * bits + bit / 32] >> (bit % 32)) & ((1 << bits) - 1)) - offset
    };
    words.chunks_exact(blocks * bits).flat_map(|row| (0..columns).map(|column| number(row, column))).collect()
}
