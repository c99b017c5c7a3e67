//! A catalogue of mistakes: for each, the whole text of the error. A text says what happened, where, with which values,
//! and the way out. Needs no GPU.

mod graphs;
mod programs;

use std::fs;
use std::panic::Location;
use std::path::PathBuf;

use wgrad::{DType, Device, Graph, Result, Session, Tensor, Value};

/// The texts that differ are collected, so that one run shows all of them.
struct Catalogue {
    folder: tempfile::TempDir,
    /// The line of each entry and, for a mistake in a graph, of the call that the error names.
    lines: Vec<(u32, Option<u32>)>,
    differences: Vec<String>,
}

impl Catalogue {
    fn new() -> Catalogue {
        Catalogue { folder: tempfile::tempdir().unwrap(), lines: Vec::new(), differences: Vec::new() }
    }

    /// A file in the catalogue's folder, which a text calls `DIR`.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A call that fails.
    #[track_caller]
    fn call<T>(&mut self, result: Result<T>) -> Entry<'_> {
        let (file, line) = (Location::caller().file(), Location::caller().line());
        let error = result.err().unwrap_or_else(|| panic!("line {line}: no error"));
        let text = error.to_string();
        assert_eq!(format!("{error:?}"), text, "line {line}: Debug differs from Display");
        let text = text.replace(&self.folder.path().display().to_string(), "DIR");
        let mut parts = text.split(file); // and the numbers of line and column
        let first = parts.next().unwrap().to_owned();
        let text = parts.fold(first, |text, part| {
            text + "LINE" + part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':')
        });
        self.lines.push((line, None));
        Entry { catalogue: self, line, text }
    }

    /// A graph that does not compile.
    #[track_caller]
    fn graph<T>(&mut self, build: impl Fn(&Graph) -> T) -> Entry<'_> {
        let graph = Graph::new();
        build(&graph);
        let entry = self.call(Session::new(Device::cpu()).compile(&graph, &[]));
        entry.catalogue.lines.last_mut().unwrap().1 = Some(graph.errors()[0].location.line());
        // If there is one error, its text alone.
        let one =
            entry.text.strip_prefix("the graph has an error:\n").and_then(|text| text.strip_suffix("\n  at LINE"));
        Entry { text: one.unwrap_or(&entry.text).to_owned(), ..entry }
    }

    fn finish(self) {
        assert!(self.differences.is_empty(), "{}", self.differences.join("\n"));
        for (number, (line, at)) in self.lines.iter().enumerate() {
            let next = self.lines.get(number + 1).map_or(u32::MAX, |(line, _)| *line);
            assert!(at.is_none_or(|at| (*line..next).contains(&at)), "line {line}: the error names line {at:?}");
        }
    }
}

/// The text of an error, to be compared.
#[must_use]
struct Entry<'c> {
    catalogue: &'c mut Catalogue,
    line: u32,
    text: String,
}

impl Entry<'_> {
    fn says(self, text: &str) {
        let Entry { catalogue, line, text: found } = self;
        if found != text {
            catalogue.differences.push(format!("line {line}: expected\n{text}\nfound\n{found}\n"));
        }
    }
}

#[track_caller]
fn f(g: &Graph, name: &str, shape: &[usize]) -> Value {
    g.input(name, DType::F32, shape)
}

#[track_caller]
fn i(g: &Graph, name: &str, shape: &[usize]) -> Value {
    g.input(name, DType::I32, shape)
}

fn t(shape: &[usize]) -> Tensor {
    Tensor::new(shape, vec![0.5f32; shape.iter().product()]).unwrap()
}

fn ints<const N: usize>(numbers: [i32; N]) -> Tensor {
    Tensor::new([N], numbers.to_vec()).unwrap()
}
