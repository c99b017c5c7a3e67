//! The code in ARCHITECTURE.md matches the sources. Needs no GPU.

use std::fs;
use std::path::Path;

#[test]
fn code_added_in_the_architecture_page_is_in_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the page");
    let (mut file, mut seen, mut missing) = (String::new(), 0, Vec::new());
    for block in page.split("```diff\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            if let Some(path) = line.strip_prefix("+++ b/") {
                file = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            } else if let Some(added) = line.strip_prefix('+').map(str::trim).filter(|added| *added != "...") {
                seen += 1;
                // A trailing comment is allowed.
                let found = |line: &str| line.trim() == added || line.trim().starts_with(&format!("{added} //"));
                if !file.lines().any(found) {
                    missing.push(line.to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the sources:\n{}", missing.join("\n"));
    assert!(seen > 30, "only {seen} lines were compared");
}
