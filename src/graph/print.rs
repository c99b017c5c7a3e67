//! A graph as text, one line per node.

use std::fmt;

use super::{Graph, Node, NodeKind, Nodes, Scalar, ValueId};

/// One line per node: its number, op, attributes and inputs, the types of its outputs, and the line of user code that
/// created it. Then the assignments, and the errors recorded so far.
///
/// ```
/// use wgrad::{DType, Graph, Tensor};
/// let graph = Graph::new();
/// let x = graph.input("x", DType::F32, [2, 3]);
/// let w = graph.parameter("w", Tensor::new([3, 1], [1.0f32, 2.0, 3.0])?);
/// x.matmul(&w).sum(&[0], false);
/// let text = graph.to_string();
/// assert!(text.starts_with("%0 = input x: f32[2, 3]  # "));
/// assert!(text.contains("%2 = matmul(%0, %1): f32[2, 1]  # "));
/// # Ok::<(), wgrad::Error>(())
/// ```
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.lock(), f)
    }
}

/// As [`Graph`].
impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, node) in self.nodes.iter().enumerate() {
            let types: Vec<String> = node.outputs.iter().map(ToString::to_string).collect();
            writeln!(f, "%{number} = {}: {}  # {}", self.expression(node), types.join(", "), node.location)?;
        }
        for assignment in &self.assignments {
            let variable = ValueId { node: assignment.variable, output: 0 };
            writeln!(
                f,
                "{} <- {}  # {}",
                self.reference(variable),
                self.reference(assignment.value),
                assignment.location
            )?;
        }
        self.errors.iter().try_for_each(|error| writeln!(f, "error: {error}"))
    }
}

impl Nodes {
    fn expression(&self, node: &Node) -> String {
        match &node.kind {
            NodeKind::Input(name) => format!("input {name}"),
            NodeKind::Variable(name) => format!("variable {name}"),
            NodeKind::Scalar(Scalar::Fed { name, default }) => format!("scalar {name} (default {default})"),
            NodeKind::Scalar(Scalar::Counted { counter, .. }) => format!("scalar of the counter {counter}"),
            NodeKind::Constant(tensor) if tensor.numel() == 1 => format!("constant {}", tensor.to_f64()[0]),
            NodeKind::Constant(_) => "constant".to_owned(),
            NodeKind::Op(op) => {
                let inputs: Vec<String> = node.inputs.iter().map(|&id| self.reference(id)).collect();
                let attributes: String =
                    op.attributes().iter().map(|(name, value)| format!(" {name}={value}")).collect();
                format!("{}({}){attributes}", op.name(), inputs.join(", "))
            }
        }
    }

    /// `%3`, or `%3.1` for the second output of a node with several.
    fn reference(&self, id: ValueId) -> String {
        if self.nodes[id.node].outputs.len() == 1 {
            format!("%{}", id.node)
        } else {
            format!("%{}.{}", id.node, id.output)
        }
    }
}
