//! The command line as users run it: exit codes and messages. Needs no GPU; parts that need one are
//! skipped without it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use crate::common;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");

fn wgrad(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgrad"));
    command.args(args).env_remove("WGRAD_DEVICE");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = wgrad(args).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code, not a signal"), text(stdout), text(stderr))
}

/// Runs a command that must exit with 2, an error that contains `message`, and empty stdout.
fn refused(args: &[&str], message: &str) {
    let (code, out, err) = run(args);
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    assert!(err.contains(message) && err.contains("error: "), "{args:?} said: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

/// The counts in the last line: passed, failed, unknown.
fn counts(out: &str) -> [usize; 3] {
    let last = out.lines().last().unwrap_or("");
    let rest = last.strip_prefix("golden: ").unwrap_or_else(|| panic!("the last line is `{last}`"));
    let words: Vec<&str> = rest.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    assert_eq!([words[1], words[3], words[5]], ["passed", "failed", "unknown"], "{last}");
    [0, 2, 4].map(|i| words[i].parse().expect("a count"))
}

/// A golden folder under construction.
struct Folder {
    dir: tempfile::TempDir,
    cases: Vec<Json>,
    header: serde_json::Map<String, Json>,
    data: Vec<u8>,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Folder { dir, cases: Vec::new(), header: serde_json::Map::new(), data: Vec::new() }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().expect("UTF-8")
    }

    fn tensor(&mut self, key: &str, shape: &[usize], values: &[f64]) {
        let begin = self.data.len();
        self.data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F64", "shape": shape, "data_offsets": [begin, self.data.len()]});
        self.header.insert(key.to_owned(), entry);
    }

    /// A unary case on `[values.len()]`, without gradients.
    fn unary(&mut self, name: &str, op: &str, attrs: Json, x: &[f64], y: &[f64]) {
        self.tensor(&format!("{name}/x"), &[x.len()], x);
        self.tensor(&format!("{name}/y"), &[y.len()], y);
        let case = json!({"name": name, "op": op, "attrs": attrs, "inputs": ["x"], "outputs": ["y"], "grads": []});
        self.cases.push(case);
    }

    fn write(&self) {
        let header = Json::Object(self.header.clone()).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(&self.data);
        self.file("ops.safetensors", &bytes);
        self.file("ops.json", json!({"format": 1, "cases": self.cases}).to_string().as_bytes());
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).expect("a writable folder");
    }

    fn check(&self) -> (i32, String) {
        let (code, out, err) = run(&["check", "--golden", self.path(), "--device", "cpu"]);
        assert!(!err.contains("panicked"), "{err}");
        (code, out)
    }
}

#[test]
fn devices_are_listed() {
    let (code, out, _) = run(&["devices"]);
    assert_eq!(code, 0);
    assert!(out.contains("--device"), "{out}");
    let (code, out, _) = run(&["devices", "--json"]);
    let listed: Json = serde_json::from_str(&out).expect("JSON");
    let adapters = listed["adapters"].as_array().expect("a list");
    assert_eq!(code, 0);
    assert_eq!(adapters.len(), wgrad::Device::list().len());
    for adapter in adapters {
        assert!(adapter["name"].is_string() && adapter["limits"]["buffer_bytes"].is_u64(), "{adapter:#}");
    }
}

#[test]
fn models_are_linted_for_other_devices() {
    let (code, out, _) = run(&["lint"]);
    assert_eq!(code, 0, "{out}");
    for name in ["webgpu:", "webgpu-compat:", "phone:", "metal:", "mnist-cnn-training", "xor-training", "low-1mib"] {
        assert!(out.contains(name), "{name}: {out}");
    }
    let (code, out, _) = run(&["lint", "--profile", "low-1mib", "mnist-cnn-inference"]);
    assert_eq!(code, 1);
    assert!(out.contains("does not run:") && out.contains("allows 1048576; use a smaller batch"), "{out}");
    let (code, out, _) = run(&["lint", "--profile", "phone", "--json"]);
    let listed: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, listed["profiles"][0]["invocations_per_workgroup"].as_u64()), (0, Some(128)));
    let verdicts = listed["verdicts"].as_array().expect("a list");
    assert!(verdicts.len() == 3 && verdicts.iter().all(|v| v["runs"] == true), "{out}");
    refused(&["lint", "--profile", "toaster"], "profiles: webgpu, webgpu-compat, phone, metal, low, low-1mib");
    refused(&["lint", "toaster"], "models: mnist-cnn-training");
}

#[test]
fn golden_vectors_pass_on_the_reference() {
    let (code, out, err) = run(&["check", "--golden", GOLDEN, "--device", "cpu"]);
    let [passed, failed, unknown] = counts(&out);
    assert_eq!((code, passed, failed, unknown), (0, 192, 0, 0), "{out}{err}");
    assert!(out.starts_with("device: CPU reference"), "{out}");
    let (code, out, _) = run(&["check", "--golden", GOLDEN, "--device", "cpu", "--json"]);
    let report: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, report["passed"].as_u64()), (0, Some(passed as u64)));
    let (code, out, _) = run(&["check", "--golden", GOLDEN, "--device", "cpu", "--op", "matmul"]);
    assert_eq!((code, counts(&out)), (0, [10, 0, 0]));
}

#[test]
fn wrong_results_are_shown_and_exit_1() {
    let mut folder = Folder::new();
    folder.unary("right", "relu", json!({}), &[-1.0, 2.0], &[0.0, 2.0]);
    folder.unary("wrong", "relu", json!({}), &[-1.0, 2.0, 3.0], &[0.0, 2.5, 3.0]);
    folder.unary("nan", "relu", json!({}), &[1.0, 2.0], &[1.0, f64::NAN]);
    folder.unary("shape", "relu", json!({}), &[1.0, 2.0], &[1.0]);
    folder.unary("moved", "reshape", json!({"shape": [2]}), &[1.0, 2.0], &[1.0, 2.0 + 1e-15]);
    folder.write();
    let (code, out) = folder.check();
    assert_eq!((code, counts(&out)), (1, [1, 4, 0]), "{out}");
    for line in [
        "FAILED wrong (relu): y[1]: got 2.0, want 2.5, allowed 3.000e-9 (1 of 3 elements off)",
        "FAILED nan (relu): y[1]: got 2.0, want NaN, allowed 1.000e-9 (1 of 2 elements off)",
        "FAILED shape (relu): y: the shape is [2], but should be [1]",
        "FAILED moved (reshape): y[1]: got 2.0, want 2.000000000000001, allowed 0.000e0 (1 of 2 elements off)",
    ] {
        assert!(out.contains(line), "{line}\nis not in\n{out}");
    }
}

#[test]
fn unknown_cases_are_listed_and_do_not_fail() {
    let mut folder = Folder::new();
    folder.unary("known", "relu", json!({}), &[-1.0, 2.0], &[0.0, 2.0]);
    folder.unary("empty", "relu", json!({}), &[], &[]);
    folder.unary("new", "frobnicate", json!({}), &[1.0], &[1.0]);
    folder.unary("more", "relu", json!({"slope": 0.5}), &[1.0], &[1.0]);
    folder.unary("other", "softplus", json!({"beta": 2.0, "threshold": 20.0}), &[1.0], &[1.0]);
    folder.write();
    let (code, out) = folder.check();
    assert_eq!((code, counts(&out)), (0, [2, 0, 3]), "{out}");
    for line in
        ["unknown frobnicate (new)", "unknown relu: attribute `slope` (more)", "unknown softplus: `beta` = 2.0 (other)"]
    {
        assert!(out.contains(line), "{line}\nis not in\n{out}");
    }
}

#[test]
fn a_malformed_case_does_not_affect_others() {
    let mut folder = Folder::new();
    folder.unary("no_attribute", "leaky_relu", json!({}), &[1.0], &[1.0]);
    folder.unary("bad_axis", "softmax", json!({"dim": 7}), &[1.0], &[1.0]);
    folder.unary("bad_input", "matmul", json!({"transpose_a": false, "transpose_b": false}), &[1.0], &[1.0]);
    folder.unary("bad_type", "reshape", json!({"shape": "flat"}), &[1.0], &[1.0]);
    folder.unary("huge", "narrow", json!({"dim": 0, "start": 4294967295u32, "length": 4294967295u32}), &[1.0], &[1.0]);
    folder.unary("fine", "relu", json!({}), &[1.0], &[1.0]);
    folder.write();
    let (code, out) = folder.check();
    assert_eq!((code, counts(&out)), (1, [1, 5, 0]), "{out}");
    assert!(out.contains("FAILED no_attribute (leaky_relu): case: the attribute `negative_slope` is missing"), "{out}");
    assert!(out.contains("FAILED bad_type (reshape): case: `shape` is \"flat\", not a list of integers"), "{out}");
}

#[test]
fn broken_golden_folders_are_reported() {
    let refused =
        |folder: &Folder, message: &str| refused(&["check", "--golden", folder.path(), "--device", "cpu"], message);
    let mut folder = Folder::new();
    refused(&folder, "contains neither ops.json nor train.json");
    folder.write();
    refused(&folder, "there is no case");
    folder.unary("a", "relu", json!({}), &[1.0], &[1.0]);
    folder.write();
    assert_eq!(folder.check().0, 0);
    let whole = fs::read(folder.dir.path().join("ops.safetensors")).expect("written");
    folder.file("ops.safetensors", &whole[..whole.len() - 1]);
    refused(&folder, "ops.safetensors: not a safetensors file");
    folder.file("ops.safetensors", &[0xff; 8]);
    refused(&folder, "ops.safetensors: not a safetensors file");
    fs::remove_file(folder.dir.path().join("ops.safetensors")).expect("it is there");
    refused(&folder, "ops.safetensors: ");
    folder.header.remove("a/y");
    folder.data.truncate(8);
    folder.write();
    refused(&folder, "ops.json: case `a`: there is no tensor `a/y`");
    folder.file("ops.json", b"{\"format\":1,");
    refused(&folder, "ops.json: not JSON");
    folder.file("ops.json", b"{\"format\":2,\"cases\":[]}");
    refused(&folder, "ops.json: `format` is 2, but only format 1 is supported");
    folder.file("ops.json", b"{\"format\":1,\"cases\":[{\"name\":\"a\"}]}");
    refused(&folder, "ops.json: missing field `op`");
}

#[test]
fn wrong_usage_exits_2() {
    refused(&["check", "--golden", "/no/such/folder"], "/no/such/folder: there is no such folder");
    refused(
        &["check", "--golden", GOLDEN, "--op", "no_such_op", "--device", "cpu"],
        "no case of an op that matches `no_such_op`",
    );
    refused(&["check", "--golden", GOLDEN, "--device", "no such device"], "no such device");
    refused(&["check", "--op", "no_such_op"], "no op matches `no_such_op`; there are abs, ");
    refused(&["check", "--device", "cpu"], "--golden");
    refused(&["check", "--seed", "x"], "invalid value 'x' for '--seed <N>'");
    refused(&["check", "--seed", "1", "--golden", GOLDEN], "cannot be used with");
    for seconds in ["nan", "inf", "-1", "-inf", "1e9", "x", ""] {
        let expected = format!("'{seconds}' for '--seconds <SECONDS>': expected seconds, between 0 and a day");
        refused(&["check", &format!("--seconds={seconds}")], if seconds.is_empty() { "seconds" } else { &expected });
    }
    refused(&["check", "--frobnicate"], "unexpected argument '--frobnicate'");
    refused(&["frobnicate"], "unrecognized subcommand 'frobnicate'");
    refused(&["shaders"], "--dump <DIR>");
    let (code, out, _) = run(&["--help"]);
    assert!(code == 0 && out.contains("Exit codes"), "{out}");
}

/// Unwritable reports, and two reports in one file, are refused before the run instead of failing after it.
#[test]
fn unwritable_reports_are_refused_before_the_run() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    refused(&["check", "--json", &at("x"), "--html", &at("x")], "--json and --html name the same file");
    fs::write(at("a"), "kept").expect("writable");
    fs::hard_link(at("a"), at("b")).expect("a link");
    refused(&["check", "--json", &at("a"), "--html", &at("b")], "--json and --html name the same file");
    for option in ["--json", "--html"] {
        for (path, message) in [(at("no/folder/x"), "No such file"), (at("a/x"), "a/x: "), (at(""), "is a folder")] {
            refused(
                &["check", option, &path],
                &format!("{option}: {}", if message.contains("x: ") { "" } else { &path }),
            );
            let (_, _, err) = run(&["check", option, &path]);
            assert!(err.contains(message), "{err}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("x", at("link")).expect("a link");
        refused(&["check", "--json", &at("link"), "--html", &at("x")], "name the same file");
        refused(&["check", "--html", "/dev/null"], "is a device or pipe");
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o444)).expect("a mode");
        refused(&["check", "--html", &at("a")], "is read-only");
    }
    assert_eq!(fs::read_to_string(at("a")).expect("there"), "kept");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("there").map(|e| e.expect("a file").file_name()).collect();
    assert!(left.iter().all(|name| name == "a" || name == "b" || name == "link"), "{left:?}");
}

/// Paths in options and environment variables may be any OS string.
#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(name));
    let output = |command: &mut Command| {
        let Output { status, stdout, stderr } = command.output().expect("the binary starts");
        let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(!text.contains("panicked"), "{text}");
        (status.code(), text)
    };
    let saved = at(b"saved-\xff.jsonl");
    let bench = ["bench", "relu", "8", "--no-peak", "--device", "cpu", "--seconds", "0"];
    let (code, out) = output(wgrad(&bench).arg("--save").arg(&saved).env("WGRAD_CACHE", at(b"cache-\xff")));
    assert!(code == Some(0) && out.contains("written: "), "{out}");
    assert_eq!(fs::read_to_string(&saved).expect("saved").lines().count(), 1);
    let (code, out) = output(wgrad(&bench).arg("--compare").arg(&saved));
    assert!(code == Some(0) && out.contains("compared with"), "{out}");
    for args in [["check", "--golden"], ["check", "--replay"], ["bench", "--compare"]] {
        let (code, out) = output(wgrad(&args).arg(at(b"none-\xff")));
        assert!(code == Some(2) && out.contains("none-"), "{out}");
    }
    for args in [["check", "--op"], ["check", "--device"], ["bench", "--variant"], ["lint", "--profile"]] {
        let (code, out) = output(wgrad(&args).arg(std::ffi::OsStr::from_bytes(b"\xff")));
        assert!(code == Some(2) && out.contains("error: invalid UTF-8"), "{args:?}: {out}");
    }
    let Some(_) = common::device() else { return };
    let (page, data) = (at(b"page-\xff.html"), at(b"data-\xff.json"));
    let mut command = wgrad(&["check", "--op", "relu", "--case", "0", "--html"]);
    command.arg(&page).arg("--json").arg(&data).env("WGRAD_CACHE", at(b"cache-\xff"));
    let (code, out) = output(&mut command);
    assert_eq!(code, Some(0), "{out}");
    let report: Json = serde_json::from_slice(&fs::read(&data).expect("a report")).expect("JSON");
    assert!(
        report["command"].as_str().is_some_and(|text| text.contains("page-\u{fffd}.html")),
        "{}",
        report["command"]
    );
    assert!(fs::read_to_string(&page).expect("a page").contains("</html>"));
}

#[test]
fn a_closed_pipe_does_not_panic() {
    for args in [&["devices"][..], &["check", "--golden", GOLDEN, "--device", "cpu"]] {
        let mut child = wgrad(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
        assert_eq!(child.wait().expect("it ends").code(), Some(2), "{err}");
        assert!(!err.contains("panicked") && !err.contains("roken pipe"), "{err}");
    }
}

#[test]
fn shaders_are_dumped_one_per_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("new").join("shaders");
    let path = folder.to_str().expect("UTF-8");
    // Shaders of an earlier dump are removed; other files are kept.
    fs::create_dir_all(&folder).expect("a folder");
    let (old, mine) = (["old-0123abcd.wgsl", "old-0123abcd.software.spv"], ["notes.wgsl", "old-0123abcg.wgsl"]);
    for name in old.iter().chain(&mine) {
        fs::write(folder.join(name), "a text").expect("writable");
    }
    let (code, out, err) = run(&["shaders", "--dump", path, "--spirv", "--op", "*softmax*"]);
    assert_eq!(code, 0, "{err}");
    let files: Vec<PathBuf> = fs::read_dir(&folder).expect("a folder").flatten().map(|file| file.path()).collect();
    let of = |extension| files.iter().filter(|file| file.extension().is_some_and(|e| e == extension)).count();
    let count = of("spv");
    assert!(count > 20 && out.starts_with(&format!("{count} shaders written to {path}")), "{out}");
    assert_eq!((of("wgsl"), files.len()), (count + mine.len(), 2 * count + mine.len()));
    assert!(old.iter().all(|name| !folder.join(name).exists()) && mine.iter().all(|name| folder.join(name).exists()));
    assert!(files.iter().all(|file| fs::metadata(file).is_ok_and(|file| file.len() > 5)));
    refused(&["shaders", "--dump", folder.join("notes.wgsl").to_str().expect("UTF-8")], "notes.wgsl: ");
    refused(&["shaders", "--dump", path, "--op", "nothing"], "no op with a kernel matches `nothing`");
}

/// The plan of a task, and the text of a launch with the ops that are fused into it.
#[test]
fn shaders_of_a_task_are_shown_by_launch() {
    let (code, out, err) = run(&["shaders", "--task", "mlp_step", "--shape", "8,16,32,4", "--profile", "webgpu"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("mlp_step 8,16,32,4 on "), "{out}");
    // The number of the launch of a product with a fused relu.
    let call = out.lines().position(|line| line.starts_with("matmul") && line.contains(" + relu")).expect("one");
    let launch = out.lines().nth(call + 1).expect("its launch");
    assert!(
        launch.contains(" workgroups of ") && launch.contains(" reads ") && launch.contains(" writes "),
        "{launch}"
    );
    let number = launch.split(':').next().expect("a number").trim();
    let task = ["shaders", "--task", "mlp_step", "--shape", "8,16,32,4", "--profile", "webgpu", "--launch"];
    let (code, text, err) = run(&[&task[..], &[number]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(text.starts_with(&format!("// Launch {number} of mlp_step 8,16,32,4 on ")), "{text}");
    assert!(text.contains("fn epilogue") && text.contains("relu_f32("), "{text}");
    wgrad_lab::wgsl::parse(&text).expect("valid WGSL");
    refused(&[&task[..], &["999"]].concat(), "mlp_step 8,16,32,4 has launches 0 to ");
    refused(&["shaders", "--task", "nothing", "--profile", "webgpu"], "there is no task `nothing`; tasks: matmul, ");
    refused(&["shaders", "--task", "relu", "--profile", "none"], "there is no profile `none`; profiles: webgpu, ");
    refused(&["shaders", "--task", "relu", "--profile", "webgpu", "--shape", "2x"], "is not a shape of relu");
    refused(&["shaders", "--launch", "1", "--dump", "x"], "cannot be used with");
    refused(&["shaders", "--variant", "tile", "--dump", "x"], "cannot be used with");
    let task = ["shaders", "--task", "matmul", "--shape", "64x64x64", "--profile", "webgpu"];
    let (code, out, err) = run(&[&task[..], &["--variant", "register8", "--dtype", "f16"]].concat());
    assert!(code == 0 && out.contains("matmul.register8") && out.contains("f16[64, 64]"), "{out}{err}");
    refused(&["shaders", "--launch", "1"], "--task <TASK>");
}

#[test]
fn check_reports_op_by_op() {
    if common::device().is_none() {
        return refused(&["check", "--op", "relu"], "no GPU adapter was found");
    }
    let (code, out, err) = run(&["check", "--op", "relu*"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.lines().last().is_some_and(|l| l.starts_with("check: ") && l.contains(" 0 failed, ")), "{out}");
    let (code, out, _) = run(&["check", "--op", "relu*", "--json", "--seed", "7"]);
    let report: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["ops"][0]["op"], &report["seed"]), (0, &json!("relu"), &json!(7)), "{report:#}");
    assert_eq!(report["failures"], json!([]));
}

#[cfg(unix)]
#[test]
fn empty_device_names_are_refused_with_the_accepted_forms() {
    use std::os::unix::ffi::OsStrExt;
    let refusal = |output: std::process::Output, what: &str| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{what}: {text}");
        assert!(text.contains("give an index, part of a name, a backend, or `cpu`"), "{what}: {text}");
        text
    };
    let command = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wgrad"));
        command.args(["check", "--op", "softsign"]).env_remove("WGRAD_DEVICE");
        command
    };
    for name in ["", " "] {
        refusal(command().args(["--device", name]).output().expect("starts"), name);
    }
    for name in [&b" "[..], b"\xff", b"cpu\xff"] {
        let name = std::ffi::OsStr::from_bytes(name);
        let text = refusal(command().env("WGRAD_DEVICE", name).output().expect("starts"), "WGRAD_DEVICE");
        assert!(text.contains("WGRAD_DEVICE"), "{text}");
    }
    let cpu = command().args(["--device", "cpu"]).env("WGRAD_DEVICE", " ").output().expect("starts");
    assert_eq!(cpu.status.code(), Some(2), "nothing to check on the reference");
    assert!(!String::from_utf8_lossy(&cpu.stderr).contains("WGRAD_DEVICE"), "--device wins");
}

/// The subcommands that `wgrad --help` lists.
fn subcommands() -> Vec<String> {
    let (_, help, _) = run(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<String> = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 8 && names.iter().any(|name| name == "check"), "{help}");
    names
}

#[test]
fn exit_codes_are_those_that_help_lists() {
    let (code, help, _) = run(&["--help"]);
    for line in ["  0  success", "  1  a check found a failure", "  2  the command could not run"] {
        assert!(code == 0 && help.lines().any(|text| text.starts_with(line)), "{help}");
    }
    assert_eq!(run(&["ops"]).0, 0);
    assert_eq!(run(&["lint", "--profile", "low-1mib", "mnist-cnn-inference"]).0, 1, "a model that does not fit");
    let mut wrong = Folder::new();
    wrong.unary("wrong", "relu", json!({}), &[1.0, 2.0], &[1.0, 3.0]);
    wrong.write();
    let (code, out, err) = run(&["check", "--golden", wrong.path(), "--device", "cpu"]);
    assert_eq!(code, 1, "a case that differs: {out}{err}");
    refused(&["check", "--seconds=-1"], "expected seconds");
    refused(&["lint", "no-such-model"], "no-such-model");
    refused(&["check", "--golden", "/no/such/folder"], "/no/such/folder");
    refused(&["no-such-command"], "no-such-command");
}

#[test]
fn shells_complete_the_command_line() {
    let shells = ["bash", "zsh", "fish", "powershell", "elvish"];
    for shell in shells {
        let (code, script, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for name in subcommands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
        assert!(script.contains("self-test") && script.contains("precision"), "{shell}: options are completed");
    }
    let (_, script, _) = run(&["completions", "bash"]);
    let ask = "COMP_WORDS=(wgrad check --pre); COMP_CWORD=2; _wgrad wgrad --pre check; echo \"${COMPREPLY[@]}\"";
    match Command::new("bash").args(["-c", &format!("{script}\n{ask}")]).output() {
        Ok(done) => assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "--precision", "{done:?}"),
        Err(error) => eprintln!("skipped: bash: {error}"),
    }
    refused(&["completions", "tcsh"], "possible values: ");
}

#[test]
fn every_command_has_a_manual_page() {
    let (code, page, err) = run(&["man"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(page.contains(".TH wgrad 1") && page.contains("Exit codes:"), "{page}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("share/man1");
    let output = path.to_str().expect("UTF-8");
    let (code, out, _) = run(&["man", "--output", output]);
    assert_eq!((code, out.trim_end()), (0, output));
    assert_eq!(fs::read_to_string(path.join("wgrad.1")).expect("a page").trim_end(), page.trim_end());
    let names: Vec<String> = subcommands().into_iter().filter(|name| name != "help").collect();
    for name in &names {
        let page = fs::read_to_string(path.join(format!("wgrad-{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(&format!(".TH wgrad-{name} 1")) && page.contains(&format!("wgrad {name}")), "{page}");
    }
    assert_eq!(fs::read_dir(&path).expect("a folder").count(), names.len() + 1);
    let file = path.join("wgrad.1");
    refused(&["man", "--output", file.to_str().expect("UTF-8")], "--output: ");
}

#[test]
fn a_missing_adapter_is_reported() {
    let out = Command::new(env!("CARGO_BIN_EXE_wgrad"))
        .args(["check", "--device", "vulkan", "--op", "relu"])
        .env("VK_ICD_FILENAMES", "/no/such/driver.json")
        .env("VK_DRIVER_FILES", "/no/such/driver.json")
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert!(text.contains("no adapter matches `vulkan`") && !text.contains("panicked"), "{text}");
}

#[test]
fn an_op_without_comparisons_is_not_counted_as_passed() {
    if common::device().is_none() {
        return;
    }
    let listed = wgrad::check::sweep::listed();
    let empty = listed.iter().find(|numbered| {
        let case = &numbered.case;
        case.op == "argmax" && case.inputs.iter().any(|input| input.ty.shape.numel() == 0)
    });
    let number = empty.expect("argmax has a case without elements").number.to_string();
    let (code, out, err) = run(&["check", "--op", "argmax", "--case", &number]);
    assert!(code == 2 && err.contains("nothing was compared: the results of case"), "{out}{err}");
    let row = out.lines().find(|line| line.starts_with("argmax")).expect("a row of the table");
    assert!(row.contains(" none ") && row.contains("not compared"), "{row}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("check: 0 cases of 0 ops passed, 0 failed, 0 comparisons"), "{last}");
    assert!(last.ends_with("; 1 case without elements; not compared: argmax"), "{last}");
    let (code, out, _) = run(&["check", "--op", "argmax", "--case", &number, "--json"]);
    let report: Json = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &report["passed"], &report["failures"]), (2, &json!(false), &json!([])));
    assert!(wgrad_cli::check::html::page(&report).contains("\"verdict bad\">nothing compared<"));
}

#[test]
fn reports_of_trainings_are_written_and_other_folders_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    for name in ["a", "b"] {
        fs::create_dir(path(name)).expect("a folder");
        fs::write(path(&format!("{name}/config.json")), json!({"trainer": {"epochs": name.len()}}).to_string())
            .unwrap();
        let step = json!({"kind": "step", "step": 1, "epoch": 1, "batch": 1, "loss": 0.5, "lr": null});
        fs::write(path(&format!("{name}/metrics.jsonl")), format!("{step}\n")).unwrap();
    }
    let (code, out, err) = run(&["report", &path("a")]);
    assert_eq!((code, out.trim_end(), err.as_str()), (0, path("a/report.html").as_str(), ""));
    let (code, out, _) = run(&["report", &path("a"), &path("b"), "--output", &path("both.html")]);
    assert_eq!((code, out.trim_end()), (0, path("both.html").as_str()));
    let page = fs::read_to_string(path("both.html")).expect("a page");
    assert!(page.contains("\"name\":\"a\"") && page.contains("\"name\":\"b\""));
    // A training that was killed while it wrote a line.
    fs::write(path("b/metrics.jsonl"), "{\"kind\":\"end\",\"step\":0,\"ended\":\"finished\"}\n{\"ki").unwrap();
    let (code, _, err) = run(&["report", &path("b")]);
    assert!(code == 0 && err.contains("line 2 is incomplete"), "{err}");
    refused(&["report", &path("")], "is no run of a Trainer");
    refused(&["report", &path("c")], "is no folder");
    refused(&["report", &path("a"), "--output", &path("none/x.html")], "none");
    fs::write(path("b/metrics.jsonl"), "{}\n").unwrap();
    refused(&["report", &path("b")], "line 1 is damaged: it has no kind");
}
