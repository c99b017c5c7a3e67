//! The tables of docs/RESULTS.md match the files in docs/measurements. Needs no GPU.

use std::io;

use wgrad_lab::results::{PAGE, fill, page};

#[test]
fn the_tables_are_up_to_date() {
    let (written, generated) = page().unwrap_or_else(|error| panic!("{error}"));
    let differs = generated.lines().zip(written.lines()).zip(1..).find(|((new, old), _)| new != old);
    let ((new, old), line) = differs.unwrap_or((("", ""), 0));
    assert!(
        generated == written,
        "{PAGE} is stale: run `cargo run --release -p wgrad-lab -- results`.\nFirst difference, line {line}:\n\
         - {old}\n+ {new}"
    );
}

/// Fills a page with one table from files that are given as pairs of name and text.
fn filled(table: &str, files: &[(&str, &str)]) -> Result<String, String> {
    let read = |name: &str| {
        let file = files.iter().find(|(known, _)| *known == name);
        file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    fill(&format!("Before\n<!-- generated: {table} -->\nstale\n<!-- end -->\nAfter\n"), &read)
}

/// The rows of the table.
fn rows(table: &str, files: &[(&str, &str)]) -> Vec<String> {
    let page = filled(table, files).unwrap_or_else(|error| panic!("{error}"));
    let inner = page.strip_prefix(&format!("Before\n<!-- generated: {table} -->\n\n")).expect("the text before it");
    let inner = inner.strip_suffix("\n<!-- end -->\nAfter\n").expect("the text after it");
    inner.lines().map(str::to_owned).collect()
}

const BENCH: &str = r#"{"task":"matmul","params":[64,784,256],"median_s":2e-3,"device_s":1e-3,"gflops":1,"gb_s":1,"nominal_flop":2e9,"nominal_bytes":1e6}
{"task":"relu","params":[8],"median_s":0.0005,"device_s":null,"gflops":null,"gb_s":1,"nominal_flop":1,"nominal_bytes":1e8}

{"task":"peak","params":[],"gflops":60000}
{"task":"cnn_step","params":[2,1,28,28,"pad1"],"median_s":0.25,"device_s":0.125,"gflops":1,"gb_s":null,"nominal_flop":2.5e11}
{"task":"plan_chain","params":[1500],"median_s":1.5,"device_s":null,"gflops":null,"gb_s":null,"nominal_flop":0}
{"task":"sort","params":[4,4],"median_s":null}
"#;

const TORCH: &str = r#"{"torch": "2.11.0", "device": "a GPU"}
{"peer": "torch-f32", "task": "matmul", "shape": "64x784x256", "median_s": 5e-3, "batch_s": 4e-3, "device_s": 3e-3}
{"peer": "torch-bf16", "task": "matmul", "shape": "64x784x256", "median_s": 5e-4, "batch_s": 4e-4, "device_s": 3e-4}
{"peer": "torch-f32", "task": "relu", "shape": "8", "median_s": 0.002, "batch_s": 0.001, "device_s": NaN}
{"peer": "torch-f32", "task": "cnn_step", "shape": "2,1,28,28", "median_s": 1, "batch_s": 0.1, "device_s": 0.1}
{"peer": "torch-f32-graph", "task": "cnn_step", "shape": "2,1,28,28", "median_s": 0.5, "batch_s": 0.1}
{"peer": "torch-f32", "task": "sort", "shape": "4x4", "median_s": NaN}
"#;

#[test]
fn tasks_stand_beside_pytorch() {
    let rows = rows("a: tasks", &[("a-bench.jsonl", BENCH), ("a-torch.jsonl", TORCH)]);
    let expected = [
        "| task | wgrad | rate | PyTorch f32 | PyTorch, CUDA graph | PyTorch / wgrad |",
        "| --- | --- | --- | --- | --- | --- |",
        "| `matmul 64,784,256` | 1.00 ms | 2.00 TFLOP/s | 3.00 ms |  | 3.00 |",
        "| `relu 8` | 500.0 us | 200 GB/s | 1.00 ms |  | 2.00 |",
        "| `cnn_step 2,1,28,28` | 250.00 ms | 1.00 TFLOP/s | 1.00 s | 500.00 ms | 2.00 |",
        "| `plan_chain 1500` | 1.50 s |  |  |  |  |",
        "| `sort 4,4` |  |  |  |  |  |",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn without_pytorch_there_are_no_columns_for_it() {
    let bench = r#"{"task":"sum","params":[4],"median_s":1e-3,"gb_s":1,"nominal_bytes":12340000}
{"task":"matmul","params":[4,4,4],"median_s":1e-3,"device_s":null,"gflops":1,"nominal_flop":47300000}"#;
    let expected = [
        "| task | wgrad | rate |",
        "| --- | --- | --- |",
        "| `sum 4` | 1.00 ms | 12.34 GB/s |",
        "| `matmul 4,4,4` | 1.00 ms | 47.3 GFLOP/s |",
    ];
    assert_eq!(rows("lavapipe: tasks", &[("lavapipe-bench.jsonl", bench)]), expected);
}

#[test]
fn changes_are_ratios_of_the_times() {
    let new = r#"{"task":"relu","params":[8],"median_s":9,"device_s":0.00055}
{"task":"gelu","params":[8],"median_s":9,"device_s":0.00055}"#;
    let expected = [
        "| task | old | new | new / old |",
        "| --- | --- | --- | --- |",
        "| `relu 8` | 500.0 us | 550.0 us | 1.10 |",
        "| `gelu 8` |  | 550.0 us |  |",
    ];
    assert_eq!(rows("a b: changes", &[("a-bench.jsonl", BENCH), ("b-bench.jsonl", new)]), expected);
}

#[test]
fn peaks_and_checks_are_lines_of_their_files() {
    let peak = "adapter: a GPU\npeak: 62309.6 GFLOP/s  (fma, workgroup 64)\ncopy, GB/s: 1 of 64 MiB  (4 x vec4)\n\
                dispatch: 4.91 us; read back: 111 us\nerror: interrupted\n";
    let expected = [
        "| measurement | result | kernel |",
        "| --- | --- | --- |",
        "| peak | 62309.6 GFLOP/s | fma, workgroup 64 |",
        "| copy, GB/s | 1 of 64 MiB | 4 x vec4 |",
        "| dispatch | 4.91 us; read back: 111 us |  |",
    ];
    assert_eq!(rows("a: peaks", &[("a-peak.txt", peak)]), expected);

    let quick =
        "device: a GPU\ncoverage: 421 of 1047 listed cases\ncheck: 505 cases passed, 23120123 comparisons, 52 s\n";
    let files = [("a-check.txt", quick), ("b-golden.txt", "golden: 187 passed, 0 failed, 0 unknown\n")];
    let expected = [
        "| command | files | result | coverage |",
        "| --- | --- | --- | --- |",
        "| `wgrad check --quick` | `a` | 505 cases passed, 23,120,123 comparisons, 52 s | 421 of 1,047 listed cases |",
        "| `wgrad check --golden` | `b` | 187 passed, 0 failed, 0 unknown |  |",
    ];
    assert_eq!(rows("a b: checks", &files), expected);
}

#[test]
fn errors_name_the_file_and_the_line() {
    let error = |table: &str, files: &[(&str, &str)]| filled(table, files).expect_err("an error");
    let missing = "docs/RESULTS.md:2: docs/measurements/a-bench.jsonl does not exist";
    assert_eq!(error("a: tasks", &[]), missing);
    for table in ["a: tables", "a b: tasks", "a: changes", "tasks"] {
        let unknown = error(table, &[("a-bench.jsonl", BENCH)]);
        assert!(unknown.starts_with(&format!("docs/RESULTS.md:2: `<!-- generated: {table} -->` names no table")));
    }
    let bench = |text: &str| error("a: tasks", &[("a-bench.jsonl", text)]);
    let at = |line: usize| format!("docs/RESULTS.md:2: docs/measurements/a-bench.jsonl:{line}: ");
    let relu = r#"{"task":"relu","params":[8]}"#;
    assert_eq!(bench(&format!("{relu}\n{{\"task\":")), at(2) + "it is not JSON, in column 8");
    assert_eq!(bench(r#"{"params":[8]}"#), at(1) + "it has no `task`");
    assert_eq!(bench(&format!("{relu}\n\n{relu}\n")), at(3) + "`relu 8` of wgrad is in the file twice");
    assert_eq!(bench("\n"), "docs/RESULTS.md:2: docs/measurements/a-bench.jsonl has no task");
    assert!(error("a: peaks", &[("a-peak.txt", "error: lost\n")]).ends_with("a-peak.txt has no peak"));
    assert!(error("a: checks", &[("a-full.txt", "lost\n")]).ends_with("a-full.txt has no result"));
    assert!(error("a: checks", &[]).ends_with("a-check.txt, -full.txt and -golden.txt do not exist"));
}

#[test]
fn every_table_ends() {
    let read = |_: &str| Ok(BENCH.to_owned());
    let error = |page: &str| fill(page, &read).expect_err("an error");
    let start = "<!-- generated: a: tasks -->\n";
    assert_eq!(error("<!-- end -->\n"), "docs/RESULTS.md:1: no table ends here");
    assert_eq!(error(start), "docs/RESULTS.md:1: this table has no `<!-- end -->`");
    assert_eq!(error(&[start, start].concat()), "docs/RESULTS.md:2: the table of line 1 has no `<!-- end -->`");
    assert_eq!(fill("Only text\n", &read).expect("no table"), "Only text\n");
}
