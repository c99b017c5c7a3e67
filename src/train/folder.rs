//! The folder of a run: configuration, environment, and a log.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value as Json, json};

use super::events::Events;
use super::{Ended, Epoch, Evaluation};
use crate::data::ConfusionMatrix;
use crate::{Device, Error, Result, io};

/// The log's name.
pub(super) const LOG: &str = "metrics.jsonl";
pub(super) const CONFIG: &str = "config.json";
/// What the training step consists of; see [`Trainer::description`](super::Trainer::description).
pub(super) const STEP: &str = "step.json";
/// The rows that the last evaluation predicted worst; see [`Worst`](super::worst::Worst).
pub(super) const WORST: &str = "worst.json";

/// Writes the log of a run, a line of JSON for each event:
///
/// - `{"kind": "step", "step", "epoch", "batch", "loss", "lr"}`
/// - `{"kind": "epoch", "epoch", "step", "loss", "lr", "seconds", "waiting", "rows_per_second", "validation":
///   {"loss", METRIC...}}`
/// - `{"kind": "norms", "step", "epoch", "gradient": {PARAMETER: NORM...}, "weight": {...}, "update": {...}}`, see
///   [`Trainer::watch`](super::Trainer::watch)
/// - `{"kind": "weights", "step", "epoch", "parameters": {PARAMETER: {"min", "max", "mean", "std", "count",
///   "not_finite", "bins"}...}}`
/// - `{"kind": "end", "step", "ended", "why"}`: `ended` is finished, stopped early, time budget, interrupted or failed
///
/// Numbers that are not finite are null.
pub(super) struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    lines: u64,
    events: Option<Events>,
}

/// Renames a run that is in the folder to `FOLDER.1`, or the next free number.
pub(super) fn set_aside(folder: &Path) -> Result<Option<PathBuf>> {
    if !folder.join(LOG).exists() {
        return Ok(None);
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = (1..).map(|n| folder.with_file_name(format!("{name}.{n}"))).find(|path| !path.exists());
    let Some(aside) = aside else { return Ok(None) };
    fs::rename(folder, &aside).map_err(Error::io(folder))?;
    Ok(Some(aside))
}

/// Writes the configuration and what the run depends on.
pub(super) fn write_config(folder: &Path, settings: &Json, trainer: &Json, device: &Device) -> Result<()> {
    let profile = device.profile();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let config = json!({
        "settings": settings,
        "trainer": trainer,
        "environment": {
            "adapter": device.to_string(),
            "driver": profile.driver,
            "backend": profile.backend,
            "wgrad": env!("CARGO_PKG_VERSION"),
            "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            "command": std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>(),
            "git_commit": git(&["rev-parse", "HEAD"]),
            "git_changes": git(&["status", "--porcelain"]).map(|changes| !changes.is_empty()),
        },
    });
    write(folder, CONFIG, &config)
}

/// The settings of the trainer that differ from those in the folder, a line each.
pub(super) fn changes(folder: &Path, trainer: &Json) -> Vec<String> {
    let known = fs::read(folder.join(CONFIG)).ok().and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok());
    let Some(known) = known.filter(|known| known["trainer"].is_object()) else { return Vec::new() };
    let settings = trainer.as_object().into_iter().flatten();
    let changed = settings.filter(|(name, value)| known["trainer"][name.as_str()] != **value);
    changed.map(|(name, value)| format!("{name} was {}, and is now {value}", known["trainer"][name.as_str()])).collect()
}

/// Writes a file of the folder.
pub(super) fn write(folder: &Path, name: &str, contents: &Json) -> Result<()> {
    io::write_atomically(folder.join(name), format!("{contents:#}\n").as_bytes())
}

/// Classes up to which a confusion matrix is written whole.
pub(super) const WHOLE: usize = 64;

/// The rows of a confusion matrix; of many classes `{"classes", "cells": [[LABEL, CLASS, COUNT]...]}` without zeros.
fn confusion_matrix(matrix: &ConfusionMatrix) -> Json {
    let classes = matrix.classes();
    let row = |label| (0..classes).map(|class| matrix.count(label, class)).collect::<Vec<_>>();
    if classes <= WHOLE {
        return json!((0..classes).map(row).collect::<Vec<_>>());
    }
    let cells = (0..classes).flat_map(|label| (0..classes).map(move |class| (label, class)));
    let cells = cells.map(|(label, class)| (label, class, matrix.count(label, class))).filter(|cell| cell.2 > 0);
    json!({"classes": classes, "cells": cells.collect::<Vec<_>>()})
}

impl Log {
    /// Opens the log and keeps its first lines: later ones are of steps that the checkpoint does not have.
    pub fn open(folder: &Path, lines: u64) -> Result<Log> {
        let path = folder.join(LOG);
        let mut kept = Vec::new();
        if lines > 0 {
            let file = File::open(&path).map_err(Error::io(&path))?;
            for line in BufReader::new(file).split(b'\n').take(lines as usize) {
                kept.extend(line.map_err(Error::io(&path))?);
                kept.push(b'\n');
            }
        }
        io::write_atomically(&path, &kept)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Log { path, file: BufWriter::new(file), lines, events: None })
    }

    /// Also writes events for TensorBoard; `step` is the last step of the lines that were kept.
    pub fn with_events(self, folder: &Path, step: u64) -> Result<Log> {
        Ok(Log { events: Some(Events::open(folder, step)?), ..self })
    }

    /// The number of lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    fn write(&mut self, line: &Json) -> Result<()> {
        self.lines += 1;
        writeln!(self.file, "{line}").map_err(Error::io(&self.path))?;
        self.events.as_mut().map_or(Ok(()), |events| events.write(line))
    }

    /// Hands the lines to the system, so that they outlive the process.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io(&self.path))?;
        self.events.as_mut().map_or(Ok(()), Events::flush)
    }

    pub fn step(&mut self, step: u64, epoch: u64, batch: usize, loss: f64, lr: Option<f64>) -> Result<()> {
        self.write(&json!({"kind": "step", "step": step, "epoch": epoch, "batch": batch, "loss": loss, "lr": lr}))
    }

    pub fn epoch(&mut self, epoch: &Epoch) -> Result<()> {
        let validation = epoch.validation.as_ref().map(|Evaluation { loss, metrics, confusion }| {
            let mut values: Map<String, Json> = [("loss".to_owned(), json!(loss))].into_iter().collect();
            values.extend(metrics.iter().map(|(name, value)| (name.clone(), json!(value))));
            if let Some(matrix) = confusion {
                values.insert("confusion".into(), confusion_matrix(matrix));
            }
            Json::Object(values)
        });
        self.write(&json!({
            "kind": "epoch", "epoch": epoch.number, "step": epoch.steps, "loss": epoch.loss, "lr": epoch.lr,
            "seconds": epoch.seconds, "waiting": epoch.waiting, "rows_per_second": epoch.rows_per_second,
            "validation": validation,
        }))?;
        self.flush()
    }

    pub fn norms(&mut self, step: u64, epoch: u64, norms: Map<String, Json>) -> Result<()> {
        let place = [("kind", json!("norms")), ("step", json!(step)), ("epoch", json!(epoch))];
        let place = place.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.write(&place.chain(norms).collect())
    }

    pub fn weights(&mut self, step: u64, epoch: u64, parameters: Map<String, Json>) -> Result<()> {
        self.write(&json!({"kind": "weights", "step": step, "epoch": epoch, "parameters": parameters}))
    }

    /// The end of a run; a resumed one removes it.
    pub fn end(&mut self, step: u64, ended: std::result::Result<&Ended, &Error>) -> Result<()> {
        let (what, why) = match ended {
            Ok(Ended::Finished) => ("finished", None),
            Ok(Ended::EarlyStopping(epochs)) => ("stopped early", Some(format!("no improvement for {epochs} epochs"))),
            Ok(Ended::TimeBudget) => ("time budget", None),
            Ok(Ended::Interrupted(_)) => ("interrupted", None),
            Err(error) => ("failed", Some(error.to_string())),
        };
        self.write(&json!({"kind": "end", "step": step, "ended": what, "why": why}))?;
        self.flush()
    }
}
