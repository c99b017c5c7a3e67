//! The rooms of the library use only those above them. Needs no GPU.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from top to bottom; those in one row may use each other.
const ROOMS: &[&[&str]] = &[
    &["error", "files", "shape", "tensor", "profile", "shader"],
    &["op", "graph", "autodiff", "ops"],
    &["plan", "cpu"],
    &["gpu"],
    &["device", "session", "timing"],
    &["io"],
    &["check"],
    &["tuning"],
    &["loss", "nn", "optim", "data"],
    &["models"],
];

/// What looks like a step down: the session gives itself out for checking, and says in which words
/// it refuses; the check's list of what ships holds the models.
const ALLOWED: &[(&str, &str)] = &[("session", "check"), ("check", "models")];

fn row(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("bin") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn room_of(path: &Path, root: &Path) -> String {
    let inside = path.strip_prefix(root).expect("inside src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn rooms_use_only_those_above_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in files.iter().filter(|p| !p.ends_with("lib.rs")) {
        let room = room_of(path, &root);
        let own = row(&room).unwrap_or_else(|| panic!("{room} has no row; give it one"));
        let text = fs::read_to_string(path).expect("text");
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(row) = row(&used) else { continue };
                seen += 1;
                let allowed = ALLOWED.contains(&(room.as_str(), used.as_str()));
                if row > own && !allowed {
                    wrong.push(format!("{}:{}: {room} uses {used}", path.display(), number + 1));
                }
            }
            let cpu_and_gpu = (room == "cpu" && line.contains("gpu::")) || (room == "gpu" && line.contains("cpu::"));
            if cpu_and_gpu || (line.contains("wgpu::") && room != "gpu") {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 30, "only {seen} uses were looked at");
}
