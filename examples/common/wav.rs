//! Sounds as WAV files of one channel with 16 bits.

use std::path::Path;

use wgrad::{Error, Result};

/// The rate and samples of a WAV file.
pub fn read(path: &Path) -> Result<(usize, Vec<f32>)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let wrong = |message: &str| Error::File { path: path.into(), message: message.into() };
    let number = |at: usize, size: usize| {
        bytes.get(at..at + size).map_or(0, |b| b.iter().rev().fold(0, |n, &b| n << 8 | b as usize))
    };
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(wrong("is no WAV file"));
    }
    let (mut at, mut rate) = (12, 0);
    while at + 8 <= bytes.len() {
        let (name, size) = (&bytes[at..at + 4], number(at + 4, 4));
        if name == b"fmt " {
            rate = number(at + 12, 4);
            if [number(at + 8, 2), number(at + 10, 2), number(at + 22, 2)] != [1, 1, 16]
                || ![8000, 16_000].contains(&rate)
            {
                return Err(wrong("expected 8 or 16 kHz, one channel, 16 bits"));
            }
        } else if name == b"data" && rate > 0 {
            let data = &bytes[at + 8..(at + 8 + size).min(bytes.len())];
            let sample = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0;
            return Ok((rate, data.chunks_exact(2).map(sample).collect()));
        }
        at += 8 + size + size % 2;
    }
    Err(wrong("has no samples"))
}

/// Writes samples from -1 to 1 and prints the path; louder ones are clipped.
pub fn write(path: &Path, rate: usize, sound: &[f32]) -> Result<()> {
    let data: Vec<u8> =
        sound.iter().flat_map(|x| ((x.clamp(-1.0, 1.0) * 32_767.0).round() as i16).to_le_bytes()).collect();
    let mut bytes = Vec::from(*b"RIFF");
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend([1u16, 1].map(u16::to_le_bytes).concat()); // integers, one channel
    bytes.extend([rate as u32, 2 * rate as u32].map(u32::to_le_bytes).concat());
    bytes.extend([2u16, 16].map(u16::to_le_bytes).concat()); // bytes and bits of a sample
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.into(), source })?;
    }
    wgrad::io::write_atomically(path, &bytes)?;
    println!("sound: {}", path.display());
    Ok(())
}
