//! `--replace`: runs WGSL from files in place of that of some launches, to try changes of a kernel without building.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use wgrad::Error;
use wgrad::plan::Plan;

/// The WGSL of a launch, by its number in the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    launch: usize,
    file: PathBuf,
}

impl FromStr for Replacement {
    type Err = String;

    fn from_str(text: &str) -> Result<Replacement, String> {
        let parts = text.split_once('=').filter(|(_, file)| !file.is_empty());
        let parts = parts.and_then(|(launch, file)| Some((launch.parse().ok()?, file.into())));
        let (launch, file) = parts.ok_or("expected LAUNCH=FILE, such as 0=kernel.wgsl")?;
        Ok(Replacement { launch, file })
    }
}

impl std::fmt::Display for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.launch, self.file.display())
    }
}

impl Replacement {
    /// Replaces the text of the launch. Its entry point, bindings and workgroups stay.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such launch, or the file has no valid shader for it.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), Error> {
        let refuse = |why: String| Error::Input(format!("{}: {why}", self.file.display()));
        let launches = plan.calls.iter().map(|call| call.dispatches.len()).sum::<usize>();
        let mut dispatches = plan.calls.iter_mut().flat_map(|call| &mut call.dispatches);
        let Some(dispatch) = dispatches.nth(self.launch) else {
            let last = launches.max(1) - 1;
            return Err(refuse(format!("there is no launch {}; the last one is {last}", self.launch)));
        };
        let text = fs::read_to_string(&self.file).map_err(|e| refuse(e.to_string()))?;
        let (module, _) = wgrad_lab::wgsl::parse(&text).map_err(&refuse)?;
        if !module.entry_points.iter().any(|entry| entry.name == dispatch.entry) {
            return Err(refuse(format!("expected an entry point `{}`", dispatch.entry)));
        }
        dispatch.wgsl.text = Arc::from(text);
        Ok(())
    }
}
