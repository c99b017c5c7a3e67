//! Named tensors in a file, in the [safetensors](https://huggingface.co/docs/safetensors) format
//! that PyTorch's ecosystem uses. Names and layouts are PyTorch's, so weights travel both ways.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, View};

use crate::{Data, Error, Result, Tensor, files};

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The texts that came along (`__metadata__` in the file).
    pub metadata: BTreeMap<String, String>,
}

/// Writes tensors and texts to a file: whole, or not at all (see [`super::write_atomically`]).
/// Floats of either precision, integers and bools keep their type.
///
/// ```
/// use std::collections::BTreeMap;
/// use wgrad::{Tensor, io::safetensors};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("weights.safetensors");
/// let tensors = BTreeMap::from([("fc1.bias".to_owned(), Tensor::new([2], [1.0f32, -1.0])?)]);
/// safetensors::save(&path, &tensors, &BTreeMap::new())?;
/// assert_eq!(safetensors::load(&path)?, tensors);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] from the system; [`Error::File`] for a tensor named `__metadata__`, the one name
/// that the format keeps for itself.
pub fn save(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    if tensors.contains_key(RESERVED) {
        return Err(Error::file(path, format!("no tensor can be named `{RESERVED}`; the format reserves the name")));
    }
    let views = tensors.iter().map(|(name, tensor)| (name, Bytes(tensor)));
    let metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bytes = ::safetensors::serialize(views, metadata).map_err(|e| Error::file(path, e.to_string()))?;
    files::write_atomically(path, &bytes)
}

const RESERVED: &str = "__metadata__";

/// The tensors of a file, by name. F32, F64, I32, U32 and BOOL keep their type; I64 becomes i32.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read. [`Error::File`] where it is not a whole safetensors
/// file, a tensor has another element type, an I64 does not fit 32 bits, or a bool is neither 0 nor 1.
pub fn load(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    Ok(read(path)?.tensors)
}

/// Tensors and texts of a file; otherwise as [`load`].
///
/// # Errors
/// As for [`load`].
pub fn read(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    let (mut file, length) = files::open(path)?;
    let header = read_header(path, &mut file, length)?;
    let mut tensors = BTreeMap::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let mut bytes = Vec::new();
        let (begin, end) = info.data_offsets;
        files::read_exactly(path, &mut file, (end - begin) as u64, &mut bytes)?;
        let tensor = decode(info, &bytes).map_err(|why| Error::file(path, format!("tensor `{name}`: {why}")))?;
        tensors.insert(name, tensor);
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Contents { tensors, metadata })
}

/// The header, checked against the file's length before anything else is read or allocated: the
/// tensors follow one another without gaps, as large as their shapes say, up to the file's end.
fn read_header(path: &Path, file: &mut File, length: u64) -> Result<Metadata> {
    let complain = |why: String| Error::file(path, format!("not a whole safetensors file: {why}"));
    let mut size = Vec::new();
    if length < 8 {
        return Err(complain(format!("it has {length} bytes, of which the header's size would take 8")));
    }
    files::read_exactly(path, file, 8, &mut size)?;
    let size = size.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    if size > MAX_HEADER || size > length - 8 {
        return Err(complain(format!("it claims a header of {size} bytes, but has {length} in all")));
    }
    let mut text = Vec::new();
    files::read_exactly(path, file, size, &mut text)?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|e| complain(format!("its header is wrong: {e}")))?;
    let (expected, found) = (header.data_len() as u64, length - 8 - size);
    if expected != found {
        return Err(complain(format!("its tensors take {expected} bytes, but {found} follow the header")));
    }
    Ok(header)
}

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor as the format wants it: little-endian bytes.
struct Bytes<'a>(&'a Tensor);

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.data() {
            Data::F32(_) => Dtype::F32,
            Data::F64(_) => Dtype::F64,
            Data::I32(_) => Dtype::I32,
            Data::U32(_) => Dtype::U32,
            Data::Bool(_) => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.0.data() {
            Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self.0.data() {
            Data::F32(v) => v.len() * 4,
            Data::F64(v) => v.len() * 8,
            Data::I32(v) => v.len() * 4,
            Data::U32(v) => v.len() * 4,
            Data::Bool(v) => v.len(),
        }
    }
}

/// The bytes as a tensor, or why not.
fn decode(info: &TensorInfo, bytes: &[u8]) -> std::result::Result<Tensor, String> {
    let data: Data = match info.dtype {
        Dtype::F32 => elements(bytes, f32::from_le_bytes).into(),
        Dtype::F64 => elements(bytes, f64::from_le_bytes).into(),
        Dtype::I32 => elements(bytes, i32::from_le_bytes).into(),
        Dtype::U32 => elements(bytes, u32::from_le_bytes).into(),
        Dtype::I64 => {
            let wide = elements(bytes, i64::from_le_bytes);
            let narrow = wide.iter().map(|&x| i32::try_from(x).map_err(|_| format!("{x} does not fit i32")));
            narrow.collect::<std::result::Result<Vec<i32>, String>>()?.into()
        }
        Dtype::BOOL => match bytes.iter().find(|&&x| x > 1) {
            Some(x) => return Err(format!("a bool is stored as 0 or 1, not {x}")),
            None => bytes.iter().map(|&x| x == 1).collect::<Vec<bool>>().into(),
        },
        other => {
            return Err(format!(
                "its elements are {other}; expected F32, F64, I64, I32, U32 or BOOL (convert it before saving)"
            ));
        }
    };
    Tensor::new(&info.shape[..], data).map_err(|e| e.to_string())
}

fn elements<T, const N: usize>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect()
}
