//! Shadow runs: a user's own step with every launch compared, and a report on the first wrong one.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{CallReport, KernelCase, Report};
use crate::graph::ValueId;
use crate::plan::{Plan, Stored};
use crate::{Error, Program, Result, Session, Tensor, files};

/// The first kernel call of a step that differs from the reference.
///
/// Example: [`Session::run_checked`](crate::Session::run_checked).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Divergence {
    /// Its index in the plan, and the number of kernel calls.
    pub number: (usize, usize),
    /// Its report: kernel and variant, the worst element, the user's line.
    pub found: CallReport,
    /// The nodes that it computes, with their types and the user's lines that created them.
    pub nodes: Vec<String>,
    /// Its inputs, described in the same way.
    pub reads: Vec<String>,
    /// Everything needed to run it again, anywhere.
    pub case: KernelCase,
    /// Where [`Session::run_checked`] saved the case, or why it could not.
    pub file: Option<std::result::Result<PathBuf, String>>,
}

impl Divergence {
    /// Collects the data for the report and the case file.
    pub(super) fn new(
        device: &str,
        plan: &Plan,
        number: usize,
        found: &CallReport,
        reads: &[(Stored, Tensor)],
        scalars: &[(ValueId, Tensor)],
    ) -> Result<Divergence> {
        let call = &plan.calls[number];
        let described = |id: ValueId| {
            let node = &plan.nodes.nodes[id.node];
            format!("{} {} (built at {})", node.name(), plan.nodes.ty(id), node.location)
        };
        Ok(Divergence {
            number: (number, plan.calls.len()),
            found: found.clone(),
            nodes: call.computed(&plan.nodes).into_iter().map(described).collect(),
            reads: call.reads.iter().map(|stored| described(stored.value)).collect(),
            case: KernelCase::new(device, plan, call, reads, scalars)?,
            file: None,
        })
    }

    /// Saves the case under a new name in the folder that `WGRAD_CASES` names, or in the system's folder for
    /// temporary files.
    fn save(&mut self) {
        if cfg!(target_family = "wasm") {
            return; // there are no files
        }
        let folder = files::path_in("WGRAD_CASES").unwrap_or_else(std::env::temp_dir);
        self.file = Some(self.save_in(&folder).map_err(|error| error.to_string()));
    }

    fn save_in(&self, folder: &Path) -> Result<PathBuf> {
        let name: String = self.found.label.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let mut builder = tempfile::Builder::new();
        // The case file replaces this file and keeps its mode: the default one, minus the process's umask.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let reserved = builder.prefix(&format!("wgrad-{name}-")).suffix(".safetensors").tempfile_in(folder);
        let reserved = reserved.map_err(Error::io(folder))?.into_temp_path();
        self.case.save(&reserved)?;
        reserved.keep().map_err(|e| Error::io(folder)(e.error))
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, count) = self.number;
        let found = &self.found;
        write!(f, "first divergence: {} (launch {} of {count})", found.label, number + 1)?;
        if let Some((op, variant)) = found.kernel {
            write!(f, "\n  kernel: {op}, variant {variant}")?;
        }
        self.nodes.iter().try_for_each(|node| write!(f, "\n  computes: {node}"))?;
        self.reads.iter().try_for_each(|read| write!(f, "\n  reads: {read}"))?;
        write!(f, "\n  wrong: {} of {} elements", found.wrong, found.compared)?;
        if let Some(element) = &found.worst {
            write!(f, "\n  worst: {element}")?;
        }
        if let Some(stray) = &found.stray {
            write!(f, "\n  stray: {stray}")?;
        }
        if let Some(status) = &found.status {
            write!(f, "\n  status: {status}")?;
        }
        match &self.file {
            Some(Ok(path)) => {
                write!(f, "\n  case: {0}\n  again: wgrad check --replay {0} --device DEVICE", path.display())
            }
            Some(Err(why)) => write!(f, "\n  the case could not be saved: {why}"),
            None => Ok(()),
        }
    }
}

impl Session {
    /// Runs a step as [`Session::run`] does, but launch by launch, and compares each launch with the reference
    /// on the launch's own inputs, so that errors do not accumulate. Outputs and new values of variables have
    /// the same bits as those of [`Session::run`].
    ///
    /// [`Report::divergence`] describes the first launch that diverges, with the user's lines, kernel and
    /// variant, shapes and the worst element. The launch is saved to a new case file in the folder named by
    /// `WGRAD_CASES` (by default, the system's folder for temporary files), for `wgrad check --replay FILE` on
    /// any device.
    ///
    /// # Errors
    /// As [`Session::run`]; and if the session runs on the reference itself.
    pub fn run_checked(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<(Vec<Tensor>, Report)> {
        let (outputs, mut report) = self.check(program, feeds)?;
        if let Some(divergence) = &mut report.divergence {
            divergence.save();
        }
        Ok((outputs, report))
    }
}
