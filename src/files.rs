//! Files: where they go, how they get there (whole, or not at all), and reading what may not be one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The folder for what was compiled and found out about a device: the one that `WGRAD_CACHE` names,
/// else `wgrad` in the user's folder for caches (`XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches`
/// on macOS, `LOCALAPPDATA` on Windows). `None` where there is no such folder. All in it may be
/// deleted at any time.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || {
        let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
        if cfg!(windows) {
            return absolute("LOCALAPPDATA");
        }
        let usual = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(usual)))
    };
    set("WGRAD_CACHE").or_else(|| Some(user()?.join("wgrad")))
}

/// Writes a whole file or nothing: into a temporary file of the same folder, to the disk, then
/// renamed over `path`. Whatever fails before the rename leaves the old file as it was.
///
/// # Errors
/// [`Error::Io`] where the folder is missing or full, or may not be written to.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    // A symbolic link stays one: its target is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match fs::metadata(&target) {
        Ok(about) if about.is_dir() => return Err(Error::file(path, "is a folder; expected the name of a file")),
        // Renaming over a device or pipe (`/dev/null`) would take it from the whole system.
        Ok(about) if !about.is_file() => {
            return Err(Error::file(path, "is a device or pipe; expected the name of a file"));
        }
        _ => {}
    }
    let folder = match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut temporary = temporary_builder().tempfile_in(&folder).map_err(Error::io(path))?;
    temporary.write_all(bytes).map_err(Error::io(path))?;
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    temporary.persist(&target).map_err(|e| Error::io(path)(e.error))?;
    // The rename itself reaches the disk with the folder. Systems that cannot sync a folder do
    // without: the file is whole either way.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Temporary files are private by default; what replaces a user's file gets the usual permissions.
fn temporary_builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wgrad-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // less the process's umask
    }
    builder
}

/// Opens a regular file and says how long it is.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    // Asked before opening, because opening a pipe would wait for its other end.
    let about = fs::metadata(path).map_err(Error::io(path))?;
    if !about.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let length = about.len();
    if let Some(stored) = stored_bytes(&about).filter(|stored| length > SPARSE && *stored < length / 16) {
        let why =
            format!("claims {length} bytes, but only {stored} are stored; if it is whole, `cp --sparse=never` it");
        return Err(Error::file(path, why));
    }
    Ok((File::open(path).map_err(Error::io(path))?, length))
}

/// From this length on a file must be stored, not claimed: a terabyte of holes takes no disk, but
/// all memory when it is read. File systems that compress come nowhere near 16 to 1 on numbers.
const SPARSE: u64 = 1 << 30;

/// The bytes that a file takes on its disk, where the system tells: some that come over a network
/// always say 0.
fn stored_bytes(about: &fs::Metadata) -> Option<u64> {
    #[cfg(unix)]
    let blocks = std::os::unix::fs::MetadataExt::blocks(about); // of 512 bytes, whatever the disk's are
    #[cfg(not(unix))]
    let blocks = {
        let _ = about;
        0u64
    };
    (blocks > 0).then(|| blocks.saturating_mul(512))
}

/// Reads a whole regular file: no pipe, which would be waited for, no device, which has no end, and
/// no file that is far longer than what is stored of it.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::File`] where it is no such file.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let (mut file, length) = open(path)?;
    let mut bytes = Vec::new();
    read_exactly(path, &mut file, length, &mut bytes)?;
    Ok(bytes)
}

/// Reads exactly `count` bytes behind those in `bytes`; memory that is not there is an error.
pub(crate) fn read_exactly(path: &Path, source: &mut impl Read, count: u64, bytes: &mut Vec<u8>) -> Result<()> {
    let size = usize::try_from(count).ok().filter(|&size| bytes.try_reserve_exact(size).is_ok());
    if size.is_none() {
        return Err(Error::file(path, format!("needs {count} bytes of memory, more than there are")));
    }
    let got = source.take(count).read_to_end(bytes).map_err(Error::io(path))?;
    if got as u64 != count {
        return Err(Error::file(path, format!("ends early: expected {count} more bytes, found {got}")));
    }
    Ok(())
}
