//! Loads weights by name into the variables of a graph, from files whose names or variables differ from it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use super::checkpoint::{COUNTER, declared, overflowing};
use super::safetensors::{self, Contents, IN_MEMORY};
use crate::{Error, Graph, Result, Session, Tensor, TensorType};

/// Which tensors of a file [`Session::load_weights_with`] loads, and into which variables. Edits of names apply in the
/// order of the calls; [`only`](Weights::only) and [`skip`](Weights::skip) see the names after all edits.
/// Example: [`Session::load_weights_with`].
#[derive(Clone, Debug)]
pub struct Weights {
    /// Prefixes and what replaces them.
    edits: Vec<(String, String)>,
    only: Vec<String>,
    skip: Vec<String>,
    strict: bool,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights::new()
    }
}

impl Weights {
    /// All variables of the graph, under the names of the file, strictly.
    pub fn new() -> Weights {
        Weights { edits: Vec::new(), only: Vec::new(), skip: Vec::new(), strict: true }
    }

    /// Removes a prefix from the names in the file: `module.` of PyTorch's `DataParallel`, for instance. Names without
    /// it stay as they are.
    pub fn strip_prefix(self, prefix: &str) -> Weights {
        self.rename(prefix, "")
    }

    /// Names in the file that begin with `from` begin with `to` instead. An empty `from` adds a prefix to all names.
    pub fn rename(mut self, from: &str, to: &str) -> Weights {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Loads only this part of the model: the variable or all variables of the part with this name, such as `layer1`.
    /// Several calls add parts.
    pub fn only(mut self, part: &str) -> Weights {
        self.only.push(part.to_owned());
        self
    }

    /// Does not load this part of the model, such as a `head` for other classes, nor expect it in the file.
    pub fn skip(mut self, part: &str) -> Weights {
        self.skip.push(part.to_owned());
        self
    }

    /// Whether a missing, unexpected or mismatched tensor is an error, as it is by default. If not, the matching tensors
    /// are loaded, and [`LoadedWeights`] lists the others; it is still an error if nothing matches.
    pub fn strict(self, strict: bool) -> Weights {
        Weights { strict, ..self }
    }

    /// The variable's name for a name in the file.
    fn edited(&self, name: &str) -> String {
        self.edits.iter().fold(name.to_owned(), |name, (from, to)| match name.strip_prefix(from.as_str()) {
            Some(rest) => format!("{to}{rest}"),
            None => name,
        })
    }

    fn wants(&self, name: &str) -> bool {
        let within = |part: &String| {
            let part = part.trim_end_matches('.');
            name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (self.only.is_empty() || self.only.iter().any(within)) && !self.skip.iter().any(within)
    }
}

/// What [`Session::load_weights_with`] has done. `Display` lists all but the loaded names, which it counts.
/// Example: [`Session::load_weights_with`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadedWeights {
    /// The variables that now have the values of the file, sorted.
    pub loaded: Vec<String>,
    /// Variables that the file lacks; they are unchanged.
    pub missing: Vec<String>,
    /// Tensors of the file, by their names after all edits, that are no variable of the graph.
    pub unexpected: Vec<String>,
    /// Variables for which the file has another shape or a type that is not converted; they are unchanged.
    pub mismatched: Vec<MismatchedWeight>,
    /// What was left out on purpose: skipped parts, optimiser state, and counts of batches that only one side has.
    pub ignored: Vec<String>,
}

/// A variable and a tensor of the same name and different types. Example: [`Session::load_weights_with`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MismatchedWeight {
    /// The variable's name.
    pub name: String,
    /// The variable's type.
    pub expected: TensorType,
    /// The tensor's type.
    pub found: TensorType,
}

impl fmt::Display for MismatchedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, expected {}", self.name, self.found, self.expected)
    }
}

impl fmt::Display for LoadedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables loaded", self.loaded.len())?;
        let names = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let mismatched: Vec<String> = self.mismatched.iter().map(ToString::to_string).collect();
        for (what, lines) in [
            ("missing", names(&self.missing)),
            ("unexpected", names(&self.unexpected)),
            ("of another type", mismatched),
            ("ignored", names(&self.ignored)),
        ] {
            if !lines.is_empty() {
                write!(f, "\n{} {what}: {}", lines.len(), lines.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Session {
    /// Loads the variables that `graph` declares, which must have been compiled, from a file of
    /// [`Session::save_weights`], of PyTorch (`safetensors.torch.save_file(model.state_dict(), path)`), or of
    /// [`Session::save`]. Floats and integers are converted to the types of the variables. Ignores optimiser state,
    /// whose names extend a parameter's (`fc1.weight.adam.m`), and `num_batches_tracked` if the file or the graph lacks
    /// it, as files of PyTorch before 0.4.1 do. For other names or parts of a model, see
    /// [`Session::load_weights_with`].
    ///
    /// # Errors
    /// [`Error::File`] for a damaged file, or with a list of all variables that are missing, unknown or of
    /// another type. The session is then unchanged.
    pub fn load_weights(&mut self, path: impl AsRef<Path>, graph: &Graph) -> Result<()> {
        self.load_weights_with(path, graph, &Weights::new()).map(drop)
    }

    /// [`Session::load_weights`] with other names, of parts of a model, or of what matches.
    ///
    /// ```
    /// use wgrad::io::Weights;
    /// use wgrad::nn::Scope;
    /// use wgrad::{DType, Device, Graph, Session};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("weights.safetensors");
    /// let model = |prefix: &str, head: &str, classes: usize| {
    ///     let graph = Graph::new();
    ///     let nn = Scope::train(&graph, 0);
    ///     let nn = if prefix.is_empty() { nn } else { nn.part(prefix) };
    ///     let x = nn.linear("body", &graph.input("x", DType::F32, [1, 8]), 16).relu();
    ///     nn.linear(head, &x, classes);
    ///     let mut session = Session::new(Device::cpu());
    ///     session.compile(&graph, &[])?;
    ///     Ok::<_, wgrad::Error>((session, graph))
    /// };
    /// let (trained, graph) = model("module", "fc", 1000)?;
    /// trained.save_weights(&path, &graph)?;
    ///
    /// // The body of a model for 1000 classes, for one with 10.
    /// let (mut session, graph) = model("", "head", 10)?;
    /// let weights = Weights::new().strip_prefix("module.").rename("fc.", "head.");
    /// let why = session.load_weights_with(&path, &graph, &weights).unwrap_err().to_string();
    /// assert!(why.contains("`head.bias` is f32[1000], expected f32[10]"));
    /// let report = session.load_weights_with(&path, &graph, &weights.skip("head"))?;
    /// assert_eq!(report.loaded, ["body.bias", "body.weight"]);
    /// println!("{report}");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::load_weights`]; unless [`strict`](Weights::strict), only [`Error::File`] for a damaged file,
    /// numbers that do not fit, two tensors of one name after the edits, or if no variable is in the file.
    pub fn load_weights_with(
        &mut self,
        path: impl AsRef<Path>,
        graph: &Graph,
        weights: &Weights,
    ) -> Result<LoadedWeights> {
        let wanted = |name: &str| self.variable_type(&weights.edited(name)).map(|ty| ty.dtype);
        let contents = safetensors::read_for(path.as_ref(), wanted)?;
        self.load_named(path.as_ref(), contents, graph, weights)
    }

    /// [`Session::load_weights_with`] from the bytes of a file, such as of [`Session::weights_to_bytes_async`].
    ///
    /// # Errors
    /// As [`Session::load_weights_with`].
    pub fn load_weights_bytes(&mut self, bytes: &[u8], graph: &Graph, weights: &Weights) -> Result<LoadedWeights> {
        let wanted = |name: &str| self.variable_type(&weights.edited(name)).map(|ty| ty.dtype);
        let contents = safetensors::bytes_for(bytes, wanted)?;
        self.load_named(Path::new(IN_MEMORY), contents, graph, weights)
    }

    /// Loads the contents of the file with this path.
    fn load_named(
        &mut self,
        path: &Path,
        Contents { tensors: stored, metadata }: Contents,
        graph: &Graph,
        weights: &Weights,
    ) -> Result<LoadedWeights> {
        let (mut tensors, mut stored_as) = (BTreeMap::new(), HashMap::new());
        for (name, tensor) in stored {
            let edited = weights.edited(&name);
            if let Some(other) = stored_as.insert(edited.clone(), name.clone()) {
                let why = format!("`{other}` and `{name}` both become `{edited}`; rename one of them to another name");
                return Err(Error::file(path, why));
            }
            tensors.insert(edited, tensor);
        }
        let names: BTreeSet<String> = declared(graph).into_iter().collect();
        if !names.is_empty() && names.iter().all(|name| self.variable_type(name).is_none()) {
            return Err(Error::Input(format!(
                "the session has none of the graph's {} variables; compile the graph first, then load {}",
                names.len(),
                path.display()
            )));
        }
        let mut report = LoadedWeights::default();
        let mut wrong = Vec::new();
        for name in names.iter().filter(|name| weights.wants(name)) {
            match (self.variable_type(name), tensors.get(name)) {
                (None, _) => wrong.push(format!("`{name}` is not a variable of the session; compile the graph first")),
                (_, None) if is_count(name) => report.ignored.push(name.clone()),
                (_, None) => report.missing.push(name.clone()),
                (Some(ty), Some(found)) if found.ty() != *ty => report.mismatched.push(MismatchedWeight {
                    name: name.clone(),
                    expected: ty.clone(),
                    found: found.ty(),
                }),
                (_, Some(found)) => {
                    report.loaded.push(name.clone());
                    let value = overflowing(found).filter(|_| !self.device().is_cpu());
                    wrong.extend(value.map(|value| format!("`{name}`: {value:e} does not fit f32, which GPUs use")));
                }
            }
        }
        let extends = |name: &str| name.match_indices('.').any(|(end, _)| names.contains(&name[..end]));
        for name in tensors.keys().filter(|name| !names.contains(*name) || !weights.wants(name)) {
            let ignored = !weights.wants(name) || extends(name) || is_count(name);
            if ignored { &mut report.ignored } else { &mut report.unexpected }.push(name.clone());
        }
        let nothing = report.loaded.is_empty() && !(report.missing.is_empty() && report.mismatched.is_empty());
        if weights.strict || nothing {
            wrong.extend(self.differences(&report, &tensors, &stored_as));
        }
        if !wrong.is_empty() {
            let mut advice = edits_that_match(&report.missing, &report.unexpected);
            let quantized =
                |name: &String| ["values", "scale"].iter().all(|p| tensors.contains_key(&format!("{name}.{p}")));
            if report.missing.iter().any(quantized) {
                advice.push("the file has quantised weights; quant::QuantizedModel::load reads it".to_owned());
            }
            if metadata.keys().any(|key| key.starts_with(COUNTER)) {
                let all = "the file is a training checkpoint; to resume training, compile the same graphs and call \
                           Session::load";
                advice.push(all.to_owned());
            }
            let lines = wrong.into_iter().chain(advice.into_iter().map(|advice| format!("({advice})")));
            let lines: Vec<String> = lines.collect();
            return Err(Error::file(path, format!("does not fit the graph:\n  {}", lines.join("\n  "))));
        }
        let new: Vec<(&str, &Tensor)> = report.loaded.iter().map(|name| (name.as_str(), &tensors[name])).collect();
        self.set_all(&new)?;
        Ok(report)
    }

    /// A line for each difference between the graph and the file.
    fn differences(
        &self,
        report: &LoadedWeights,
        tensors: &BTreeMap<String, Tensor>,
        stored_as: &HashMap<String, String>,
    ) -> Vec<String> {
        let types: Vec<(&str, TensorType)> =
            report.unexpected.iter().map(|name| (name.as_str(), tensors[name].ty())).collect();
        let mut lines = Vec::new();
        for (number, name) in report.missing.iter().enumerate() {
            let Some(ty) = self.variable_type(name) else { continue };
            // A comparison with every name takes long for many.
            let close = if number < 100 { close_name(name, ty, &types) } else { None };
            let close = close.map_or_else(String::new, |close| format!("; the file has `{close}`"));
            lines.push(format!("`{name}` ({ty}) is missing{close}"));
        }
        lines.extend(report.mismatched.iter().map(ToString::to_string));
        lines.extend(types.iter().map(|(name, ty)| {
            let stored = stored_as.get(*name).filter(|stored| stored != name);
            let stored = stored.map_or_else(String::new, |stored| format!(", `{stored}` in the file,"));
            format!("`{name}` ({ty}){stored} is unknown")
        }));
        lines
    }
}

/// Whether this is the count of a batch norm, which computes the same without it.
fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// The edit of names that would match most of the missing ones, as advice.
fn edits_that_match(missing: &[String], unexpected: &[String]) -> Vec<String> {
    /// The prefixes of `long` whose rest is in `short`, with their numbers.
    fn prefixes<'a>(long: &'a [String], short: &[String]) -> Option<(&'a str, usize)> {
        let short: HashSet<&str> = short.iter().map(String::as_str).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in long {
            for (dot, _) in name.match_indices('.').filter(|(dot, _)| short.contains(&name[dot + 1..])) {
                *counts.entry(&name[..=dot]).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count)
    }
    let of = |count: usize| format!("would match {count} of {} missing names", missing.len());
    let strip = prefixes(unexpected, missing).map(|(p, n)| (n, format!("strip_prefix({p:?})")));
    let add = prefixes(missing, unexpected).map(|(p, n)| (n, format!("rename(\"\", {p:?})")));
    let best = [strip, add].into_iter().flatten().max_by_key(|(count, _)| *count);
    best.map(|(n, call)| format!("Session::load_weights_with and Weights::new().{call} {}", of(n)))
        .into_iter()
        .collect()
}

/// The most similar name, if one is similar enough to be meant.
fn close_name<'a>(name: &str, ty: &TensorType, others: &[(&'a str, TensorType)]) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |(other, of): &(&'a str, TensorType)| {
        let alike = of.shape == ty.shape && last(other) == last(name);
        let (edits, length) = (edit_distance(name, other), name.len().max(other.len()));
        let close = edits <= if alike { length / 2 } else { length / 4 };
        close.then_some((edits, *other))
    };
    others.iter().take(1000).filter_map(distance).min().map(|(_, other)| other)
}

/// The number of bytes to insert, remove or replace to turn `a` into `b` (Levenshtein's distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
