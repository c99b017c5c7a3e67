//! Host tensors: the inputs and outputs of a session.

mod arrange;
mod print;

use std::borrow::Cow;
use std::fmt;

use crate::{Error, Result, Shape};

/// The element type of a graph value.
///
/// Kernels compute in 32 bits. The narrow types (f16, bf16, i8, u8) are for storage: a kernel widens what it loads,
/// which is exact, and [`cast`](crate::Value::cast) rounds or wraps once to store. Other ops take narrow operands, too:
/// see [`Graph::apply`](crate::Graph::apply).
///
/// ```
/// use wgrad::DType;
/// assert_eq!("bf16".parse::<DType>().ok(), Some(DType::BF16));
/// assert!(DType::F16.is_float() && !DType::U8.is_float());
/// assert_eq!(DType::F16.rounded(0.1), 0.0999755859375);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float on the device, 64-bit in the reference.
    F32,
    /// IEEE 754 binary16, two to a word: 11 significant bits, at most 65504, multiples of 2^-24 below 2^-14.
    F16,
    /// The upper half of an f32, two to a word: 8 significant bits, the range of f32.
    BF16,
    /// 32-bit signed integer, wrapping.
    I32,
    /// 32-bit unsigned integer, wrapping.
    U32,
    /// 8-bit signed integer, four to a word, wrapping.
    I8,
    /// 8-bit unsigned integer, four to a word, wrapping.
    U8,
    /// Truth value; a u32 of 0 or 1 on the device.
    Bool,
}

impl DType {
    /// All types.
    pub const ALL: [DType; 8] =
        [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::I8, DType::U8, DType::Bool];

    /// The type's name: `f32`, `f16`, `bf16`, `i32`, `u32`, `i8`, `u8`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }

    /// Whether it is a float.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The type that kernels compute in: f32 for floats, i32 and u32 for integers, bool.
    pub const fn wide(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            DType::I8 => DType::I32,
            DType::U8 => DType::U32,
            wide => wide,
        }
    }

    /// Whether several elements share a 32-bit word.
    pub const fn is_narrow(self) -> bool {
        self.per_word() > 1
    }

    /// The number of elements in a 32-bit word of a device buffer.
    pub const fn per_word(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => 1,
            DType::F16 | DType::BF16 => 2,
            DType::I8 | DType::U8 => 4,
        }
    }

    /// The WGSL type of the words of a device buffer.
    pub const fn wgsl_storage(self) -> &'static str {
        match self {
            DType::F32 | DType::I32 | DType::U32 => self.name(),
            DType::F16 | DType::BF16 | DType::I8 | DType::U8 | DType::Bool => "u32",
        }
    }

    /// Checks that a number is a value of this type. Floats accept infinities, NaN and every number that rounds to a
    /// finite one; integer types accept whole numbers in range; bool accepts 0 and 1.
    ///
    /// # Errors
    /// If it is not: the number, and what was expected.
    pub(crate) fn check(self, number: f64) -> std::result::Result<(), String> {
        let fits = match self {
            DType::F32 | DType::F16 | DType::BF16 => !number.is_finite() || self.rounded(number).is_finite(),
            DType::I32 => f64::from(number as i32) == number,
            DType::U32 => f64::from(number as u32) == number,
            DType::I8 => f64::from(number as i8) == number,
            DType::U8 => f64::from(number as u8) == number,
            DType::Bool => number == 0.0 || number == 1.0,
        };
        let expected = match self {
            _ if fits => return Ok(()),
            DType::F32 | DType::BF16 => "at most 3.4e38 in magnitude, or infinity",
            DType::F16 => "at most 65504 in magnitude, or infinity",
            DType::I32 => "a whole number from -2147483648 to 2147483647, or cast() to f32 first",
            DType::U32 => "a whole number from 0 to 4294967295, or cast() to f32 first",
            DType::I8 => "a whole number from -128 to 127, or cast() to f32 first",
            DType::U8 => "a whole number from 0 to 255, or cast() to f32 first",
            DType::Bool => "0 or 1",
        };
        Err(format!("{number:?} is not a valid {self}: expected {expected}"))
    }

    /// The nearest value of a float type; of two equally near ones, the one whose last bit is 0 (IEEE 754,
    /// roundTiesToEven). Numbers beyond the range become infinite. Other types return the number.
    pub fn rounded(self, number: f64) -> f64 {
        let (digits, least, most) = match self {
            DType::F32 => return f64::from(number as f32),
            DType::F16 => (11, -14, 65504.0),
            DType::BF16 => (8, -126, f64::from(half::bf16::MAX)),
            _ => return number,
        };
        if number == 0.0 || !number.is_finite() {
            return number;
        }
        // The distance between neighbours is a power of two, so that dividing and multiplying by it is exact.
        let exponent = ((number.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
        let distance = 2f64.powi(exponent + 1 - digits);
        let rounded = (number / distance).round_ties_even() * distance;
        if rounded.abs() > most { f64::INFINITY.copysign(number) } else { rounded }
    }

    /// The 32-bit representation, in kernels, of a number that [`DType::check`] accepts; floats are rounded once.
    pub(crate) fn word(self, number: f64) -> u32 {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => (self.rounded(number) as f32).to_bits(),
            DType::I32 | DType::I8 => number as i32 as u32,
            DType::U32 | DType::U8 | DType::Bool => number as u32,
        }
    }

    /// `n` elements equal to a number that [`DType::check`] accepts, in the reference's representation.
    pub(crate) fn filled(self, number: f64, n: usize) -> Data {
        match self.wide() {
            DType::I32 => Data::I32(vec![number as i32; n]),
            DType::U32 => Data::U32(vec![number as u32; n]),
            DType::Bool => Data::Bool(vec![number != 0.0; n]),
            _ => Data::F64(vec![number; n]),
        }
    }

    /// Whether a device has to round this number.
    pub(crate) fn rounds(self, number: f64) -> bool {
        self.is_float() && self.rounded(number) != number && !number.is_nan()
    }
}

impl std::str::FromStr for DType {
    type Err = String;

    /// The type with this [name](DType::name).
    fn from_str(name: &str) -> std::result::Result<DType, String> {
        let names = || DType::ALL.map(DType::name).join(", ");
        let found = DType::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| format!("`{name}` is not an element type; expected one of {}", names()))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type and shape of a graph value. Shown as `f32[2, 3]`.
///
/// ```
/// use wgrad::{DType, TensorType};
/// let ty = TensorType::new(DType::F16, [2, 3]);
/// assert_eq!((ty.to_string(), ty.bytes()), ("f16[2, 3]".to_owned(), 12));
/// ```
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

    /// Bytes on the device: whole 32-bit words.
    pub fn bytes(&self) -> usize {
        self.words().saturating_mul(4)
    }

    /// 32-bit words on the device. If several elements share a word, the rest of the last one is undefined.
    pub fn words(&self) -> usize {
        self.shape.numel().div_ceil(self.dtype.per_word())
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
///
/// ```
/// use wgrad::{Data, Tensor};
/// let x = Tensor::new([2], vec![1.5f32, -2.0])?;
/// assert!(matches!(x.data(), Data::F32(numbers) if numbers[..] == [1.5, -2.0]));
/// assert_eq!(x.to_f64(), [1.5, -2.0]); // of any type
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Data {
    /// Single-precision floats, as devices store them.
    F32(Vec<f32>),
    /// Double-precision floats, as the reference stores them. The dtype is still [`DType::F32`].
    F64(Vec<f64>),
    /// Half-precision floats.
    F16(Vec<half::f16>),
    /// Floats of 8 significant bits.
    BF16(Vec<half::bf16>),
    /// Signed integers.
    I32(Vec<i32>),
    /// Unsigned integers.
    U32(Vec<u32>),
    /// Signed integers of 8 bits.
    I8(Vec<i8>),
    /// Unsigned integers of 8 bits.
    U8(Vec<u8>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// Evaluates an expression for the vector of whichever variant it is.
macro_rules! for_each_type {
    ($data:expr, $v:ident => $result:expr) => {
        match $data {
            Data::F32($v) => $result,
            Data::F64($v) => $result,
            Data::F16($v) => $result,
            Data::BF16($v) => $result,
            Data::I32($v) => $result,
            Data::U32($v) => $result,
            Data::I8($v) => $result,
            Data::U8($v) => $result,
            Data::Bool($v) => $result,
        }
    };
}

/// Evaluates an expression for the vector of whichever variant it is, to elements of the same type.
macro_rules! map_data {
    ($data:expr, $v:ident => $result:expr) => {
        match $data {
            $crate::Data::F32($v) => $crate::Data::F32($result),
            $crate::Data::F64($v) => $crate::Data::F64($result),
            $crate::Data::F16($v) => $crate::Data::F16($result),
            $crate::Data::BF16($v) => $crate::Data::BF16($result),
            $crate::Data::I32($v) => $crate::Data::I32($result),
            $crate::Data::U32($v) => $crate::Data::U32($result),
            $crate::Data::I8($v) => $crate::Data::I8($result),
            $crate::Data::U8($v) => $crate::Data::U8($result),
            $crate::Data::Bool($v) => $crate::Data::Bool($result),
        }
    };
}
pub(crate) use map_data;

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        for_each_type!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An element as f64, exactly.
trait ToF64: Copy {
    fn to_f64(self) -> f64;
}

macro_rules! elements {
    ($($ty:ty: $x:ident => $result:expr),*) => {$(
        impl ToF64 for $ty {
            fn to_f64(self) -> f64 {
                let $x = self;
                $result
            }
        }
    )*};
}
elements!(
    f32: x => f64::from(x), f64: x => x, half::f16: x => f64::from(x), half::bf16: x => f64::from(x),
    i32: x => f64::from(x), u32: x => f64::from(x), i8: x => f64::from(x), u8: x => f64::from(x),
    bool: x => f64::from(u8::from(x))
);

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
data_from!(F32(f32), F64(f64), F16(half::f16), BF16(half::bf16), I32(i32), U32(u32), I8(i8), U8(u8), Bool(bool));

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
        Tensor::from_device_words(ty, &vec![0; ty.words()])
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
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
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
        for_each_type!(&self.data, v => v.iter().map(|&x| x.to_f64()).collect())
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
        match (&self.data, self.numel()) {
            (data, 1) => Ok(for_each_type!(data, v => v[0].to_f64())),
            _ => Err(Error::Input(format!("item() needs one element, but the tensor is {}", self.ty()))),
        }
    }

    /// The tensor with elements of another type, converted as [`Value::cast`](crate::Value::cast) does: floats are
    /// rounded to the nearest value, integers truncated and clamped or wrapped. [`Data::F64`] remains for f32.
    ///
    /// ```
    /// use wgrad::{DType, Tensor};
    /// let x = Tensor::new([3], [1.0f32, 0.1, 70000.0])?.cast(DType::F16);
    /// assert_eq!(x.ty().to_string(), "f16[3]");
    /// assert_eq!(x.to_f64(), [1.0, 0.0999755859375, f64::INFINITY]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[must_use]
    pub fn cast(&self, to: DType) -> Tensor {
        // Rust's `as` truncates floats towards zero, saturates, and converts NaN to 0. It keeps the lower bits of
        // integers.
        macro_rules! integers {
            ($ty:ty) => {
                match self.dtype().is_float() {
                    true => self.to_f64().into_iter().map(|x| x as $ty).collect::<Vec<_>>().into(),
                    false => self.to_f64().into_iter().map(|x| x as i64 as $ty).collect::<Vec<_>>().into(),
                }
            };
        }
        let data: Data = match (&self.data, to) {
            (Data::F64(_), DType::F32) => self.data.clone(),
            (_, DType::F32) => self.to_f32().into(),
            (_, DType::F16) => self.rounded(to).map(half::f16::from_f64).collect::<Vec<_>>().into(),
            (_, DType::BF16) => self.rounded(to).map(half::bf16::from_f64).collect::<Vec<_>>().into(),
            (_, DType::I32) => integers!(i32),
            (_, DType::U32) => integers!(u32),
            (_, DType::I8) => integers!(i8),
            (_, DType::U8) => integers!(u8),
            (_, DType::Bool) => self.to_f64().into_iter().map(|x| x != 0.0).collect::<Vec<_>>().into(),
        };
        Tensor { shape: self.shape.clone(), data }
    }

    /// The numbers in a narrow float type; integers by way of f32.
    fn rounded(&self, to: DType) -> impl Iterator<Item = f64> {
        let float = self.dtype().is_float();
        self.to_f64().into_iter().map(move |x| to.rounded(if float { x } else { f64::from(x as f32) }))
    }

    /// The tensor as the reference stores it: floats in double precision, integers in 32 bits.
    pub(crate) fn to_reference(&self) -> Tensor {
        match &self.data {
            Data::F32(_) | Data::F16(_) | Data::BF16(_) => Tensor::of(&self.shape, self.to_f64()),
            Data::I8(_) | Data::U8(_) => self.cast(self.dtype().wide()),
            Data::F64(_) | Data::I32(_) | Data::U32(_) | Data::Bool(_) => self.clone(),
        }
    }

    /// The inverse of [`Tensor::to_reference`] for a type whose values the elements are. Keeps [`Data::F64`] for f32.
    pub(crate) fn stored_as(self, dtype: DType) -> Tensor {
        if dtype.is_narrow() { self.cast(dtype) } else { self }
    }

    /// The 32-bit words of its device buffer: floats rounded to f32, bools as 0 and 1. Narrow elements fill a word from
    /// its lowest bits; the rest of the last word is 0.
    pub(crate) fn device_words(&self) -> Cow<'_, [u32]> {
        fn packed<T: Copy>(v: &[T], bits: usize, from: impl Fn(T) -> u32) -> Vec<u32> {
            let word = |elements: &[T]| elements.iter().rev().fold(0, |word, &x| word << bits | from(x));
            v.chunks(32 / bits).map(word).collect()
        }
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v).into(),
            Data::F64(v) => v.iter().map(|&x| (x as f32).to_bits()).collect(),
            Data::F16(v) => packed(v, 16, |x| x.to_bits().into()).into(),
            Data::BF16(v) => packed(v, 16, |x| x.to_bits().into()).into(),
            Data::I32(v) => bytemuck::cast_slice(v).into(),
            Data::U32(v) => v.into(),
            Data::I8(v) => packed(v, 8, |x| (x as u8).into()).into(),
            Data::U8(v) => packed(v, 8, u32::from).into(),
            Data::Bool(v) => v.iter().map(|&x| u32::from(x)).collect(),
        }
    }

    /// The inverse of [`Tensor::device_words`]; `words` must be as many as the type has.
    pub(crate) fn from_device_words(ty: &TensorType, words: &[u32]) -> Tensor {
        fn unpacked<T>(words: &[u32], n: usize, bits: usize, to: impl Fn(u32) -> T) -> Vec<T> {
            let per_word = 32 / bits;
            (0..n).map(|i| to(words[i / per_word] >> (bits * (i % per_word)))).collect()
        }
        let n = ty.shape.numel();
        let data = match ty.dtype {
            DType::F32 => Data::F32(words.iter().map(|&w| f32::from_bits(w)).collect()),
            DType::F16 => Data::F16(unpacked(words, n, 16, |w| half::f16::from_bits(w as u16))),
            DType::BF16 => Data::BF16(unpacked(words, n, 16, |w| half::bf16::from_bits(w as u16))),
            DType::I32 => Data::I32(words.iter().map(|&w| w as i32).collect()),
            DType::U32 => Data::U32(words.to_vec()),
            DType::I8 => Data::I8(unpacked(words, n, 8, |w| w as i8)),
            DType::U8 => Data::U8(unpacked(words, n, 8, |w| w as u8)),
            DType::Bool => Data::Bool(words.iter().map(|&w| w != 0).collect()),
        };
        Tensor::of(&ty.shape, data)
    }

    /// Replaces an element: only for the reference, whose floats are always `F64`.
    pub(crate) fn replace(&mut self, at: usize, value: f64) {
        if let Data::F64(v) = &mut self.data {
            v[at] = value;
        }
    }

    /// The elements as an f64 slice: only for the reference, whose floats are always `F64`.
    pub(crate) fn f64s(&self) -> &[f64] {
        match &self.data {
            Data::F64(v) => v,
            _ => &[],
        }
    }
}
