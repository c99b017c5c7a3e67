//! `wgrad-lab results`: rewrites the generated tables of docs/RESULTS.md from the raw files in docs/measurements.
//!
//! A table stands between two comments. The first names the set of files (a device and a day) and the table:
//!
//! ```text
//! <!-- generated: h100-2026-11-26: tasks -->
//! <!-- end -->
//! ```
//!
//! The tables are `SET: tasks`, `SET: peaks`, `OLD NEW: changes` and `SET ...: checks`. Columns without data are left
//! out.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::output::{Out, Stop};

/// The page, relative to the repository.
pub const PAGE: &str = "docs/RESULTS.md";
const MEASUREMENTS: &str = "docs/measurements";
const END: &str = "<!-- end -->";

/// Reads a file of docs/measurements.
pub type Read<'a> = &'a dyn Fn(&str) -> io::Result<String>;

/// Rewrites the page if a table differs.
pub fn run(out: &mut Out) -> Result<(), Stop> {
    let (written, generated) = page()?;
    if generated == written {
        return out.line(format!("{PAGE} is up to date"));
    }
    wgrad::io::write_atomically(path(PAGE), generated.as_bytes())?;
    out.line(format!("{PAGE} is rewritten"))
}

/// The page as it is, and with its tables generated anew.
///
/// # Errors
/// As for [`fill`], and when the page cannot be read.
pub fn page() -> Result<(String, String), String> {
    let page = std::fs::read_to_string(path(PAGE)).map_err(|error| format!("{PAGE}: {error}"))?;
    let filled = fill(&page, &|name| std::fs::read_to_string(path(MEASUREMENTS).join(name)))?;
    Ok((page, filled))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Generates every table of a page; the rest of the page stays as it is.
///
/// # Errors
/// For an unknown table, a comment without its counterpart, and files that are missing or malformed.
pub fn fill(page: &str, read: Read<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut open = None;
    for (line, number) in page.lines().zip(1..) {
        let at = |why: String| format!("{PAGE}:{number}: {why}");
        if line.starts_with("<!-- generated") {
            if let Some(start) = open.replace(number) {
                return Err(at(format!("the table of line {start} has no `{END}`")));
            }
            let table = generate(line, read).map_err(at)?;
            filled += &format!("{line}\n\n{table}\n");
            continue;
        }
        if line == END && open.take().is_none() {
            return Err(at("no table ends here".to_owned()));
        }
        if open.is_none() {
            filled += &format!("{line}\n");
        }
    }
    open.map_or(Ok(filled), |start| Err(format!("{PAGE}:{start}: this table has no `{END}`")))
}

/// The table that a comment names.
fn generate(comment: &str, read: Read<'_>) -> Result<String, String> {
    let inner = comment.strip_prefix("<!-- generated: ").and_then(|inner| inner.strip_suffix(" -->"));
    let (sets, name) = inner.and_then(|inner| inner.rsplit_once(": ")).unwrap_or_default();
    let sets: Vec<&str> = sets.split_whitespace().collect();
    match (name, &sets[..]) {
        ("tasks", [set]) => tasks(set, read),
        ("peaks", [set]) => peaks(set, read),
        ("changes", [old, new]) => changes(old, new, read),
        ("checks", [_, ..]) => checks(&sets, read),
        _ => Err(format!(
            "`{comment}` names no table; expected `<!-- generated: TABLE -->`, where TABLE is `SET: tasks`, \
             `SET: peaks`, `OLD NEW: changes` or `SET ...: checks`"
        )),
    }
}

/// One line of a `.jsonl` file.
struct Record {
    /// `wgrad`, or the library and mode that it is compared with.
    peer: String,
    /// The task and its shape, such as `matmul 256,256,256`.
    name: String,
    fields: Json,
}

impl Record {
    /// Parses a line; `None` for what is not a task.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        // Python writes NaN, which is not JSON.
        let fields: Json = serde_json::from_str(&line.replace(": NaN", ": null"))
            .map_err(|error| format!("it is not JSON, in column {}", error.column()))?;
        let task = match fields["task"].as_str() {
            Some("peak" | "startup") => return Ok(None),
            Some(task) => task,
            None if fields["torch"].is_string() => return Ok(None), // PyTorch's version
            None => return Err("it has no `task`".to_owned()),
        };
        let name = format!("{task} {}", shape(&fields));
        let peer = fields["peer"].as_str().unwrap_or("wgrad").to_owned();
        Ok(Some(Record { peer, name, fields }))
    }

    /// A positive number.
    fn number(&self, field: &str) -> Option<f64> {
        self.fields[field].as_f64().filter(|&number| number > 0.0)
    }

    /// Whether it is a training step, timed by the host's clock.
    fn is_step(&self) -> bool {
        self.name.contains("_step")
    }

    /// Seconds: of a training step `median_s`; of a kernel the least of `fields`, or `median_s` if it has none.
    fn seconds(&self, fields: &[&str]) -> Option<f64> {
        let fields = if self.is_step() { &[] } else { fields };
        fields.iter().filter_map(|field| self.number(field)).reduce(f64::min).or_else(|| self.number("median_s"))
    }

    /// Seconds that wgrad takes.
    fn ours(&self) -> Option<f64> {
        self.seconds(&["device_s"])
    }

    /// Operations per second, of tasks for which they count.
    fn flops(&self) -> Option<f64> {
        self.number("gflops").and_then(|_| Some(self.number("nominal_flop")? / self.ours()?))
    }

    /// Bytes per second, of tasks for which they count.
    fn bandwidth(&self) -> Option<f64> {
        self.number("gb_s").and_then(|_| Some(self.number("nominal_bytes")? / self.ours()?))
    }

    /// Operations per second, otherwise bytes per second; `fast` selects units for GPUs beyond 1 TFLOP/s.
    fn rate(&self, fast: bool) -> String {
        match (self.flops(), self.bandwidth(), fast) {
            (Some(rate), _, true) => format!("{:.2} TFLOP/s", rate / 1e12),
            (Some(rate), _, false) => format!("{:.1} GFLOP/s", rate / 1e9),
            (None, Some(rate), true) => format!("{:.0} GB/s", rate / 1e9),
            (None, Some(rate), false) => format!("{:.2} GB/s", rate / 1e9),
            (None, None, _) => String::new(),
        }
    }
}

/// A shape in one form: wgrad writes `[64, 1, 28, 28, "pad1"]`, PyTorch's benchmark `64x784x256` or `64,1,28,28`.
fn shape(fields: &Json) -> String {
    match (&fields["params"], &fields["shape"]) {
        (Json::Array(sizes), _) => {
            let sizes: Vec<String> = sizes.iter().filter(|size| size.is_number()).map(Json::to_string).collect();
            sizes.join(",")
        }
        (_, Json::String(shape)) => shape.replace('x', ","),
        _ => String::new(),
    }
}

/// A file's text; `None` if there is no such file.
fn optional(name: &str, read: Read<'_>) -> Result<Option<String>, String> {
    match read(name) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{MEASUREMENTS}/{name}: {error}")),
    }
}

fn required(name: &str, read: Read<'_>) -> Result<String, String> {
    optional(name, read)?.ok_or_else(|| format!("{MEASUREMENTS}/{name} does not exist"))
}

/// The records of a `.jsonl` file.
fn records(name: &str, text: &str) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let at = |why: String| format!("{MEASUREMENTS}/{name}:{number}: {why}");
        let Some(record) = Record::parse(line).map_err(at)? else { continue };
        if records.iter().any(|other| (&other.peer, &other.name) == (&record.peer, &record.name)) {
            return Err(at(format!("`{}` of {} is in the file twice", record.name, record.peer)));
        }
        records.push(record);
    }
    Ok(records)
}

fn bench(set: &str, read: Read<'_>) -> Result<Vec<Record>, String> {
    let name = format!("{set}-bench.jsonl");
    let records = records(&name, &required(&name, read)?)?;
    if records.is_empty() { Err(format!("{MEASUREMENTS}/{name} has no task")) } else { Ok(records) }
}

/// Every task of a set, beside PyTorch if it has been measured.
fn tasks(set: &str, read: Read<'_>) -> Result<String, String> {
    let bench = bench(set, read)?;
    let name = format!("{set}-torch.jsonl");
    let torch = records(&name, &optional(&name, read)?.unwrap_or_default())?;
    let fast = bench.iter().filter_map(Record::flops).any(|rate| rate >= 1e12);
    let row = |record: &Record| {
        let find = |peer: &str| torch.iter().find(|other| other.peer == peer && other.name == record.name);
        let eager = find("torch-f32").and_then(|other| other.seconds(&["device_s", "batch_s"]));
        let graph = find("torch-f32-graph").and_then(|other| other.number("median_s"));
        let best = eager.into_iter().chain(graph).reduce(f64::min);
        [
            format!("`{}`", record.name),
            time(record.ours()),
            record.rate(fast),
            time(eager),
            time(graph),
            ratio(best, record.ours()),
        ]
    };
    let header = ["task", "wgrad", "rate", "PyTorch f32", "PyTorch, CUDA graph", "PyTorch / wgrad"];
    Ok(table(header, &bench.iter().map(row).collect::<Vec<_>>()))
}

/// The tasks of a newer set, beside an older one.
fn changes(old: &str, new: &str, read: Read<'_>) -> Result<String, String> {
    let (old, new) = (bench(old, read)?, bench(new, read)?);
    let row = |record: &Record| {
        let before = old.iter().find(|other| other.name == record.name).and_then(Record::ours);
        let after = record.ours();
        [format!("`{}`", record.name), time(before), time(after), ratio(after, before)]
    };
    Ok(table(["task", "old", "new", "new / old"], &new.iter().map(row).collect::<Vec<_>>()))
}

/// The lines of `wgrad bench peak`, such as `read, GB/s: 1372.1 of 64 MiB  (2 x vec4 an invocation)`.
fn peaks(set: &str, read: Read<'_>) -> Result<String, String> {
    let name = format!("{set}-peak.txt");
    let text = required(&name, read)?;
    let row = |line: &str| {
        let (what, figures) = line.split_once(':')?;
        let known = ["peak", "copy", "read", "add", "dispatch", "GFLOP/s"].contains(&what.split([',', ' ']).next()?);
        let (figures, kernel) = figures.split_once("  (").unwrap_or((figures, ""));
        known.then(|| [what, figures.trim(), kernel.trim_end_matches(')')].map(str::to_owned))
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    if rows.is_empty() {
        return Err(format!("{MEASUREMENTS}/{name} has no peak"));
    }
    Ok(table(["measurement", "result", "kernel"], &rows))
}

/// The last lines of `wgrad check`.
fn checks(sets: &[&str], read: Read<'_>) -> Result<String, String> {
    let mut rows = Vec::new();
    for set in sets {
        let before = rows.len();
        for (kind, option) in [("check", "quick"), ("full", "full"), ("golden", "golden")] {
            let name = format!("{set}-{kind}.txt");
            let Some(text) = optional(&name, read)? else { continue };
            let find = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).map(grouped);
            let result = find("check: ").or_else(|| find("golden: "));
            let result = result.ok_or_else(|| format!("{MEASUREMENTS}/{name} has no result"))?;
            let coverage = find("coverage: ").unwrap_or_default();
            rows.push([format!("`wgrad check --{option}`"), format!("`{set}`"), result, coverage]);
        }
        if rows.len() == before {
            return Err(format!("{MEASUREMENTS}/{set}-check.txt, -full.txt and -golden.txt do not exist"));
        }
    }
    Ok(table(["command", "files", "result", "coverage"], &rows))
}

/// Text whose numbers have thousands separators.
fn grouped(text: &str) -> String {
    let mut grouped = String::new();
    for (at, char) in text.char_indices() {
        grouped.push(char);
        let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 1 && digits % 3 == 1 {
            grouped.push(',');
        }
    }
    grouped
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => String::new(),
        Some(seconds) if seconds < 1e-3 => format!("{:.1} us", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

fn ratio(of: Option<f64>, to: Option<f64>) -> String {
    of.zip(to).map_or_else(String::new, |(of, to)| format!("{:.2}", of / to))
}

/// A table in Markdown, without empty columns.
fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let shown: Vec<usize> = (0..N).filter(|&column| rows.iter().any(|row| !row[column].is_empty())).collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = shown.iter().map(|&column| cell(column)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head = [line(&|column| header[column].to_owned()), line(&|_| "---".to_owned())];
    head.into_iter().chain(rows.iter().map(|row| line(&|column| row[column].clone()))).collect()
}
