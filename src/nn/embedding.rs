//! Embedding tables.

use super::layers::Layer;
use super::{Scope, init};
use crate::{DType, Value};

/// Looks up rows of a table: indices `[..]`, i32 or u32, give `[.., dim]`; see [`Value::embedding`].
///
/// Parameter: `NAME.weight` `[count, dim]`, from the standard normal distribution, as in PyTorch.
///
/// ```
/// use wgrad::nn::{Embedding, Layer, Scope};
/// use wgrad::{DType, Graph};
/// let graph = Graph::new();
/// let words = graph.input("words", DType::I32, [8, 20]);
/// let table = Embedding::new(&Scope::train(&graph, 0), "embed", 1000, 64).padding_idx(0);
/// assert_eq!(table.forward(&words).shape().to_vec(), [8, 20, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `[count, dim]`.
    pub weight: Value,
    /// The type of the output: the activations' of the scope.
    pub dtype: DType,
    /// The padding index, if any.
    pub padding_idx: Option<u32>,
}

impl Embedding {
    /// Declares the parameter.
    #[track_caller]
    pub fn new(nn: &Scope, name: &str, count: usize, dim: usize) -> Embedding {
        let weight = nn.part(name).parameter("weight", [count, dim], init::normal(0.0, 1.0));
        Embedding { weight, dtype: nn.activations(), padding_idx: None }
    }

    /// Sets the padding index: it gives zeros, and its row is not trained. (PyTorch instead initialises this row to
    /// zeros and does not train it.)
    pub fn padding_idx(self, index: u32) -> Embedding {
        Embedding { padding_idx: Some(index), ..self }
    }
}

impl Layer for Embedding {
    #[track_caller]
    fn forward(&self, x: &Value) -> Value {
        let y = self.weight.embedding(x).cast(self.dtype);
        match self.padding_idx {
            Some(index) if y.is_valid() => {
                let column: Vec<isize> = x.shape().iter().map(|&size| size as isize).chain([1]).collect();
                y.masked_fill(&x.eq(&x.full_like(f64::from(index))).reshape(&column), 0.0)
            }
            _ => y,
        }
    }
}

impl Scope {
    /// Looks up rows of a table: indices `[..]` give `[.., dim]`. Declares `NAME.weight` `[count, dim]`. See
    /// [`Embedding`].
    #[track_caller]
    pub fn embedding(&self, name: &str, x: &Value, count: usize, dim: usize) -> Value {
        Embedding::new(self, name, count, dim).forward(x)
    }
}
