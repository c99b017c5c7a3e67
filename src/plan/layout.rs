//! The layout of a graph: which values are live, and where their elements are stored.

use std::sync::Arc;

use crate::graph::{Node, NodeKind, Nodes, ValueId};
use crate::op::{Args, Kernel, Lowering, Op};
use crate::profile::Profile;
use crate::shape::View;
use crate::{DType, TensorType};

/// Where a value's elements are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// A leaf, a kernel's output or a pointwise op's output: contiguous under its own id.
    Value(ValueId),
    /// A contiguous copy of that value, needed because strides cannot express a later view.
    Copy(ValueId),
}

impl Origin {
    /// The value that it stores.
    pub fn value(&self) -> ValueId {
        let (Origin::Value(id) | Origin::Copy(id)) = self;
        *id
    }
}

/// A value as a view of stored elements.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub origin: Origin,
    pub view: View,
    /// The computed or leaf value behind all views and copies.
    pub source: ValueId,
}

/// A graph and the layout of its live values, with views resolved.
pub(crate) struct Layout<'a> {
    /// The graph.
    pub nodes: &'a Nodes,
    /// For each node, whether a target or assignment depends on it.
    pub live: Vec<bool>,
    /// For each node, whether it is a pointwise op.
    pub pointwise: Vec<bool>,
    /// For each live node, the places of its outputs.
    places: Vec<Vec<Place>>,
}

impl<'a> Layout<'a> {
    pub fn new(nodes: &'a Nodes, targets: &[ValueId]) -> Layout<'a> {
        let count = nodes.nodes.len();
        let pointwise = |node: &Node| node.op().is_some_and(|op| matches!(op.lowering(), Lowering::Pointwise(_)));
        let pointwise = nodes.nodes.iter().map(pointwise).collect();
        let mut layout = Layout { nodes, live: live(nodes, targets), pointwise, places: Vec::with_capacity(count) };
        for node in 0..count {
            let places = if layout.live[node] { layout.place(node) } else { Vec::new() };
            layout.places.push(places);
        }
        layout
    }

    /// The place of a live value.
    pub fn of(&self, id: ValueId) -> &Place {
        &self.places[id.node][id.output]
    }

    /// The computed or leaf value behind all views and copies of a live value.
    pub fn source(&self, id: ValueId) -> ValueId {
        self.of(id).source
    }

    /// A node.
    pub fn node(&self, node: usize) -> &'a Node {
        &self.nodes.nodes[node]
    }

    /// The live nodes, in graph order.
    pub fn live_nodes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.live.len()).filter(|&node| self.live[node])
    }

    /// The type of a value.
    pub fn ty(&self, id: ValueId) -> &'a TensorType {
        self.nodes.ty(id)
    }

    /// The node's op, unless it is a leaf.
    pub fn op(&self, node: usize) -> Option<&'a dyn Op> {
        self.node(node).op()
    }

    /// The value of all elements, if it is a known constant.
    pub fn constant(&self, id: ValueId) -> Option<f64> {
        constant_of(self.nodes, id)
    }

    /// The kernel of a node and its operands, if it has one.
    pub fn kernel(&self, node: usize) -> Option<KernelNode<'a>> {
        let NodeKind::Op(op) = &self.node(node).kind else { return None };
        let Lowering::Kernel(kernel) = op.lowering() else { return None };
        let ids = &self.node(node).inputs;
        let in_place: Vec<bool> = ids.iter().enumerate().map(|(i, &id)| self.reads_in_place(kernel, i, id)).collect();
        let views = ids.iter().zip(&in_place).map(|(&id, in_place)| match in_place {
            true => self.of(id).view.clone(),
            false => View::contiguous(&self.ty(id).shape),
        });
        let views = views.collect();
        let inputs = ids.iter().map(|&id| self.ty(id)).collect();
        let stored = ids.iter().zip(&in_place).map(|(&id, in_place)| match in_place {
            true => self.ty(self.of(id).origin.value()).dtype,
            false => self.ty(id).dtype,
        });
        let stored = stored.collect();
        Some(KernelNode { op, kernel, inputs, stored, views, in_place, outputs: &self.node(node).outputs })
    }

    /// Whether a kernel reads the value in place, without a copy.
    fn reads_in_place(&self, kernel: &dyn Kernel, i: usize, id: ValueId) -> bool {
        let place = self.of(id);
        let in_buffer = match place.origin {
            Origin::Copy(_) => true,
            Origin::Value(root) => {
                self.constant(root).is_none() && !matches!(self.node(root.node).kind, NodeKind::Scalar(_))
            }
        };
        let stored = self.ty(place.origin.value()).dtype;
        let loads = stored == self.ty(id).dtype || kernel.widens(i);
        in_buffer && loads && kernel.reads(i, &place.view)
    }

    /// Whether a pointwise node reads the value at its own element index, without a copy.
    pub fn same_index(&self, node: usize, id: ValueId) -> bool {
        let place = self.of(id);
        let n = self.node(node).outputs[0].shape.numel();
        match place.origin {
            Origin::Value(root) => {
                self.pointwise[node]
                    && place.view.is_contiguous()
                    && place.view.shape.numel() == n
                    && self.ty(root).shape.numel() == n
            }
            Origin::Copy(_) => false,
        }
    }

    /// Whether a fetched or assigned value needs a copy: it must be contiguous in a buffer; an assigned value
    /// also must not be in a buffer that another assignment overwrites.
    pub fn wants_copy(&self, id: ValueId, assigned: bool) -> bool {
        let place = self.of(id);
        let leaf = match place.origin {
            Origin::Copy(_) => false,
            Origin::Value(root) => match self.node(root.node).kind {
                NodeKind::Scalar(_) => true,
                NodeKind::Op(_) => self.constant(root).is_some(),
                _ => assigned,
            },
        };
        let (ty, stored) = (self.ty(id), self.ty(place.origin.value()));
        leaf || !place.view.is_contiguous()
            || place.view.shape.numel() != stored.shape.numel()
            || ty.dtype != stored.dtype
    }

    /// The value of all elements of a contiguous copy, if it is a known constant.
    pub fn copied_constant(&self, id: ValueId) -> Option<f64> {
        self.constant(self.source(id)).filter(|_| self.ty(id).dtype == DType::F32)
    }

    /// The places of a node's outputs, from those of its inputs.
    fn place(&self, number: usize) -> Vec<Place> {
        let node = &self.nodes.nodes[number];
        if let Some(Lowering::View(op)) = self.op(number).map(|op| op.lowering()) {
            let input = node.inputs[0];
            let Place { origin, view, source } = self.of(input);
            let seen = match op.view(view) {
                Some(view) => Some((origin.clone(), view)),
                None => op.view(&View::contiguous(&self.ty(input).shape)).map(|view| (Origin::Copy(input), view)),
            };
            if let Some((origin, view)) = seen {
                return vec![Place { origin, view, source: *source }];
            }
        }
        let own = |(output, ty): (usize, &TensorType)| {
            let id = ValueId { node: number, output };
            Place { origin: Origin::Value(id), view: View::contiguous(&ty.shape), source: id }
        };
        node.outputs.iter().enumerate().map(own).collect()
    }
}

/// A kernel node and its operands.
pub(crate) struct KernelNode<'a> {
    pub op: &'a Arc<dyn Op>,
    pub kernel: &'a dyn Kernel,
    inputs: Vec<&'a TensorType>,
    /// The element type of each input's buffer.
    pub stored: Vec<DType>,
    /// The view of each input: the original strides if the kernel supports them, else a contiguous copy.
    views: Vec<View>,
    /// For each input, whether the kernel reads it without a copy.
    pub in_place: Vec<bool>,
    outputs: &'a [TensorType],
}

impl KernelNode<'_> {
    /// The arguments of [`Kernel`]'s methods.
    pub fn args<'b>(&'b self, profile: &'b Profile) -> Args<'b> {
        Args { inputs: &self.inputs, stored: &self.stored, views: &self.views, outputs: self.outputs, profile }
    }
}

/// For each node, whether a target or assignment depends on it.
pub(crate) fn live(nodes: &Nodes, targets: &[ValueId]) -> Vec<bool> {
    let mut live = vec![false; nodes.nodes.len()];
    for root in targets.iter().copied().chain(nodes.assignments.iter().map(|a| a.value)) {
        live[root.node] = true;
    }
    for node in (0..live.len()).rev() {
        if live[node] {
            nodes.nodes[node].inputs.iter().for_each(|input| live[input.node] = true);
        }
    }
    live
}

/// The value of all elements, if it is a known constant.
pub(crate) fn constant_of(nodes: &Nodes, id: ValueId) -> Option<f64> {
    nodes.nodes[id.node].op()?.fill_value()
}
