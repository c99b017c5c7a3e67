//! Where a training is, and its checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::history::{Epoch, exact, of_exact};
use crate::{Error, Result, Session};

/// The position of a training: everything besides the session's variables and counters that decides how it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    /// Completed epochs.
    pub epoch: u64,
    /// Completed batches of the current epoch.
    pub batch: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// Sum of losses times rows, and rows, of the current epoch.
    pub loss_sum: f64,
    pub rows: f64,
    /// Seconds of the current epoch and of the whole training.
    pub seconds: f64,
    pub total_seconds: f64,
    pub waiting: f64,
    /// The best monitored value, its epoch, and how many epochs ago that was.
    pub best: Option<(f64, u64)>,
    pub since_best: u64,
    /// Factor of the learning rate, and epochs since it was reduced or the value improved.
    pub lr_factor: f64,
    pub since_reduction: u64,
    pub epochs: Vec<Epoch>,
    /// Lines of the log so far.
    pub log_lines: u64,
}

/// The version of the format, in the metadata.
const VERSION: (&str, &str) = ("wgrad.checkpoint", "1");
const STATE: &str = "wgrad.training";
const SETTINGS: &str = "wgrad.settings";
const USER: &str = "user.";

/// The name of the checkpoint with the best weights.
const BEST: &str = "best.safetensors";

impl State {
    pub fn new() -> State {
        State { lr_factor: 1.0, ..State::default() }
    }

    pub fn to_json(&self) -> Json {
        json!({
            "epoch": self.epoch, "batch": self.batch, "steps": self.steps, "log_lines": self.log_lines,
            "loss_sum": exact(self.loss_sum), "rows": exact(self.rows), "seconds": exact(self.seconds),
            "total_seconds": exact(self.total_seconds), "waiting": exact(self.waiting),
            "best": self.best.map(|(value, epoch)| json!([exact(value), epoch])), "since_best": self.since_best,
            "lr_factor": exact(self.lr_factor), "since_reduction": self.since_reduction,
            "epochs": self.epochs.iter().map(Epoch::to_json).collect::<Vec<_>>(),
        })
    }

    pub fn from_json(json: &Json) -> Option<State> {
        let count = |name: &str| json[name].as_u64();
        let number = |name: &str| of_exact(&json[name]);
        let best = match &json["best"] {
            Json::Null => None,
            best => Some((of_exact(&best[0])?, best[1].as_u64()?)),
        };
        Some(State {
            epoch: count("epoch")?,
            batch: count("batch")? as usize,
            steps: count("steps")?,
            loss_sum: number("loss_sum")?,
            rows: number("rows")?,
            seconds: number("seconds")?,
            total_seconds: number("total_seconds")?,
            waiting: number("waiting")?,
            best,
            since_best: count("since_best")?,
            lr_factor: number("lr_factor")?,
            since_reduction: count("since_reduction")?,
            epochs: json["epochs"].as_array()?.iter().map(Epoch::from_json).collect::<Option<_>>()?,
            log_lines: count("log_lines")?,
        })
    }
}

/// The folder of a training's checkpoints.
pub(super) struct Checkpoints {
    folder: PathBuf,
    /// How many are kept besides the best.
    keep: usize,
    /// Settings that must be the same when a training is resumed.
    settings: Json,
    /// The user's metadata.
    metadata: BTreeMap<String, String>,
}

impl Checkpoints {
    pub fn new(
        folder: PathBuf,
        keep: usize,
        settings: Json,
        metadata: BTreeMap<String, String>,
    ) -> Result<Checkpoints> {
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        Ok(Checkpoints { folder, keep: keep.max(1), settings, metadata })
    }

    /// The checkpoints, oldest first.
    fn list(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_numbered = |path: &PathBuf| number(path).is_some();
        let mut found: Vec<PathBuf> = files.filter(is_numbered).collect();
        found.sort_by_key(|path| number(path));
        found
    }

    /// The newest checkpoint.
    pub fn newest(&self) -> Option<PathBuf> {
        self.list().pop()
    }

    /// The checkpoint with the best weights, if there is one.
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.folder.join(BEST)).filter(|path| path.exists())
    }

    /// Saves the session and the state, and removes older checkpoints.
    pub fn save(&self, session: &Session, state: &State) -> Result<PathBuf> {
        let position = (state.epochs.len() as u64 * BATCHES_PER_EPOCH).saturating_add(state.batch as u64);
        let path = self.folder.join(format!("checkpoint-{position:015}.safetensors"));
        self.write(session, state, &path)?;
        let all = self.list();
        for old in &all[..all.len().saturating_sub(self.keep)] {
            // It may be gone already, or on a file system that keeps open files.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }

    /// Saves the best weights.
    pub fn save_best(&self, session: &Session, state: &State) -> Result<()> {
        self.write(session, state, &self.folder.join(BEST))
    }

    fn write(&self, session: &Session, state: &State, path: &Path) -> Result<()> {
        let mut metadata = BTreeMap::from([
            (VERSION.0.to_owned(), VERSION.1.to_owned()),
            (STATE.to_owned(), state.to_json().to_string()),
            (SETTINGS.to_owned(), self.settings.to_string()),
        ]);
        metadata.extend(self.metadata.iter().map(|(key, value)| (format!("{USER}{key}"), value.clone())));
        session.save_with(path, metadata)
    }

    /// Loads the newest checkpoint into the session, whose programs must have been compiled. A damaged file is
    /// reported and the one before it is used. `None` if there are none.
    pub fn resume(&self, session: &mut Session, warn: impl Fn(&str)) -> Result<Option<(PathBuf, State)>> {
        let mut damaged = None;
        for path in self.list().into_iter().rev() {
            match self.load(session, &path) {
                Ok(state) => return Ok(Some((path, state))),
                // A checkpoint of another program, or of other settings, is no damage.
                Err(error @ Error::Input(_)) => return Err(error),
                Err(error) => {
                    warn(&format!("{error}\ntrying the checkpoint before it"));
                    damaged = damaged.or(Some(error));
                }
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Loads a checkpoint into the session.
    pub fn load(&self, session: &mut Session, path: &Path) -> Result<State> {
        let contents = session.read_checkpoint(path)?;
        let metadata = &contents.metadata;
        match metadata.get(VERSION.0).map(String::as_str) {
            Some(version) if version == VERSION.1 => {}
            Some(version) => {
                let why = format!(
                    "is a checkpoint of format {version}, but this version of wgrad reads {}; use a newer one",
                    VERSION.1
                );
                return Err(Error::file(path, why));
            }
            None => {
                let why = "holds variables, but not the state of a training; load it with Session::load";
                return Err(Error::file(path, why));
            }
        }
        let parsed = |key: &str| metadata.get(key).and_then(|text| serde_json::from_str::<Json>(text).ok());
        let settings = parsed(SETTINGS).unwrap_or_default();
        if let (Some(now), Some(then)) = (self.settings.as_object(), settings.as_object()) {
            let differs = |name: &&String| now.get(*name) != then.get(*name);
            let value = |of: &serde_json::Map<String, Json>, name: &str| of.get(name).cloned().unwrap_or_default();
            let wrong: Vec<String> = now
                .keys()
                .filter(differs)
                .map(|name| format!("{name} is {}, and was {}", value(now, name), value(then, name)))
                .collect();
            if !wrong.is_empty() {
                return Err(Error::Input(format!(
                    "{}: the training cannot be resumed with other settings:\n  {}\nRestore them, or start anew in \
                     another folder",
                    path.display(),
                    wrong.join("\n  ")
                )));
            }
        }
        let state = parsed(STATE).as_ref().and_then(State::from_json);
        let state = state.ok_or_else(|| Error::file(path, "the state of the training is damaged"))?;
        session.load_contents(path, &contents)?;
        Ok(state)
    }
}

/// Orders checkpoints by epoch, then batch.
const BATCHES_PER_EPOCH: u64 = 10_000_000_000;

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.strip_suffix(".safetensors")?.parse().ok()
}

/// A copy of a session's variables and counters in memory.
pub(super) struct Snapshot {
    variables: BTreeMap<String, crate::Tensor>,
    counters: BTreeMap<String, u64>,
}

impl Snapshot {
    pub async fn of(session: &Session) -> Result<Snapshot> {
        let variables = session.get_all_async(session.names()).await?;
        Ok(Snapshot { variables, counters: session.counters().clone() })
    }

    pub fn restore(&self, session: &mut Session) -> Result<()> {
        let new: Vec<_> = self.variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
        session.set_all(&new)?;
        for (name, &count) in &self.counters {
            session.set_counter(name, count);
        }
        Ok(())
    }
}
