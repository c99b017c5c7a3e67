//! Shared by the commands: output, patterns, and ways to stop.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use wgrad::{Device, NO_ADAPTER, OpenOptions};

/// Why a command stops.
#[derive(Debug)]
pub enum Stop {
    /// Standard output is closed (`wgrad devices | head -1`): exit silently.
    Closed,
    /// Wrong usage, or a missing requirement.
    Error(String),
    /// A device gives wrong results: exit code 1.
    Wrong(String),
}

impl From<wgrad::Error> for Stop {
    fn from(error: wgrad::Error) -> Self {
        Stop::Error(error.to_string())
    }
}

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Stop::Error(message)
    }
}

/// Standard output, line by line.
pub struct Out(Box<dyn Write>);

impl Out {
    pub fn stdout() -> Self {
        Out(Box::new(io::stdout()))
    }

    /// Writes a line. `println!` would panic if the reader has closed the pipe.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Stop> {
        let written = writeln!(self.0, "{}", text.as_ref()).and_then(|()| self.0.flush());
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Error(format!("writing to standard output: {error}")),
        })
    }
}

/// Writes a line to standard error. `eprintln!` would panic if it is closed.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Parses a duration: finite, non-negative, at most a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, between 0 and a day (86400)".to_owned())
}

/// Parses a narrow float type.
pub fn narrow_float(text: &str) -> Result<wgrad::DType, String> {
    let dtype = text.parse().ok().filter(|dtype: &wgrad::DType| dtype.is_float() && dtype.is_narrow());
    dtype.ok_or_else(|| "expected f16 or bf16".to_owned())
}

/// Files that a command reads or writes, each with its option.
pub type Files<'a> = [(&'a str, Option<&'a Path>)];

/// Rejects, before anything runs, files that cannot be written, and a file that is named twice, which would lose
/// data.
pub fn check_files(reads: &Files<'_>, writes: &Files<'_>) -> Result<(), Stop> {
    let named = |files: &Files<'_>| -> Vec<(String, std::path::PathBuf)> {
        files.iter().filter_map(|(option, path)| Some(((*option).to_owned(), (*path)?.to_owned()))).collect()
    };
    let (mut seen, writes) = (named(reads), named(writes));
    for (option, path) in writes {
        if let Some((other, _)) = seen.iter().find(|(_, known)| wgrad::io::is_same_file(known, &path)) {
            let path = path.display();
            return Err(Stop::Error(format!("{path}: {other} and {option} name the same file; name two")));
        }
        if let Err(error) = wgrad::io::check_writable(&path) {
            return Err(Stop::Error(format!("{option}: {error}")));
        }
        seen.push((option, path));
    }
    Ok(())
}

/// Opens a GPU by name, or the best one.
///
/// # Errors
/// If there is none, and for `cpu`: the reference is what devices are compared with.
pub fn open_gpu(name: Option<&str>) -> Result<Device, Stop> {
    open_gpu_with(name, &OpenOptions::default())
}

/// [`open_gpu`] with options.
///
/// # Errors
/// As [`open_gpu`].
pub fn open_gpu_with(name: Option<&str>, options: &OpenOptions) -> Result<Device, Stop> {
    let device = Device::open_with(name, options)?;
    if !device.is_cpu() {
        return Ok(device);
    }
    Err(Stop::Error(if Device::list().is_empty() {
        format!("{NO_ADAPTER}. There is nothing to check but the reference itself: `wgrad check --golden DIR`")
    } else {
        "cpu is the reference, which all devices are compared with; name a GPU with --device, or check the \
         reference itself with --golden DIR"
            .to_owned()
    }))
}

/// Whether an op's name matches `--op`: `*` matches anything; a pattern without `*` matches any part of a name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return name.contains(pattern) };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or("");
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("conv", "conv2d") && matches("*conv2d*", "conv2d_input_gradient"));
        assert!(matches("max*2d", "max_pool2d") && matches("*", "relu") && matches("re*u", "relu"));
        assert!(!matches("conv*", "max_pool2d") && !matches("relu*relu", "relu") && !matches("*lu", "softplus"));
    }
}
