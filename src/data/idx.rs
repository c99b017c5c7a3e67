//! The IDX format of MNIST (<http://yann.lecun.com/exdb/mnist/>): two zero bytes, the element type (8 for
//! bytes), the number of axes, each axis's size as a big-endian u32, then the elements, row-major. Gzipped
//! files are detected by their content, not by their name.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result, Shape};

/// Reads a file of bytes with `axes` axes: its shape and elements.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::File`] if it has another format or number of axes, is
/// shorter or longer than its header says, or its compressed data is damaged.
pub fn read(path: impl AsRef<Path>, axes: u8) -> Result<(Shape, Vec<u8>)> {
    let path = path.as_ref();
    let (mut file, length) = crate::files::open(path)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(2).read_to_end(&mut magic).map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    if magic == [0x1f, 0x8b] {
        let most = length.saturating_mul(MOST_INFLATED);
        parse(path, &mut MultiGzDecoder::new(BufReader::new(file)), axes, most)
    } else {
        parse(path, &mut BufReader::new(file), axes, length)
    }
}

/// What errors name instead of a file.
pub(super) const IN_MEMORY: &str = "IDX in memory";

/// The shape and elements of a file with these bytes. Example: [`Digits::from_bytes`](super::Digits::from_bytes).
///
/// # Errors
/// [`Error::File`] as for [`read`].
pub fn from_bytes(bytes: &[u8], axes: u8) -> Result<(Shape, Vec<u8>)> {
    let (path, length) = (Path::new(IN_MEMORY), bytes.len() as u64);
    match bytes {
        [0x1f, 0x8b, ..] => parse(path, &mut MultiGzDecoder::new(bytes), axes, length.saturating_mul(MOST_INFLATED)),
        mut plain => parse(path, &mut plain, axes, length),
    }
}

/// Deflate compresses by at most 1032 to 1 (258 bytes per two-bit pair of codes).
const MOST_INFLATED: u64 = 1032;

/// Reads header and elements; `most` is an upper bound on the bytes that the source can yield.
fn parse(path: &Path, source: &mut impl Read, axes: u8, most: u64) -> Result<(Shape, Vec<u8>)> {
    let mut header = Vec::new();
    let header_size = 4 + 4 * u64::from(axes);
    source.take(header_size).read_to_end(&mut header).map_err(|e| unreadable(path, e))?;
    let expected = [0, 0, 8, axes];
    if !header.starts_with(&expected) {
        let found = &header[..header.len().min(4)];
        let why = format!("not an IDX file of bytes with {axes} axes: it begins with {found:?}, expected {expected:?}");
        return Err(Error::file(path, why));
    }
    if (header.len() as u64) < header_size {
        return Err(Error::file(path, "ends within its header"));
    }
    let sizes: Vec<u32> = header[4..].as_chunks::<4>().0.iter().map(|&bytes| u32::from_be_bytes(bytes)).collect();
    let claimed = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(u64::from(size)));
    let Some(claimed) = claimed.filter(|claimed| claimed.saturating_add(header_size) <= most) else {
        return Err(Error::file(path, format!("its header claims {sizes:?} elements, more than the file can hold")));
    };
    let mut elements = Vec::new();
    // Read one byte more than claimed to detect surplus data. The vector grows only as data arrives.
    source.take(claimed + 1).read_to_end(&mut elements).map_err(|e| unreadable(path, e))?;
    let found = elements.len() as u64;
    if found != claimed {
        let found = if found > claimed { "more".to_owned() } else { found.to_string() };
        let why = format!("its header says {sizes:?}, which is {claimed} bytes, but {found} follow");
        return Err(Error::file(path, why));
    }
    Ok((sizes.iter().map(|&size| size as usize).collect(), elements))
}

/// Errors of the decoder are about the file's content.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => Error::file(path, format!("its gzip data is damaged: {error}")),
        _ => Error::io(path)(error),
    }
}
