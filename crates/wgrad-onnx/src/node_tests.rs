//! ONNX's own tests of operators, as they are on disk: `NAME/model.onnx`, and
//! `NAME/test_data_set_N/{input,output}_I.pb`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use wgrad::{Device, Error, Result, Session};

use crate::constant::Constant;
use crate::elem_type::ElemType;
use crate::model::Model;
use crate::options::BuildOptions;
use crate::proto::TensorProto;

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All outputs agree.
    Passed,
    /// An output is wrong, or something that is supported did not work.
    Failed(String),
    /// The model uses what is not supported.
    Unsupported(String),
}

/// A test on disk.
#[derive(Clone, Debug)]
pub struct NodeTest {
    /// Its name.
    pub name: String,
    /// The operators of its model.
    pub operators: Vec<String>,
    folder: PathBuf,
    relative: f64,
    absolute: f64,
}

/// The tests in a folder, by name. A file `list.tsv` with lines of name, opset, operators, and relative and absolute
/// tolerance is used if there is one; otherwise the tolerances are those of ONNX, 1e-3 and 1e-7.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] if there are no tests.
pub fn tests(folder: impl AsRef<Path>) -> Result<Vec<NodeTest>> {
    let folder = folder.as_ref();
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let list = fs::read_to_string(folder.join("list.tsv")).unwrap_or_default();
    let tolerances: BTreeMap<&str, (f64, f64)> = list
        .lines()
        .filter_map(|line| {
            let parts: Vec<&str> = line.split('\t').collect();
            Some((*parts.first()?, (parts.get(3)?.parse().ok()?, parts.get(4)?.parse().ok()?)))
        })
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("model.onnx").is_file() {
            let (relative, absolute) = tolerances.get(name.as_str()).copied().unwrap_or((1e-3, 1e-7));
            let operators = Model::load(path.join("model.onnx")).map(|model| model.operators().into_keys().collect());
            found.push(NodeTest { name, operators: operators.unwrap_or_default(), folder: path, relative, absolute });
        }
    }
    if found.is_empty() {
        return Err(Error::File { path: folder.to_owned(), message: "has no folders with a model.onnx".into() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl NodeTest {
    /// Runs it on a device.
    pub fn run(&self, device: &Device) -> Verdict {
        let model = match Model::load(self.folder.join("model.onnx")) {
            Ok(model) => model,
            Err(error) => return Verdict::Unsupported(error.to_string()),
        };
        let ports = model.inputs().into_iter().chain(model.outputs());
        for port in ports {
            if let Err(what) = port.elem_type {
                return Verdict::Unsupported(format!("`{}`: {what}", port.name));
            }
        }
        for number in 0.. {
            let data = self.folder.join(format!("test_data_set_{number}"));
            if !data.is_dir() {
                return if number == 0 { Verdict::Unsupported("it has no data".into()) } else { Verdict::Passed };
            }
            match self.run_on(&model, &data, device) {
                Verdict::Passed => {}
                other => return other,
            }
        }
        Verdict::Passed
    }

    fn run_on(&self, model: &Model, data: &Path, device: &Device) -> Verdict {
        let list = |kind: &str| -> std::result::Result<Vec<Constant>, String> {
            let files = (0..).map(|i| data.join(format!("{kind}_{i}.pb"))).take_while(|path| path.is_file());
            files.map(|path| read(&path)).collect()
        };
        let (inputs, expected) = match (list("input"), list("output")) {
            (Ok(inputs), Ok(expected)) => (inputs, expected),
            (Err(why), _) | (_, Err(why)) => return Verdict::Unsupported(why),
        };
        // All inputs of the graph have files, also those with a value in the model.
        let names = model.graph.input.iter().filter_map(|port| port.name.clone());
        let inputs = names.zip(inputs).collect();
        let prepared = match model.try_prepare(&inputs, &BuildOptions::new()) {
            Ok(prepared) => prepared,
            Err(problems) => {
                return Verdict::Unsupported(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
            }
        };
        let mut session = Session::new(device.clone());
        let run = prepared.compile(&mut session).and_then(|program| prepared.run(&mut session, &program));
        match run {
            Ok(outputs) => self.compare(&outputs, &expected),
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    fn compare(&self, outputs: &[(String, Constant)], expected: &[Constant]) -> Verdict {
        if outputs.len() != expected.len() {
            return Verdict::Failed(format!("{} outputs, expected {}", outputs.len(), expected.len()));
        }
        for ((name, found), wanted) in outputs.iter().zip(expected) {
            if (found.ty, found.shape()) != (wanted.ty, wanted.shape()) {
                let (found, wanted) = ((found.ty, found.shape()), (wanted.ty, wanted.shape()));
                return Verdict::Failed(format!("{name} is {found:?}, expected {wanted:?}"));
            }
            let is_float = found.ty.is_float();
            // A quotient at a tie between two integers may round the other way in another precision.
            let by_one =
                found.ty.is_int() && found.ty.bits() <= 8 && self.operators.iter().any(|op| op.contains("Quantize"));
            let absolute = if by_one { 1.0 } else { self.absolute };
            // The tolerances of ONNX are less than the distance between neighbours of narrow types.
            let relative = match found.ty {
                ElemType::BF16 => self.relative.max(2.0 / 128.0),
                ElemType::F16 => self.relative.max(2.0 / 1024.0),
                _ => self.relative,
            };
            // ONNX has computed transforms in f32, with errors that are relative to the largest number.
            let transforms = self.operators.iter().any(|op| op == "DFT" || op == "STFT");
            let largest = wanted.to_floats().into_iter().fold(0.0f64, |most, y| most.max(y.abs()));
            let absolute = if transforms { absolute.max(largest * f64::from(f32::EPSILON)) } else { absolute };
            for (at, (x, y)) in found.to_floats().into_iter().zip(wanted.to_floats()).enumerate() {
                let close = match is_float || by_one {
                    true => x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= absolute + relative * y.abs(),
                    false => x == y,
                };
                if !close {
                    return Verdict::Failed(format!("{name}, element {at}: {x}, expected {y}"));
                }
            }
        }
        Verdict::Passed
    }
}

/// Reads a tensor that stands alone in a file.
fn read(path: &Path) -> std::result::Result<Constant, String> {
    let bytes = fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let proto = TensorProto::decode(&bytes[..]).map_err(|why| format!("{}: {why}", path.display()))?;
    Constant::read(&proto, |_| Err("its data is in another file".into()))
}
