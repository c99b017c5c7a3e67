//! Named tensors in a file, in the [safetensors](https://huggingface.co/docs/safetensors) format that PyTorch's
//! ecosystem uses. Names and layouts are PyTorch's, so weights can be exchanged in both directions.

mod rows;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

pub use rows::RowFile;

use crate::{DType, Data, Error, Result, Tensor, files};

/// The contents of a file.
///
/// ```
/// use wgrad::{Tensor, io::safetensors};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("x.safetensors");
/// let tensors = [("w".to_owned(), Tensor::new([2], [1.0f32, 2.0])?)].into();
/// safetensors::save(&path, &tensors, &[("format".to_owned(), "pt".to_owned())].into())?;
/// let contents = safetensors::read(&path)?;
/// assert_eq!((&contents.tensors, contents.metadata["format"].as_str()), (&tensors, "pt"));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Contents {
    /// The tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Metadata as text (`__metadata__` in the file).
    pub metadata: BTreeMap<String, String>,
}

/// Writes tensors and metadata to a file, atomically (see [`super::write_atomically`]). Every
/// tensor keeps its type.
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
/// [`Error::Io`] from the system; [`Error::File`] for a tensor named `__metadata__`, which the format reserves.
pub fn save(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    files::write_atomically(path, &encode(path, tensors, metadata)?)
}

/// The bytes of a file with these tensors and metadata, such as for a download in a browser.
///
/// ```
/// use std::collections::BTreeMap;
/// use wgrad::{Tensor, io::safetensors};
/// let tensors = BTreeMap::from([("fc1.bias".to_owned(), Tensor::new([2], [1.0f32, -1.0])?)]);
/// let bytes = safetensors::to_bytes(&tensors, &BTreeMap::new())?;
/// assert_eq!(safetensors::from_bytes(&bytes)?.tensors, tensors);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// [`Error::File`] for a tensor named `__metadata__`, which the format reserves.
pub fn to_bytes(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    encode(Path::new(IN_MEMORY), tensors, metadata)
}

/// What errors name instead of a file.
pub(super) const IN_MEMORY: &str = "safetensors in memory";

/// The bytes of the file with this path.
pub(super) fn encode(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    if tensors.contains_key(RESERVED) {
        return Err(Error::file(path, format!("no tensor can be named `{RESERVED}`; the format reserves the name")));
    }
    // Wider elements first, which aligns them all; then by name. Equal contents give equal bytes.
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(element(tensor.data()).1));
    let mut header = Vec::new();
    let mut begin = 0;
    for (name, tensor) in &order {
        let (dtype, size) = element(tensor.data());
        let end = begin + size * tensor.numel();
        let info = json!({ "dtype": dtype, "shape": &tensor.shape()[..], "data_offsets": [begin, end] });
        header.push(format!("{}:{info}", json!(name)));
        begin = end;
    }
    if !metadata.is_empty() {
        header.insert(0, format!("{}:{}", json!(RESERVED), json!(metadata)));
    }
    let header = format!("{{{}}}", header.join(","));
    let size = header.len().next_multiple_of(8); // padded with spaces for alignment
    let mut bytes = Vec::with_capacity(8 + size + begin);
    bytes.extend((size as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(8 + size, b' ');
    for (_, tensor) in order {
        match tensor.data() {
            Data::F32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::F64(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::I32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::U32(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::F16(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::BF16(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::I8(v) => v.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Data::U8(v) => bytes.extend(v),
            Data::Bool(v) => bytes.extend(v.iter().map(|&x| u8::from(x))),
        }
    }
    Ok(bytes)
}

/// The format's name for the element type, and its size in bytes.
fn element(data: &Data) -> (&'static str, usize) {
    match data {
        Data::F32(_) => ("F32", 4),
        Data::F64(_) => ("F64", 8),
        Data::I32(_) => ("I32", 4),
        Data::U32(_) => ("U32", 4),
        Data::F16(_) => ("F16", 2),
        Data::BF16(_) => ("BF16", 2),
        Data::I8(_) => ("I8", 1),
        Data::U8(_) => ("U8", 1),
        Data::Bool(_) => ("BOOL", 1),
    }
}

const RESERVED: &str = "__metadata__";

/// The tensors of a file, by name. F16, BF16, F32, F64, I8, U8, I32, U32 and BOOL keep their type. I16, I64 and U16
/// become i32; U64 becomes u32.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::File`] if it is not a complete safetensors file, a tensor
/// has another element type, a number does not fit 32 bits, or a bool is neither 0 nor 1.
pub fn load(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    Ok(read(path)?.tensors)
}

/// The tensors and metadata of a file; otherwise as [`load`].
///
/// # Errors
/// As [`load`].
pub fn read(path: impl AsRef<Path>) -> Result<Contents> {
    read_for(path.as_ref(), |_| None)
}

/// The tensors and metadata of a file with these bytes. Example: [`to_bytes`].
///
/// # Errors
/// [`Error::File`] as for [`load`].
pub fn from_bytes(bytes: &[u8]) -> Result<Contents> {
    bytes_for(bytes, |_| None)
}

/// [`from_bytes`] with types as for [`read_for`].
pub(super) fn bytes_for(mut bytes: &[u8], wanted: impl Fn(&str) -> Option<DType>) -> Result<Contents> {
    let length = bytes.len() as u64;
    parse(Path::new(IN_MEMORY), &mut bytes, length, wanted)
}

/// [`read`], but floats become the float type that is wanted for their name, and integers that are not 32 bits wide the
/// integer type.
pub(super) fn read_for(path: &Path, wanted: impl Fn(&str) -> Option<DType>) -> Result<Contents> {
    let (mut file, length) = files::open(path)?;
    parse(path, &mut file, length, wanted)
}

/// Reads a file of this length.
fn parse(path: &Path, source: &mut impl Read, length: u64, wanted: impl Fn(&str) -> Option<DType>) -> Result<Contents> {
    let header = read_header(path, source, length)?;
    let mut tensors = BTreeMap::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let mut bytes = Vec::new();
        let (begin, end) = info.data_offsets;
        files::read_exactly(path, source, (end - begin) as u64, &mut bytes)?;
        let tensor = decode(info, &bytes, wanted(&name));
        let tensor = tensor.map_err(|why| Error::file(path, format!("tensor `{name}`: {why}")))?;
        tensors.insert(name, tensor);
    }
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Contents { tensors, metadata })
}

/// Reads the header and checks it against the file's length before anything else is read or allocated: the
/// tensors follow one another without gaps, have the sizes of their shapes, and end at the end of the file.
fn read_header(path: &Path, file: &mut impl Read, length: u64) -> Result<Metadata> {
    let mut start = Vec::new();
    files::read_exactly(path, file, length.min(8), &mut start)?;
    let complain = |start: &[u8], why: String| {
        let kind = other_kind(start).map_or_else(String::new, |kind| format!(". It looks like {kind}"));
        Error::file(path, format!("not a complete safetensors file: {why}{kind}"))
    };
    if length < 8 {
        return Err(complain(&start, format!("it has {length} bytes, but the size of the header alone takes 8")));
    }
    let size = start.iter().rev().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
    if size > MAX_HEADER || size > length - 8 {
        return Err(complain(&start, format!("it claims a header of {size} bytes, but has {length} in all")));
    }
    let mut text = Vec::new();
    files::read_exactly(path, file, size, &mut text)?;
    let header: Metadata =
        serde_json::from_slice(&text).map_err(|e| complain(&start, format!("invalid header: {e}")))?;
    let (expected, found) = (header.data_len() as u64, length - 8 - size);
    if expected != found {
        let cut = if found < expected { "; it was cut off, so copy or save it again" } else { "" };
        return Err(complain(&[], format!("its tensors take {expected} bytes, but {found} follow the header{cut}")));
    }
    Ok(header)
}

/// What a file is that begins with these bytes, if not safetensors, and the way out.
fn other_kind(start: &[u8]) -> Option<&'static str> {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    Some(match start {
        [b'P', b'K', 3, 4, ..] => {
            "a ZIP archive, such as PyTorch's .pt and .pth files. In Python: \
             safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)"
        }
        [0x80, 2..=5, ..] => "a Python pickle. In Python: safetensors.torch.save_file(torch.load(path), new_path)",
        [0x1f, 0x8b, ..] => "a gzip file; unpack it first",
        [0x93, b'N', b'U', b'M', ..] => {
            "a NumPy array. In Python: safetensors.numpy.save_file({name: array}, new_path)"
        }
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file, such as Keras' weights",
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => "an image",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        [0, 0, 0, 0, 0, 0, 0, 0] => "zeros, as after a write that was cut off by a crash",
        [first, ..] if start.iter().all(is_text) && *first != b'{' => {
            "text, such as CSV; wgrad::data::Table reads tables, and weights are in .safetensors files"
        }
        [b'{', ..] if start.iter().all(is_text) => "JSON, without the size of the header before it",
        _ => return None,
    })
}

/// The format's limit for the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Decodes the bytes of a tensor.
fn decode(info: &TensorInfo, bytes: &[u8], wanted: Option<DType>) -> std::result::Result<Tensor, String> {
    // Integers become i32, the type of labels and indices, unless u32 is wanted.
    let unsigned = wanted == Some(DType::U32);
    let data: Data = match info.dtype {
        Dtype::F32 => elements(bytes, f32::from_le_bytes).into(),
        Dtype::F64 => elements(bytes, f64::from_le_bytes).into(),
        Dtype::F16 => elements(bytes, half::f16::from_le_bytes).into(),
        Dtype::BF16 => elements(bytes, half::bf16::from_le_bytes).into(),
        Dtype::I32 => elements(bytes, i32::from_le_bytes).into(),
        Dtype::U32 => elements(bytes, u32::from_le_bytes).into(),
        Dtype::I8 if wanted.is_none_or(|ty| ty == DType::I8) => elements(bytes, i8::from_le_bytes).into(),
        Dtype::U8 if wanted.is_none_or(|ty| ty == DType::U8) => bytes.to_vec().into(),
        Dtype::I8 => integers(bytes, i8::from_le_bytes, unsigned)?,
        Dtype::I16 => integers(bytes, i16::from_le_bytes, unsigned)?,
        Dtype::I64 => integers(bytes, i64::from_le_bytes, unsigned)?,
        Dtype::U8 => integers(bytes, u8::from_le_bytes, unsigned)?,
        Dtype::U16 => integers(bytes, u16::from_le_bytes, unsigned)?,
        Dtype::U64 => integers(bytes, u64::from_le_bytes, wanted != Some(DType::I32))?,
        Dtype::BOOL => match bytes.iter().find(|&&x| x > 1) {
            Some(x) => return Err(format!("a bool is stored as 0 or 1, not {x}")),
            None => bytes.iter().map(|&x| x == 1).collect::<Vec<bool>>().into(),
        },
        other => {
            return Err(format!(
                "its elements are {other}; expected F16, BF16, F32, F64, BOOL, or integers of 8 to 64 bits \
                 (convert it before saving)"
            ));
        }
    };
    let tensor = Tensor::new(&info.shape[..], data).map_err(|e| e.to_string())?;
    match wanted {
        Some(wanted) if wanted.is_float() && tensor.dtype().is_float() => converted(tensor, wanted),
        _ => Ok(tensor),
    }
}

/// Converts floats to another float type; an error names the first number beyond its range. f64 is kept for f32.
fn converted(tensor: Tensor, to: DType) -> std::result::Result<Tensor, String> {
    if tensor.dtype() == to {
        return Ok(tensor);
    }
    match tensor.to_f64().into_iter().find(|&x| to.check(x).is_err()) {
        Some(x) => Err(format!("{x:e} does not fit {to}")),
        None => Ok(tensor.cast(to)),
    }
}

fn elements<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect()
}

/// Converts integers of other widths to 32 bits; an error names the first that does not fit.
fn integers<T, const N: usize>(
    bytes: &[u8],
    from: fn([u8; N]) -> T,
    unsigned: bool,
) -> std::result::Result<Data, String>
where
    T: Copy + std::fmt::Display,
    i32: TryFrom<T>,
    u32: TryFrom<T>,
{
    fn fitting<T: Copy + std::fmt::Display, U: TryFrom<T>>(
        numbers: impl Iterator<Item = T>,
        ty: DType,
    ) -> std::result::Result<Vec<U>, String> {
        numbers.map(|x| U::try_from(x).map_err(|_| format!("{x} does not fit {ty}"))).collect()
    }
    let numbers = bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk));
    match unsigned {
        true => fitting::<T, u32>(numbers, DType::U32).map(Data::from),
        false => fitting::<T, i32>(numbers, DType::I32).map(Data::from),
    }
}
