//! Element types of ONNX, and tensors whose values are known when a model is imported.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};
use wgrad::{DType, Data, Error, Shape, Tensor};

use crate::proto::TensorProto;
use crate::small_float;

/// An element type of ONNX that wgrad can represent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum ElemType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    I2,
    U2,
    I4,
    U4,
    F8E4M3,
    F8E4M3Z,
    F8E5M2,
    F8E5M2Z,
    F8E8M0,
    F4E2M1,
    Bool,
}

use ElemType::{
    BF16, Bool, F4E2M1, F8E4M3, F8E4M3Z, F8E5M2, F8E5M2Z, F8E8M0, F16, F32, F64, I2, I4, I8, I16, I32, I64, U2, U4, U8,
    U16, U32, U64,
};

impl ElemType {
    /// All types, with their numbers in `TensorProto.DataType` and their names in ONNX.
    pub(crate) const ALL: [(ElemType, i32, &'static str); 23] = [
        (F32, 1, "float"),
        (U8, 2, "uint8"),
        (I8, 3, "int8"),
        (U16, 4, "uint16"),
        (I16, 5, "int16"),
        (I32, 6, "int32"),
        (I64, 7, "int64"),
        (Bool, 9, "bool"),
        (F16, 10, "float16"),
        (F64, 11, "double"),
        (U32, 12, "uint32"),
        (U64, 13, "uint64"),
        (BF16, 16, "bfloat16"),
        (F8E4M3, 17, "float8e4m3fn"),
        (F8E4M3Z, 18, "float8e4m3fnuz"),
        (F8E5M2, 19, "float8e5m2"),
        (F8E5M2Z, 20, "float8e5m2fnuz"),
        (U4, 21, "uint4"),
        (I4, 22, "int4"),
        (F4E2M1, 23, "float4e2m1"),
        (F8E8M0, 24, "float8e8m0"),
        (U2, 25, "uint2"),
        (I2, 26, "int2"),
    ];

    /// The type with a number of `TensorProto.DataType`.
    pub(crate) fn of(number: i64) -> Result<ElemType, String> {
        if let Some(known) = ElemType::ALL.iter().find(|known| i64::from(known.1) == number) {
            return Ok(known.0);
        }
        let name = match number {
            8 => "string",
            14 => "complex64",
            15 => "complex128",
            _ => return Err(format!("element type {number} is unknown")),
        };
        Err(format!("element type {name} is not supported"))
    }

    /// Its number in `TensorProto.DataType`.
    pub(crate) fn number(self) -> i32 {
        ElemType::ALL.iter().find(|known| known.0 == self).map_or(0, |known| known.1)
    }

    /// Whether it is a float type.
    pub fn is_float(self) -> bool {
        matches!(self, F32 | F64 | F16 | BF16) || self.is_small_float()
    }

    /// Whether it is a float type of 8 or 4 bits, of which devices have the values as f32.
    pub fn is_small_float(self) -> bool {
        matches!(self, F8E4M3 | F8E4M3Z | F8E5M2 | F8E5M2Z | F8E8M0 | F4E2M1)
    }

    /// Whether it is an integer type; bool is not.
    pub fn is_int(self) -> bool {
        !self.is_float() && self != Bool
    }

    /// The type of wgrad that stores it: 64 bits become 32, 16-bit integers become 32 bits, smaller ones 8 bits.
    pub fn dtype(self) -> DType {
        match self {
            F32 | F64 | F8E4M3 | F8E4M3Z | F8E5M2 | F8E5M2Z | F8E8M0 | F4E2M1 => DType::F32,
            F16 => DType::F16,
            BF16 => DType::BF16,
            I8 | I4 | I2 => DType::I8,
            U8 | U4 | U2 => DType::U8,
            I16 | I32 | I64 => DType::I32,
            U16 | U32 | U64 => DType::U32,
            Bool => DType::Bool,
        }
    }

    /// The bits that an element has in a file.
    pub fn bits(self) -> usize {
        match self {
            I2 | U2 => 2,
            I4 | U4 | F4E2M1 => 4,
            I8 | U8 | Bool | F8E4M3 | F8E4M3Z | F8E5M2 | F8E5M2Z | F8E8M0 => 8,
            F16 | BF16 | I16 | U16 => 16,
            F32 | I32 | U32 => 32,
            F64 | I64 | U64 => 64,
        }
    }

    /// The smallest and largest value of an integer type; those of u64 as i64.
    pub(crate) fn range(self) -> (i64, i64) {
        match self {
            I2 => (-2, 1),
            U2 => (0, 3),
            I4 => (-8, 7),
            U4 => (0, 15),
            I8 => (i8::MIN.into(), i8::MAX.into()),
            U8 => (0, u8::MAX.into()),
            I16 => (i16::MIN.into(), i16::MAX.into()),
            U16 => (0, u16::MAX.into()),
            I32 => (i32::MIN.into(), i32::MAX.into()),
            U32 => (0, u32::MAX.into()),
            U64 => (0, i64::MAX),
            Bool => (0, 1),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// An integer reduced to the type's bits, as arithmetic overflows.
    pub(crate) fn wrapped(self, x: i64) -> i64 {
        match self {
            I2 | I4 => (x << (64 - self.bits())) >> (64 - self.bits()),
            U2 | U4 => x & ((1 << self.bits()) - 1),
            I8 => (x as i8).into(),
            U8 => (x as u8).into(),
            I16 => (x as i16).into(),
            U16 => (x as u16).into(),
            I32 => (x as i32).into(),
            U32 => (x as u32).into(),
            Bool => (x != 0).into(),
            _ => x,
        }
    }
}

impl fmt::Display for ElemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ElemType::ALL.iter().find(|known| known.0 == *self).map_or("", |known| known.2))
    }
}

/// A tensor of an ONNX type.
#[derive(Clone, Debug)]
pub struct Constant {
    pub(crate) ty: ElemType,
    pub(crate) shape: Vec<usize>,
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    /// Of the types that wgrad has; doubles as [`Data::F64`].
    Tensor(Arc<Tensor>),
    /// Integers of 16 and 64 bits; those of u64 as i64.
    Ints(Arc<Vec<i64>>),
}

impl Constant {
    /// A tensor of integers or truth values.
    ///
    /// ```
    /// use wgrad_onnx::{Constant, ElemType};
    /// let sizes = Constant::from_ints(ElemType::I64, vec![3], vec![1, 48, 192])?;
    /// assert_eq!((sizes.shape(), sizes.to_ints()), (&[3][..], Some(vec![1, 48, 192])));
    /// assert!(Constant::from_ints(ElemType::U8, vec![1], vec![256]).is_err());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the number of elements does not fit the shape, the type is one of floats, or it cannot hold a value.
    pub fn from_ints(ty: ElemType, shape: Vec<usize>, values: Vec<i64>) -> wgrad::Result<Constant> {
        fits(ty, &shape, values.len(), !ty.is_float())?;
        let (low, high) = ty.range();
        if let Some(wrong) = values.iter().find(|&&value| value < low || value > high) {
            return Err(Error::Input(format!("{wrong} does not fit {ty}, which holds {low} to {high}")));
        }
        Ok(Constant::ints(ty, shape, values))
    }

    /// A tensor of floats, rounded to the type.
    ///
    /// # Errors
    /// If the number of elements does not fit the shape, or the type is not one of floats.
    pub fn from_floats(ty: ElemType, shape: Vec<usize>, values: Vec<f64>) -> wgrad::Result<Constant> {
        fits(ty, &shape, values.len(), ty.is_float())?;
        Ok(Constant::floats(ty, shape, values))
    }

    /// Integers or truth values of any type, as many as the shape has.
    pub(crate) fn ints(ty: ElemType, shape: Vec<usize>, values: Vec<i64>) -> Constant {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let store = match ty {
            I16 | I64 | U16 | U64 => Store::Ints(Arc::new(values)),
            _ => {
                let data: Data = match ty {
                    I8 | I4 | I2 => Data::I8(values.iter().map(|&x| x as i8).collect()),
                    U8 | U4 | U2 => Data::U8(values.iter().map(|&x| x as u8).collect()),
                    I32 => Data::I32(values.iter().map(|&x| x as i32).collect()),
                    U32 => Data::U32(values.iter().map(|&x| x as u32).collect()),
                    Bool => Data::Bool(values.iter().map(|&x| x != 0).collect()),
                    _ => return Constant::floats(ty, shape, values.iter().map(|&x| x as f64).collect()),
                };
                Store::Tensor(Arc::new(Tensor::new(&shape[..], data).expect("as many elements")))
            }
        };
        Constant { ty, shape, store }
    }

    /// Floats, rounded to the type, as many as the shape has.
    pub(crate) fn floats(ty: ElemType, shape: Vec<usize>, values: Vec<f64>) -> Constant {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let data: Data = match ty {
            F16 => Data::F16(values.iter().map(|&x| f16::from_f64(x)).collect()),
            BF16 => Data::BF16(values.iter().map(|&x| bf16::from_f64(x)).collect()),
            F64 => Data::F64(values),
            F32 => Data::F32(values.iter().map(|&x| x as f32).collect()),
            _ if ty.is_small_float() => {
                Data::F32(values.iter().map(|&x| small_float::rounded(ty, x, false) as f32).collect())
            }
            _ => return Constant::ints(ty, shape, values.iter().map(|&x| x as i64).collect()),
        };
        let tensor = Tensor::new(&shape[..], data).expect("as many elements");
        Constant { ty, shape, store: Store::Tensor(Arc::new(tensor)) }
    }

    /// A tensor that a device computed, as a tensor of an ONNX type with the same elements.
    pub fn of_tensor(ty: ElemType, tensor: Tensor) -> Constant {
        let shape = tensor.shape().to_vec();
        match ty {
            _ if ty.is_float() => Constant::floats(ty, shape, tensor.to_f64()),
            _ => Constant::ints(ty, shape, tensor.to_f64().into_iter().map(|x| x as i64).collect()),
        }
    }

    /// The element type.
    pub fn elem_type(&self) -> ElemType {
        self.ty
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements as i64; `None` for floats.
    pub fn to_ints(&self) -> Option<Vec<i64>> {
        match &self.store {
            Store::Ints(values) => Some(values.to_vec()),
            Store::Tensor(_) if self.ty.is_float() => None,
            Store::Tensor(tensor) => Some(tensor.to_f64().into_iter().map(|x| x as i64).collect()),
        }
    }

    /// The elements as f64; large integers are rounded.
    pub fn to_floats(&self) -> Vec<f64> {
        match &self.store {
            Store::Ints(values) => {
                values.iter().map(|&x| if self.ty == U64 { x as u64 as f64 } else { x as f64 }).collect()
            }
            Store::Tensor(tensor) => tensor.to_f64(),
        }
    }

    /// As a tensor of [`ElemType::dtype`].
    ///
    /// # Errors
    /// If an integer needs more than 32 bits.
    pub fn to_tensor(&self) -> Result<Arc<Tensor>, String> {
        let values = match &self.store {
            Store::Tensor(tensor) => return Ok(tensor.clone()),
            Store::Ints(values) => values,
        };
        let wide = |x: i64| {
            let of = if self.ty == U64 { (x as u64).to_string() } else { x.to_string() };
            format!("the {} {of} needs more than the 32 bits that integers have on a device", self.ty)
        };
        let shape = Shape::from(&self.shape[..]);
        let data: Data = if self.ty.dtype() == DType::U32 {
            let narrow = |&x: &i64| u32::try_from(x).map_err(|_| wide(x));
            Data::U32(values.iter().map(narrow).collect::<Result<_, _>>()?)
        } else {
            let narrow = |&x: &i64| i32::try_from(x).map_err(|_| wide(x));
            Data::I32(values.iter().map(narrow).collect::<Result<_, _>>()?)
        };
        Ok(Arc::new(Tensor::new(shape, data).expect("as many elements")))
    }

    /// The same elements with another shape of the same size.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Constant {
        let store = match &self.store {
            Store::Ints(values) => Store::Ints(values.clone()),
            Store::Tensor(tensor) => Store::Tensor(Arc::new(tensor.reshape(&shape[..]).expect("as many elements"))),
        };
        Constant { ty: self.ty, shape, store }
    }

    /// The same bits as another type of the same size.
    pub(crate) fn bit_cast(&self, to: ElemType) -> Result<Constant, String> {
        if self.ty.is_small_float() || to.is_small_float() {
            return Err(format!("of {} and {to}, devices have no bits", self.ty));
        }
        if self.ty.bits() < 8 {
            return Ok(Constant::ints(
                to,
                self.shape.clone(),
                self.to_ints().unwrap_or_default().iter().map(|&x| to.wrapped(x)).collect(),
            ));
        }
        let bytes: Vec<u8> = match (&self.store, self.to_ints()) {
            (_, Some(ints)) => ints.iter().flat_map(|x| x.to_le_bytes()[..self.ty.bits() / 8].to_vec()).collect(),
            (Store::Tensor(tensor), None) => match tensor.data() {
                Data::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Data::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Data::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Data::BF16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
                _ => return Err(format!("internal: {} has no bits", self.ty)),
            },
            (Store::Ints(_), None) => return Err(format!("internal: {} has no bits", self.ty)),
        };
        from_bytes(to, &self.shape, self.numel(), &bytes)
    }

    /// Reads a message; `external` reads the bytes of data in another file.
    pub(crate) fn read(
        proto: &TensorProto,
        external: impl FnOnce(&TensorProto) -> Result<Vec<u8>, String>,
    ) -> Result<Constant, String> {
        let ty = ElemType::of(proto.data_type.unwrap_or(0).into())?;
        let size = |&n: &i64| usize::try_from(n).map_err(|_| format!("the size {n} of an axis is negative"));
        let shape = proto.dims.iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let count = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).ok_or("its shape is too large")?;
        let outside;
        let raw: Option<&[u8]> = if proto.data_location == Some(1) {
            outside = external(proto)?;
            Some(&outside)
        } else {
            proto.raw_data.as_deref()
        };
        // Protocol buffers leave out empty data.
        let found = match raw {
            Some(bytes) => from_bytes(ty, &shape, count, bytes)?,
            None => {
                let ints: Vec<i64> = match ty {
                    I64 => proto.int64_data.clone(),
                    U64 | U32 => proto.uint64_data.iter().map(|&x| x as i64).collect(),
                    _ => proto.int32_data.iter().map(|&x| x.into()).collect(),
                };
                match ty {
                    F32 => Constant::checked(&shape, proto.float_data.len()).map(|()| {
                        Constant::floats(ty, shape.clone(), proto.float_data.iter().map(|&x| x.into()).collect())
                    })?,
                    F64 => Constant::checked(&shape, proto.double_data.len())
                        .map(|()| Constant::floats(ty, shape.clone(), proto.double_data.clone()))?,
                    F16 | BF16 => {
                        Constant::checked(&shape, ints.len())?;
                        let bytes: Vec<u8> = ints.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect();
                        from_bytes(ty, &shape, count, &bytes)?
                    }
                    // Codes, of small types several to an entry.
                    _ if ty.bits() < 8 || ty.is_small_float() => {
                        let bytes: Vec<u8> = ints.iter().map(|&x| x as u8).collect();
                        from_bytes(ty, &shape, count, &bytes)?
                    }
                    _ => {
                        Constant::checked(&shape, ints.len())?;
                        Constant::ints(ty, shape.clone(), ints)
                    }
                }
            }
        };
        Ok(found)
    }

    fn checked(shape: &[usize], found: usize) -> Result<(), String> {
        let expected: usize = shape.iter().product();
        match expected == found {
            true => Ok(()),
            false => Err(format!("it has {found} elements, but its shape {} needs {expected}", Shape::from(shape))),
        }
    }
}

/// Checks the elements that a user gives.
fn fits(ty: ElemType, shape: &[usize], count: usize, is_right_kind: bool) -> wgrad::Result<()> {
    let shape = Shape::from(shape);
    if !is_right_kind {
        let other = if ty.is_float() { "from_floats" } else { "from_ints" };
        return Err(Error::Input(format!("elements of {ty} are made by Constant::{other}")));
    }
    match shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) == Some(count) {
        true => Ok(()),
        false => Err(Error::Input(format!("{count} elements do not fill the shape {shape}"))),
    }
}

/// Elements in little-endian order.
fn from_bytes(ty: ElemType, shape: &[usize], count: usize, bytes: &[u8]) -> Result<Constant, String> {
    if ty.bits() < 8 || ty.is_small_float() {
        let (bits, each) = (ty.bits(), 8 / ty.bits());
        if bytes.len() != count.div_ceil(each) {
            return Err(format!(
                "it has {} bytes, but {ty}{} needs {}",
                bytes.len(),
                Shape::from(shape),
                count.div_ceil(each)
            ));
        }
        if ty.is_small_float() {
            let code = |at: usize| (bytes[at / each] >> (at % each * bits)) & ((1u16 << bits) - 1) as u8;
            let values = (0..count).map(|at| small_float::decoded(ty, code(at))).collect();
            return Ok(Constant::floats(ty, shape.to_vec(), values));
        }
        let element = |at: usize| ty.wrapped(i64::from(bytes[at / each]) >> (at % each * bits));
        return Ok(Constant::ints(ty, shape.to_vec(), (0..count).map(element).collect()));
    }
    let width = ty.bits() / 8;
    if count.checked_mul(width) != Some(bytes.len()) {
        return Err(format!(
            "it has {} bytes, but {ty}{} needs {count} times {width}",
            bytes.len(),
            Shape::from(shape)
        ));
    }
    let shape = shape.to_vec();
    macro_rules! elements {
        ($ty:ty) => {
            bytes.chunks_exact(width).map(|chunk| <$ty>::from_le_bytes(chunk.try_into().expect("the width")))
        };
    }
    let store = |data: Data| {
        let tensor = Tensor::new(&shape[..], data).expect("as many elements");
        Constant { ty, shape: shape.clone(), store: Store::Tensor(Arc::new(tensor)) }
    };
    Ok(match ty {
        F32 => store(Data::F32(elements!(f32).collect())),
        F64 => store(Data::F64(elements!(f64).collect())),
        F16 => store(Data::F16(elements!(f16).collect())),
        BF16 => store(Data::BF16(elements!(bf16).collect())),
        I8 => store(Data::I8(elements!(i8).collect())),
        U8 => store(Data::U8(bytes.to_vec())),
        I32 => store(Data::I32(elements!(i32).collect())),
        U32 => store(Data::U32(elements!(u32).collect())),
        Bool => store(Data::Bool(bytes.iter().map(|&byte| byte != 0).collect())),
        I16 => Constant::ints(ty, shape, elements!(i16).map(i64::from).collect()),
        U16 => Constant::ints(ty, shape, elements!(u16).map(i64::from).collect()),
        I64 => Constant::ints(ty, shape, elements!(i64).collect()),
        U64 => Constant::ints(ty, shape, elements!(u64).map(|x| x as i64).collect()),
        _ => return Err(format!("internal: {ty} has no bytes")),
    })
}
