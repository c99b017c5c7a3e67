//! Element types of ONNX.

use std::fmt;

use wgrad::DType;

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
