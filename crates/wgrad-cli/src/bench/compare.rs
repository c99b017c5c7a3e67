//! Compares two result files.

use std::path::Path;

use serde_json::Value as Json;

use super::table::{shape, time};
use wgrad_lab::output::Stop;

/// Reads the records of a saved run, from wgrad or another library.
pub fn read(path: &Path) -> Result<Vec<Json>, Stop> {
    let at = |why: String| Stop::Error(format!("{}: {why}", path.display()));
    let text = String::from_utf8(wgrad::io::read(path)?).map_err(|_| at("it is not UTF-8 text".into()))?;
    let mut records = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let record: Json =
            serde_json::from_str(line).map_err(|e| at(format!("line {} is not JSON: {e}", number + 1)))?;
        if !record["task"].is_string() {
            return Err(at(format!("line {} has no `task`; expected lines of `wgrad bench --json`", number + 1)));
        }
        records.push(record);
    }
    if records.is_empty() { Err(at("it is empty; expected lines of `wgrad bench --json`".into())) } else { Ok(records) }
}

fn label(record: &Json) -> String {
    let peer = record["peer"].as_str().unwrap_or("before");
    let adapter = record["adapter"].as_str().map(|adapter| format!(" on {}", adapter.split(" (").next().unwrap_or("")));
    let dtype = record["dtype"].as_str().filter(|dtype| *dtype != "f32").map(|dtype| format!(" in {dtype}"));
    format!("{peer}{}{}", adapter.unwrap_or_default(), dtype.unwrap_or_default())
}

fn median(record: &Json) -> Option<f64> {
    record["median_s"].as_f64().or(record["wall_s"].as_f64()).filter(|&s| s > 0.0)
}

/// The relative uncertainty of a median: the spread of its runs, or for other libraries its distance to the minimum.
fn spread(record: &Json) -> f64 {
    let least = || Some(1.0 - record["min_s"].as_f64()? / median(record)?);
    record["spread"].as_f64().or_else(least).unwrap_or(0.0)
}

/// One line per task in both files, and the tasks that the other file lacks.
pub fn lines(ours: &[Json], others: &[Json]) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{:<16} {:<20} {:>9}   compared with", "task", "shape", "here")];
    let mut missing = Vec::new();
    for record in ours.iter().filter(|record| record["task"] != "peak") {
        let (task, shape) = (record["task"].as_str().unwrap_or("?"), shape(record));
        let same = |other: &&Json| other["task"] == record["task"] && self::shape(other) == shape;
        let mut any = false;
        for other in others.iter().filter(same) {
            let (Some(here), Some(there)) = (median(record), median(other)) else { continue };
            any = true;
            let ratio = there / here;
            let far = ratio.max(1.0 / ratio) - 1.0;
            let verdict = if !(far > spread(record).max(spread(other))) {
                "same within the spread".to_owned()
            } else if ratio > 1.0 {
                format!("{ratio:.2}x as fast")
            } else {
                format!("{ratio:.2}x as fast: slower")
            };
            let (here, there) = (time(here), time(there));
            let cores = other["cpu_s"].as_f64().zip(record["cpu_s"].as_f64()).filter(|(_, here)| *here > 0.0);
            let cores =
                cores.map_or(String::new(), |(there, here)| format!(", {:.2}x by processor time", there / here));
            let wrong = if other["wrong_result"].is_string() { ", whose result is wrong" } else { "" };
            lines.push(format!(
                "{task:<16} {shape:<20} {here:>9}   {verdict:<24} {there:>9}  {}{cores}{wrong}",
                label(other)
            ));
        }
        if !any {
            missing.push(format!("{task} {shape}"));
        }
    }
    if !missing.is_empty() {
        lines.push(format!("not in the other file: {}", missing.join("; ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(task: &str, params: Json, median: f64, least: f64) -> Json {
        json!({"peer": "p", "task": task, "params": params, "median_s": median, "min_s": least})
    }

    #[test]
    fn all_forms_of_a_shape_are_equal() {
        assert_eq!(shape(&record("matmul", json!([2, 3, 4]), 1.0, 1.0)), "2x3x4");
        assert_eq!(shape(&record("matmul", json!("2x3x4"), 1.0, 1.0)), "2x3x4");
        assert_eq!(shape(&record("conv2d", json!("8,3,1"), 1.0, 1.0)), "8,3,1");
        assert_eq!(shape(&record("cnn_step", json!([64, 1, "pad1"]), 1.0, 1.0)), "64,1");
        assert_eq!(shape(&record("startup", json!({"run": "first"}), 1.0, 1.0)), "first");
        assert_eq!(shape(&record("relu", json!("4194304"), 1.0, 1.0)), "4194304");
    }

    #[test]
    fn differences_below_the_spread_are_not_ranked() {
        let ours = [record("relu", json!([8]), 1.0, 0.95)];
        let line = |theirs: f64| lines(&ours, &[record("relu", json!([8]), theirs, theirs * 0.9)])[2].clone();
        assert!(line(1.05).contains("same within the spread"), "{}", line(1.05));
        assert!(line(0.95).contains("same within the spread"), "{}", line(0.95));
        assert!(line(4.0).contains("4.00x as fast"), "{}", line(4.0));
        assert!(line(0.5).contains("0.50x as fast: slower"), "{}", line(0.5));
        let timed = |cpu: f64| [json!({"peer": "p", "task": "relu", "params": [8], "median_s": 1.0, "cpu_s": cpu})];
        let line = lines(&timed(1.0), &timed(1.5))[2].clone();
        assert!(line.contains("same within the spread") && line.contains("1.50x by processor time"), "{line}");
        let none = lines(&ours, &[record("relu", json!([9]), 1.0, 1.0)]);
        assert!(none[2].contains("not in the other file: relu 8"), "{none:?}");
    }
}
