//! `wgrad report RUN...`: an HTML page about one training, or a comparison of several.

use std::path::{Path, PathBuf};

use wgrad::io;
use wgrad::train::Report;
use wgrad_lab::output::{self, Out, Stop};

#[derive(clap::Args)]
pub struct ReportArgs {
    /// Folders of runs (Trainer::folder)
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where to write the page; default: report.html in the run's folder, or comparison.html here for several runs
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the page and prints its path.
pub fn run(args: &ReportArgs, out: &mut Out) -> Result<bool, Stop> {
    let report = Report::of(&args.runs)?;
    for warning in report.warnings() {
        output::note(format!("warning: {warning}"));
    }
    let path = match (&args.output, &args.runs[..]) {
        (Some(path), _) => path.clone(),
        (None, [run]) => run.join("report.html"),
        (None, _) => Path::new("comparison.html").to_owned(),
    };
    io::write_atomically(&path, report.html().as_bytes())?;
    out.line(path.display().to_string())?;
    Ok(true)
}
