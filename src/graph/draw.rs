//! Pictures of a model, for Graphviz and Mermaid: a box for each row of its summary, in boxes for the parts of the model.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::summary::{DEEPEST, grouped};
use super::{Summary, SummaryRow};

/// A part of a model: the numbers of its rows, and the parts in it, by the last part of their names.
#[derive(Default)]
struct Part {
    rows: Vec<usize>,
    parts: BTreeMap<String, Part>,
}

impl Part {
    fn of(rows: &[SummaryRow]) -> Part {
        let mut all = Part::default();
        for (number, row) in rows.iter().enumerate() {
            let names = row.part.split('.').filter(|name| !name.is_empty()).take(DEEPEST);
            let part = names.fold(&mut all, |part, name| part.parts.entry(name.to_owned()).or_default());
            part.rows.push(number);
        }
        all
    }
}

impl SummaryRow {
    /// The lines of its box.
    fn lines(&self) -> Vec<String> {
        // The boxes around it have the rest of the name.
        let within = self.layer.strip_prefix(self.part.as_str()).map(|rest| rest.trim_start_matches('.'));
        let name = match within {
            Some("") => self.layer.rsplit('.').next(),
            within => within,
        };
        let mut lines = vec![name.unwrap_or(&self.layer).to_owned(), self.ops_text()];
        lines.retain(|line| !line.is_empty());
        if self.parameters > 0 {
            lines.push(format!("{} parameters", grouped(self.parameters)));
        }
        if self.other_variables > 0 {
            lines.push(format!("{} not trained", grouped(self.other_variables)));
        }
        lines
    }
}

impl Summary {
    /// The model in the language of [Graphviz](https://graphviz.org): `dot -Tsvg model.dot > model.svg`. Boxes are
    /// layers, inside the boxes of the parts that they belong to; edges have the types of the values.
    ///
    /// ```
    /// use wgrad::{DType, Graph, nn::Scope};
    /// let graph = Graph::new();
    /// let y = Scope::train(&graph, 0).part("head").linear("fc", &graph.input("x", DType::F32, [1, 4]), 2).relu();
    /// let dot = graph.summary(&[&y])?.to_dot();
    /// assert!(dot.contains("subgraph \"cluster_head\""));
    /// assert!(dot.contains("n0 -> n1 [label=\"f32[1, 4]\"]"));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let mut text = "digraph model {\n  node [shape=box, style=\"rounded,filled\", fillcolor=\"#eef3fb\", \
                        fontname=\"Helvetica\", fontsize=11];\n  edge [fontname=\"Helvetica\", fontsize=9];\n"
            .to_owned();
        dot_part(&mut text, &self.rows, &Part::of(&self.rows), "", 1);
        for (to, row) in self.rows.iter().enumerate() {
            for (from, ty) in &row.inputs {
                let _ = writeln!(text, "  n{from} -> n{to} [label={}];", dot_text(&ty.to_string()));
            }
        }
        text + "}\n"
    }

    /// The model as a flowchart of [Mermaid](https://mermaid.js.org), which Markdown pages of GitHub and others show in
    /// code blocks of the language `mermaid`. Otherwise as [`Summary::to_dot`].
    ///
    /// ```
    /// use wgrad::{DType, Graph, nn::Scope};
    /// let graph = Graph::new();
    /// let y = Scope::train(&graph, 0).linear("fc", &graph.input("x", DType::F32, [1, 4]), 2).relu();
    /// let flowchart = graph.summary(&[&y])?.to_mermaid();
    /// assert!(flowchart.starts_with("flowchart TD\n"));
    /// assert!(flowchart.contains("n0 -->|\"f32[1, 4]\"| n1\n"));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn to_mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        mermaid_part(&mut text, &self.rows, &Part::of(&self.rows), &mut 0, 1);
        for (to, row) in self.rows.iter().enumerate() {
            for (from, ty) in &row.inputs {
                let _ = writeln!(text, "  n{from} -->|{}| n{to}", mermaid_text(&[ty.to_string()]));
            }
        }
        text
    }
}

fn dot_part(text: &mut String, rows: &[SummaryRow], part: &Part, name: &str, depth: usize) {
    let indent = "  ".repeat(depth);
    for &number in &part.rows {
        let row = &rows[number];
        let shape = if row.is_input() { ", shape=ellipse, fillcolor=white" } else { "" };
        let _ = writeln!(text, "{indent}n{number} [label={}{shape}];", dot_text(&row.lines().join("\n")));
    }
    for (last, inner) in &part.parts {
        let name = if name.is_empty() { last.clone() } else { format!("{name}.{last}") };
        let _ = writeln!(text, "{indent}subgraph {} {{", dot_text(&format!("cluster_{name}")));
        let _ =
            writeln!(text, "{indent}  label={}; labeljust=l; fontname=\"Helvetica\"; color=gray60;", dot_text(last));
        dot_part(text, rows, inner, &name, depth + 1);
        let _ = writeln!(text, "{indent}}}");
    }
}

/// A quoted string. Line breaks are written as `\n`.
fn dot_text(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\0'], " ");
    format!("\"{}\"", escaped.replace('\n', "\\n"))
}

fn mermaid_part(text: &mut String, rows: &[SummaryRow], part: &Part, parts: &mut usize, depth: usize) {
    let indent = "  ".repeat(depth);
    for &number in &part.rows {
        let row = &rows[number];
        let label = mermaid_text(&row.lines());
        let (open, close) = if row.is_input() { ("([", "])") } else { ("[", "]") };
        let _ = writeln!(text, "{indent}n{number}{open}{label}{close}");
    }
    for (last, inner) in &part.parts {
        let _ = writeln!(text, "{indent}subgraph p{parts} [{}]", mermaid_text(std::slice::from_ref(last)));
        *parts += 1;
        mermaid_part(text, rows, inner, parts, depth + 1);
        let _ = writeln!(text, "{indent}end");
    }
}

/// A quoted string. Characters with a meaning in Mermaid, Markdown or HTML are written as their numbers.
fn mermaid_text(lines: &[String]) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => " ".to_owned(),
        '"' | '#' | '&' | '<' | '>' | ';' | '`' | '\\' | '*' | '_' | '~' => format!("#{};", u32::from(c)),
        c => c.to_string(),
    };
    let lines: Vec<String> = lines.iter().map(|line| line.chars().map(escaped).collect()).collect();
    format!("\"{}\"", lines.join("<br/>"))
}
