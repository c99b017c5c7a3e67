//! The attributes of ops as data.

use std::fmt;

use crate::{DType, Shape};

/// A named attribute of an op, for printed graphs and for export to other formats (see [`Op::attributes`]).
///
/// ```
/// use wgrad::op::Attribute;
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// graph.input("x", DType::F32, [2, 3]).softmax(1);
/// let nodes = graph.nodes();
/// assert_eq!(nodes.nodes[1].op().map(|op| op.attributes()), Some(vec![("axis", Attribute::Int(1))]));
/// ```
///
/// [`Op::attributes`]: crate::op::Op::attributes
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// A yes or no.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Several integers.
    Ints(Vec<i64>),
    /// A float.
    Float(f64),
    /// Several floats.
    Floats(Vec<f64>),
    /// A name.
    Text(String),
    /// An element type.
    Type(DType),
}

/// The attributes of an op, with their names. Example: [`Attribute`].
pub type Attributes = Vec<(&'static str, Attribute)>;

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Bool(value) => write!(f, "{value}"),
            Attribute::Int(value) => write!(f, "{value}"),
            Attribute::Ints(values) => write!(f, "{values:?}"),
            Attribute::Float(value) => write!(f, "{value}"),
            Attribute::Floats(values) => write!(f, "{values:?}"),
            Attribute::Text(value) => f.write_str(value),
            Attribute::Type(value) => write!(f, "{value}"),
        }
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Attribute {
        Attribute::Bool(value)
    }
}

/// A size; those beyond an i64 become the largest one.
impl From<usize> for Attribute {
    fn from(value: usize) -> Attribute {
        Attribute::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Attribute {
    fn from(value: u32) -> Attribute {
        Attribute::Int(value.into())
    }
}

impl From<&[usize]> for Attribute {
    fn from(values: &[usize]) -> Attribute {
        Attribute::Ints(values.iter().map(|&value| i64::try_from(value).unwrap_or(i64::MAX)).collect())
    }
}

impl From<[usize; 2]> for Attribute {
    fn from(values: [usize; 2]) -> Attribute {
        values[..].into()
    }
}

impl From<&Shape> for Attribute {
    fn from(shape: &Shape) -> Attribute {
        shape[..].into()
    }
}

impl From<f64> for Attribute {
    fn from(value: f64) -> Attribute {
        Attribute::Float(value)
    }
}

impl From<&str> for Attribute {
    fn from(value: &str) -> Attribute {
        Attribute::Text(value.to_owned())
    }
}

impl From<DType> for Attribute {
    fn from(value: DType) -> Attribute {
        Attribute::Type(value)
    }
}
