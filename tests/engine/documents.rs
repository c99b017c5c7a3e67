//! The documents match the sources: links, anchors, paths, and the code in ARCHITECTURE.md. Needs no GPU.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a page.
fn page(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the root, all of docs, and every README.
fn pages() -> Vec<PathBuf> {
    fn add(folder: &Path, wanted: &dyn Fn(&str) -> bool, pages: &mut Vec<PathBuf>) {
        for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() && name != "target" {
                add(&path, wanted, pages);
            } else if name.ends_with(".md") && wanted(&name) {
                pages.push(path);
            }
        }
    }
    let mut pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)).to_vec();
    add(&root().join("docs"), &|_| true, &mut pages);
    for folder in ["examples", "tests", "crates"] {
        add(&root().join(folder), &|name| name == "README.md", &mut pages);
    }
    pages
}

/// The lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((number + 1, line))
    })
}

/// The anchors of a page's headings, by GitHub's rules: letters, digits, `-` and `_` remain, spaces become `-`, and a
/// repeated heading gets a number.
fn anchors(text: &str) -> HashSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut anchors = HashSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if !(1..=6).contains(&(line.len() - title.len())) || !title.starts_with(' ') {
            continue;
        }
        // Of a link, its text.
        let mut plain = String::new();
        let mut rest = title.trim();
        while let Some((before, after)) = rest.split_once("](") {
            plain += before;
            rest = after.split_once(')').map_or("", |(_, rest)| rest);
        }
        plain += rest;
        let kept = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        };
        let slug: String = plain.to_lowercase().chars().filter_map(kept).collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

/// The targets of the links in a line, and its code spans.
fn links_and_code(line: &str) -> (Vec<&str>, Vec<&str>) {
    let (code, text): (Vec<_>, Vec<_>) = line.split('`').enumerate().partition(|(number, _)| number % 2 == 1);
    let targets = text.iter().flat_map(|(_, text)| {
        // A link's text may be code: then this part begins with `](`.
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
    });
    (targets.collect(), code.into_iter().map(|(_, code)| code).collect())
}

#[test]
fn links_and_anchors_of_the_documents_resolve() {
    let pages = pages();
    let all: BTreeMap<&PathBuf, String> = pages.iter().map(|path| (path, page(path))).collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in &all {
        for (line, target) in prose(text).flat_map(|(n, line)| links_and_code(line).0.into_iter().map(move |t| (n, t)))
        {
            if target.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let to = if file.is_empty() { path.to_path_buf() } else { path.parent().expect("a folder").join(file) };
            let found = match anchor {
                _ if !to.exists() => false,
                Some(anchor) => anchors(&page(&to)).contains(anchor),
                None => true,
            };
            if !found {
                wrong.push(format!("{}:{line}: {target}", path.strip_prefix(root()).expect("inside").display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links to nothing:\n{}", wrong.join("\n"));
    assert!(seen > 100, "only {seen} links were checked");
}

#[test]
fn files_named_in_the_documents_exist() {
    const FOLDERS: [&str; 7] = ["src", "shaders", "docs", "tests", "examples", "crates", "scripts"];
    let (mut seen, mut wrong) = (0, Vec::new());
    // What was tried and what has changed may be gone.
    let current = pages().into_iter().filter(|path| !path.ends_with("HISTORY.md") && !path.ends_with("CHANGELOG.md"));
    for path in current {
        let text = page(&path);
        for (line, code) in prose(&text).flat_map(|(n, line)| links_and_code(line).1.into_iter().map(move |c| (n, c))) {
            let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
            let Some((first, _)) = code.split_once('/').filter(|_| plain) else { continue };
            // Modules are named without `src`.
            let within = |folder: &str| root().join(folder).join(code).exists();
            if FOLDERS.contains(&first) || code.ends_with(".rs") || code.ends_with(".wgsl") {
                seen += 1;
                if !within("") && !within("src") {
                    wrong.push(format!("{}:{line}: `{code}`", path.strip_prefix(root()).expect("inside").display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "there are no such files:\n{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} paths were checked");
}

#[test]
fn code_added_in_the_architecture_page_is_in_the_sources() {
    let architecture = page(&root().join("ARCHITECTURE.md"));
    let (mut file, mut seen, mut missing) = (String::new(), 0, Vec::new());
    for block in architecture.split("```diff\n").skip(1) {
        for line in block.split("```").next().unwrap_or_default().lines() {
            if let Some(path) = line.strip_prefix("+++ b/") {
                file = page(&root().join(path));
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
