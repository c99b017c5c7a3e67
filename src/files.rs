//! Files: where they go, how they get there (whole, or not at all), and reading what may not be one.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The folder for what was compiled and found out about a device: the one that `WGRAD_CACHE` names,
/// else `wgrad` in the user's folder for caches (`XDG_CACHE_HOME` or `~/.cache`; `~/Library/Caches`
/// on macOS, `LOCALAPPDATA` on Windows). `None` where there is no such folder. All in it may be
/// deleted at any time.
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

/// The path in an environment variable, which need not be UTF-8; an empty one is none.
pub(crate) fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Writes a whole file or nothing: into a temporary file of the same folder, to the disk, then
/// renamed over `path`. Whatever fails before the rename leaves the old file as it was.
///
/// Symbolic links are followed, as by any program that opens a file to write it. A file that is
/// replaced keeps its mode, and its owner and group where the system allows that; hard links,
/// access control lists and extended attributes are not kept. Temporary files that killed writers
/// have left in the folder for an hour are removed.
///
/// # Errors
/// [`Error::Io`] where the folder is missing or full, or may not be written to; [`Error::File`] where
/// `path` is a folder, a device or a read-only file.
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
    // Where locks bind, nobody could read the new file until it is closed.
    let _ = temporary.as_file().unlock();
    temporary.persist(&target).map_err(|e| Error::io(path)(e.error))?;
    // The rename itself reaches the disk with the folder. Systems that cannot sync a folder do
    // without: the file is whole either way.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Whether [`write_atomically`] could write there now, disk space aside; nothing is changed.
///
/// # Errors
/// As [`write_atomically`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let place = Place::find(path)?;
    create_temporary(&place.folder, true).map_err(Error::io(path))?;
    Ok(())
}

/// Whether two paths name one file, through links or not, or would once they are written.
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

/// Where a file is written: behind the links, in which folder, and what is there already.
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
            // Renaming over a device or pipe (`/dev/null`) would take it from the whole system.
            Some(about) if !about.is_file() => {
                return Err(Error::file(path, "is a device or pipe; expected the name of a file"));
            }
            // A rename asks for the folder's permission alone. The file's counts too, as it would for a
            // program that overwrites it; the superuser is asked by the mode.
            Some(about) if about.permissions().readonly() => {
                return Err(Error::file(path, "is read-only; make it writable, or name another file"));
            }
            Some(_) => drop(OpenOptions::new().write(true).open(&target).map_err(Error::io(path))?),
            None => {}
        }
        Ok(Place { folder: folder_of(&target), target, old })
    }
}

/// Links in a row that are followed, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The path behind symbolic links, which need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..=MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = folder_of(&target).join(link),
            Err(_) => return Ok(target), // no link, or nothing there
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_path_buf()
}

/// What the name of a temporary file begins with, and how many letters and digits follow.
const PREFIX: &str = ".wgrad-";
const RANDOM: usize = 6;

/// A temporary file, locked as long as it is being written. It is private where it replaces a file,
/// whose mode it gets later, and has the usual mode (by the umask) where it is a new one.
fn create_temporary(folder: &Path, private: bool) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    if !private {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // less the process's umask
    }
    #[cfg(not(unix))]
    let _ = private;
    let temporary = builder.tempfile_in(folder)?;
    // Where there are no locks, nothing is taken for abandoned either.
    let _ = temporary.as_file().try_lock();
    Ok(temporary)
}

#[cfg(unix)]
fn keep_owner_and_mode(new: &File, old: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let mut mode = old.mode() & 0o777;
    let differs = |new: fs::Metadata| (new.uid(), new.gid()) != (old.uid(), old.gid());
    // Only the superuser may give a file away, but its group may be any that the process is in.
    if new.metadata().is_ok_and(differs)
        && fchown(new, Some(old.uid()), Some(old.gid())).is_err()
        && fchown(new, None, Some(old.gid())).is_err()
    {
        // What the old group was allowed is not for another one.
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    // File systems without modes do without.
    let _ = new.set_permissions(fs::Permissions::from_mode(mode));
}

#[cfg(not(unix))]
fn keep_owner_and_mode(_: &File, _: &fs::Metadata) {}

/// A temporary file that nobody has written to for so long, and that nobody has locked, was left
/// behind by a process that was killed.
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

/// How long a lock is waited for. Whoever holds one has something to read and to write, no more.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lock against other processes that read a file, change it, and write it again; held until it is
/// dropped. It lies on a file of its own beside the file, which is replaced when it is written. `None` where
/// the system has no locks, or somebody holds it for too long: those who cannot do without must not ask.
pub(crate) fn lock(file: &Path) -> Option<File> {
    let mut name = file.file_name()?.to_owned();
    name.push(".lock");
    let lock = OpenOptions::new().create(true).append(true).open(file.with_file_name(name)).ok()?;
    let begin = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Some(lock),
            Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return None,
        }
    }
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
