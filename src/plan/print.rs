//! A plan as text.

use std::collections::HashMap;
use std::fmt;

use super::{Bound, BufferId, Dispatch, KernelCall, Plan, Role};
use crate::graph::NodeKind;

/// The launches of a step in order: each with its number, entry point, grid and workgroup size, and with the buffers that
/// it reads and writes. Above the launches of a kernel call stand its op, variant and fused ops, the types of its
/// results, and the estimated time of its kernel. Buffers have names if they hold inputs, variables or constants; others
/// are shared by intermediate values.
///
/// ```
/// use wgrad::plan::{Options, Plan};
/// use wgrad::{DType, Graph, Profile};
/// let graph = Graph::new();
/// let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 96]));
/// let y = a.matmul(&b).relu();
/// let (plan, _) = Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default())?;
/// let text = plan.to_string();
/// assert!(text.starts_with("1 launch, 108.2 KiB in 3 buffers (36.1 KiB for intermediate values)\n"), "{text}");
/// assert!(text.contains("matmul.tile32 + relu -> f32[96, 96], about "));
/// assert!(text.contains("  0: matmul_tile, 9 x 1 x 1 workgroups of 64, reads a, b, writes buffer 2\n"), "{text}");
/// # Ok::<(), wgrad::Error>(())
/// ```
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} launch{}, {} in {} buffers ({} for intermediate values)",
            self.dispatches(),
            if self.dispatches() == 1 { "" } else { "es" },
            kibibytes(self.total_bytes()),
            self.buffers.len(),
            kibibytes(self.temporary_bytes()),
        )?;
        let names = self.buffer_names();
        let mut number = 0;
        for (call, cost) in self.calls.iter().zip(self.costs()) {
            write!(f, "{}", call.label)?;
            let types: Vec<String> = call.writes.iter().map(|stored| stored.ty.to_string()).collect();
            write!(f, " -> {}", types.join(", "))?;
            cost.map_or(Ok(()), |cost| write!(f, ", about {cost}"))?;
            writeln!(f, "{}", self.place(call))?;
            for dispatch in &call.dispatches {
                self.write_launch(f, number, dispatch, &names)?;
                number += 1;
            }
        }
        for commit in &self.commits {
            let (from, to) = (&names[&commit.from], &names[&commit.to]);
            writeln!(f, "{from} -> {to}: {} at the end of the step", kibibytes(commit.bytes))?;
            if let Some(dispatch) = &commit.guarded {
                self.write_launch(f, number, dispatch, &names)?;
                number += 1;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The line of user code of the first op of a call.
    fn place(&self, call: &KernelCall) -> String {
        let first = call.computed(&self.nodes).into_iter().next();
        first.map_or_else(String::new, |id| format!("  # {}", self.nodes.nodes[id.node].location))
    }

    fn write_launch(
        &self,
        f: &mut fmt::Formatter<'_>,
        number: usize,
        dispatch: &Dispatch,
        names: &HashMap<BufferId, String>,
    ) -> fmt::Result {
        let [x, y, z] = dispatch.workgroups;
        let invocations = dispatch.wgsl.invocations;
        write!(f, "{number:>3}: {}, {x} x {y} x {z} workgroups of {invocations}", dispatch.entry)?;
        let buffers = |writes: bool| {
            let named = dispatch.bindings.iter().filter_map(|bound| match bound {
                Bound::Storage { buffer, write } if *write == writes => names.get(buffer).map(String::as_str),
                Bound::Status if writes => Some("the status"),
                Bound::Scalars(_) if !writes => Some("step scalars"),
                _ => None,
            });
            named.collect::<Vec<_>>().join(", ")
        };
        for (what, list) in [("reads", buffers(false)), ("writes", buffers(true))] {
            if !list.is_empty() {
                write!(f, ", {what} {list}")?;
            }
        }
        writeln!(f)
    }

    /// A name for each buffer.
    fn buffer_names(&self) -> HashMap<BufferId, String> {
        let mut names: HashMap<BufferId, String> = HashMap::new();
        for (id, buffer) in self.buffers.iter().enumerate() {
            let name = match &buffer.role {
                Role::Variable(name) => name.clone(),
                Role::Constant => format!("constant {id}"),
                Role::Input | Role::Temporary => format!("buffer {id}"),
            };
            names.insert(id, name);
        }
        for input in &self.inputs {
            if let Some(stored) = &input.stored
                && let NodeKind::Input(name) = &self.nodes.nodes[stored.value.node].kind
            {
                names.insert(stored.buffer, name.clone());
            }
        }
        names
    }
}

fn kibibytes(bytes: u64) -> String {
    match bytes as f64 / 1024.0 {
        kib if kib < 1024.0 => format!("{kib:.1} KiB"),
        kib => format!("{:.1} MiB", kib / 1024.0),
    }
}
