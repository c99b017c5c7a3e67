//! Why each kernel call has its variant.

use std::fmt::Write;

use super::layout::Layout;
use super::{Plan, Reason, choose};
use crate::TensorType;
use crate::graph::ValueId;

impl Plan {
    /// The choices of the planner, as text: for each kernel call the op, its shapes, and its variants, cheapest first,
    /// with their estimated costs on the device that the plan is for. `>` marks the variant in use. Variants that cannot
    /// run follow, with the reason.
    ///
    /// The costs are computed again from the graph, so a plan that is never explained does not pay for it.
    ///
    /// ```
    /// use wgrad::plan::{Options, Plan};
    /// use wgrad::{DType, Graph, Profile};
    /// let graph = Graph::new();
    /// let [a, b] = ["a", "b"].map(|name| graph.input(name, DType::F32, [96, 96]));
    /// let y = a.matmul(&b).relu();
    /// let (plan, _) = Plan::of(&graph, &[&y], &Profile::webgpu_defaults(), &Options::default())?;
    /// let text = plan.explain();
    /// assert!(text.starts_with("matmul.tile32 + relu: f32[96, 96] f32[96, 96] -> f32[96, 96]\n  > tile32 "));
    /// assert!(text.contains(" us (cheapest)\n"));
    /// assert!(text.contains("    shuffle64   lacks subgroups of 8\n"));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn explain(&self) -> String {
        let Some(origin) = &self.origin else { return String::new() };
        let (profile, options) = &**origin;
        let nodes = &self.nodes;
        let values: Vec<ValueId> = self.calls.iter().flat_map(|call| &call.writes).map(|stored| stored.value).collect();
        let layout = Layout::new(nodes, &values);
        let mut text = String::new();
        for call in &self.calls {
            let kernel = call.computed(nodes).into_iter().find_map(|id| layout.kernel(id.node));
            let Some(kernel) = kernel else { continue };
            let args = kernel.args(profile);
            let types = |types: &[&TensorType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let outputs: Vec<&TensorType> = args.outputs.iter().collect();
            let _ = writeln!(text, "{}: {} -> {}", call.label, types(args.inputs), types(&outputs));
            let candidates = kernel.kernel.candidates(&args, options.precision);
            let chosen = choose(&kernel, profile, options).ok();
            for (variant, cost) in &candidates {
                let reason = match chosen {
                    Some((chosen, reason)) if chosen == *variant => match reason {
                        Reason::Forced => " (set by Options::variant)",
                        Reason::Tuned => " (tuned)",
                        Reason::Cheapest => " (cheapest)",
                    },
                    _ => "",
                };
                let mark = if reason.is_empty() { ' ' } else { '>' };
                let _ = writeln!(text, "  {mark} {:<11} {:>9}{reason}", variant.name, cost.to_string());
            }
            for variant in kernel.kernel.variants().iter().filter(|v| candidates.iter().all(|(able, _)| able != v)) {
                let why = match variant.lacking(profile) {
                    Some(lacks) => format!("lacks {lacks}"),
                    None if variant.precision() > options.precision => "needs Options::precision Mixed".to_owned(),
                    None => "does not support these shapes".to_owned(),
                };
                let _ = writeln!(text, "    {:<11} {why}", variant.name);
            }
        }
        text
    }
}
