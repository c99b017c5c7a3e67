//! The report of `wgrad check`: its JSON, its HTML page, and how both show a failure.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use wgrad::check::sweep::Numbered;
use wgrad::check::{Extras, check_case_with};
use wgrad::op::{Arg, Backward, Case, Fill, Lowering, Op, Pointwise, Rounding};
use wgrad::{DType, Tensor, TensorType, Value};
use wgrad_cli::check::{findings, html, kernel};

use crate::common;

fn check(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    let output = command.arg("check").args(args).output().expect("the binary starts");
    // A driver may print to stderr, so stdout is preferred; errors before the report leave stdout empty.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Opens a page in a headless browser, if there is one. Returns the browser's DOM and saves a screenshot
/// beside the page.
fn opened(page: &Path) -> Option<String> {
    let browser = Path::new("/usr/bin/chromium");
    if !browser.exists() {
        eprintln!("skipped: no {} to open {} in", browser.display(), page.display());
        return None;
    }
    let profile = tempfile::tempdir().expect("a temporary folder");
    let picture = page.with_extension("png");
    let run = |what: &str| {
        let mut child = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1240,1800", what])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("file://{}", page.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium starts");
        let mut stdout = child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stdout, &mut text).map(|_| text)
        });
        let started = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if started.elapsed() > Duration::from_secs(60) {
                child.kill().expect("it ends");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        reader.join().expect("no panic").expect("UTF-8")
    };
    run(&format!("--screenshot={}", picture.display()));
    assert!(std::fs::metadata(&picture).is_ok_and(|file| file.len() > 10_000), "no picture of {}", page.display());
    Some(run("--dump-dom"))
}

/// The folder for a test's pages; `WGRAD_REPORT_DIR` keeps them for inspection.
fn folder() -> (Option<tempfile::TempDir>, std::path::PathBuf) {
    if let Some(kept) = std::env::var_os("WGRAD_REPORT_DIR") {
        return (None, kept.into());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_owned();
    (Some(folder), path)
}

#[test]
fn a_check_writes_both_reports() {
    if common::device().is_none() {
        return;
    }
    let (_kept, folder) = folder();
    let (data, page) = (folder.join("report.json"), folder.join("report.html"));
    let paths = [&data, &page].map(|path| path.to_str().expect("UTF-8"));
    let (code, out) =
        check(&["--op", "*softmax*", "--seed", "5", "--seconds", "8", "--json", paths[0], "--html", paths[1]]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("coverage: ") && out.contains("determinism: ") && out.contains("gradients: "), "{out}");
    let report: Json = serde_json::from_str(&read(&data)).expect("JSON");
    assert_eq!((&report["passed"], &report["failures"], &report["seed"]), (&json!(true), &json!([]), &json!(5)));
    assert!(report["wgpu"].as_str().is_some_and(|version| version.contains('.')), "{}", report["wgpu"]);
    for op in report["ops"].as_array().expect("a list") {
        let counts = op["histogram"].as_array().expect("a list").iter().filter_map(Json::as_u64);
        assert_eq!(op["comparisons"].as_u64(), Some(counts.sum()), "all are floats: {op}");
    }
    let gradients = &report["gradients"];
    assert!(gradients["compared_fused_unfused_reference"].as_u64() > Some(50), "{gradients}");
    assert!(gradients["compared_with_finite_differences"].as_u64() > Some(10), "{gradients}");
    assert!(report["determinism"]["programs_run_three_times"].as_u64() > Some(3));
    let Some(dom) = opened(&page) else { return };
    for part in ["passed", "log_softmax_grad", "<svg", "Not runnable here", "workgroup memory bytes", "Coverage"] {
        assert!(dom.contains(part), "{part} is not in the page");
    }
    assert!(!read(&page).contains("http"), "the page loads no external resources");
}

#[test]
fn a_single_case_can_be_run_by_number() {
    if common::device().is_none() {
        return;
    }
    for number in ["1", "1003"] {
        let (code, out) = check(&["--op", "softmax", "--case", number, "--seed", "3", "--json"]);
        if code == Some(2) {
            assert!(number == "1003" && out.contains("has a case of number"), "{out}");
            continue;
        }
        let report: Json = serde_json::from_str(&out).expect("JSON");
        assert_eq!(
            (code, &report["ops"][0]["cases"], &report["ops"][0]["op"]),
            (Some(0), &json!(1), &json!("softmax"))
        );
    }
    let (code, out) = check(&["--op", "softmax", "--case", "899"]);
    assert!(code == Some(2) && out.contains("no op that matches `softmax` has a case of number 899"), "{out}");
    let (code, out) = check(&["--op", "softmax", "--html", "/no/such/folder/report.html"]);
    assert!(code == Some(2) && out.contains("--html: /no/such/folder/report.html: "), "{out}");
}

/// An op whose device function differs from its reference.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Lie(&'static str);

impl Op for Lie {
    fn name(&self) -> &'static str {
        "lie"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(&self, _: &Backward<'_>) -> Vec<Option<Value>> {
        vec![None]
    }

    fn reference(&self, inputs: &[&Tensor], _: &[TensorType]) -> Vec<Tensor> {
        vec![inputs[0].clone()]
    }

    fn rounding(&self, _: &[&TensorType]) -> Rounding {
        Rounding::Exact
    }

    fn lowering(&self) -> Lowering<'_> {
        Lowering::Pointwise(Pointwise { function: self.0.to_owned(), args: vec![Arg::Input(0)] })
    }
}

#[test]
fn failures_are_reported_in_full() {
    let Some(device) = common::device() else { return };
    let mut found = findings::Findings::default();
    for (number, function) in [(0, "relu"), (1, "log"), (2, "exp")] {
        let case = Case::new("lie", format!("that <{function}> is nothing & all"), move |x: &[Value]| {
            vec![x[0].graph().apply1(Lie(function), &[&x[0]])]
        });
        let fill = Fill::Special(&[-2.0, 100.0, -100.0], -1.0, 1.0);
        let case = case.input("x", TensorType::new(DType::F32, [3, 50]), fill).forward_only();
        let numbered = Numbered { number, case };
        let report = check_case_with(&device, &numbered.case, numbered.seed(0), &Extras::default());
        assert!(report.as_ref().is_ok_and(|report| !report.passed()), "{function}: {report:?}");
        found.add(&numbered, report, &format!("wgrad check --op lie --case {number} --seed 0"));
    }
    found.training = Some(Err("the loss of step 2 is not the same bits".to_owned()));
    assert!(!found.passed());
    let about = findings::About {
        device: device.profile(),
        command: "wgrad check --full".to_owned(),
        mode: "full",
        seed: 0,
        seconds: 1.25,
        interrupted: true,
        listed: 10,
        ran: 3,
        all: [2, 2],
        left: [vec!["truth"], vec!["lie", "truth"]],
    };
    let report = found.json(&about);
    let failure = &report["failures"][0];
    assert_eq!(failure["reproduce"], "wgrad check --op lie --case 0 --seed 0");
    let element = &failure["element"];
    assert_eq!((element["got"].as_f64(), &element["bound"]), (Some(0.0), &json!(0.0)), "{element}");
    assert!(element["want"].as_f64() < Some(0.0), "{element}");
    assert!(failure["kernels"][0]["wgsl"].as_str().is_some_and(|text| text.contains("relu_f32")));
    assert!(failure["kernels"][0]["translated"].as_str().is_some_and(|text| text.len() > 500), "{failure}");
    let got = &report["failures"][1]["element"]["got"];
    assert!(got == "-inf" || got == "NaN", "non-finite values stay visible: {got}");
    assert_eq!(report["ops"][0]["failed_cases"], 3);
    let (_kept, folder) = folder();
    let page = folder.join("failures.html");
    std::fs::write(&page, html::page(&report)).expect("writable");
    let Some(dom) = opened(&page) else { return };
    for part in
        ["case 0: that &lt;relu&gt; is nothing &amp; all", "Interrupted", "2: lie, truth", "fn relu_f32", "kernel.spv"]
    {
        let other = part == "kernel.spv" && device.profile().backend != "vulkan";
        assert!(dom.contains(part) || other, "{part} is not in the page");
    }
}

#[test]
fn the_page_shows_the_worst_first_and_what_was_not_compared() {
    let Some(device) = common::device() else { return };
    let listed = wgrad::check::sweep::listed();
    let case = |op: &str, empty: bool| {
        let found = listed.iter().find(|numbered| {
            let inputs = &numbered.case.inputs;
            numbered.case.op == op && inputs.iter().any(|input| input.ty.shape.numel() == 0) == empty
        });
        found.unwrap_or_else(|| panic!("{op} has a case"))
    };
    let mut found = findings::Findings::default();
    let mut add = |numbered: &Numbered| {
        let report = check_case_with(&device, &numbered.case, numbered.seed(0), &Extras::default());
        found.add(numbered, report, "wgrad check");
    };
    for (op, empty) in [("relu", false), ("relu", true), ("exp", false), ("argmax", true)] {
        add(case(op, empty));
    }
    let lie = Case::new("lie", "a".to_owned(), |x: &[Value]| vec![x[0].graph().apply1(Lie("exp"), &[&x[0]])]);
    let case = lie.input("x", TensorType::new(DType::F32, [3]), Fill::Uniform(-1.0, 1.0)).forward_only();
    add(&Numbered { number: 0, case });
    found.add_missing(&["argmax", "truth"]);
    let about = findings::About {
        device: device.profile(),
        command: "wgrad check".to_owned(),
        mode: "quick",
        seed: 0,
        seconds: 1.0,
        interrupted: false,
        listed: 9,
        ran: 4,
        all: [5, 3],
        left: [vec!["argmax", "truth"], vec![]],
    };
    let report = found.json(&about);
    let ops = report["ops"].as_array().expect("a list");
    let counts = ["passed_cases", "failed_cases", "cases_without_elements"];
    let of = |op: &str| {
        let tally = ops.iter().find(|tally| tally["op"] == op).unwrap_or_else(|| panic!("{op} is in {report}"));
        (counts.map(|name| tally[name].as_u64().expect("a count")), tally["not_compared"].as_str().unwrap_or(""))
    };
    assert_eq!(of("relu"), ([1, 0, 1], ""));
    assert_eq!(of("exp"), ([1, 0, 0], ""));
    assert_eq!(of("lie"), ([0, 1, 0], ""));
    assert_eq!(of("argmax"), ([0, 0, 1], "the results of the cases that ran have no elements"));
    assert_eq!(of("truth"), ([0, 0, 0], "no case ran before the check ended"));
    let coverage = &report["coverage"];
    assert_eq!((&coverage["ops"], &coverage["ops_compared"]), (&json!(5), &json!(3)));
    assert_eq!(coverage["ops_differentiated"], 2, "relu, exp: an empty case is not differentiated: {coverage}");

    let page = html::page(&report);
    let order = |page: &str| {
        let rows = page.split("<tbody>").nth(1).expect("a table").split("<tr><td>").skip(1);
        let name =
            |row: &str| row.trim_start_matches("<span class=\"badtext\">").split(['<', ' ']).next().map(str::to_owned);
        rows.filter_map(name).collect::<Vec<_>>()
    };
    let first = order(&page);
    assert_eq!(first[..3], ["lie", "exp", "relu"], "a failure, then the largest errors");
    let tiles = page.find("<b>3 of 5</b>ops forward").expect("the coverage is on the page");
    assert!(tiles < page.find("<h2>Failures</h2>").expect("a heading"), "coverage comes first");
    assert!(page.contains("(the results of the cases that ran have no elements): argmax."), "{page}");

    let (_kept, folder) = folder();
    for (header, want) in [
        ("Op", [Some("argmax"), Some("exp"), Some("lie"), Some("relu"), Some("truth")]),
        ("Error / tolerance", [Some("lie"), Some("exp"), Some("relu"), None, None]),
    ] {
        let click = format!(
            "<script>[...document.querySelectorAll('th button')].find(b => b.textContent === '{header}').click()\
             </script></body>"
        );
        let path = folder.join("sorted.html");
        std::fs::write(&path, page.replace("</body>", &click)).expect("writable");
        let Some(dom) = opened(&path) else { return };
        for (name, want) in order(&dom).iter().zip(want) {
            assert!(want.is_none_or(|want| want == name), "by {header}: {:?}", order(&dom));
        }
    }
}

#[test]
fn kernels_are_translated_to_each_backends_language() {
    let text = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\
                @compute @workgroup_size(64) fn f(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = 2.5; }";
    for (backend, language, part) in [
        ("vulkan", kernel::SPIRV, "AwIjBw"), // the magic number 0x07230203
        ("metal", "MSL", "kernel void f"),
        ("dx12", "HLSL", "numthreads(64, 1, 1)"),
        ("gl", "GLSL", "local_size_x = 64"),
    ] {
        let (named, text) = kernel::translated(text, "f", backend);
        assert!(named == language && text.contains(part), "{backend}: {text}");
    }
    assert!(kernel::translated("fn f() { let x: u32 = 1.5; }", "f", "metal").1.contains("naga rejects it"));
}
