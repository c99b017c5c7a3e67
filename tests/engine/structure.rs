//! Modules of the library use only modules above them. Needs no GPU.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from top to bottom. Modules in the same row may use each other.
const ROWS: &[&[&str]] = &[
    &["distributed", "error", "files", "parallel", "shape", "tensor", "profile", "shader", "time", "trace"],
    &["op", "graph", "autodiff", "ops"],
    &["plan", "cpu"],
    &["gpu"],
    &["device", "session", "timing"],
    &["io"],
    &["check"],
    &["tuning"],
    &["loss", "nn", "optim", "quant", "data"],
    &["models"],
    &["train"],
];

/// Files of one folder, from top to bottom: a file may use only those listed before it.
const FILES: &[(&str, &[&str])] = &[
    ("gpu", &["errors", "submissions", "pipelines", "adapter", "readback", "exchange", "variables", "engine"]),
    (
        "nn",
        &["init", "scope", "layers", "conv", "embedding", "norm", "recurrent", "resize", "attention", "transformer"],
    ),
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A file's code without comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("text");
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The first names of the items between the braces that `text` begins with.
fn items(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 1, Vec::new());
    for (at, c) in text.char_indices() {
        depth += usize::from(c == '{');
        if depth == 1 && (c == ',' || c == '}') {
            found.push(word(text[start..at].trim_start()));
            start = at + 1;
        }
        depth -= usize::from(c == '}');
        if depth == 0 {
            break;
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The names that follow each `prefix` in a text: one name, or a list in braces.
fn used<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let behind = text.match_indices(prefix).map(|(at, _)| &text[at + prefix.len()..]);
    behind.flat_map(|rest| if rest.starts_with('{') { items(rest) } else { vec![word(rest)] }).collect()
}

#[test]
fn the_scanner_finds_names_in_nested_lists() {
    let text = "use crate::{DType, plan::{Plan, lint}, Value};\nlet x = crate::gpu::open(crate::Graph::new());";
    assert_eq!(used(text, "crate::"), ["DType", "plan", "Value", "gpu", "Graph"]);
    assert_eq!(used("use super::{a::B, c};\nuse super::d::E;", "super::"), ["a", "c", "d"]);
}

#[test]
fn modules_use_only_those_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    // `crate::Device` is `crate::device::Device`.
    let lib = code(&root.join("lib.rs"));
    let mut home: HashMap<&str, &str> = HashMap::new();
    for line in lib.split("pub use ").skip(1) {
        let module = word(line);
        let names = line.strip_prefix(module).and_then(|rest| rest.strip_prefix("::")).unwrap_or_default();
        let names = if names.starts_with('{') { items(names) } else { vec![word(names)] };
        home.extend(names.into_iter().map(|name| (name, module)));
    }
    assert_eq!(home.get("Session"), Some(&"session"));
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files.iter().filter(|path| !path.ends_with("lib.rs")) {
        let inside = path.strip_prefix(&root).expect("inside src");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let own = row(module).unwrap_or_else(|| panic!("{module} has no row; give it one"));
        let code = code(path);
        for name in used(&code, "crate::") {
            let target = home.get(name).copied().unwrap_or(name);
            let Some(row) = row(target) else { continue };
            seen += 1;
            if row > own {
                wrong.push(format!("{}: {module} uses {target} ({name})", path.display()));
            }
        }
        let cpu_and_gpu = (module == "cpu" && code.contains("gpu::")) || (module == "gpu" && code.contains("cpu::"));
        if cpu_and_gpu || (code.contains("wgpu::") && module != "gpu") {
            wrong.push(format!("{}: cpu and gpu must not use each other, and only gpu may use wgpu", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 300, "only {seen} uses were checked");
}

#[test]
fn files_of_a_folder_use_only_those_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for (folder, files) in FILES {
        // `pub use` in the folder's module says which file defines an exported name.
        let index = [root.join(folder).join("mod.rs"), root.join(format!("{folder}.rs"))];
        let index = code(index.iter().find(|path| path.exists()).expect("the folder's module"));
        let home: HashMap<&str, &str> = files
            .iter()
            .flat_map(|file| used(&index, &format!("use {file}::")).into_iter().map(move |name| (name, *file)))
            .collect();
        for (own, file) in files.iter().enumerate() {
            let code = code(&root.join(folder).join(format!("{file}.rs")));
            for name in used(&code, "super::") {
                let target = home.get(name).copied().unwrap_or(name);
                let Some(row) = files.iter().position(|file| *file == target) else { continue };
                seen += 1;
                if row > own {
                    wrong.push(format!("{folder}/{file}.rs uses {target} ({name})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 15, "only {seen} uses were checked");
}
