//! Host tensors: the inputs and outputs of a session.

use std::borrow::Cow;
use std::fmt;

use crate::{Error, Result, Shape};

/// The element type of a graph value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float on the device, 64-bit in the reference.
    F32,
    /// 32-bit signed integer, wrapping.
    I32,
    /// 32-bit unsigned integer, wrapping.
    U32,
    /// Truth value; a u32 of 0 or 1 on the device.
    Bool,
}

impl DType {
    /// The type's name: `f32`, `i32`, `u32`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
        }
    }

    /// The WGSL type of one element in a device buffer.
    pub const fn wgsl_storage(self) -> &'static str {
        match self {
            DType::Bool => "u32",
            other => other.name(),
        }
    }

    /// Checks that a number is a value of this type. F32 accepts infinities, NaN and every number that rounds to a
    /// finite f32; integer types accept whole numbers in range; bool accepts 0 and 1.
    ///
    /// # Errors
    /// If it is not: the number, and what was expected.
    pub(crate) fn check(self, number: f64) -> std::result::Result<(), String> {
        let expected = match self {
            DType::F32 if !number.is_finite() || (number as f32).is_finite() => return Ok(()),
            DType::I32 if f64::from(number as i32) == number => return Ok(()),
            DType::U32 if f64::from(number as u32) == number => return Ok(()),
            DType::Bool if number == 0.0 || number == 1.0 => return Ok(()),
            DType::F32 => "at most 3.4e38 in magnitude, or infinity",
            DType::I32 => "a whole number from -2147483648 to 2147483647, or cast() to f32 first",
            DType::U32 => "a whole number from 0 to 4294967295, or cast() to f32 first",
            DType::Bool => "0 or 1",
        };
        Err(format!("{number} is not a valid {self}: expected {expected}"))
    }

    /// The 32-bit device representation of a number that [`DType::check`] accepts; floats are rounded once.
    pub(crate) fn word(self, number: f64) -> u32 {
        match self {
            DType::F32 => (number as f32).to_bits(),
            DType::I32 => number as i32 as u32,
            DType::U32 | DType::Bool => number as u32,
        }
    }

    /// `n` elements equal to a number that [`DType::check`] accepts, in the reference's representation.
    pub(crate) fn filled(self, number: f64, n: usize) -> Data {
        match self {
            DType::F32 => Data::F64(vec![number; n]),
            DType::I32 => Data::I32(vec![number as i32; n]),
            DType::U32 => Data::U32(vec![number as u32; n]),
            DType::Bool => Data::Bool(vec![number != 0.0; n]),
        }
    }

    /// Whether a device has to round this number.
    pub(crate) fn rounds(self, number: f64) -> bool {
        self == DType::F32 && f64::from(number as f32) != number && !number.is_nan()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type and shape of a graph value. Shown as `f32[2, 3]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The sizes of the axes.
    pub shape: Shape,
}

impl TensorType {
    /// A tensor type with this element type and shape.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        TensorType { dtype, shape: shape.into() }
    }

    /// Bytes on the device: four per element.
    pub fn bytes(&self) -> usize {
        self.shape.numel().saturating_mul(4)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The elements of a host tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Single-precision floats, as devices store them.
    F32(Vec<f32>),
    /// Double-precision floats, as the reference stores them. The dtype is still [`DType::F32`].
    F64(Vec<f64>),
    /// Signed integers.
    I32(Vec<i32>),
    /// Unsigned integers.
    U32(Vec<u32>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::U32(v) => v.len(),
            Data::Bool(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! data_from {
    ($($variant:ident($element:ty)),*) => {$(
        impl From<Vec<$element>> for Data {
            fn from(v: Vec<$element>) -> Self {
                Data::$variant(v)
            }
        }
        impl From<&[$element]> for Data {
            fn from(v: &[$element]) -> Self {
                Data::$variant(v.to_vec())
            }
        }
        impl<const N: usize> From<[$element; N]> for Data {
            fn from(v: [$element; N]) -> Self {
                Data::$variant(v.to_vec())
            }
        }
    )*};
}
data_from!(F32(f32), F64(f64), I32(i32), U32(u32), Bool(bool));

/// A tensor in host memory: a shape and its elements, row-major.
///
/// ```
/// use wgrad::Tensor;
/// let x = Tensor::new([2, 2], [1.0f32, 2.0, 3.0, 4.0])?;
/// assert_eq!(x.ty().to_string(), "f32[2, 2]");
/// assert!(Tensor::new([3], [1.0f32]).is_err());
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

impl Tensor {
    /// A tensor with this shape and these elements.
    ///
    /// # Errors
    /// If the number of elements does not match the shape.
    pub fn new(shape: impl Into<Shape>, data: impl Into<Data>) -> Result<Self> {
        let (shape, data) = (shape.into(), data.into());
        if shape.numel() != data.len() {
            return Err(Error::Input(format!(
                "a tensor of shape {shape} has {} elements, but {} were given",
                shape.numel(),
                data.len()
            )));
        }
        Ok(Tensor { shape, data })
    }

    /// A float scalar of shape `[]`, stored in double precision and rounded once on upload.
    pub fn scalar(value: f64) -> Self {
        Tensor { shape: Shape::scalar(), data: Data::F64(vec![value]) }
    }

    /// A tensor of zeros (false for bool); floats in single precision.
    pub fn zeros(ty: &TensorType) -> Self {
        let n = ty.shape.numel();
        let data = match ty.dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::U32 => Data::U32(vec![0; n]),
            DType::Bool => Data::Bool(vec![false; n]),
        };
        Tensor { shape: ty.shape.clone(), data }
    }

    /// [`Tensor::new`] without the check, for shapes and elements known to match.
    pub(crate) fn of(shape: &Shape, data: impl Into<Data>) -> Self {
        let data = data.into();
        debug_assert_eq!(shape.numel(), data.len());
        Tensor { shape: shape.clone(), data }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The element type; [`DType::F32`] for floats of either precision.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) | Data::F64(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Element type and shape together.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype(), shape: self.shape.clone() }
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.data.len()
    }

    /// The elements, row-major.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, row-major; consumes the tensor.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The elements as f64, whatever their type: integers exactly, bools as 0 and 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// The elements as f32, whatever their type: rounded once.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            _ => self.to_f64().into_iter().map(|x| x as f32).collect(),
        }
    }

    /// The only element as f64.
    ///
    /// # Errors
    /// If there is not exactly one element.
    pub fn item(&self) -> Result<f64> {
        match &self.data {
            Data::F32(v) if v.len() == 1 => Ok(f64::from(v[0])),
            Data::F64(v) if v.len() == 1 => Ok(v[0]),
            Data::I32(v) if v.len() == 1 => Ok(f64::from(v[0])),
            Data::U32(v) if v.len() == 1 => Ok(f64::from(v[0])),
            Data::Bool(v) if v.len() == 1 => Ok(f64::from(u8::from(v[0]))),
            _ => Err(Error::Input(format!("item() needs one element, but the tensor is {}", self.ty()))),
        }
    }

    /// The tensor with floats in double precision, as the reference stores them.
    pub(crate) fn to_f64_tensor(&self) -> Tensor {
        match &self.data {
            Data::F32(v) => {
                Tensor { shape: self.shape.clone(), data: v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>().into() }
            }
            _ => self.clone(),
        }
    }

    /// The 32-bit words of its device buffer: floats rounded to f32, bools as 0 and 1.
    pub(crate) fn device_words(&self) -> Cow<'_, [u32]> {
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v).into(),
            Data::F64(v) => v.iter().map(|&x| (x as f32).to_bits()).collect(),
            Data::I32(v) => bytemuck::cast_slice(v).into(),
            Data::U32(v) => v.into(),
            Data::Bool(v) => v.iter().map(|&x| u32::from(x)).collect(),
        }
    }

    /// The inverse of [`Tensor::device_words`]; `words` must have the type's number of elements.
    pub(crate) fn from_device_words(ty: &TensorType, words: &[u32]) -> Tensor {
        let data = match ty.dtype {
            DType::F32 => Data::F32(words.iter().map(|&w| f32::from_bits(w)).collect()),
            DType::I32 => Data::I32(words.iter().map(|&w| w as i32).collect()),
            DType::U32 => Data::U32(words.to_vec()),
            DType::Bool => Data::Bool(words.iter().map(|&w| w != 0).collect()),
        };
        Tensor::of(&ty.shape, data)
    }

    /// The elements as an f64 slice: only for the reference, whose floats are always `F64`.
    pub(crate) fn f64s(&self) -> &[f64] {
        match &self.data {
            Data::F64(v) => v,
            _ => &[],
        }
    }
}
