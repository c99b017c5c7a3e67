//! Tensors whose values are known when a model is imported.

use std::sync::Arc;

use half::{bf16, f16};
use wgrad::{DType, Data, Error, Shape, Tensor};

use crate::elem_type::ElemType;
use crate::proto::TensorProto;
use crate::small_float;

use ElemType::{BF16, Bool, F16, F32, F64, I2, I4, I8, I16, I32, I64, U2, U4, U8, U16, U32, U64};

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
