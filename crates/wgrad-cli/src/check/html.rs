//! The report as one self-contained HTML page: no external scripts, fonts or images. Without scripts the table is
//! not sortable.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value as Json;
use wgrad::train::STYLE;

use super::kernel::SPIRV;

/// The HTML page of a report.
pub fn page(report: &Json) -> String {
    let mut body = String::new();
    head(report, &mut body);
    covered(report, &mut body);
    failures(report, &mut body);
    ops(report, &mut body);
    coverage(report, &mut body);
    device(report, &mut body);
    let title = format!("wgrad check: {}", escaped(&text(&report["device"]["name"])));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{CHARTS}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <script>\n{SORT}</script>\n</body>\n</html>\n"
    )
}

/// What the report of a training does not have.
const CHARTS: &str = "\
svg { display: block; } svg rect { fill: var(--bar); } svg rect.off { fill: var(--bad); }
svg line { stroke: var(--line); }
.counts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 14px 0; }
.counts .card { margin: 0; } .counts b { display: block; font-size: 21px; font-weight: 600; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--bar); }
th[aria-sort=descending] button::after { content: ' \\2193'; }
th[aria-sort=ascending] button::after { content: ' \\2191'; }
";

/// Makes tables sortable.
const SORT: &str = include_str!("sort.js");

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A JSON field as escaped text.
fn field(value: &Json) -> String {
    escaped(&text(value))
}

/// An integer with thin spaces between thousands.
fn count(value: &Json) -> String {
    let digits = text(value);
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    escaped(&grouped)
}

/// A measured number with about four significant digits.
fn measured(value: &Json) -> String {
    match value.as_f64() {
        Some(x) if x == 0.0 || (1e-3..1e4).contains(&x.abs()) => {
            let digits = if x.abs() < 100.0 { 3 } else { 0 };
            let shown = format!("{x:.digits$}");
            if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
        }
        Some(x) => format!("{x:.3e}"),
        None => field(value),
    }
}

fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn head(report: &Json, page: &mut String) {
    let training = usize::from(!report["determinism"]["training_differs"].is_null());
    let failures = list(&report["failures"]).len() + training;
    let passed = report["passed"].as_bool().unwrap_or(false);
    let (class, verdict) = match (passed, failures) {
        (true, _) => ("good", "passed".to_owned()),
        (false, 0) => ("bad", "nothing compared".to_owned()),
        (false, 1) => ("bad", "1 failure".to_owned()),
        (false, n) => ("bad", format!("{n} failures")),
    };
    let device = &report["device"];
    let stopped = match report["interrupted"].as_bool() {
        Some(true) => " <span class=\"badtext\">Interrupted: only finished cases are included.</span>",
        _ => "",
    };
    let _ = write!(
        page,
        "<h1>{}</h1>\n<p class=\"soft\">{} &middot; {} &middot; driver {}</p>\n\
         <p><span class=\"verdict {class}\">{verdict}</span>{} comparisons with the f64 reference in {} s, \
         {} check, seed {}.{stopped}</p>\n",
        field(&device["name"]),
        field(&device["type"]),
        field(&device["backend"]),
        field(&device["driver"]),
        count(&report["comparisons"]),
        field(&report["seconds"]),
        field(&report["mode"]),
        field(&report["seed"]),
    );
}

/// What was checked, of all: the counts, and the ops of which nothing was compared.
fn covered(report: &Json, page: &mut String) {
    let coverage = &report["coverage"];
    page.push_str("<div class=\"counts\">\n");
    let length = |name: &str| Json::from(list(&coverage[name]).len());
    for (what, done, all) in [
        ("ops forward", coverage["ops_compared"].clone(), coverage["ops"].clone()),
        ("ops backward", coverage["ops_differentiated"].clone(), coverage["ops_differentiable"].clone()),
        ("kernel variants that run here", length("variants_run"), length("variants_runnable")),
        ("listed cases", coverage["listed_cases_run"].clone(), coverage["listed_cases"].clone()),
    ] {
        let (done, all) = (count(&done), count(&all));
        let _ = writeln!(page, "<div class=\"card\"><b>{done} of {all}</b>{what}</div>");
    }
    page.push_str("</div>\n");
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for op in list(&report["ops"]) {
        if let Some(why) = op["not_compared"].as_str() {
            reasons.entry(why).or_default().push(field(&op["op"]));
        }
    }
    for (why, ops) in reasons {
        let (why, ops) = (escaped(why), ops.join(", "));
        let _ = writeln!(page, "<p><span class=\"badtext\">Not compared</span> ({why}): {ops}.</p>");
    }
}

fn failures(report: &Json, page: &mut String) {
    let training = &report["determinism"]["training_differs"];
    let failures = list(&report["failures"]);
    if failures.is_empty() && training.is_null() {
        return;
    }
    page.push_str("<h2>Failures</h2>\n");
    if !training.is_null() {
        let _ = writeln!(page, "<div class=\"card failure\"><h3>Training</h3><p>{}</p></div>", field(training));
    }
    for (number, found) in failures.iter().enumerate() {
        failure(found, number < 3, page);
    }
}

fn failure(found: &Json, open: bool, page: &mut String) {
    let _ = write!(
        page,
        "<div class=\"card failure\">\n<h3>{} &middot; case {}: {}</h3>\n<dl>",
        field(&found["op"]),
        field(&found["number"]),
        field(&found["case"])
    );
    let mut entry = |name: &str, value: String| {
        let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
    };
    entry("Run", field(&found["way"]));
    if found.get("message").is_some() {
        entry("Message", field(&found["message"]));
    }
    if found.get("call").is_some() {
        entry("Kernel", field(&found["call"]));
        entry("Reads", list(&found["reads"]).iter().map(field).collect::<Vec<_>>().join(", "));
        entry("Wrong", format!("{} of {} elements", count(&found["wrong"]), count(&found["compared"])));
    }
    if let Some(stray) = found.get("stray").filter(|stray| !stray.is_null()) {
        entry("Stray write", field(stray));
    }
    if let Some(status) = found.get("status").filter(|status| !status.is_null()) {
        entry("Status", field(status));
    }
    if let Some(element) = found.get("element") {
        entry(
            "Worst element",
            format!("{} of {}, {}", field(&element["index"]), field(&element["type"]), field(&element["node"])),
        );
        entry(
            "Value",
            format!(
                "got <span class=\"badtext\">{}</span>, expected {} within {} ({} ulp off)",
                field(&element["got"]),
                field(&element["want"]),
                measured(&element["bound"]),
                measured(&element["ulps"])
            ),
        );
    }
    entry("Run it again", format!("<code>{}</code>", field(&found["reproduce"])));
    page.push_str("</dl>\n");
    for kernel in list(found.get("kernels").unwrap_or(&Json::Null)) {
        let open = if open { " open" } else { "" };
        let (label, workgroups) =
            (field(&kernel["label"]), list(&kernel["workgroups"]).iter().map(field).collect::<Vec<_>>());
        let workgroups = workgroups.join(" &times; ");
        let translated = field(&kernel["translated"]);
        let translated = if kernel["language"] == SPIRV {
            let link = "<a download=\"kernel.spv\" href=\"data:application/octet-stream;base64,";
            format!("<p>{link}{translated}\">kernel.spv</a>, to be read with <code>spirv-dis</code></p>")
        } else {
            format!("<pre>{translated}</pre>")
        };
        let _ = write!(
            page,
            "<details{open}><summary>{label}: WGSL, entry point <code>{}</code>, {workgroups} workgroups</summary>\
             <pre>{}</pre></details>\n<details><summary>{label}: {}, translated by naga for this backend</summary>\
             {translated}</details>\n",
            field(&kernel["entry"]),
            field(&kernel["wgsl"]),
            field(&kernel["language"])
        );
    }
    page.push_str("</div>\n");
}

fn ops(report: &Json, page: &mut String) {
    let ends: Vec<String> = list(&report["histogram_ends_in_ulp"]).iter().map(measured).collect();
    let _ = write!(
        page,
        "<h2>Ops</h2>\n<p class=\"soft\">Failures first, then the largest error / tolerance; a click on a header \
         sorts. Errors of floats in units in the last place (ulp) of f32 at the expected \
         value. Bars, from left: up to {} ulp, and beyond; heights are logarithmic. An error / tolerance \
         above 1 is a failure; sums with cancellation may be off by many ulp and still be within the rounding error of the \
         summands.</p>\n<div class=\"card\"><table class=\"sortable\">\n\
         <thead><tr><th>Op</th><th class=\"n\">Cases</th>\
         <th class=\"n\">Comparisons</th><th>Errors in ulp</th><th class=\"n\">Most ulp</th><th>Tolerance</th>\
         <th class=\"n\">Error / tolerance</th><th>Worst in</th></tr></thead>\n<tbody>\n",
        ends.join(", ")
    );
    let mut ops: Vec<&Json> = list(&report["ops"]).iter().collect();
    ops.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(Ordering::Equal));
    for op in ops {
        row(op, &ends, page);
    }
    page.push_str("</tbody></table></div>\n");
}

/// A number of the report, which writes NaN and infinities as strings.
fn real(value: &Json) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(f64::NAN)
}

/// The rank of an op in the table: those that failed, the largest errors, those that were not compared.
fn rank(op: &Json) -> (bool, bool, f64) {
    (op["failed_cases"].as_u64() > Some(0), op["not_compared"].is_null(), real(&op["worst_error_over_tolerance"]))
}

/// A row of the table of ops.
fn row(op: &Json, ends: &[String], page: &mut String) {
    let failed = op["failed_cases"].as_u64().unwrap_or(0);
    let name = match failed {
        0 => field(&op["op"]),
        n => format!("<span class=\"badtext\">{} ({n} failed)</span>", field(&op["op"])),
    };
    // Sorted by the exact number, not by the text.
    let cell = |value: &Json, text: String| {
        let exact = real(value);
        let exact = if exact.is_infinite() { "Infinity".to_owned() } else { exact.to_string() };
        format!("<td class=\"n\" data-value=\"{exact}\">{text}</td>")
    };
    let (cases, tolerance) = (&op["cases"], &op["tolerance"]);
    let cases = cell(cases, count(cases));
    let tolerance = list(tolerance).iter().map(field).collect::<Vec<_>>().join(", ");
    let _ = match op["not_compared"].as_str() {
        Some(why) => writeln!(
            page,
            "<tr><td>{name}</td>{cases}<td class=\"n\">not compared</td><td></td><td class=\"n\"></td>\
             <td>{tolerance}</td><td class=\"n\"></td><td class=\"worst\">{}</td></tr>",
            escaped(why)
        ),
        None => {
            let (compared, ulp, ratio) = (&op["comparisons"], &op["worst_ulp"], &op["worst_error_over_tolerance"]);
            writeln!(
                page,
                "<tr><td>{name}</td>{cases}{}<td>{}</td>{}<td>{tolerance}</td>{}<td class=\"worst\">{}</td></tr>",
                cell(compared, count(compared)),
                chart(&op["histogram"], ends, failed > 0),
                cell(ulp, measured(ulp)),
                cell(ratio, measured(ratio)),
                field(&op["worst_in"]),
            )
        }
    };
}

/// A histogram as bars with tooltips.
fn chart(histogram: &Json, ends: &[String], failed: bool) -> String {
    let counts: Vec<u64> = list(histogram).iter().filter_map(Json::as_u64).collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    if most == 0 {
        return "<span class=\"soft\">no floats</span>".to_owned();
    }
    let (width, height) = (13, 26.0);
    let mut bars = String::new();
    for (i, &n) in counts.iter().enumerate() {
        let tall = if n == 0 { 0.0 } else { height * (0.12 + 0.88 * (n as f64).ln_1p() / (most as f64).ln_1p()) };
        let class = if failed && i + 1 == counts.len() { " class=\"off\"" } else { "" };
        let what = match (ends.get(i), i) {
            (Some(_), 0) => "exact".to_owned(),
            (Some(end), _) => format!("up to {end} ulp"),
            (None, _) => "beyond".to_owned(),
        };
        let _ = write!(
            bars,
            "<rect{class} x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{tall:.1}\"><title>{what}: {n}</title></rect>",
            i * width,
            height - tall,
            width - 2,
        );
    }
    let wide = counts.len() * width;
    format!(
        "<svg width=\"{wide}\" height=\"28\" viewBox=\"0 0 {wide} 28\" role=\"img\">\
         <line x1=\"0\" y1=\"27\" x2=\"{wide}\" y2=\"27\"/>{bars}</svg>"
    )
}

fn coverage(report: &Json, page: &mut String) {
    let (coverage, gradients) = (&report["coverage"], &report["gradients"]);
    let mut rows = String::new();
    let mut entry = |name: &str, value: String| {
        let _ = writeln!(rows, "<dt>{name}</dt><dd>{value}</dd>");
    };
    entry(
        "Cases",
        format!(
            "{} of {} listed ones, {} random ones",
            count(&coverage["listed_cases_run"]),
            count(&coverage["listed_cases"]),
            count(&coverage["random_cases_run"])
        ),
    );
    entry(
        "Ops",
        format!(
            "{} of {} forward, {} of {} backward",
            field(&coverage["ops_compared"]),
            field(&coverage["ops"]),
            field(&coverage["ops_differentiated"]),
            field(&coverage["ops_differentiable"])
        ),
    );
    for (name, left) in [("Ops not compared", "ops_not_compared"), ("Ops not differentiated", "ops_not_differentiated")]
    {
        let ops: Vec<String> = list(&coverage[left]).iter().map(field).collect();
        if !ops.is_empty() {
            entry(name, format!("{}: {}", ops.len(), ops.join(", ")));
        }
    }
    let variants = list(&coverage["variants_run"]).iter().map(field).collect::<Vec<_>>().join(", ");
    entry("Kernel variants that ran", variants);
    let missing: Vec<String> = list(&report["not_runnable_here"])
        .iter()
        .map(|m| format!("{}.{} (needs {})", field(&m["op"]), field(&m["variant"]), field(&m["lacks"])))
        .collect();
    entry("Not runnable here", if missing.is_empty() { "none".to_owned() } else { missing.join(", ") });
    entry("Largest dispatch", format!("{} workgroups", count(&coverage["largest_dispatch_workgroups"])));
    entry(
        "Gradients",
        format!(
            "{} elements compared between fused, unfused and reference runs, differing by at most {} of the largest; {} elements of the \
             reference checked by finite differences",
            count(&gradients["compared_fused_unfused_reference"]),
            measured(&gradients["largest_spread"]),
            count(&gradients["compared_with_finite_differences"])
        ),
    );
    let determinism = &report["determinism"];
    let trained = match determinism["elements_of_two_trainings"].as_u64() {
        Some(_) => format!(
            "; two trainings from one start, {} elements identical",
            count(&determinism["elements_of_two_trainings"])
        ),
        None => String::new(),
    };
    entry(
        "Determinism",
        format!("{} programs run three times{trained}", count(&determinism["programs_run_three_times"])),
    );
    let _ = write!(page, "<h2>Coverage</h2>\n<div class=\"card\"><dl>\n{rows}</dl></div>\n");
}

fn device(report: &Json, page: &mut String) {
    let device = &report["device"];
    let mut rows = String::new();
    let mut entry = |name: &str, value: String| {
        let _ = writeln!(rows, "<dt>{}</dt><dd>{value}</dd>", escaped(name));
    };
    for (name, key) in [("Adapter", "name"), ("Type", "type"), ("Backend", "backend"), ("Driver", "driver")] {
        entry(name, field(&device[key]));
    }
    for part in ["limits", "features"] {
        for (name, value) in device[part].as_object().into_iter().flatten() {
            let value = match value {
                Json::Bool(true) => "yes".to_owned(),
                Json::Bool(false) | Json::Null => "no".to_owned(),
                Json::Number(_) => count(value),
                other => field(other),
            };
            entry(&name.replace('_', " "), value);
        }
    }
    entry("wgrad, wgpu", format!("{}, {}", field(&report["wgrad"]), field(&report["wgpu"])));
    entry("System", field(&report["system"]));
    entry("Command", format!("<code>{}</code>", field(&report["command"])));
    let _ = write!(page, "<h2>Device</h2>\n<div class=\"card\"><dl>\n{rows}</dl></div>\n");
}
