//! Reads a golden folder: two JSON files that describe the tensors of two safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use wgrad::{Data, Shape, Tensor};

/// The supported format version.
const FORMAT: u64 = 1;

/// `ops.json`.
#[derive(Deserialize)]
pub struct Ops {
    /// The op cases.
    pub cases: Vec<OpCase>,
}

/// One case of one op.
#[derive(Deserialize)]
pub struct OpCase {
    pub name: String,
    pub op: String,
    #[serde(default)]
    pub attrs: Map<String, Json>,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    #[serde(default)]
    pub grads: Vec<String>,
}

/// `train.json`.
#[derive(Deserialize)]
pub struct Train {
    pub models: BTreeMap<String, Model>,
    pub runs: Vec<Run>,
}

/// A model: its layers, and the tensor keys of its data.
#[derive(Deserialize)]
pub struct Model {
    pub layers: Vec<Vec<Json>>,
    pub loss: String,
    pub batch: usize,
    pub x: String,
    pub target: String,
    /// Parameter to tensor key.
    pub init: BTreeMap<String, String>,
}

/// A training run of a model with an optimiser.
#[derive(Deserialize)]
pub struct Run {
    pub name: String,
    pub model: String,
    pub optimizer: String,
    pub class: String,
    pub hyper: Map<String, Json>,
    pub steps: usize,
    pub losses: String,
    /// Parameter to tensor key.
    #[serde(rename = "final")]
    pub last: BTreeMap<String, String>,
}

/// The content of a folder; at least one of the two.
pub struct Golden {
    pub ops: Option<(Ops, Tensors)>,
    pub train: Option<(Train, Tensors)>,
}

/// Reads a folder and checks that its files are consistent.
pub fn load(folder: &Path) -> Result<Golden, String> {
    if !folder.is_dir() {
        return Err(format!("{}: there is no such folder", folder.display()));
    }
    let golden = Golden { ops: part(folder, "ops", missing_in_ops)?, train: part(folder, "train", missing_in_train)? };
    if golden.ops.is_none() && golden.train.is_none() {
        return Err(format!("{}: contains neither ops.json nor train.json", folder.display()));
    }
    Ok(golden)
}

/// Reads `<stem>.json` and `<stem>.safetensors`, if the first exists.
fn part<T: DeserializeOwned>(
    folder: &Path,
    stem: &str,
    complaint: fn(&T, &Tensors) -> Option<String>,
) -> Result<Option<(T, Tensors)>, String> {
    let path = folder.join(format!("{stem}.json"));
    if !path.exists() {
        return Ok(None);
    }
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = read(&path)?;
    let json: Json = serde_json::from_slice(&text).map_err(|e| at(&format!("not JSON: {e}")))?;
    if json["format"].as_u64() != Some(FORMAT) {
        return Err(at(&format!("`format` is {}, but only format {FORMAT} is supported", json["format"])));
    }
    let listed: T = serde_json::from_value(json).map_err(|e| at(&e))?;
    let tensors = Tensors::read(&folder.join(format!("{stem}.safetensors")))?;
    match complaint(&listed, &tensors) {
        Some(complaint) => Err(at(&complaint)),
        None => Ok(Some((listed, tensors))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    wgrad::io::read(path).map_err(|error| error.to_string())
}

/// The first tensor that an op case names but the file lacks, or another inconsistency.
fn missing_in_ops(ops: &Ops, tensors: &Tensors) -> Option<String> {
    let mut names: Vec<&str> = ops.cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(format!("two cases have the name `{}`", twice[0]));
    }
    ops.cases.iter().find_map(|case| {
        let key = |part: &str| format!("{}/{part}", case.name);
        if let Some(stray) = case.grads.iter().find(|g| !case.inputs.contains(g)) {
            return Some(format!("case `{}`: `grads` names `{stray}`, which is not an input", case.name));
        }
        let seeded = case.outputs.iter().any(|output| tensors.get(&key(&format!("d_{output}"))).is_ok());
        if !case.grads.is_empty() && !seeded {
            return Some(format!("case `{}` has gradients, but no output has a `d_` tensor", case.name));
        }
        let parts = case.inputs.iter().chain(&case.outputs).cloned();
        let gradients = case.grads.iter().map(|g| format!("grad_{g}"));
        let missing = parts.chain(gradients).find(|part| tensors.get(&key(part)).is_err())?;
        Some(format!("case `{}`: there is no tensor `{}` in {}", case.name, key(&missing), tensors.path.display()))
    })
}

/// The same for training runs.
fn missing_in_train(train: &Train, tensors: &Tensors) -> Option<String> {
    for run in &train.runs {
        let Some(model) = train.models.get(&run.model) else {
            return Some(format!("run `{}` names the model `{}`, which does not exist", run.name, run.model));
        };
        if !run.last.keys().eq(model.init.keys()) {
            return Some(format!("run `{}`: `final` and the model's `init` name different parameters", run.name));
        }
        let keys =
            [&model.x, &model.target, &run.losses].into_iter().chain(model.init.values()).chain(run.last.values());
        if let Some(missing) = keys.into_iter().find(|key| tensors.get(key).is_err()) {
            return Some(format!("run `{}`: there is no tensor `{missing}` in {}", run.name, tensors.path.display()));
        }
    }
    None
}

/// The tensors of a safetensors file.
pub struct Tensors {
    path: PathBuf,
    stored: HashMap<String, Stored>,
}

/// A tensor as stored.
pub struct Stored {
    pub shape: Shape,
    pub numbers: Numbers,
}

/// Its elements.
pub enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

impl Tensors {
    fn read(path: &Path) -> Result<Tensors, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = read(path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| at(&format!("not a safetensors file: {e}")))?;
        let mut stored = HashMap::new();
        for (name, view) in file.iter() {
            let data = view.data();
            let numbers = match view.dtype() {
                Dtype::F32 => Numbers::F32(words(data).map(f32::from_le_bytes).collect()),
                Dtype::F64 => Numbers::F64(words(data).map(f64::from_le_bytes).collect()),
                Dtype::I64 => Numbers::I64(words(data).map(i64::from_le_bytes).collect()),
                other => return Err(at(&format!("`{name}` is {other:?}; only F32, F64 and I64 can be read"))),
            };
            stored.insert(name.to_owned(), Stored { shape: view.shape().into(), numbers });
        }
        Ok(Tensors { path: path.to_owned(), stored })
    }

    /// The tensor with this key.
    pub fn get(&self, key: &str) -> Result<&Stored, String> {
        self.stored.get(key).ok_or_else(|| format!("there is no tensor `{key}` in {}", self.path.display()))
    }
}

/// The bytes in groups of `N`; the reader has checked the length.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).map(|chunk| {
        let mut word = [0; N];
        word.copy_from_slice(chunk);
        word
    })
}

impl Stored {
    /// As a tensor to feed: labels and indices as i32.
    pub fn tensor(&self) -> Result<Tensor, String> {
        let data: Data = match &self.numbers {
            Numbers::F32(v) => v.clone().into(),
            Numbers::F64(v) => v.clone().into(),
            Numbers::I64(v) => {
                let narrowed: Result<Vec<i32>, _> = v.iter().map(|&x| i32::try_from(x)).collect();
                narrowed.map_err(|_| "an index does not fit 32 bits".to_owned())?.into()
            }
        };
        Tensor::new(&self.shape, data).map_err(|e| e.to_string())
    }

    /// Rows `start..start + count` as a tensor to feed.
    pub fn rows(&self, start: usize, count: usize) -> Result<Tensor, String> {
        let [rows, rest @ ..] = &self.shape[..] else { return Err("data must have rows".into()) };
        if start + count > *rows {
            return Err(format!("rows {start}..{} of {rows} do not exist", start + count));
        }
        let width: usize = rest.iter().product();
        let range = start * width..(start + count) * width;
        let numbers = match &self.numbers {
            Numbers::F32(v) => Numbers::F32(v[range].to_vec()),
            Numbers::F64(v) => Numbers::F64(v[range].to_vec()),
            Numbers::I64(v) => Numbers::I64(v[range].to_vec()),
        };
        let shape = std::iter::once(count).chain(rest.iter().copied()).collect();
        Stored { shape, numbers }.tensor()
    }

    /// As expected values.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.numbers {
            Numbers::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Numbers::F64(v) => v.clone(),
            Numbers::I64(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
}
