//! Hostile files and killed writers: always an error that names the file, never a panic, a hang or an
//! allocation out of proportion to the file's size. Simple damage to safetensors and IDX files is
//! tested in `tests/library/io.rs`. Needs no GPU.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use wgrad::data::{Digits, Mnist, idx};
use wgrad::io::{safetensors, write_atomically};
use wgrad::{DType, Device, Error, Graph, Program, Session, Tensor};

use crate::common::safetensors_bytes;
use crate::io::complaint;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A session with one parameter, and a program that counts its steps.
fn session() -> (Session, Graph, Program) {
    let graph = Graph::new();
    let w = graph.parameter("w", Tensor::new([3], [1.0f32, 2.0, 3.0]).expect("three"));
    let step = graph.step_scalar("steps", DType::F32, |n| n as f64);
    graph.assign(&w, &(&w + &step));
    let mut session = Session::new(Device::cpu());
    let program = session.compile(&graph, &[]).expect("compiles");
    (session, graph, program)
}

#[test]
fn inconsistent_headers_are_refused() {
    let folder = folder();
    let path = folder.path().join("x.safetensors");
    let refused = |header: &str, data: &[u8]| {
        fs::write(&path, safetensors_bytes(header, data)).expect("writable");
        complaint(safetensors::load(&path), &path)
    };
    // Duplicate names: of tensors, and of the metadata.
    let x = |begin: u64| format!(r#""x":{{"dtype":"U8","shape":[4],"data_offsets":[{begin},{}]}}"#, begin + 4);
    refused(&format!("{{{},{}}}", x(0), x(4)), &[0; 8]);
    refused(&format!("{{{},{}}}", x(0), x(0)), &[0; 8]);
    refused(r#"{"__metadata__":{"a":"1"},"__metadata__":7}"#, &[]);
    refused(r#"{"__metadata__":{"a":1}}"#, &[]);
    // Shapes: larger than any address space, not integers, not a list.
    refused(r#"{"x":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615,0],"data_offsets":[0,0]}}"#, &[]);
    for shape in ["[1.5]", "[-1]", "[1e3]", "\"4\"", "null", "{}", "[[4]]", "[18446744073709551616]"] {
        refused(&format!(r#"{{"x":{{"dtype":"U8","shape":{shape},"data_offsets":[0,4]}}}}"#), &[0; 4]);
    }
    // Element types unknown to the format or unsupported here.
    for dtype in ["F128", "f32", "", "F8_E4M3", "F4", "C64"] {
        for bytes in [1, 2, 8] {
            let data = vec![0; bytes];
            refused(&format!(r#"{{"x":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{bytes}]}}}}"#), &data);
        }
    }
    // Known element types with the wrong byte count.
    for (dtype, width) in
        [("F16", 2), ("BF16", 2), ("U8", 1), ("I8", 1), ("I16", 2), ("U16", 2), ("I64", 8), ("U64", 8)]
    {
        for bytes in [0, 1, 2, 4, 8, 16].into_iter().filter(|bytes| *bytes != width) {
            let data = vec![0; bytes];
            refused(&format!(r#"{{"x":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{bytes}]}}}}"#), &data);
        }
    }
    // A tensor with ten thousand axes is unusual but valid.
    let ones = vec!["1"; 10_000].join(",");
    let header = format!(r#"{{"x":{{"dtype":"BOOL","shape":[{ones}],"data_offsets":[0,1]}}}}"#);
    fs::write(&path, safetensors_bytes(&header, &[1])).expect("writable");
    assert_eq!(safetensors::load(&path).expect("whole")["x"].shape().rank(), 10_000);
    // So is an empty tensor with a huge axis.
    let header = r#"{"x":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}"#;
    fs::write(&path, safetensors_bytes(header, &[])).expect("writable");
    assert_eq!(safetensors::load(&path).expect("whole")["x"].numel(), 0);
    assert!(Session::new(Device::cpu()).load(&path).is_err());
}

#[test]
fn a_checkpoint_that_does_not_fit_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("checkpoint");
    let (mut session, graph, program) = session();
    session.run(&program, &[]).expect("runs");
    let before = session.get("w").expect("w");
    let w = |dtype: &str, shape: &str, bytes: u64| {
        format!(r#""w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}"#)
    };
    for (header, bytes, says) in [
        (w("F32", "[4]", 16), 16, "expected f32[3]"),
        (w("F32", "[3,1]", 12), 12, "expected f32[3]"),
        (w("I32", "[3]", 12), 12, "expected f32[3]"),
        (format!(r#"{},"__metadata__":{{"counter.steps":"-1"}}"#, w("F32", "[3]", 12)), 12, "not a number"),
        (
            format!(r#"{},"__metadata__":{{"counter.steps":"99999999999999999999"}}"#, w("F32", "[3]", 12)),
            12,
            "counter",
        ),
        (String::new(), 0, "missing"),
    ] {
        fs::write(&path, safetensors_bytes(&format!("{{{header}}}"), &vec![0; bytes])).expect("writable");
        let why = complaint(session.load(&path), &path);
        assert!(why.contains(says), "{why}");
        assert_eq!((session.get("w").expect("w"), session.counter("steps")), (before.clone(), 1));
        if !header.contains("counter") {
            complaint(session.load_weights(&path, &graph), &path);
        }
    }
    // The largest possible counter: the next step does not overflow it.
    let header = format!(r#"{{{},"__metadata__":{{"counter.steps":"{}"}}}}"#, w("F32", "[3]", 12), u64::MAX);
    fs::write(&path, safetensors_bytes(&header, &[0; 12])).expect("writable");
    session.load(&path).expect("fits");
    session.run(&program, &[]).expect("runs");
    assert_eq!(session.counter("steps"), u64::MAX);
}

#[test]
fn every_damage_to_a_checkpoint_is_an_error_or_a_checkpoint() {
    let folder = folder();
    let path = folder.path().join("checkpoint");
    let (mut session, _, program) = session();
    session.run(&program, &[]).expect("runs");
    session.save(&path).expect("saves");
    let whole = fs::read(&path).expect("there");
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, damaged).expect("writable");
            if session.load(&path).is_ok() {
                session.run(&program, &[]).expect("runs with any loaded values");
            }
        }
        fs::write(&path, &whole[..at]).expect("writable");
        complaint(session.load(&path), &path);
    }
}

#[test]
fn idx_headers_cannot_cause_huge_allocations() {
    let folder = folder();
    let path = folder.path().join("x");
    let header = |sizes: &[u32]| {
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, 8].into_iter().chain(sizes).collect::<Vec<u8>>()
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    };
    let file = |sizes: &[u32], elements: usize| {
        let mut bytes = header(sizes);
        bytes.insert(3, sizes.len() as u8);
        bytes.resize(bytes.len() + elements, 0);
        bytes
    };
    // A megabyte of zeros, compressed to a kilobyte, whose header claims 4 GiB, slightly more, or slightly less.
    for sizes in [[u32::MAX, 1], [1 << 20, 4096], [1024, 1025], [1024, 1023]] {
        fs::write(&path, gzip(&file(&sizes, 1 << 20))).expect("writable");
        complaint(idx::read(&path, 2), &path);
    }
    fs::write(&path, gzip(&file(&[1024, 1024], 1 << 20))).expect("writable");
    assert_eq!(idx::read(&path, 2).expect("whole").1.len(), 1 << 20);
    // Sizes whose product overflows.
    for sizes in [[1 << 31, 1 << 31, 4], [1 << 16, 1 << 16, 1 << 16], [u32::MAX, u32::MAX, u32::MAX]] {
        for bytes in [file(&sizes, 0), gzip(&file(&sizes, 0)), file(&sizes, 64)] {
            fs::write(&path, bytes).expect("writable");
            complaint(idx::read(&path, 3), &path);
        }
    }
    // No images, of a huge size: valid IDX, but not digits.
    fs::write(&path, file(&[0, u32::MAX, u32::MAX], 0)).expect("writable");
    assert!(idx::read(&path, 3).expect("a valid file").1.is_empty());
    assert!(complaint(Digits::load(&path, &path), &path).contains("28 by 28"));
    // A damaged second gzip member, trailing garbage, a wrong number of axes.
    let half = gzip(&file(&[4], 2));
    let second = gzip(&[0, 0]);
    fs::write(&path, [&half[..], &second].concat()).expect("writable");
    assert_eq!(idx::read(&path, 1).expect("two members").1.len(), 4);
    for tail in [&second[..second.len() - 1], b"garbage", &[0x1f, 0x8b]] {
        fs::write(&path, [&half[..], tail].concat()).expect("writable");
        complaint(idx::read(&path, 1), &path);
    }
    for axes in [0, 2, 255] {
        fs::write(&path, file(&[4], 4)).expect("writable");
        complaint(idx::read(&path, axes), &path);
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_read_or_replaced() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (mut session, graph, _) = session();
    let pipe = at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is installed").success());
    symlink("/dev/zero", at("endless")).expect("a link");
    symlink(at("loop"), at("loop")).expect("a link");
    symlink(at("nowhere"), at("dangling")).expect("a link");
    fs::create_dir(at("folder")).expect("a folder");
    for name in ["pipe", "endless", "folder", "loop", "dangling"] {
        let path = at(name);
        // Loading neither blocks on the pipe nor reads zeros until memory is full.
        for error in [
            session.load(&path).expect_err("not a regular file"),
            session.load_weights(&path, &graph).expect_err("not a regular file"),
            safetensors::load(&path).expect_err("not a regular file"),
            idx::read(&path, 1).expect_err("not a regular file"),
            Digits::load(&path, &path).expect_err("not a regular file"),
        ] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    assert!(Mnist::load(folder.path()).expect_err("a folder").to_string().contains("not a regular file"));
    // Saving does not replace folders, pipes or devices.
    for name in ["pipe", "endless", "folder"] {
        complaint(session.save(at(name)), &at(name));
        complaint(session.save_weights(at(name), &graph), &at(name));
        complaint(write_atomically(at(name), b"x"), &at(name));
    }
    assert!(fs::metadata(&pipe).expect("there").file_type().is_fifo());
    assert!(fs::metadata("/dev/zero").expect("there").file_type().is_char_device());
    // A link to itself is an error; a dangling link is followed.
    assert!(matches!(session.save(at("loop")), Err(Error::Io { .. })));
    assert!(!at("nowhere").exists());
    session.save(at("dangling")).expect("saves");
    session.load(at("dangling")).expect("loads");
    assert!(fs::symlink_metadata(at("dangling")).expect("there").is_symlink() && at("nowhere").exists());
    let leftover = fs::read_dir(folder.path()).expect("there").filter_map(Result::ok);
    let leftover: Vec<PathBuf> =
        leftover.map(|e| e.path()).filter(|p| p.to_string_lossy().contains(".wgrad-")).collect();
    assert!(leftover.is_empty(), "{leftover:?}");
}

/// A tuning file with one device entry.
fn tuning(device: &str, choices: &str) -> String {
    format!(r#"{{"format":1,"devices":[{{{device},"choices":{choices}}}]}}"#)
}

#[test]
fn an_invalid_tuning_file_is_ignored_with_a_note() {
    let folder = folder();
    let file = folder.path().join("tuning.json");
    let mut session = Session::new(Device::cpu());
    let mut choices = wgrad::plan::Choices::default();
    choices.set("matmul", "a class", "register8");
    session.set_choices(choices.clone());
    session.save_tuning(&file).expect("writes");
    let whole = fs::read_to_string(&file).expect("there");
    // The loaded choices and the joined notes.
    let load = |text: &[u8]| {
        fs::write(&file, text).expect("writable");
        let mut session = Session::new(Device::cpu());
        let notes = session.load_tuning(&file);
        (session.choices().clone(), notes.join("\n"))
    };
    assert_eq!(load(whole.as_bytes()), (choices.clone(), String::new()));
    let nothing = |text: &str, says: &str| {
        let (choices, notes) = load(text.as_bytes());
        assert!(choices.is_empty() && notes.contains(says) && notes.contains("tuning.json"), "{text}: {notes}");
        assert!(notes.len() < 1000, "{} bytes", notes.len());
    };
    // Stale: another driver, version or set of kernels. Long names are truncated in the note.
    let json: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    for key in ["driver", "wgrad", "kernels"] {
        let mut stale = json.clone();
        stale["devices"][0][key] = "x".repeat(100_000).into();
        nothing(&stale.to_string(), "stale");
    }
    // Another adapter's entry is ignored without a note, and kept on saving.
    let mut other = json.clone();
    other["devices"][0]["adapter"] = "another".into();
    assert_eq!(load(other.to_string().as_bytes()), (Default::default(), String::new()));
    session.save_tuning(&file).expect("writes");
    let kept = fs::read_to_string(&file).expect("there");
    assert!(kept.contains("another") && load(kept.as_bytes()).0 == choices);
    // Corrupt files, or files with the wrong structure.
    for cut in (1..whole.len() - 3).step_by(7) {
        nothing(&whole[..cut], "ignored");
    }
    for text in ["", "null", "[]", "{}", r#"{"format":2,"devices":[]}"#, r#"{"format":1,"devices":7}"#, "\u{0}"] {
        nothing(text, "ignored");
    }
    nothing(&"[".repeat(200_000), "ignored");
    nothing(&format!("{whole}{}", " ".repeat(5 << 20)), "too long");
    assert!(load(&[0xff; 64]).1.contains("ignored"));
    let of = |name: &str| format!("{name:?}:{}", json["devices"][0][name]);
    let here = ["adapter", "backend", "driver", "wgrad", "kernels"].map(of).join(",");
    assert_eq!(load(tuning(&here, r#"{"matmul":{"a class":"register8"}}"#).as_bytes()), (choices, String::new()));
    for choices in ["7", "null", "[]", r#""matmul""#] {
        nothing(&tuning(&here, choices), "without choices");
    }
    for choices in [
        r#"{"matmul":7}"#,
        r#"{"matmul":{"a class":7}}"#,
        r#"{"matmul":{"a class":"warp"}}"#,
        r#"{"matmul":{"a class":"gather"}}"#,
        r#"{"nonsense":{"a class":"register8"}}"#,
        r#"{"":{"":""}}"#,
    ] {
        nothing(&tuning(&here, choices), "1 choices of unknown ops");
    }
    for device in ["7", "null", "{}", r#"{"adapter":7,"backend":7,"driver":7,"wgrad":7,"kernels":7}"#] {
        nothing(&format!(r#"{{"format":1,"devices":[{device}]}}"#), "are not devices");
    }
}

/// Two sessions that save to one file: neither loses the other's choices.
#[test]
fn concurrent_tunings_lose_nothing() {
    let folder = folder();
    let file = folder.path().join("caches/tuning.json");
    let of = |class: &str, variant: &str| {
        let mut choices = wgrad::plan::Choices::default();
        choices.set("matmul", class, variant);
        let mut session = Session::new(Device::cpu());
        session.set_choices(choices);
        session
    };
    let loaded = || {
        let mut session = Session::new(Device::cpu());
        assert_eq!(session.load_tuning(&file), Vec::<String>::new());
        session.choices().clone()
    };
    let (one, other) = (of("one class", "register8"), of("another class", "register4"));
    one.save_tuning(&file).expect("writes");
    other.save_tuning(&file).expect("writes");
    assert_eq!(loaded().len(), 2, "{:?}", loaded());
    // The last choice for a class wins.
    of("one class", "tile64").save_tuning(&file).expect("writes");
    assert_eq!((loaded().len(), loaded().get("matmul", "one class")), (2, Some("tile64")));
    // Many threads at once: reading and rewriting the file is one exclusive operation.
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let sessions: Vec<Session> = (0..5).map(|i| of(&format!("{thread} {i}"), "tile64")).collect();
            let file = file.clone();
            std::thread::spawn(move || sessions.iter().for_each(|s| s.save_tuning(&file).expect("writes")))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(loaded().len(), 42, "{:?}", loaded());
}

#[cfg(unix)]
#[test]
fn only_regular_tuning_files_are_read() {
    use std::os::unix::fs::symlink;
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo is installed").success());
    symlink("/dev/zero", at("endless")).expect("a link");
    fs::create_dir(at("folder")).expect("a folder");
    let mut session = Session::new(Device::cpu());
    for name in ["pipe", "endless", "folder"] {
        let notes = session.load_tuning(&at(name));
        assert!(notes.len() == 1 && notes[0].contains("ignored"), "{notes:?}");
        assert!(session.save_tuning(&at(name)).is_err());
    }
    assert!(session.load_tuning(&at("missing")).is_empty());
}

/// A sparse file of one terabyte: trusting its length would fill all memory.
#[cfg(unix)]
#[test]
fn sparse_files_are_refused() {
    let folder = folder();
    let path = folder.path().join("holes");
    let sparse = |head: &[u8], length: u64| {
        fs::write(&path, head).expect("writable");
        fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(length)).expect("a sparse file");
    };
    let refused = |result: wgrad::Result<()>| {
        let why = complaint(result, &path);
        assert!(why.contains("stores only"), "{why}");
    };
    let length = 1u64 << 40;
    let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{length}]}}}}"#, length / 4);
    let head = safetensors_bytes(&header, &[]);
    sparse(&head, head.len() as u64 + length);
    refused(safetensors::load(&path).map(drop));
    let (mut session, graph, _) = session();
    refused(session.load(&path));
    refused(session.load_weights(&path, &graph));
    // 2^14 pictures of 2^13 by 2^13.
    let head = [&[0, 0, 8, 3][..], &[1 << 14, 1 << 13, 1 << 13].map(u32::to_be_bytes).concat()].concat();
    sparse(&head, head.len() as u64 + length);
    refused(idx::read(&path, 3).map(drop));
    // Short sparse files are accepted: they need no more memory than ordinary ones.
    sparse(&[0, 0, 8, 1, 0, 1, 0, 0], 8 + (1 << 16));
    assert_eq!(idx::read(&path, 1).expect("whole").1, vec![0; 1 << 16]);
}

/// If set, the test below acts as the writer: it saves to this path until it is killed.
const WRITER: &str = "WGRAD_TEST_SAVES_TO";

#[test]
fn a_killed_process_leaves_the_old_file_or_the_new_one() {
    // A parameter of 1 MiB in which every element is the number of the save.
    let tensor = |save: f32| Tensor::new([1 << 18], vec![save; 1 << 18]).expect("a megabyte");
    let graph = Graph::new();
    graph.parameter("w", tensor(0.0));
    let mut session = Session::new(Device::cpu());
    session.compile(&graph, &[]).expect("compiles");
    if let Some(path) = std::env::var_os(WRITER) {
        for save in 1.. {
            session.set("w", &tensor(save as f32)).expect("sets");
            session.save(&path).expect("saves");
        }
    }
    let folder = folder();
    let path = folder.path().join("checkpoint");
    session.save(&path).expect("saves");
    let kills = std::env::var("WGRAD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut newest, mut moved) = (0.0, 0);
    let saved_at = || fs::metadata(&path).and_then(|about| about.modified()).expect("a checkpoint");
    for kill in 0..kills {
        let before = saved_at();
        let mut writer = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "hostile_files::a_killed_process_leaves_the_old_file_or_the_new_one"])
            .env(WRITER, &path)
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        // Let it save once, however long it takes to start; then kill it at a different point of a save each time.
        let started = std::time::Instant::now();
        while saved_at() == before && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 60_000));
        writer.kill().expect("it runs");
        writer.wait().expect("it ended");
        session.load(&path).expect("complete, whenever the writer was killed");
        let values = session.get("w").expect("w").to_f32();
        assert!(values.iter().all(|&x| x == values[0]), "a mixture of two saves");
        moved += usize::from(values[0] != newest);
        newest = values[0];
    }
    assert!(moved > 0, "no writer completed a save");
    // A killed writer leaves only temporary files.
    let others = || {
        let names = fs::read_dir(folder.path()).expect("there").map(|entry| entry.expect("a file").file_name());
        names.filter(|name| name != "checkpoint").collect::<Vec<_>>()
    };
    let left = others();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".wgrad-")), "{left:?}");
    println!("{} temporary files left by {kills} killed writers", left.len());
    // Recent ones may still be in use; the next save removes those older than an hour.
    session.save(&path).expect("saves");
    assert_eq!(others().len(), left.len());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3700);
    for name in &left {
        let file = fs::OpenOptions::new().write(true).open(folder.path().join(name)).expect("writable");
        file.set_modified(long_ago).expect("a time");
    }
    session.save(&path).expect("saves");
    assert_eq!(others(), Vec::<std::ffi::OsString>::new());
}

#[test]
fn paths_that_cannot_be_written_are_errors() {
    let folder = folder();
    let (session, _, _) = session();
    let gone = folder.path().join("gone/checkpoint");
    assert!(matches!(session.save(&gone), Err(Error::Io { path, .. }) if path == gone));
    let through = folder.path().join("file");
    fs::write(&through, "text").expect("writable");
    let below = through.join("checkpoint");
    assert!(matches!(session.save(&below), Err(Error::Io { .. })));
    let long = folder.path().join("x".repeat(5000));
    assert!(matches!(session.save(&long), Err(Error::Io { .. })));
    assert!(matches!(safetensors::load(&long), Err(Error::Io { .. })));
    let nul = folder.path().join("a\0b");
    assert!(matches!(session.save(&nul), Err(Error::Io { .. })));
    assert_eq!(fs::read_to_string(&through).expect("there"), "text");
    assert!(safetensors::save(&through, &BTreeMap::new(), &BTreeMap::new()).is_ok());
}
