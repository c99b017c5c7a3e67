//! The file of earlier tunings: JSON, one entry per device. It is only a hint: nothing in it is trusted, and
//! what does not fit is ignored with a note.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::check::{CaseGraph, not_runnable};
use crate::plan::Choices;
use crate::profile::Profile;
use crate::{Error, Result, Session, files, io, ops};

/// The file format version that this version of wgrad writes and reads.
const FORMAT: u64 = 1;
/// Maximum size in bytes; larger files were not written by wgrad.
const MAX_BYTES: u64 = 4 << 20;
/// Maximum number of devices; the last ones written are kept.
const MAX_DEVICES: usize = 32;

/// The tuning file: `tuning.json` in the [folder for caches](crate::io::cache_folder). `None` if there is no
/// such folder.
pub fn cache_file() -> Option<PathBuf> {
    Some(io::cache_folder()?.join("tuning.json"))
}

impl Session {
    /// Loads the results of earlier tunings on this device from the file, for programs compiled from now on;
    /// what the session knows already takes precedence. Returns notes on what was ignored: a file that cannot
    /// be read or is corrupt, entries of another driver or of other kernels, unknown names. A missing file
    /// needs no note.
    pub fn load_tuning(&mut self, file: &Path) -> Vec<String> {
        let (devices, mut notes) = match read(file) {
            Ok(Some(devices)) => devices,
            Ok(None) => return Vec::new(),
            Err(why) => return vec![format!("the tuning file is ignored: {why}")],
        };
        let profile = self.device().profile().clone();
        let here = Key::of(&profile);
        for device in &devices {
            match Key::in_json(device) {
                Some(key) if key == here => {
                    let mut choices = parse(device, file, &mut notes);
                    let own = self.choices().clone();
                    own.iter().for_each(|(op, class, variant)| choices.set(op, class, variant));
                    self.set_choices(choices);
                }
                Some(key) if key.same_adapter(&here) => notes.push(format!(
                    "{}: the entry of driver {:?}, wgrad {:?} and kernels {:?} is stale and ignored",
                    file.display(),
                    short(key.driver),
                    short(key.version),
                    short(key.kernels)
                )),
                _ => {} // another adapter's, or not a device, which `read` has noted
            }
        }
        notes
    }

    /// Adds the session's choices to the file, which is written atomically, and creates its folder if
    /// necessary. Entries of other adapters, and choices for the same device that are not contradicted, are
    /// kept: several processes may tune at once.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] if the file cannot be written.
    pub fn save_tuning(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        // No other process may write between reading and writing.
        let _lock = files::lock(file);
        let here = Key::of(self.device().profile());
        let mut devices = read(file).ok().flatten().map_or(Vec::new(), |(devices, _)| devices);
        let mut choices = Map::new();
        let known = devices.iter().find(|device| Key::in_json(device).is_some_and(|key| key == here));
        let known = known.map(|device| parse(device, file, &mut Notes::new())).unwrap_or_default();
        for (op, class, variant) in known.iter().chain(self.choices().iter()) {
            let classes = choices.entry(op).or_insert_with(|| json!({}));
            classes[class] = variant.into();
        }
        devices.retain(|device| Key::in_json(device).is_some_and(|key| !key.same_adapter(&here)));
        devices.drain(..devices.len().saturating_sub(MAX_DEVICES - 1));
        devices.push(here.entry(choices));
        let text = format!("{:#}\n", json!({ "format": FORMAT, "devices": devices }));
        io::write_atomically(file, text.as_bytes())
    }
}

/// What a tuning is valid for.
#[derive(PartialEq)]
struct Key<'a> {
    adapter: &'a str,
    backend: &'a str,
    driver: &'a str,
    version: &'a str,
    /// A hash of the shaders and of the code that specializes them.
    kernels: &'a str,
}

impl<'a> Key<'a> {
    fn of(profile: &'a Profile) -> Key<'a> {
        let (version, kernels) = (env!("CARGO_PKG_VERSION"), env!("WGRAD_KERNELS"));
        Key { adapter: &profile.name, backend: &profile.backend, driver: &profile.driver, version, kernels }
    }

    fn in_json(device: &'a Json) -> Option<Key<'a>> {
        let text = |name: &str| device.get(name)?.as_str();
        let (adapter, backend, driver) = (text("adapter")?, text("backend")?, text("driver")?);
        Some(Key { adapter, backend, driver, version: text("wgrad")?, kernels: text("kernels")? })
    }

    fn same_adapter(&self, other: &Key<'_>) -> bool {
        self.adapter == other.adapter && self.backend == other.backend
    }

    fn entry(&self, choices: Map<String, Json>) -> Json {
        json!({
            "adapter": self.adapter,
            "backend": self.backend,
            "driver": self.driver,
            "wgrad": self.version,
            "kernels": self.kernels,
            "choices": choices,
        })
    }
}

/// A text of the file, truncated for a note.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What was ignored, and why.
type Notes = Vec<String>;

/// The file's devices, and notes on invalid entries; `None` if there is no file.
fn read(file: &Path) -> std::result::Result<Option<(Vec<Json>, Notes)>, String> {
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(about) if about.len() > MAX_BYTES => {
            return Err(format!("{}: too long, {} bytes", file.display(), about.len()));
        }
        _ => {}
    }
    let bytes = io::read(file).map_err(|error| error.to_string())?;
    let corrupt = |why: &str| format!("{}: {why}", file.display());
    let mut json: Json = serde_json::from_slice(&bytes).map_err(|error| corrupt(&error.to_string()))?;
    if json.get("format").and_then(Json::as_u64) != Some(FORMAT) {
        return Err(corrupt(&format!("expected format {FORMAT}")));
    }
    let Some(Json::Array(mut devices)) = json.get_mut("devices").map(Json::take) else {
        return Err(corrupt("it lists no devices"));
    };
    let listed = devices.len();
    devices.retain(|device| Key::in_json(device).is_some());
    let odd = listed - devices.len();
    let note = (odd > 0).then(|| corrupt(&format!("{odd} of {listed} entries are not devices and are ignored")));
    Ok(Some((devices, note.into_iter().collect())))
}

/// The choices of a device's entry that have known names.
fn parse(device: &Json, file: &Path, notes: &mut Vec<String>) -> Choices {
    let mut choices = Choices::default();
    let Some(Json::Object(ops)) = device.get("choices") else {
        notes.push(format!("{}: an entry without choices is ignored", file.display()));
        return choices;
    };
    let known = if ops.is_empty() { BTreeSet::new() } else { variants() };
    let mut odd = 0;
    for (op, classes) in ops {
        let Json::Object(classes) = classes else {
            odd += 1;
            continue;
        };
        for (class, variant) in classes {
            match variant.as_str().filter(|variant| known.contains(&(op.as_str(), *variant))) {
                Some(variant) => choices.set(op, class, variant),
                None => odd += 1,
            }
        }
    }
    if odd > 0 {
        notes.push(format!("{}: {odd} choices of unknown ops or variants are ignored", file.display()));
    }
    choices
}

/// All variants of all ops.
fn variants() -> BTreeSet<(&'static str, &'static str)> {
    let graphs = ops::cases().into_iter().filter_map(|case| CaseGraph::new(&case).ok());
    let mut known = BTreeSet::new();
    for graph in graphs {
        let (runs, missing) = not_runnable(&graph.graph.nodes(), &Profile::webgpu_defaults());
        known.extend(runs);
        known.extend(missing.iter().map(|missing| (missing.op, missing.variant)));
    }
    known
}
