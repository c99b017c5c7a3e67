//! Text output for the terminal.

use serde_json::Value as Json;

fn row(cells: [&str; 13]) -> String {
    let [task, shape, median, min, spread, cpu, gflops, gb_s, share, dispatches, pipelines, memory, kernel] = cells;
    format!(
        "{task:<16} {shape:<20} {median:>9} {min:>9} {spread:>6} {cpu:>8} {gflops:>8} {gb_s:>6} {share:>7} {dispatches:>10} \
         {pipelines:>9} {memory:>13}  {kernel}"
    )
    .trim_end()
    .to_owned()
}

/// The column headings.
pub fn header() -> String {
    row([
        "task",
        "shape",
        "median",
        "least",
        "spread",
        "cores",
        "GFLOP/s",
        "GB/s",
        "of peak",
        "dispatches",
        "pipelines",
        "dev/host MiB",
        "kernels",
    ])
}

/// The results of tuning for a task.
pub fn tuned(record: &Json) -> Vec<String> {
    let lines = record["tuned"].as_array().into_iter().flatten().filter_map(Json::as_str);
    lines.map(|line| format!("  {line}")).collect()
}

/// Seconds with a suitable unit.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Flattens `params` into words: numbers, strings, and lists and objects of them.
fn words(params: &Json, words: &mut Vec<String>) {
    match params {
        Json::Array(list) => list.iter().for_each(|one| self::words(one, words)),
        Json::Object(map) => map.values().for_each(|one| self::words(one, words)),
        Json::String(text) => words.extend(text.split([',', 'x']).map(str::to_owned)),
        Json::Null => {}
        other => words.push(other.to_string()),
    }
}

/// A record's shape in command-line form.
pub fn shape(record: &Json) -> String {
    let mut sizes = Vec::new();
    words(&record["params"], &mut sizes);
    sizes.retain(|word| word != "pad1");
    let task = record["task"].as_str().unwrap_or("");
    let by = if task.starts_with("matmul") || task == "softmax" { "x" } else { "," };
    sizes.join(by)
}

fn number(json: &Json) -> String {
    match json.as_f64() {
        Some(x) if x < 10.0 => format!("{x:.2}"),
        Some(x) => format!("{x:.1}"),
        None => "-".to_owned(),
    }
}

fn share(json: &Json) -> String {
    json.as_f64().map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

/// A training step has more kernels than fit on a line; the JSON lists all.
fn shortened(kernels: &str) -> String {
    let names: Vec<&str> = kernels.split(' ').collect();
    match names.len() {
        0..=3 => kernels.to_owned(),
        n => format!("{} and {} more", names[..2].join(" "), n - 2),
    }
}

/// Formats a record as one or more lines.
pub fn lines(record: &Json) -> Vec<String> {
    let text = |field: &str| record[field].as_str().unwrap_or("?");
    let seconds = |field: &str| record[field].as_f64().map_or("-".to_owned(), time);
    match text("task") {
        "peak" => peak(record),
        "startup" => vec![format!(
            "startup, {}: {} in total, {} in the process, {} MiB of host memory",
            record["params"]["run"].as_str().unwrap_or("?"),
            seconds("wall_s"),
            seconds("in_process_s"),
            number(&record["peak_rss_mib"]),
        )],
        task => {
            let device = record["device_bytes"].as_f64().map_or("-".to_owned(), |b| format!("{:.0}", b / 1048576.0));
            let host = record["peak_rss_mib"].as_f64().map_or("-".to_owned(), |mib| format!("{mib:.0}"));
            let narrow = record["dtype"].as_str().filter(|dtype| *dtype != "f32");
            vec![row([
                &narrow.map_or(task.to_owned(), |dtype| format!("{task} {dtype}")),
                &shape(record),
                &seconds("median_s"),
                &seconds("min_s"),
                &share(&record["spread"]),
                &seconds("cpu_s"),
                &number(&record["gflops"]),
                &number(&record["gb_s"]),
                &share(&record["peak_share"]),
                &record["dispatches"].to_string(),
                &record["pipelines"].to_string(),
                &format!("{device} / {host}"),
                &shortened(text("variant")),
            ])]
        }
    }
}

fn peak(record: &Json) -> Vec<String> {
    let text = |field: &str| record[field].as_str().unwrap_or("?");
    let seconds = |field: &str| record[field].as_f64().map_or("-".to_owned(), time);
    let adapter = format!("adapter: {}, {}, driver {}", text("adapter"), text("backend"), text("driver"));
    if record["gflops"].is_null() {
        return vec![adapter, "the reference has no peak, so tasks have no share of it".to_owned()];
    }
    let mut lines = vec![
        adapter,
        "medians are wall-clock times; a run includes a wait for the device, a training step the readback of its loss"
            .to_owned(),
        format!("peak: {:>7} GFLOP/s  ({})", number(&record["gflops"]), text("gflops_kernel")),
    ];
    for name in ["copy", "read", "add"] {
        let rates = [&record[format!("{name}_gb_s")], &record[format!("{name}_large_gb_s")]];
        let sizes = record[format!("{name}_mib")].as_array().cloned().unwrap_or_default();
        let of: Vec<String> =
            rates.iter().zip(&sizes).map(|(rate, mib)| format!("{} GB/s of {mib} MiB", number(rate))).collect();
        lines.push(format!("{name}: {}  ({})", of.join(", "), text(&format!("{name}_kernel"))));
    }
    lines.push(format!(
        "dispatch: {}, including {} for recording; one number computed and read back: {}",
        seconds("dispatch_s"),
        seconds("recording_s"),
        seconds("readback_s")
    ));
    if let Some(rates) = record["cores"]["gflops"].as_object() {
        let rates: Vec<String> = rates.iter().map(|(name, rate)| format!("{} with {name}", number(rate))).collect();
        lines.push(format!("GFLOP/s of the {} CPU cores: {}", record["cores"]["threads"], rates.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(time(12.34), "12.3 s");
        assert_eq!(time(0.001234), "1.23 ms");
        assert_eq!(time(0.1234), "123 ms");
        assert_eq!(time(0.0000456), "45.6 us");
    }
}
