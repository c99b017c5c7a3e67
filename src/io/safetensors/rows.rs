//! Rows of the tensors of a file, read when they are needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::tensor::TensorInfo;

use super::{decode, read_header};
use crate::{Error, Result, Tensor, files};

/// A file whose tensors have equally many rows along their first axis. Rows are read when they are needed, so that the
/// file may be larger than the memory. Types are those of [`load`](super::load).
///
/// A [`Dataset`](crate::train::Dataset): a [`Trainer`](crate::train::Trainer) takes a file with the tensors `x` and `y`
/// directly, and others through [`Dataset::map`](crate::train::Dataset::map). To read ahead, give the trainer
/// [workers](crate::train::Trainer::workers).
///
/// ```
/// use std::collections::BTreeMap;
/// use wgrad::{Tensor, io::safetensors};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("data.safetensors");
/// let x = Tensor::new([3, 2], [0.0f32, 0.1, 1.0, 1.1, 2.0, 2.1])?;
/// let y = Tensor::new([3], [5, 6, 7])?;
/// safetensors::save(&path, &BTreeMap::from([("x".into(), x), ("y".into(), y)]), &BTreeMap::new())?;
/// let file = safetensors::RowFile::open(&path)?;
/// let rows = file.read(&[2, 0])?;
/// assert_eq!(rows["x"], Tensor::new([2, 2], [2.0f32, 2.1, 0.0, 0.1])?);
/// assert_eq!(rows["y"], Tensor::new([2], [7, 5])?);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    file: Mutex<File>,
    tensors: Vec<Stored>,
    rows: usize,
}

/// Where a tensor is in the file.
#[derive(Debug)]
struct Stored {
    name: String,
    info: TensorInfo,
    /// The place of its first byte in the file.
    begin: u64,
    row_bytes: usize,
}

impl RowFile {
    /// Opens a file with all of its tensors.
    ///
    /// # Errors
    /// As [`load`](super::load), except that numbers are checked when they are read; if the file has no tensors, or not
    /// equally many rows in each.
    pub fn open(path: impl AsRef<Path>) -> Result<RowFile> {
        RowFile::open_where(path.as_ref(), |_| true)
    }

    /// Opens a file with some of its tensors.
    ///
    /// # Errors
    /// As [`RowFile::open`]; if there is no such tensor.
    pub fn open_tensors(path: impl AsRef<Path>, names: &[&str]) -> Result<RowFile> {
        let path = path.as_ref();
        let file = RowFile::open_where(path, |name| names.contains(&name))?;
        match names.iter().find(|name| !file.tensors.iter().any(|tensor| tensor.name == **name)) {
            Some(name) => Err(Error::file(path, format!("has no tensor `{name}`"))),
            None => Ok(file),
        }
    }

    fn open_where(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<RowFile> {
        let (mut file, length) = files::open(path)?;
        let header = read_header(path, &mut file, length)?;
        let data = length - header.data_len() as u64;
        let mut tensors: Vec<Stored> = Vec::new();
        let mut rows = None;
        for name in header.offset_keys().into_iter().filter(|name| is_wanted(name)) {
            let Some(info) = header.info(&name).cloned() else { continue };
            let complain = |why: String| Error::file(path, format!("tensor `{name}`: {why}"));
            let Some(&own) = info.shape.first() else {
                return Err(complain("it is a scalar and has no rows; leave it out with RowFile::open_tensors".into()));
            };
            if *rows.get_or_insert(own) != own {
                let (other, known) = (&tensors[0].name, rows.unwrap_or_default());
                return Err(complain(format!(
                    "it has {own} rows, but `{other}` has {known}; name those that belong together with \
                     RowFile::open_tensors"
                )));
            }
            let (begin, end) = info.data_offsets;
            let row_bytes = (end - begin).checked_div(own).unwrap_or(0);
            let stored = Stored { name: name.clone(), begin: data + begin as u64, row_bytes, info };
            stored.decode(0, &[]).map_err(complain)?; // its type
            tensors.push(stored);
        }
        match rows {
            Some(rows) => Ok(RowFile { path: path.to_owned(), file: Mutex::new(file), tensors, rows }),
            None => Err(Error::file(path, "has no tensors to read rows from")),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Reads rows of every tensor, in this order.
    ///
    /// # Errors
    /// If there is no such row; [`Error::Io`] if the file cannot be read; [`Error::File`] if it has become shorter since
    /// it was opened, a number does not fit 32 bits, or a bool is neither 0 nor 1.
    pub fn read(&self, rows: &[usize]) -> Result<BTreeMap<String, Tensor>> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.rows) {
            return Err(Error::Input(format!("{} has {} rows, and no row {row}", self.path.display(), self.rows)));
        }
        let complain = |name: &str, why| Error::file(&self.path, format!("tensor `{name}`: {why}"));
        let read = |tensor: &Stored| {
            let bytes = self.bytes(tensor, rows)?;
            let decoded = tensor.decode(rows.len(), &bytes).map_err(|why| complain(&tensor.name, why))?;
            Ok((tensor.name.clone(), decoded))
        };
        self.tensors.iter().map(read).collect()
    }

    /// The bytes of rows, in this order. Rows that follow one another in the file are read together.
    fn bytes(&self, tensor: &Stored, rows: &[usize]) -> Result<Vec<u8>> {
        let size = tensor.row_bytes;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_unstable_by_key(|&at| rows[at]);
        let mut bytes = vec![0; rows.len() * size];
        let mut buffer = Vec::new();
        for together in order.chunk_by(|&a, &b| rows[b] - rows[a] <= 1) {
            let (first, last) = (rows[together[0]], rows[together[together.len() - 1]]);
            buffer.clear();
            {
                let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
                let begin = SeekFrom::Start(tensor.begin + (first * size) as u64);
                file.seek(begin).map_err(Error::io(&self.path))?;
                files::read_exactly(&self.path, &mut *file, ((last + 1 - first) * size) as u64, &mut buffer)?;
            }
            for &at in together {
                bytes[at * size..][..size].copy_from_slice(&buffer[(rows[at] - first) * size..][..size]);
            }
        }
        Ok(bytes)
    }
}

impl Stored {
    /// A tensor of some of its rows.
    fn decode(&self, rows: usize, bytes: &[u8]) -> std::result::Result<Tensor, String> {
        let mut shape = self.info.shape.clone();
        shape[0] = rows;
        decode(&TensorInfo { shape, ..self.info.clone() }, bytes, None)
    }
}
