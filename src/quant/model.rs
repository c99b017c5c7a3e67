//! A model's quantised weights as a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::activations::single;
use super::{ActivationRange, Granularity, Quantized, Scheme};
use crate::io::safetensors;
use crate::ops::quantized_matmul::BLOCK;
use crate::{DType, Error, Result, Shape, Tensor, TensorType};

/// The weights of a model, some of them quantised, and the fixed ranges of its activations, by name.
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
    /// The ranges of activations.
    pub activations: BTreeMap<String, ActivationRange>,
    /// All other weights, such as biases.
    pub others: BTreeMap<String, Tensor>,
}

/// Metadata of a quantised weight: this, followed by its name.
const KEY: &str = "quantization.";

/// Metadata of an activation.
const ACTIVATION: &str = "quantized_activation.";

impl QuantizedModel {
    /// Writes a safetensors file, atomically. A quantised weight becomes the tensors `NAME.values` (i8; u32 of blocks),
    /// `NAME.scale` (f32; f16) and, unless no number is shifted, `NAME.zero` (f32; u8). These are the variables of
    /// [`Quantized::declare`], so that [`Session::load_weights`](crate::Session::load_weights) reads the file, too. The
    /// metadata `quantization.NAME` is the scheme: `{"axis":0,"bits":4,"symmetric":true}`, with `null` for one scale;
    /// of blocks, `{"bits":4,"block":32,"shape":[64,800],"symmetric":true}` with the shape of the weight.
    ///
    /// The range of an activation becomes the variables of [`ActivationRange::declare`], `NAME.scale` and, unless it is
    /// 0, `NAME.zero` (f32 `[]`), with the metadata `quantized_activation.NAME`: `{"bits":8,"symmetric":false}`.
    ///
    /// # Errors
    /// [`Error::Io`] from the system; [`Error::File`] if two tensors have the same name, or values, scale and zero
    /// point of a weight or an activation do not match its scheme.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut tensors = self.others.clone();
        let mut metadata = BTreeMap::new();
        let mut insert = |name: String, tensor: Tensor| match tensors.insert(name.clone(), tensor) {
            Some(_) => Err(Error::file(path, format!("two tensors have the name `{name}`"))),
            None => Ok(()),
        };
        for (name, range) in &self.activations {
            range.validate().map_err(|why| Error::file(path, format!("activation `{name}`: {why}")))?;
            insert(format!("{name}.scale"), single(range.scale))?;
            if range.zero != 0.0 {
                insert(format!("{name}.zero"), single(range.zero))?;
            }
            let scheme = json!({ "bits": range.scheme.bits, "symmetric": range.scheme.symmetric });
            metadata.insert(format!("{ACTIVATION}{name}"), scheme.to_string());
        }
        for (name, quantized) in &self.quantized {
            quantized.validate().map_err(|why| Error::file(path, format!("weight `{name}`: {why}")))?;
            let zero = (!quantized.is_symmetric()).then_some(("zero", &quantized.zero));
            for (part, tensor) in [("values", &quantized.values), ("scale", &quantized.scale)].into_iter().chain(zero) {
                insert(format!("{name}.{part}"), tensor.clone())?;
            }
            let Scheme { bits, symmetric, granularity } = quantized.scheme;
            let mut scheme = json!({ "bits": bits, "symmetric": symmetric });
            match granularity {
                Granularity::Tensor => scheme["axis"] = json!(null),
                Granularity::Channel(axis) => scheme["axis"] = json!(axis),
                Granularity::Block => {
                    scheme["block"] = json!(BLOCK);
                    scheme["shape"] = json!(quantized.shape.to_vec());
                }
            }
            metadata.insert(format!("{KEY}{name}"), scheme.to_string());
        }
        safetensors::save(path, &tensors, &metadata)
    }

    /// Reads a file of [`QuantizedModel::save`]. Without such metadata, all its tensors are [`QuantizedModel::others`].
    ///
    /// # Errors
    /// As [`safetensors::load`]; [`Error::File`] if a tensor of a quantised weight or activation is missing, or does
    /// not match its scheme.
    pub fn load(path: impl AsRef<Path>) -> Result<QuantizedModel> {
        let path = path.as_ref();
        let safetensors::Contents { mut tensors, metadata } = safetensors::read(path)?;
        let (mut quantized, mut activations) = (BTreeMap::new(), BTreeMap::new());
        for (key, scheme) in metadata {
            if let Some(name) = key.strip_prefix(ACTIVATION) {
                let range = read_range(name, &scheme, &mut tensors)
                    .map_err(|why| Error::file(path, format!("quantised activation `{name}`: {why}")))?;
                activations.insert(name.to_owned(), range);
                continue;
            }
            let Some(name) = key.strip_prefix(KEY) else { continue };
            let weight = read(name, &scheme, &mut tensors)
                .map_err(|why| Error::file(path, format!("quantised weight `{name}`: {why}")))?;
            quantized.insert(name.to_owned(), weight);
        }
        Ok(QuantizedModel { quantized, activations, others: tensors })
    }
}

/// Takes the tensors of a quantised weight out of those of a file.
fn read(name: &str, scheme: &str, tensors: &mut BTreeMap<String, Tensor>) -> std::result::Result<Quantized, String> {
    let (scheme, shape) = parse(scheme).ok_or_else(|| {
        format!(
            "the scheme is `{scheme}`; expected one such as {{\"axis\":null,\"bits\":8,\"symmetric\":true}} or \
             {{\"bits\":4,\"block\":{BLOCK},\"shape\":[64,800],\"symmetric\":true}}"
        )
    })?;
    let mut take = |part: &str| tensors.remove(&format!("{name}.{part}"));
    let needed = |part: &str, tensor: Option<Tensor>| tensor.ok_or_else(|| format!("`{name}.{part}` is missing"));
    let values = needed("values", take("values"))?;
    let scale = needed("scale", take("scale"))?;
    let shape = shape.unwrap_or_else(|| values.shape().clone());
    scheme.fits(&shape)?;
    let zero = match take("zero") {
        Some(zero) => zero,
        None => {
            let offset = Tensor::new(scale.shape(), vec![scheme.offset() as f32; scale.numel()]);
            offset.map_err(|error| error.to_string())?.cast(scheme.dtypes()[2])
        }
    };
    let weight = Quantized { scheme, shape, values, scale, zero };
    weight.validate()?;
    Ok(weight)
}

/// Takes the tensors of an activation's range out of those of a file.
fn read_range(
    name: &str,
    scheme: &str,
    tensors: &mut BTreeMap<String, Tensor>,
) -> std::result::Result<ActivationRange, String> {
    let wrong = || format!("the scheme is `{scheme}`; expected one such as {{\"bits\":8,\"symmetric\":false}}");
    let json: serde_json::Value = serde_json::from_str(scheme).map_err(|_| wrong())?;
    let (bits, symmetric) = bits_and_symmetry(&json).ok_or_else(wrong)?;
    let mut take = |part: &str| match tensors.remove(&format!("{name}.{part}")) {
        Some(tensor) if tensor.dtype() != DType::F32 || tensor.shape().rank() != 0 => {
            Err(format!("`{name}.{part}` is {}; expected f32[]", tensor.ty()))
        }
        tensor => Ok(tensor.map(|tensor| tensor.to_f32()[0])),
    };
    let scale = take("scale")?.ok_or_else(|| format!("`{name}.scale` is missing"))?;
    let zero = take("zero")?.unwrap_or(0.0);
    let range = ActivationRange { scheme: Scheme { bits, symmetric, granularity: Granularity::Tensor }, scale, zero };
    range.validate()?;
    Ok(range)
}

fn bits_and_symmetry(json: &serde_json::Value) -> Option<(u32, bool)> {
    Some((u32::try_from(json.get("bits")?.as_u64()?).ok()?, json.get("symmetric")?.as_bool()?))
}

/// The scheme, and the shape of a tensor in blocks.
fn parse(text: &str) -> Option<(Scheme, Option<Shape>)> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let size = |size: &serde_json::Value| usize::try_from(size.as_u64()?).ok();
    let (granularity, shape) = match (json.get("block"), json.get("axis")) {
        (Some(block), None) if size(block) == Some(BLOCK) => {
            let shape: Option<Shape> = json.get("shape")?.as_array()?.iter().map(size).collect();
            (Granularity::Block, Some(shape?))
        }
        (None, Some(serde_json::Value::Null)) => (Granularity::Tensor, None),
        (None, Some(axis)) => (Granularity::Channel(size(axis)?), None),
        _ => return None,
    };
    let (bits, symmetric) = bits_and_symmetry(&json)?;
    Some((Scheme { bits, symmetric, granularity }, shape))
}

impl Quantized {
    /// Whether the zero point stands for 0 everywhere.
    pub(super) fn is_symmetric(&self) -> bool {
        self.zero.to_f64().iter().all(|&zero| zero == self.scheme.offset())
    }

    /// Compares types and shapes with the scheme.
    pub(super) fn validate_shapes(&self) -> std::result::Result<(), String> {
        let Quantized { scheme, shape, values, scale, zero } = self;
        scheme.fits(shape)?;
        // Tensors are smaller than this, so that sizes do not overflow.
        if shape.iter().try_fold(1u32, |n, &size| n.checked_mul(u32::try_from(size).ok()?)).is_none() {
            return Err(format!("{shape} has too many elements"));
        }
        let parts = scheme.scale_shape(shape);
        let stored = match scheme.granularity {
            Granularity::Block => [parts[0], parts[1] * scheme.bits as usize].into(),
            _ => shape.clone(),
        };
        let tensors = [("values", values, &stored), ("scale", scale, &parts), ("zero", zero, &parts)];
        for ((part, tensor, shape), dtype) in tensors.into_iter().zip(scheme.dtypes()) {
            if tensor.dtype() != dtype || tensor.shape() != shape {
                return Err(format!("`{part}` is {}; expected {}", tensor.ty(), TensorType::new(dtype, shape)));
            }
        }
        Ok(())
    }

    /// Compares types, shapes and numbers with the scheme.
    fn validate(&self) -> std::result::Result<(), String> {
        self.validate_shapes()?;
        let (least, most) = self.scheme.limits();
        let inside = |q: f64| q.fract() == 0.0 && (least..=most).contains(&q);
        let wrong = |part: &str, numbers: Vec<f64>, right: &dyn Fn(f64) -> bool, expected: &str| {
            let wrong = numbers.into_iter().find(|&x| !right(x));
            wrong.map_or(Ok(()), |x| Err(format!("`{part}` has the number {x}; expected {expected}")))
        };
        let range = format!("integers from {least} to {most}");
        wrong("values", self.integers(), &inside, &range)?;
        wrong("scale", self.scale.to_f64(), &|x| x.is_finite() && x > 0.0, "positive numbers")?;
        let zero: Vec<f64> = self.zero.to_f64().into_iter().map(|zero| zero - self.scheme.offset()).collect();
        if self.scheme.symmetric {
            wrong("zero", zero, &|x| x == 0.0, "0")
        } else {
            wrong("zero", zero, &inside, &range)
        }
    }
}

impl Scheme {
    /// The types of integers, scales and zero points.
    fn dtypes(&self) -> [DType; 3] {
        match self.granularity {
            Granularity::Block => [DType::U32, DType::F16, DType::U8],
            _ => [DType::I8, DType::F32, DType::F32],
        }
    }
}
