//! Values while a graph is built: known at import, or computed by the graph.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use wgrad::Value;

use crate::constant::Constant;
use crate::elem_type::ElemType;

/// A value of the model.
#[derive(Clone)]
pub(crate) struct Val(Rc<Inner>);

struct Inner {
    ty: ElemType,
    shape: Vec<usize>,
    constant: Option<Constant>,
    /// For a weight, its name; it becomes a variable of the graph when an op reads it as a tensor.
    weight: Option<String>,
    value: OnceCell<Value>,
    /// The inputs of the model that the value depends on.
    sources: BTreeSet<String>,
}

impl Val {
    /// A value that is known.
    pub fn constant(constant: Constant) -> Val {
        let (ty, shape) = (constant.ty, constant.shape.clone());
        let inner = Inner {
            ty,
            shape,
            constant: Some(constant),
            weight: None,
            value: OnceCell::new(),
            sources: BTreeSet::new(),
        };
        Val(Rc::new(inner))
    }

    /// A tensor of the file that may be trained.
    pub fn weight(name: &str, constant: Constant) -> Val {
        let (ty, shape) = (constant.ty, constant.shape.clone());
        let weight = Some(name.to_owned());
        Val(Rc::new(Inner {
            ty,
            shape,
            constant: Some(constant),
            weight,
            value: OnceCell::new(),
            sources: BTreeSet::new(),
        }))
    }

    /// A value of the graph, of the type that stores `ty`.
    pub fn graph(value: Value, ty: ElemType) -> Val {
        let shape = value.shape().to_vec();
        let value = OnceCell::from(value);
        Val(Rc::new(Inner { ty, shape, constant: None, weight: None, value, sources: BTreeSet::new() }))
    }

    /// The same value, which depends on these inputs.
    pub fn with_sources(self, sources: BTreeSet<String>) -> Val {
        match Rc::try_unwrap(self.0) {
            Ok(inner) => Val(Rc::new(Inner { sources, ..inner })),
            Err(shared) => Val(shared), // an input that is passed on, which knows its sources
        }
    }

    pub fn ty(&self) -> ElemType {
        self.0.ty
    }

    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    pub fn numel(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// Its elements, if they are known.
    pub fn known(&self) -> Option<&Constant> {
        self.0.constant.as_ref()
    }

    pub fn weight_name(&self) -> Option<&str> {
        self.0.weight.as_deref()
    }

    /// The value in the graph, if there is one yet.
    pub fn value(&self) -> &OnceCell<Value> {
        &self.0.value
    }

    pub fn sources(&self) -> &BTreeSet<String> {
        &self.0.sources
    }
}
