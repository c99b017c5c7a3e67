//! A model's quantised weights as a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Quantized, Scheme};
use crate::io::safetensors;
use crate::{DType, Error, Result, Shape, Tensor, TensorType};

/// The weights of a model, some of them quantised, by name.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::quant::{Calibration, Scheme, QuantizedModel};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("weights.safetensors");
/// let weight = Tensor::new([2, 2], [0.5f32, -1.0, 0.25, 2.0])?;
/// let scheme = Scheme::int8().bits(4).per_channel(0);
/// let mut weights = QuantizedModel::default();
/// weights.quantized.insert("fc.weight".to_owned(), scheme.quantize(&weight, Calibration::MinMax)?);
/// weights.others.insert("fc.bias".to_owned(), Tensor::new([2], [0.1f32, 0.2])?);
/// weights.save(&path)?;
/// assert_eq!(QuantizedModel::load(&path)?, weights);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedModel {
    /// The quantised weights.
    pub quantized: BTreeMap<String, Quantized>,
    /// All others, such as biases.
    pub others: BTreeMap<String, Tensor>,
}

/// Metadata of a quantised weight: this, followed by its name.
const KEY: &str = "quantization.";

impl QuantizedModel {
    /// Writes a safetensors file, atomically. A quantised weight becomes the tensors `NAME.values` (i8), `NAME.scale`
    /// (f32) and, unless it is 0 everywhere, `NAME.zero` (f32). These are the variables of [`Quantized::declare`], so
    /// that [`Session::load_weights`](crate::Session::load_weights) reads the file, too. The metadata
    /// `quantization.NAME` is the scheme: `{"axis":0,"bits":4,"symmetric":true}`, with `null` for one scale.
    ///
    /// # Errors
    /// [`Error::Io`] from the system; [`Error::File`] if two tensors have the same name, or values, scale and zero
    /// point of a weight do not match its scheme.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut tensors = self.others.clone();
        let mut metadata = BTreeMap::new();
        for (name, quantized) in &self.quantized {
            quantized.validate().map_err(|why| Error::file(path, format!("weight `{name}`: {why}")))?;
            let zero = (!quantized.is_symmetric()).then_some(("zero", &quantized.zero));
            for (part, tensor) in [("values", &quantized.values), ("scale", &quantized.scale)].into_iter().chain(zero) {
                if tensors.insert(format!("{name}.{part}"), tensor.clone()).is_some() {
                    return Err(Error::file(path, format!("two tensors have the name `{name}.{part}`")));
                }
            }
            let Scheme { bits, symmetric, axis } = quantized.scheme;
            let scheme = json!({ "bits": bits, "symmetric": symmetric, "axis": axis });
            metadata.insert(format!("{KEY}{name}"), scheme.to_string());
        }
        safetensors::save(path, &tensors, &metadata)
    }

    /// Reads a file of [`QuantizedModel::save`]. Without such metadata, all its tensors are [`QuantizedModel::others`].
    ///
    /// # Errors
    /// As [`safetensors::load`]; [`Error::File`] if a tensor of a quantised weight is missing, or does not match its
    /// scheme.
    pub fn load(path: impl AsRef<Path>) -> Result<QuantizedModel> {
        let path = path.as_ref();
        let safetensors::Contents { mut tensors, metadata } = safetensors::read(path)?;
        let mut quantized = BTreeMap::new();
        for (key, scheme) in metadata {
            let Some(name) = key.strip_prefix(KEY) else { continue };
            let weight = read(name, &scheme, &mut tensors)
                .map_err(|why| Error::file(path, format!("quantised weight `{name}`: {why}")))?;
            quantized.insert(name.to_owned(), weight);
        }
        Ok(QuantizedModel { quantized, others: tensors })
    }
}

/// Takes the tensors of a quantised weight out of those of a file.
fn read(name: &str, scheme: &str, tensors: &mut BTreeMap<String, Tensor>) -> std::result::Result<Quantized, String> {
    let scheme = parse(scheme).ok_or_else(|| {
        format!("the scheme is `{scheme}`; expected one such as {{\"axis\":null,\"bits\":8,\"symmetric\":true}}")
    })?;
    let mut take = |part: &str| tensors.remove(&format!("{name}.{part}"));
    let needed = |part: &str, tensor: Option<Tensor>| tensor.ok_or_else(|| format!("`{name}.{part}` is missing"));
    let values = needed("values", take("values"))?;
    let scale = needed("scale", take("scale"))?;
    let zero = match take("zero") {
        Some(zero) => zero,
        None => Tensor::new(scale.shape(), vec![0f32; scale.numel()]).map_err(|error| error.to_string())?,
    };
    let weight = Quantized { scheme, values, scale, zero };
    weight.validate()?;
    Ok(weight)
}

fn parse(text: &str) -> Option<Scheme> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let axis = match json.get("axis")? {
        serde_json::Value::Null => None,
        axis => Some(usize::try_from(axis.as_u64()?).ok()?),
    };
    let bits = u32::try_from(json.get("bits")?.as_u64()?).ok()?;
    Some(Scheme { bits, symmetric: json.get("symmetric")?.as_bool()?, axis })
}

impl Quantized {
    /// Whether the zero point is 0 everywhere.
    pub(super) fn is_symmetric(&self) -> bool {
        self.zero.to_f64().iter().all(|&zero| zero == 0.0)
    }

    /// Compares types, shapes and numbers with the scheme.
    fn validate(&self) -> std::result::Result<(), String> {
        let Quantized { scheme, values, scale, zero } = self;
        if !(2..=8).contains(&scheme.bits) {
            return Err(format!("expected 2 to 8 bits, not {}", scheme.bits));
        }
        if let Some(axis) = scheme.axis
            && axis >= values.shape().rank()
        {
            return Err(format!("the values are {}; there is no axis {axis}", values.ty()));
        }
        let (least, most) = scheme.limits();
        let shape = scheme.scale_shape(values.shape());
        for (part, tensor, dtype, shape) in [
            ("values", values, DType::I8, values.shape()),
            ("scale", scale, DType::F32, &shape),
            ("zero", zero, DType::F32, &shape),
        ] {
            if tensor.dtype() != dtype || tensor.shape() != shape {
                return Err(format!("`{part}` is {}; expected {}", tensor.ty(), TensorType::new(dtype, shape)));
            }
        }
        let inside = |q: f64| q.fract() == 0.0 && (least..=most).contains(&q);
        let wrong = |part: &str, numbers: &Tensor, right: &dyn Fn(f64) -> bool, expected: &str| {
            let wrong = numbers.to_f64().into_iter().find(|&x| !right(x));
            wrong.map_or(Ok(()), |x| Err(format!("`{part}` has the number {x}; expected {expected}")))
        };
        let range = format!("integers from {least} to {most}");
        wrong("values", values, &inside, &range)?;
        wrong("scale", scale, &|x| x.is_finite() && x > 0.0, "positive numbers")?;
        if scheme.symmetric { wrong("zero", zero, &|x| x == 0.0, "0") } else { wrong("zero", zero, &inside, &range) }
    }
}

impl Scheme {
    /// The shape of the scales of a tensor: `[]` or `[1, C, 1]`, where `C` is the size of the scheme's axis.
    pub(super) fn scale_shape(&self, of: &Shape) -> Shape {
        match self.axis {
            None => Shape::scalar(),
            Some(axis) => (0..of.rank()).map(|other| if other == axis { of[axis] } else { 1 }).collect(),
        }
    }
}
