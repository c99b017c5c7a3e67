//! Saves and loads a session's variables: everything needed to resume training. Saves only the weights.

use std::collections::BTreeMap;
use std::path::Path;

use super::safetensors::{self, Contents, IN_MEMORY};
use crate::trace::span;
use crate::{DType, Data, Error, Graph, Result, Session, Tensor, files};

/// Prefix of a counter's name in the file's metadata.
pub(super) const COUNTER: &str = "counter.";
/// The step counter that all parameters share in files of earlier versions.
const SHARED_STEP: &str = "optimizer.step";

impl Session {
    /// Saves all variables and counters, so that [`Session::load`] resumes exactly from here. The file is
    /// safetensors, written atomically ([`io::write_atomically`](crate::io::write_atomically)); equal states
    /// give equal bytes.
    ///
    /// # Errors
    /// Errors of the device; [`Error::Io`] from the system.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, BTreeMap::new())
    }

    /// [`Session::save`] with more metadata.
    pub(crate) fn save_with(&self, path: impl AsRef<Path>, mut metadata: BTreeMap<String, String>) -> Result<()> {
        let _span = span!("save checkpoint");
        metadata.extend(self.counts());
        safetensors::save(path, &self.get_all(self.names())?, &metadata)
    }

    /// The counters as metadata.
    fn counts(&self) -> BTreeMap<String, String> {
        self.counters().iter().map(|(name, count)| (format!("{COUNTER}{name}"), count.to_string())).collect()
    }

    /// The bytes of a file of [`Session::save`], where there are no files, for use with an async executor.
    ///
    /// ```
    /// use wgrad::{Device, Graph, Session, Tensor};
    /// let graph = Graph::new();
    /// graph.variable("count", Tensor::scalar(3.0));
    /// let mut session = Session::new(Device::cpu());
    /// session.compile(&graph, &[])?;
    /// let bytes = pollster::block_on(session.to_bytes_async())?; // in a browser: await
    /// session.set("count", &Tensor::scalar(4.0))?;
    /// session.load_bytes(&bytes)?;
    /// assert_eq!(session.get("count")?.item()?, 3.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn to_bytes_async(&self) -> Result<Vec<u8>> {
        safetensors::to_bytes(&self.get_all_async(self.names()).await?, &self.counts())
    }

    /// [`Session::load`] from the bytes of a file. Example: [`Session::to_bytes_async`].
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let contents = safetensors::bytes_for(bytes, |name| self.variable_type(name).map(|ty| ty.dtype))?;
        self.load_contents(Path::new(IN_MEMORY), &contents)
    }

    /// Loads a file of [`Session::save`]. The session must have the same variables as the file: compile the
    /// same graphs first. Counters that are not in the file start at 0. Other element types are converted as by
    /// [`safetensors::load`](crate::io::safetensors::load), integers to the variable's type.
    ///
    /// # Errors
    /// [`Error::File`] for a damaged file, or with a list of all variables that are missing, unknown or of
    /// another type. The session is then unchanged.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let contents = self.read_checkpoint(path.as_ref())?;
        self.load_contents(path.as_ref(), &contents)
    }

    /// Reads a file; integers become the types of the variables with their names.
    pub(crate) fn read_checkpoint(&self, path: &Path) -> Result<Contents> {
        let _span = span!("load checkpoint");
        safetensors::read_for(path, |name| self.variable_type(name).map(|ty| ty.dtype))
    }

    /// [`Session::load`] from what was read from the file.
    pub(crate) fn load_contents(&mut self, path: &Path, Contents { tensors, metadata }: &Contents) -> Result<()> {
        self.check_variables(path, tensors)?;
        let mut counters: BTreeMap<String, u64> = self.counters().keys().map(|name| (name.clone(), 0)).collect();
        for (key, text) in metadata {
            if let Some(name) = key.strip_prefix(COUNTER) {
                let count = text.parse();
                let count =
                    count.map_err(|_| Error::file(path, format!("counter `{name}` is not a number: {text:?}")))?;
                counters.insert(name.to_owned(), count);
            }
        }
        split_count(&mut counters, tensors);
        self.set_all(&tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect::<Vec<_>>())?;
        for (name, count) in counters {
            self.set_counter(&name, count);
        }
        Ok(())
    }

    /// Saves the variables that `graph` declares: f64 of the reference as f32, all others in their type. For a graph of
    /// the model alone, without an optimiser, these are its parameters and running statistics under PyTorch's names. In
    /// Python: `model.load_state_dict(safetensors.torch.load_file(path))`.
    ///
    /// # Errors
    /// [`Error::Input`] if the session lacks a variable of the graph, [`Error::File`] if a value of the
    /// reference does not fit f32; otherwise as [`Session::save`].
    pub fn save_weights(&self, path: impl AsRef<Path>, graph: &Graph) -> Result<()> {
        let path = path.as_ref();
        let bytes = encode_weights(path, self.get_all(declared(graph))?)?;
        files::write_atomically(path, &bytes)
    }

    /// The bytes of a file of [`Session::save_weights`], where there are no files, for use with an async executor.
    /// [`Session::load_weights_bytes`] loads them.
    ///
    /// # Errors
    /// As [`Session::save_weights`].
    pub async fn weights_to_bytes_async(&self, graph: &Graph) -> Result<Vec<u8>> {
        encode_weights(Path::new(IN_MEMORY), self.get_all_async(declared(graph)).await?)
    }

    /// Compares the file's tensors with the session's variables, and lists all mismatches.
    fn check_variables(&self, path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let names = self.names();
        let (mut wrong, mut missing) = (Vec::new(), Vec::new());
        for name in &names {
            match (self.variable_type(name), tensors.get(name)) {
                (Some(ty), None) => missing.push((name, format!("`{name}` ({ty}) is missing"))),
                (Some(ty), Some(found)) if found.ty() != *ty => {
                    wrong.push(format!("`{name}` is {}, expected {ty}", found.ty()));
                }
                (Some(_), Some(found)) if !self.device().is_cpu() => {
                    let value = overflowing(found);
                    wrong.extend(value.map(|value| format!("`{name}`: {value:e} does not fit f32, which GPUs use")));
                }
                _ => {}
            }
        }
        // Optimiser state extends the name of a parameter.
        let extends = |name: &str| name.match_indices('.').any(|(end, _)| tensors.contains_key(&name[..end]));
        let unknown: Vec<_> = tensors.iter().filter(|(name, _)| self.variable_type(name).is_none()).collect();
        let only_model = wrong.is_empty() && missing.is_empty() && unknown.iter().all(|(name, _)| extends(name));
        wrong.extend(unknown.iter().map(|(name, tensor)| format!("`{name}` ({}) is unknown", tensor.ty())));
        let only_weights = wrong.is_empty() && !missing.is_empty() && missing.iter().all(|(name, _)| extends(name));
        let mut lines: Vec<String> = missing.into_iter().map(|(_, line)| line).chain(wrong).collect();
        if only_weights {
            lines.push("(the file has only weights, no optimiser state; Session::load_weights loads them)".to_owned());
        }
        if only_model && !lines.is_empty() {
            let state = "(the session has no optimiser: compile the training step first, or take only the weights with \
                         Session::load_weights)";
            lines.push(state.to_owned());
        }
        if lines.is_empty() {
            return Ok(());
        }
        Err(Error::file(path, format!("does not fit the session:\n  {}", lines.join("\n  "))))
    }
}

/// The bytes of a file of weights: f64 of the reference as f32.
fn encode_weights(path: &Path, mut tensors: BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    for (name, tensor) in &mut tensors {
        if let Some(value) = overflowing(tensor) {
            return Err(Error::file(path, format!("variable `{name}`: {value:e} does not fit f32")));
        }
        if tensor.dtype() == DType::F32 {
            *tensor = Tensor::new(tensor.shape(), tensor.to_f32())?;
        }
    }
    safetensors::encode(path, &tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
}

/// Replaces the shared step counter of earlier versions by one per parameter: `PARAMETER.OPTIMIZER.step` for
/// each state variable `PARAMETER.OPTIMIZER...`.
fn split_count(counters: &mut BTreeMap<String, u64>, variables: &BTreeMap<String, Tensor>) {
    let Some(count) = counters.remove(SHARED_STEP) else { return };
    for name in variables.keys() {
        for (dot, _) in name.match_indices('.').filter(|(dot, _)| variables.contains_key(&name[..*dot])) {
            let optimizer = name[dot + 1..].split('.').next().unwrap_or_default();
            counters.insert(format!("{}.{optimizer}.step", &name[..dot]), count);
        }
    }
}

/// The first finite number of the reference that overflows f32.
pub(super) fn overflowing(tensor: &Tensor) -> Option<f64> {
    let Data::F64(values) = tensor.data() else { return None };
    values.iter().copied().find(|x| x.is_finite() && (*x as f32).is_infinite())
}

/// The names of the variables that a graph declares.
pub(super) fn declared(graph: &Graph) -> Vec<String> {
    graph.nodes().variables.into_iter().map(|variable| variable.name).collect()
}
