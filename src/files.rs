//! Files: the cache folder, atomic writes, locks, and reading with checks for files that are not regular.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::time::{Duration, Instant};
use crate::{Error, Result};

/// The folder for compiled pipelines and tuning results: `WGRAD_CACHE`, else `wgrad` in the user's cache
/// folder (`XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches` on macOS, `LOCALAPPDATA` on Windows).
/// `None` if there is no such folder. Its content may be deleted at any time.
pub fn cache_folder() -> Option<PathBuf> {
    let user = || {
        let absolute = |name: &str| path_in(name).filter(|path| path.is_absolute());
        if cfg!(windows) {
            return absolute("LOCALAPPDATA");
        }
        let usual = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(usual)))
    };
    path_in("WGRAD_CACHE").or_else(|| Some(user()?.join("wgrad")))
}

/// The path in an environment variable, which need not be UTF-8. An empty variable counts as unset.
pub(crate) fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Writes a file atomically: writes a temporary file in the same folder, syncs it to disk, and renames
/// it over `path`. A failure before the rename leaves the old file unchanged.
///
/// Symbolic links are followed. A replaced file keeps its mode, and its owner and group where the
/// system allows that; hard links, access control lists and extended attributes are not kept.
/// Temporary files left in the folder by killed writers are removed after an hour.
///
/// # Errors
/// [`Error::Io`] if the folder is missing, full or not writable; [`Error::File`] if `path` is a folder,
/// a device or a read-only file.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let Place { target, folder, old } = Place::find(path)?;
    remove_abandoned(&folder);
    let mut temporary = create_temporary(&folder, old.is_some()).map_err(Error::io(path))?;
    temporary.write_all(bytes).map_err(Error::io(path))?;
    if let Some(old) = &old {
        keep_owner_and_mode(temporary.as_file(), old);
    }
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    // Where locks are mandatory, nobody could read the new file until it is closed.
    let _ = temporary.as_file().unlock();
    temporary.persist(&target).map_err(|e| Error::io(path)(e.error))?;
    // Syncing the folder makes the rename durable. Some systems cannot sync a folder; the file is
    // complete either way.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Checks that [`write_atomically`] could write there now, apart from disk space. Changes nothing.
///
/// # Errors
/// As [`write_atomically`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let place = Place::find(path)?;
    create_temporary(&place.folder, true).map_err(Error::io(path))?;
    Ok(())
}

/// Whether two paths refer to the same file, also through links, or would once they are written.
pub fn is_same_file(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let (a, b) = (a.as_ref(), b.as_ref());
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
        use std::os::unix::fs::MetadataExt;
        return (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    let resolved = |path: &Path| {
        let target = follow(path).ok()?;
        Some(fs::canonicalize(folder_of(&target)).ok()?.join(target.file_name()?))
    };
    a == b || resolved(a).is_some_and(|a| resolved(b) == Some(a))
}

/// Where a file is written: the resolved path, its folder, and the metadata of an existing file.
struct Place {
    target: PathBuf,
    folder: PathBuf,
    old: Option<fs::Metadata>,
}

impl Place {
    fn find(path: &Path) -> Result<Place> {
        let target = follow(path).map_err(Error::io(path))?;
        let old = fs::metadata(&target).ok();
        match &old {
            Some(about) if about.is_dir() => return Err(Error::file(path, "is a folder; expected the name of a file")),
            // Renaming over a device or pipe (`/dev/null`) would remove it for the whole system.
            Some(about) if !about.is_file() => {
                return Err(Error::file(path, "is a device or pipe; expected the name of a file"));
            }
            // A rename checks only the folder's permissions. Check the file's as well, as overwriting
            // it would; for the superuser, check the mode.
            Some(about) if about.permissions().readonly() => {
                return Err(Error::file(path, "is read-only; make it writable, or name another file"));
            }
            Some(_) => drop(OpenOptions::new().write(true).open(&target).map_err(Error::io(path))?),
            None => {}
        }
        Ok(Place { folder: folder_of(&target), target, old })
    }
}

/// Maximum number of symbolic links to follow, as on Linux.
const MAX_LINKS: usize = 40;

/// Resolves symbolic links; the target need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..=MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = folder_of(&target).join(link),
            Err(_) => return Ok(target), // not a link, or does not exist
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_path_buf()
}

/// The prefix of temporary file names, and the number of letters and digits that follow.
const PREFIX: &str = ".wgrad-";
const RANDOM: usize = 6;

/// A temporary file, locked while it is being written. It is private if it replaces a file, whose mode
/// it gets later; a new file has the default mode (by the umask).
fn create_temporary(folder: &Path, private: bool) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    if !private {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // minus the process's umask
    }
    #[cfg(not(unix))]
    let _ = private;
    let temporary = builder.tempfile_in(folder)?;
    // On systems without locks, no file is considered abandoned.
    let _ = temporary.as_file().try_lock();
    Ok(temporary)
}

#[cfg(unix)]
fn keep_owner_and_mode(new: &File, old: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let mut mode = old.mode() & 0o777;
    let differs = |new: fs::Metadata| (new.uid(), new.gid()) != (old.uid(), old.gid());
    // Only the superuser may change the owner, but the group may be any group of the process.
    if new.metadata().is_ok_and(differs)
        && fchown(new, Some(old.uid()), Some(old.gid())).is_err()
        && fchown(new, None, Some(old.gid())).is_err()
    {
        // The file has another group now: give it no more rights than others had.
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    // Ignore file systems without modes.
    let _ = new.set_permissions(fs::Permissions::from_mode(mode));
}

#[cfg(not(unix))]
fn keep_owner_and_mode(_: &File, _: &fs::Metadata) {}

/// An unlocked temporary file that was not written to for this long was left behind by a killed
/// process.
const ABANDONED: Duration = Duration::from_secs(3600);

fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let ours = is_temporary(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file());
        if ours && is_abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_temporary(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let age = file.metadata().and_then(|about| about.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > ABANDONED) && file.try_lock().is_ok()
}

/// How long to wait for a lock. Holders only read and write one file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Locks out other processes that read, change and rewrite a file; released on drop. The lock is a separate
/// file next to it, because a write replaces the file itself. `None` if the system has no locks or the lock is
/// held for too long: do not use it where locking is essential.
pub(crate) fn lock(file: &Path) -> Option<File> {
    let mut name = file.file_name()?.to_owned();
    name.push(".lock");
    let lock = OpenOptions::new().create(true).append(true).open(file.with_file_name(name)).ok()?;
    let begin = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Some(lock),
            Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return None,
        }
    }
}

/// Opens a regular file; returns it with its length.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    // Check before opening, because opening a pipe would wait for its other end.
    let about = fs::metadata(path).map_err(Error::io(path))?;
    if !about.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let length = about.len();
    if let Some(stored) = stored_bytes(&about).filter(|stored| length > SPARSE && *stored < length / 16) {
        let why =
            format!("is {length} bytes long, but stores only {stored}; if it is complete, `cp --sparse=never` it");
        return Err(Error::file(path, why));
    }
    Ok((File::open(path).map_err(Error::io(path))?, length))
}

/// Longer files must not be sparse: a terabyte of holes takes no disk space, but would fill memory when
/// read. File systems with compression come nowhere near 16 to 1 on numeric data.
const SPARSE: u64 = 1 << 30;

/// The bytes that a file occupies on disk, if known: some network file systems always report 0.
fn stored_bytes(about: &fs::Metadata) -> Option<u64> {
    #[cfg(unix)]
    let blocks = std::os::unix::fs::MetadataExt::blocks(about); // always in units of 512 bytes
    #[cfg(not(unix))]
    let blocks = {
        let _ = about;
        0u64
    };
    (blocks > 0).then(|| blocks.saturating_mul(512))
}

/// Reads a whole regular file. Rejects pipes (which could block), devices (which may be endless) and
/// very sparse files.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::File`] if it is rejected.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let (mut file, length) = open(path)?;
    let mut bytes = Vec::new();
    read_exactly(path, &mut file, length, &mut bytes)?;
    Ok(bytes)
}

/// Reads exactly `count` bytes and appends them to `bytes`; a failed allocation is an error.
pub(crate) fn read_exactly(path: &Path, source: &mut impl Read, count: u64, bytes: &mut Vec<u8>) -> Result<()> {
    let size = usize::try_from(count).ok().filter(|&size| bytes.try_reserve_exact(size).is_ok());
    if size.is_none() {
        return Err(Error::file(path, format!("needs {count} bytes of memory, more than is available")));
    }
    let got = source.take(count).read_to_end(bytes).map_err(Error::io(path))?;
    if got as u64 != count {
        return Err(Error::file(path, format!("ends early: expected {count} more bytes, found {got}")));
    }
    Ok(())
}
