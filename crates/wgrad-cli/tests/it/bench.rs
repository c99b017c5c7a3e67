//! `wgrad bench` as users run it: invalid arguments, output files, and small tasks end to end. Times are not
//! checked.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

use crate::common;

fn bench(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    command.arg("bench").args(args).env_remove("WGRAD_DEVICE");
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code, not a signal"), text(stdout), text(stderr))
}

fn refused(args: &[&str], message: &str) {
    let (code, out, err) = bench(args);
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    assert!(err.contains(message) && err.contains("error: "), "{args:?} said: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

fn records(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn invalid_arguments_are_reported_before_anything_runs() {
    #[cfg(not(feature = "mpi"))]
    refused(&["allreduce"], "built without MPI; build it with `--features mpi`");
    refused(&["matmull"], "no task `matmull`; there are matmul, matmul_q8, matmul_q4, conv2d");
    refused(&["64x64x64"], "`64x64x64` is a shape, but no task that takes one precedes it");
    refused(&["matmul", "64x64"], "expected MxKxN or BxMxKxN, such as 256x256x256");
    refused(&["matmul", "2x3x4", "--seconds", "-1"], "");
    refused(
        &["matmul", "2x3x4", "--seconds=nan"],
        "'nan' for '--seconds <SECONDS>': expected seconds, between 0 and a day",
    );
    refused(&["matmul", "2x3x4", "--seconds=inf"], "between 0 and a day");
    refused(&["matmul", "2x3x4", "--seconds=-1"], "between 0 and a day");
    refused(&["peak", "--no-peak"], "contradict");
    refused(&["matmul", "2x3x4", "--tune=-1"], "'-1' for '--tune[=<SECONDS>]': expected seconds, between 0 and a day");
    refused(&["matmul", "2x3x4", "--tune=1", "--variant", "tile64"], "cannot be used with");
    refused(&["matmul", "2x3x4", "--replace", "x"], "expected LAUNCH=FILE, such as 0=kernel.wgsl");
    refused(&["matmul", "relu", "--replace", "0=x"], "--replace needs exactly one task with one shape");
    refused(&["allreduce", "--replace", "0=x"], "`allreduce` does not support --replace");
    refused(&["allreduce", "--profile"], "`allreduce` does not support --profile");
    refused(&["allreduce", "--variant", "tile65"], "no op has a variant `tile65`");
    refused(&["allreduce", "--save", "no/such/folder/x.jsonl"], "--save: no/such/folder/x.jsonl: ");
    refused(&["matmul", "2x3x4", "--replace", "0=x", "--tune"], "cannot be used with");
    refused(&["matmul", "2x3x4", "--save", "no/such/folder/x.jsonl"], "--save: no/such/folder/x.jsonl: ");
    refused(&["matmul", "2x3x4", "--roofline", "."], "--roofline: .: is a folder");
    refused(&["matmul", "2x3x4", "--save", "/dev/null"], "--save: /dev/null: is a device");
    refused(&["matmul", "2x3x4", "--compare", "no-such-file.jsonl"], "no-such-file.jsonl");
    refused(&["matmul", "2x3x4", "--compare", "Cargo.toml"], "line 1 is not JSON");
}

/// Output files must differ from each other and from input files.
#[test]
fn options_that_name_the_same_file_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let figures = json!({"task": "relu", "params": [8], "median_s": 1.0}).to_string() + "\n";
    fs::write(at("a"), &figures).expect("writable");
    fs::hard_link(at("a"), at("hard")).expect("a link");
    let other = folder.path().join(".").join("a");
    let other = other.to_str().expect("UTF-8");
    for same in [&at("a"), &at("hard"), other] {
        refused(&["relu", "8", "--compare", &at("a"), "--save", same], "--compare and --save name the same file");
    }
    refused(&["relu", "8", "--save", &at("x"), "--roofline", &at("x")], "--save and --roofline name the same file");
    assert_eq!(fs::read_to_string(at("a")).expect("there"), figures);
    assert!(!folder.path().join("x").exists());
}

#[test]
fn invalid_comparison_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("figures.jsonl");
    let name = path.to_str().expect("UTF-8");
    let deep = format!("{{\"task\":\"relu\",\"params\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], &str); 7] = [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"{\"task\":\"relu\"}\n{\"task\":", "line 2 is not JSON"),
        (b"\xff\xfe{\0", "it is not UTF-8 text"),
        (b"[1]\n", "line 1 has no `task`"),
        (b"{\"task\":7}\n", "line 1 has no `task`"),
        (deep.as_bytes(), "line 1 is not JSON"),
    ];
    for (bytes, message) in cases {
        fs::write(&path, bytes).expect("writable");
        refused(&["relu", "8", "--compare", name], message);
    }
    refused(&["relu", "8", "--compare", "."], "not a regular file");
    #[cfg(unix)]
    refused(&["relu", "8", "--compare", "/dev/zero"], "not a regular file");
    // Implausible figures are accepted; they are not compared.
    let odd = r#"{"task":"relu","params":[8],"median_s":-1,"min_s":"x","spread":null,"peer":7,"adapter":[]}"#;
    let huge = r#"{"task":"relu","params":{"a":[[8]]},"median_s":1e308,"min_s":-1e308,"cpu_s":1e-320}"#;
    fs::write(&path, format!("{odd}\n{huge}\n")).expect("writable");
    let words = ["relu", "8", "--no-peak", "--device", "cpu", "--seconds", "0", "--compare", name];
    let (code, out, err) = bench(&words);
    assert!(code == 0 && out.contains("compared with") && !err.contains("panicked"), "{out}{err}");
}

/// The pipeline cache is only a hint: a damaged one is ignored and rewritten.
#[test]
fn a_damaged_pipeline_cache_is_ignored_and_rewritten() {
    let Some(device) = common::device() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
        command.args(["bench", "relu", "64", "--no-peak", "--json", "--seconds", "0", "--in-process"]);
        let out = command.env("WGRAD_CACHE", folder.path()).env_remove("WGRAD_DEVICE").output().expect("it starts");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && !text.contains("panicked"), "{text}");
        let record: Json = serde_json::from_slice(&out.stdout).expect("a record");
        assert_eq!(record["verified"]["compared"], 64, "{record}");
    };
    run();
    let files: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|file| file.expect("a file").path()).collect();
    let Some(file) = files.iter().find(|file| file.to_string_lossy().contains("pipeline_cache")) else {
        assert_ne!(device.profile().backend, "vulkan", "Vulkan has pipeline caches");
        return;
    };
    let good = fs::read(file).expect("readable");
    assert!(good.len() > 8, "{} bytes", good.len());
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [&[][..], &good[..5], &good[..good.len() - 1], &flipped, &[0xff; 4096]] {
        fs::write(file, damaged).expect("writable");
        run();
        assert!(fs::read(file).expect("readable") != damaged, "the damaged file is still there");
    }
    // A folder in place of the file is ignored as well.
    fs::remove_file(file).expect("removable");
    fs::create_dir(file).expect("a folder");
    run();
}

#[test]
fn unsupported_sizes_are_reported() {
    let cpu = ["--device", "cpu", "--seconds", "0"];
    let refused = |words: &[&str], message: &str| {
        let (code, out, err) = bench(&[words, &cpu].concat());
        assert!(code == 2 && err.contains(message) && err.contains("error: "), "{words:?}: {code}, {out}{err}");
        assert!(!err.contains("panicked"), "{err}");
    };
    refused(&["conv2d", "1,1,2,2,1,5,1,0"], "conv2d");
    refused(&["matmul", "100000x100000x100000"], "use smaller sizes");
    refused(&["relu", "18446744073709551615"], "use smaller sizes");
    refused(&["mlp_step", "1,100000,100000,10"], "use smaller sizes");
    refused(&["cnn_step", "1,1,2,2"], "at least 4 x 4");
    refused(&["peak"], "the reference has no peak");
    let (code, _, err) = bench(&["matmul", "2x3x4", "--no-peak", "--device", "no such adapter"]);
    assert!(code == 2 && err.contains("no adapter matches `no such adapter`"), "{code}: {err}");
}

/// Every task with small sizes, and all fields that the peer programs print.
#[test]
fn tasks_run_end_to_end() {
    let device = if common::device().is_some() { vec![] } else { vec!["--device", "cpu"] };
    let folder = tempfile::tempdir().expect("a folder");
    let (saved, saved_again) = (folder.path().join("saved.jsonl"), folder.path().join("again.jsonl"));
    let words = "matmul 3x5x7 2x8x8x8 conv2d 1,2,6,6,3,3,1,1 conv2d_bwd 2,2,7,7,3,3,2,1 softmax 3x5 relu 100 gelu 10 \
                 sum 1000 add 5 mlp_step 4,6,5,3 mlp_step_nosync 4,6,3 cnn_step 2,1,8,8 cross_entropy 3x5 layernorm 3x8 \
                 rmsnorm 3x8 batchnorm 2,4,3,3 groupnorm 2,4,3,3 attention 2x5x4 attention_bwd 2x5x4 embedding 7x4x5 \
                 embedding_bwd 7x4x5 cumsum 3x5 argmax 3x5 sort 3x5 flip 3x5 transpose 3x5 concat 3x5 pad 3x5 \
                 one_hot 3x5 dropout 3x5 max_pool2d 1,2,6,6 avg_pool2d 1,2,6,6 lstm_step 2,3,4,5 gru_step 2,3,4,5 \
                 rnn_step 2,3,4,5 plan_chain 60 plan_products 60 plan_layers 150 plan_views 60 --no-peak --seconds 0";
    let mut args: Vec<&str> = words.split_whitespace().collect();
    args.extend(&device);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (code, out, err) = bench(&[&args[..], &["--json", "--save", &path(&saved)]].concat());
    assert_eq!(code, 0, "{err}");
    let found = records(&out);
    assert_eq!(found.len(), 39);
    assert_eq!(found, records(&fs::read_to_string(&saved).expect("saved")));
    assert_eq!(found[0]["params"], json!([3, 5, 7]));
    assert_eq!(found[1]["params"], json!([2, 8, 8, 8]));
    assert_eq!(found[11]["params"], json!([2, 1, 8, 8, "pad1"]));
    for record in &found {
        for field in ["warmup_s", "median_s", "min_s", "runs", "check", "spread", "dispatches", "nominal_flop"] {
            assert!(record[field].is_number(), "{field}: {record}");
        }
        for field in ["peer", "task", "adapter", "variant", "clock"] {
            assert!(record[field].is_string(), "{field}: {record}");
        }
        let arithmetic = ["matmul", "conv2d", "conv2d_bwd", "attention", "attention_bwd"];
        let counts = |task: &str| arithmetic.contains(&task) || task.contains("_step");
        let rate = if record["task"].as_str().is_some_and(counts) { "gflops" } else { "gb_s" };
        let launches = !record["task"].as_str().is_some_and(|task| task.starts_with("plan_"));
        assert_eq!(record[rate].as_f64().is_some_and(|rate| rate > 0.0), launches, "{rate}: {record}");
        assert!(record["runs"].as_u64() >= Some(5), "{record}");
        assert!(!cfg!(target_os = "linux") || record["peak_rss_mib"].is_number(), "{record}");
        if device.is_empty() {
            assert!(record["verified"]["compared"].as_u64() > Some(0), "{record}");
            assert!(record["verified"]["worst"].as_f64().is_some_and(|worst| worst <= 1.0), "{record}");
        }
    }

    let some = ["matmul", "3x5x7", "2x8x8x8", "relu", "100", "--no-peak", "--seconds", "0"];
    let again = ["--compare", &path(&saved), "--save", &path(&saved_again)];
    let (code, out, err) = bench(&[&some[..], &device, &again].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2x8x8x8") && out.contains("relu"), "{out}");
    assert!(out.contains("matmul           3x5x7") && out.contains("wgrad on "), "{out}");
    assert!(!out.contains("not in the other file"), "{out}");
}

#[test]
fn a_failing_task_does_not_affect_other_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let saved = folder.path().join("saved.jsonl");
    let words = "conv2d 1,1,2,2,1,5,1,0 relu 10 sort 2x3 --seconds 0 --json --device cpu --save";
    let mut args: Vec<&str> = words.split_whitespace().collect();
    args.push(saved.to_str().expect("UTF-8"));
    let (code, out, err) = bench(&args);
    assert!(
        code == 2 && err.contains("error: conv2d 1,1,2,2,1,5,1,0: ") && err.contains("kernel of 5"),
        "{code}: {err}"
    );
    let found = records(&out);
    assert_eq!(found, records(&fs::read_to_string(&saved).expect("saved")));
    let tasks: Vec<&Json> = found.iter().map(|record| &record["task"]).collect();
    assert_eq!(tasks, ["peak", "relu", "sort"]);
    // The reference has no peak, so no record has a share of it.
    assert!(found.iter().all(|record| record["peak_share"].is_null()), "{out}");
    assert!(found[0]["gflops"].is_null(), "{out}");
}

#[test]
fn startup_is_timed_in_new_processes() {
    if common::device().is_none() {
        return;
    }
    let (code, out, err) = bench(&["startup", "--json"]);
    assert_eq!(code, 0, "{err}");
    let found = records(&out);
    let runs: Vec<&Json> = found.iter().map(|record| &record["params"]["run"]).collect();
    assert_eq!(runs, ["first", "second", "third"]);
    for record in &found {
        let [wall, inside] = ["wall_s", "in_process_s"].map(|field| record[field].as_f64().expect("a time"));
        assert!(wall >= inside && inside > 0.0, "{record}");
    }
}

#[test]
fn a_profile_includes_every_kernel_call() {
    let words = ["mlp_step", "4,6,5,3", "--no-peak", "--seconds", "0", "--profile"];
    let (code, _, err) = bench(&[&words[..], &["--device", "cpu"]].concat());
    assert!(code == 2 && err.contains("the reference runs no launches"), "{code}: {err}");
    if common::device().is_none() {
        return;
    }
    let (code, out, err) = bench(&[&words[..], &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    let record = &records(&out)[0];
    let calls = record["profile"].as_array().expect("a list");
    let dispatches: u64 = calls.iter().filter_map(|call| call["dispatches"].as_u64()).sum();
    assert_eq!(Some(dispatches), record["dispatches"].as_u64());
    assert!(calls.iter().all(|call| call["median_s"].as_f64().is_some_and(|s| s > 0.0)), "{record}");
    let (code, out, err) = bench(&words);
    assert!(code == 0 && out.contains("submitted and waited for separately"), "{out}{err}");
}

/// A launch runs the WGSL of a file, which is compared with the reference like the kernel's own.
#[test]
fn a_launch_runs_the_wgsl_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kernel.wgsl");
    let replacement = format!("0={}", path.display());
    let words = ["softmax", "16x24", "--no-peak", "--seconds", "0", "--json", "--replace"];
    let timed = |replacement: &str| bench(&[&words[..], &[replacement]].concat());
    let (code, _, err) = bench(&[&words[..], &[&replacement, "--device", "cpu"]].concat());
    assert!(code == 2 && err.contains("the reference runs no launches to replace"), "{code}: {err}");
    if common::device().is_none() {
        return;
    }
    let shader = ["shaders", "--task", "softmax", "--shape", "16x24", "--launch", "0"];
    let shader = Command::new(env!("CARGO_BIN_EXE_wgrad")).args(shader).env_remove("WGRAD_DEVICE").output();
    let text = String::from_utf8(shader.expect("the binary starts").stdout).expect("UTF-8");
    let write = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&path, text.replace(from, to)).expect("writes");
    };
    write("", "");
    let (code, out, err) = timed(&replacement);
    assert_eq!(code, 0, "{err}");
    let record = &records(&out)[0];
    assert!(record["replaced"] == json!([replacement]) && record["verified"]["compared"] == 384, "{record}");
    for (from, to, code, message) in [
        ("1.0 / s", "1.001 / s", 1, "wrong result, so nothing is timed: in softmax"),
        ("1.0 / s", "1.0 \\ s", 2, "kernel.wgsl: error: "),
        ("fn softmax(", "fn hardmax(", 2, "kernel.wgsl: expected an entry point `softmax`"),
        ("@binding(2)", "@binding(9)", 2, "Binding is missing from the pipeline layout"),
    ] {
        write(from, to);
        let (found, _, err) = timed(&replacement);
        assert!(found == code && err.contains(message), "{to}: {found}: {err}");
    }
    let (code, _, err) = timed("7=kernel.wgsl");
    assert!(code == 2 && err.contains("kernel.wgsl: there is no launch 7; the last one is 0"), "{code}: {err}");
    let (code, _, err) = timed("0=no-such-file.wgsl");
    assert!(code == 2 && err.contains("no-such-file.wgsl: "), "{code}: {err}");
}

/// The microkernels compute correct results on this adapter, and the drawing shows the timed task.
#[test]
fn the_peak_is_measured_and_a_roofline_is_drawn() {
    if common::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let svg = folder.path().join("roofline.svg");
    let args = ["matmul", "64x64x64", "--seconds", "0", "--roofline", svg.to_str().expect("UTF-8")];
    let (code, out, err) = bench(&args);
    assert_eq!(code, 0, "{err}");
    for part in
        ["peak: ", "copy: ", "read: ", "add: ", "dispatch: ", "for recording", "matmul           64x64x64", "written: "]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    let svg = fs::read_to_string(&svg).expect("written");
    assert!(svg.starts_with("<svg") && svg.contains("matmul 64x64x64") && !svg.contains("NaN"), "{svg}");
}
