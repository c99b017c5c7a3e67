//! Nodes to be exported: their attributes, types and sizes.

use std::fmt;

use wgrad::DType;
use wgrad::graph::{Node, Nodes};
use wgrad::op::Attribute;

use super::ROWS;

/// The name of the axis whose size is the number of rows.
pub(super) const BATCH: &str = "batch";

/// `fixed + rows * per_row` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub fixed: i64,
    pub per_row: i64,
}

impl Size {
    pub fn fixed(fixed: i64) -> Size {
        Size { fixed, per_row: 0 }
    }

    /// From the sizes for the numbers of rows.
    pub fn of(sizes: &[i64]) -> Option<Size> {
        let &[a, b, ..] = sizes else { return sizes.first().map(|&size| Size::fixed(size)) };
        let rows = ROWS.map(|rows| rows as i64);
        let per_row = (b - a) / (rows[1] - rows[0]);
        let size = Size { fixed: a - per_row * rows[0], per_row };
        let fits = |(&found, rows): (&i64, i64)| found == size.fixed + per_row * rows;
        sizes.iter().zip(rows).all(fits).then_some(size)
    }

    /// The size, if it does not depend on the number of rows.
    pub fn known(self) -> Option<i64> {
        (self.per_row == 0).then_some(self.fixed)
    }
}

/// `2*batch + 1`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Size { fixed, per_row: 0 } => write!(f, "{fixed}"),
            Size { fixed: 0, per_row } => write!(f, "{per_row}*{BATCH}"),
            Size { fixed, per_row } => write!(f, "{per_row}*{BATCH} + {fixed}"),
        }
    }
}

/// A result, or why a node cannot be exported.
pub(super) type Found<T> = std::result::Result<T, String>;

/// A node of the graph, and the same node for the other numbers of rows.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// Its number in the first graph.
    pub number: usize,
    pub node: &'a Node,
    pub others: [Option<&'a Node>; 2],
    pub graphs: &'a [Nodes],
}

impl Site<'_> {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(self.node).chain(self.others.into_iter().flatten())
    }

    fn attribute(&self, name: &str) -> Found<Vec<Attribute>> {
        let find = |node: &Node| {
            let attributes = node.op().map(|op| op.attributes()).unwrap_or_default();
            attributes.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let found = self.nodes().map(find);
        found.collect::<Option<Vec<_>>>().ok_or_else(|| format!("it has no attribute `{name}`"))
    }

    /// An attribute that must not depend on the number of rows.
    fn same(&self, name: &str) -> Found<Attribute> {
        let mut found = self.attribute(name)?.into_iter();
        let first = found.next().ok_or_else(|| format!("it has no attribute `{name}`"))?;
        match found.all(|other| other == first) {
            true => Ok(first),
            false => Err(format!("its attribute `{name}` depends on the number of rows")),
        }
    }

    pub fn int(&self, name: &str) -> Found<i64> {
        match self.same(name)? {
            Attribute::Int(value) => Ok(value),
            other => Err(format!("its attribute `{name}` is not an integer: {other}")),
        }
    }

    pub fn ints(&self, name: &str) -> Found<Vec<i64>> {
        match self.same(name)? {
            Attribute::Ints(values) => Ok(values),
            other => Err(format!("its attribute `{name}` is not a list of integers: {other}")),
        }
    }

    pub fn flag(&self, name: &str) -> Found<bool> {
        match self.same(name)? {
            Attribute::Bool(value) => Ok(value),
            other => Err(format!("its attribute `{name}` is not a bool: {other}")),
        }
    }

    pub fn float(&self, name: &str) -> Found<f64> {
        match self.same(name)? {
            Attribute::Float(value) => Ok(value),
            other => Err(format!("its attribute `{name}` is not a float: {other}")),
        }
    }

    pub fn floats(&self, name: &str) -> Found<Vec<f64>> {
        match self.same(name)? {
            Attribute::Floats(values) => Ok(values),
            other => Err(format!("its attribute `{name}` is not a list of floats: {other}")),
        }
    }

    pub fn text(&self, name: &str) -> Found<String> {
        match self.same(name)? {
            Attribute::Text(value) => Ok(value),
            other => Err(format!("its attribute `{name}` is not a name: {other}")),
        }
    }

    pub fn dtype(&self, name: &str) -> Found<DType> {
        match self.same(name)? {
            Attribute::Type(value) => Ok(value),
            other => Err(format!("its attribute `{name}` is not a type: {other}")),
        }
    }

    /// An attribute that may depend on the number of rows: a size, or a list of them.
    pub fn sizes(&self, name: &str) -> Found<Vec<Size>> {
        let list = |attribute: Attribute| match attribute {
            Attribute::Int(size) => Ok(vec![size]),
            Attribute::Ints(sizes) => Ok(sizes),
            other => Err(format!("its attribute `{name}` is not a size: {other}")),
        };
        sizes(&self.attribute(name)?.into_iter().map(list).collect::<Found<Vec<_>>>()?)
    }

    /// The element type of an input.
    pub fn input_type(&self, input: usize) -> DType {
        self.graphs[0].ty(self.node.inputs[input]).dtype
    }

    /// The shape of an input.
    pub fn input_shape(&self, input: usize) -> Found<Vec<Size>> {
        let of = |graph: &Nodes, node: &Node| signed(&graph.ty(node.inputs[input]).shape);
        sizes(&self.graphs.iter().zip(self.nodes()).map(|(g, n)| of(g, n)).collect::<Vec<_>>())
    }

    /// The shape of an output.
    pub fn output_shape(&self, output: usize) -> Found<Vec<Size>> {
        sizes(&self.nodes().map(|node| signed(&node.outputs[output].shape)).collect::<Vec<_>>())
    }
}

pub(super) fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}

/// The sizes of lists for the numbers of rows.
pub(super) fn sizes(lists: &[Vec<i64>]) -> Found<Vec<Size>> {
    let length = lists.first().map_or(0, Vec::len);
    if lists.iter().any(|list| list.len() != length) {
        return Err("its number of axes depends on the number of rows".into());
    }
    let at = |axis: usize| Size::of(&lists.iter().map(|list| list[axis]).collect::<Vec<_>>());
    let found = (0..length).map(at).collect::<Option<Vec<_>>>();
    found.ok_or_else(|| "a size does not grow linearly with the number of rows".into())
}
