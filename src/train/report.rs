//! The report of one or several runs: one HTML page, from what is in their folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::folder::{CONFIG, LOG, STEP, WORST};
use crate::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use crate::{Error, Result, io};

/// The style that reports share.
#[doc(hidden)]
pub const STYLE: &str = include_str!("report/base.css");

const OWN_STYLE: &str = include_str!("report/report.css");
const CHARTS: &str = include_str!("report/charts.js");
const STEP_SECTIONS: &str = include_str!("report/step.js");
const PAGE: &str = include_str!("report/page.js");

/// The name of a run's report in its folder.
const FILE: &str = "report.html";

/// Steps that a report shows apart; of more, it shows the mean and the range of equally many in a row.
const STEPS: usize = 1500;
/// Watched steps and epochs with histograms that a report shows.
const NORMS: usize = 400;
const HISTOGRAMS: usize = 12;
/// Classes of a confusion matrix that is shown as a matrix; of more, only the most frequent errors are shown.
const CLASSES: usize = 64;
const CONFUSIONS: usize = 50;

/// A report about one or several runs of a [`Trainer`](super::Trainer) as a self-contained HTML page: curves, epochs,
/// confusion matrix, worst predictions, network, kernel calls and memory of a step, settings. It is made from the files
/// in the runs' folders, so it shows finished, interrupted and running trainings.
///
/// ```
/// use wgrad::prelude::*;
/// use wgrad::train::{Model, Report, Trainer};
/// let folder = tempfile::tempdir().expect("a folder");
/// let x = Tensor::new([4, 1], [0.0f32, 1.0, 2.0, 3.0])?;
/// let model = Model::new([1], |nn, x| nn.linear("fc", x, 1));
/// let runs = [0.1, 0.01].map(|lr| (lr, folder.path().join(format!("lr {lr}"))));
/// for (lr, run) in &runs {
///     let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).lr(*lr).epochs(2).folder(run);
///     trainer = trainer.quiet();
///     trainer.fit(&mut Session::new(Device::cpu()), &(x.clone(), x.clone()), None)?;
/// }
/// assert!(runs[0].1.join("report.html").exists());
/// let comparison = Report::of(&runs.map(|(_, run)| run))?;
/// std::fs::write(folder.path().join("comparison.html"), comparison.html()).expect("written");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct Report {
    runs: Vec<Json>,
    warnings: Vec<String>,
}

impl Report {
    /// Reads the folders of runs. A partial last line of a log, of a training that was killed, is left out with a
    /// [warning](Report::warnings).
    ///
    /// # Errors
    /// [`Error::File`] for a folder that holds no run, and for a damaged line, with its number; [`Error::Io`];
    /// [`Error::Input`] without any run.
    pub fn of(folders: &[impl AsRef<Path>]) -> Result<Report> {
        if folders.is_empty() {
            return Err(Error::Input("a report needs at least one run".into()));
        }
        let mut report = Report { runs: Vec::new(), warnings: Vec::new() };
        for folder in folders {
            let run = report.read(folder.as_ref())?;
            report.runs.push(run);
        }
        Ok(report)
    }

    /// What could not be read, and was left out.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The page.
    pub fn html(&self) -> String {
        let names: Vec<&str> = self.runs.iter().filter_map(|run| run["name"].as_str()).collect();
        let title = names.join(", ").replace('&', "&amp;").replace('<', "&lt;");
        let written = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let data = json!({"runs": self.runs, "warnings": self.warnings, "written": written});
        // Within JSON, `<` occurs only in strings. The page must not contain `</script` or `<!--` there.
        let data = data.to_string().replace('<', "\\u003c");
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{title}: wgrad training</title>\n<style>\n{STYLE}{OWN_STYLE}\
             </style>\n</head>\n<body>\n<main><noscript>The curves of this report are drawn by a script on this page; allow it \
             to run.</noscript></main>\n<script id=\"data\" type=\"application/json\">{data}</script>\n\
             <script>\n{CHARTS}{STEP_SECTIONS}{PAGE}</script>\n</body>\n</html>\n"
        )
    }

    fn read(&mut self, folder: &Path) -> Result<Json> {
        let log = folder.join(LOG);
        if !log.is_file() {
            let why = if folder.is_dir() {
                format!("is no run of a Trainer: it has no {LOG}")
            } else {
                "is no folder; name the folder of a run (Trainer::folder)".to_owned()
            };
            return Err(Error::file(folder, why));
        }
        let config = json_file(&folder.join(CONFIG))?.unwrap_or_else(|| {
            self.warnings.push(format!("{} has no {CONFIG}: its settings are unknown", folder.display()));
            Json::Null
        });
        let monitor = Monitor::of(&config["trainer"]);
        let mut lines = Lines::default();
        let bytes = fs::read(&log).map_err(Error::io(&log))?;
        for (number, bytes) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let line = serde_json::from_slice::<Json>(bytes).map_err(|error| error.to_string());
            match line.and_then(|line| lines.add(line)) {
                Ok(()) => {}
                Err(_) if bytes.last() != Some(&b'\n') => {
                    let warning = format!("{}: line {number} is incomplete and was left out", log.display());
                    self.warnings.push(warning);
                }
                Err(why) => return Err(Error::file(&log, format!("line {number} is damaged: {why}"))),
            }
        }
        let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = path.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
        let known = self.runs.iter().any(|run| run["name"] == json!(name));
        let name = if known { folder.display().to_string() } else { name };
        let mut run = lines.summary(&name, &config, &monitor);
        run["description"] = json_file(&folder.join(STEP))?.unwrap_or_default();
        run["worst"] = json_file(&folder.join(WORST))?.unwrap_or_default();
        Ok(run)
    }
}

/// A file of JSON, if there is one.
fn json_file(path: &Path) -> Result<Option<Json>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Error::file(path, format!("is damaged: {error}")))
}

/// The value that decides about the best epoch.
struct Monitor {
    name: String,
    higher: bool,
}

impl Monitor {
    fn of(trainer: &Json) -> Monitor {
        let name = trainer["monitor"].as_str().unwrap_or("loss").to_owned();
        Monitor { name, higher: trainer["higher_is_better"].as_bool().unwrap_or(false) }
    }

    fn value(&self, epoch: &Json) -> Option<f64> {
        let of = if epoch["validation"].is_object() { &epoch["validation"] } else { epoch };
        of[&self.name].as_f64()
    }

    /// The number of the best epoch.
    fn best(&self, epochs: &[Json]) -> Option<u64> {
        let mut best: Option<(f64, u64)> = None;
        for epoch in epochs {
            let (Some(value), Some(number)) = (self.value(epoch), epoch["epoch"].as_u64()) else { continue };
            if best.is_none_or(|(best, _)| if self.higher { value > best } else { value < best }) {
                best = Some((value, number));
            }
        }
        best.map(|(_, number)| number)
    }
}

/// The lines of a log by kind.
#[derive(Default)]
struct Lines {
    /// Steps, losses and learning rates of batches.
    steps: Vec<(f64, f64, Option<f64>)>,
    epochs: Vec<Json>,
    norms: Vec<Json>,
    weights: Vec<Json>,
    end: Json,
}

impl Lines {
    fn add(&mut self, line: Json) -> std::result::Result<(), String> {
        match line["kind"].as_str().ok_or("it has no kind")? {
            "step" => {
                let step = line["step"].as_f64().ok_or("a step without a number")?;
                self.steps.push((step, line["loss"].as_f64().unwrap_or(f64::NAN), line["lr"].as_f64()));
            }
            "epoch" => self.epochs.push(line),
            "norms" => self.norms.push(line),
            "weights" => self.weights.push(line),
            "end" => self.end = line,
            // Of a later version.
            _ => {}
        }
        Ok(())
    }

    fn summary(mut self, name: &str, config: &Json, monitor: &Monitor) -> Json {
        let best = monitor.best(&self.epochs);
        let confusions = self.take_confusions(best);
        json!({
            "name": name, "config": config, "end": self.end, "batches": self.steps.len(),
            "best": best, "monitor": monitor.name, "higher": monitor.higher, "confusions": confusions,
            "steps": self.thinned(), "norms": self.norms(), "weights": some_of(&self.weights, HISTOGRAMS),
            "epochs": self.epochs,
        })
    }

    /// Steps with the least, mean and largest loss, and the learning rate.
    fn thinned(&self) -> Json {
        let each = self.steps.len().div_ceil(STEPS).max(1);
        let mut columns: [Vec<Json>; 5] = Default::default();
        for steps in self.steps.chunks(each) {
            let losses = || steps.iter().map(|(_, loss, _)| *loss).filter(|loss| loss.is_finite());
            let (last, count) = (steps.last(), losses().count());
            let finite = |x: f64| if count > 0 { json!(shorter(x)) } else { Json::Null };
            columns[0].push(json!(last.map(|last| last.0)));
            columns[1].push(finite(losses().fold(f64::INFINITY, f64::min)));
            columns[2].push(finite(losses().sum::<f64>() / count as f64));
            columns[3].push(finite(losses().fold(f64::NEG_INFINITY, f64::max)));
            columns[4].push(json!(last.and_then(|last| last.2).map(shorter)));
        }
        let [step, low, mean, high, lr] = columns;
        json!({"each": each, "step": step, "low": low, "mean": mean, "high": high, "lr": lr})
    }

    /// `{"step": [...], "gradient": {PARAMETER: [...]}, "weight": {...}, "update": {...}}`.
    fn norms(&self) -> Json {
        let lines = some_of(&self.norms, NORMS);
        let Some(last) = lines.last() else { return Json::Null };
        let mut columns = Map::from_iter([(
            "step".to_owned(),
            lines.iter().map(|line| line["step"].clone()).collect::<Vec<_>>().into(),
        )]);
        for kind in ["gradient", "weight", "update"] {
            let names = last[kind].as_object().into_iter().flat_map(Map::keys);
            let column = |name: &str| -> Vec<Json> {
                lines.iter().map(|line| json!(line[kind][name].as_f64().map(shorter))).collect()
            };
            let by_name: Map<String, Json> = names.map(|name| (name.clone(), column(name).into())).collect();
            columns.insert(kind.to_owned(), by_name.into());
        }
        columns.into()
    }

    /// Removes the confusion matrices from the epochs; returns those of the last and the best.
    fn take_confusions(&mut self, best: Option<u64>) -> Vec<Json> {
        let last = self.epochs.len();
        let mut kept = Vec::new();
        for (number, epoch) in (1..).zip(&mut self.epochs) {
            let this = epoch["epoch"].clone();
            let Some(validation) = epoch["validation"].as_object_mut() else { continue };
            let Some(matrix) = validation.remove("confusion") else { continue };
            if number == last || this.as_u64() == best {
                let rows = confusion_rows(&matrix);
                kept.push(confusion(&this, &rows));
            }
        }
        kept
    }
}

/// The counts of a confusion matrix in a log, whole or as cells.
fn confusion_rows(matrix: &Json) -> Vec<Vec<u64>> {
    let list = |json: &Json| -> Vec<u64> { json.as_array().into_iter().flatten().filter_map(Json::as_u64).collect() };
    if let Some(rows) = matrix.as_array() {
        return rows.iter().map(list).collect();
    }
    // No file makes the page hold more than a million counts.
    let classes = matrix["classes"].as_u64().map_or(0, |classes| classes.min(1000) as usize);
    let mut rows = vec![vec![0; classes]; classes];
    for cell in matrix["cells"].as_array().into_iter().flatten().map(list) {
        let [label, class, count] = cell[..] else { continue };
        if let Some(place) = rows.get_mut(label as usize).and_then(|row| row.get_mut(class as usize)) {
            *place = count;
        }
    }
    rows
}

/// A confusion matrix with its most frequent errors.
fn confusion(epoch: &Json, rows: &[Vec<u64>]) -> Json {
    let cell = |(label, row): (usize, &Vec<u64>)| -> Vec<(u64, usize, usize)> {
        row.iter().enumerate().filter(|(class, n)| *class != label && **n > 0).map(|(c, n)| (*n, label, c)).collect()
    };
    let mut errors: Vec<(u64, usize, usize)> = rows.iter().enumerate().flat_map(cell).collect();
    errors.sort_by_key(|&(n, label, class)| (std::cmp::Reverse(n), label, class));
    errors.truncate(CONFUSIONS);
    let shown = if rows.len() <= CLASSES { json!(rows) } else { Json::Null };
    json!({"epoch": epoch, "classes": rows.len(), "matrix": shown, "errors": errors})
}

/// At most `most` of the lines, evenly chosen, with the last.
fn some_of(lines: &[Json], most: usize) -> Vec<&Json> {
    let each = lines.len().div_ceil(most).max(1);
    lines.iter().rev().step_by(each).collect::<Vec<_>>().into_iter().rev().collect()
}

/// Six significant digits.
fn shorter(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

/// Writes a run's report from time to time.
pub(super) struct Renewal {
    folder: PathBuf,
    due: Instant,
}

/// The shortest time between two reports of a running training, and the multiple of the time that writing one takes.
const PAUSE: Duration = Duration::from_secs(20);
const PAUSE_FACTOR: u32 = 50;

impl Renewal {
    pub fn of(folder: PathBuf) -> Renewal {
        Renewal { folder, due: Instant::now() + PAUSE / 4 }
    }

    pub fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Writes the report. Returns its path.
    pub fn renew(&mut self) -> Result<PathBuf> {
        let started = Instant::now();
        let path = self.folder.join(FILE);
        let written =
            Report::of(&[&self.folder]).and_then(|report| io::write_atomically(&path, report.html().as_bytes()));
        self.due = Instant::now() + PAUSE.max(started.elapsed() * PAUSE_FACTOR);
        written.map(|()| path)
    }
}
