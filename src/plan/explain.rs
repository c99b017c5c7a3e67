//! Why each kernel call has its variant.

use std::fmt::Write;

use super::layout::{KernelNode, Layout};
use super::{KernelCall, Options, Plan, Reason, choose};
use crate::graph::ValueId;
use crate::op::Cost;
use crate::{Profile, TensorType};

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
        let mut text = String::new();
        self.for_each_kernel(|call, kernel, profile, options| {
            let Some(kernel) = kernel else { return };
            let args = kernel.args(profile);
            let types = |types: &[&TensorType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let outputs: Vec<&TensorType> = args.outputs.iter().collect();
            let _ = writeln!(text, "{}: {} -> {}", call.label, types(args.inputs), types(&outputs));
            let candidates = kernel.kernel.candidates(&args, options.precision);
            let chosen = choose(kernel, profile, options).ok();
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
        });
        text
    }

    /// For each kernel call, the estimated time of its kernel without the ops that are fused into it; `None` for calls
    /// without a kernel.
    pub(super) fn costs(&self) -> Vec<Option<Cost>> {
        let mut costs = vec![None; self.calls.len()];
        let mut number = 0;
        self.for_each_kernel(|call, kernel, profile, options| {
            let used = |(_, variant): (&str, &'static str)| {
                let candidates = kernel?.kernel.candidates(&kernel?.args(profile), options.precision);
                candidates.into_iter().find(|(candidate, _)| candidate.name == variant).map(|(_, cost)| cost)
            };
            costs[number] = call.kernel.and_then(used);
            number += 1;
        });
        costs
    }

    /// Calls `f` with each kernel call and its kernel, if it has one. Does nothing if the plan's origin is not known.
    fn for_each_kernel(&self, mut f: impl FnMut(&KernelCall, Option<&KernelNode<'_>>, &Profile, &Options)) {
        let Some(origin) = &self.origin else { return };
        let (profile, options) = &**origin;
        let values: Vec<ValueId> = self.calls.iter().flat_map(|call| &call.writes).map(|stored| stored.value).collect();
        let layout = Layout::new(&self.nodes, &values);
        for call in &self.calls {
            let kernel = call.computed(&self.nodes).into_iter().find_map(|id| layout.kernel(id.node));
            f(call, kernel.as_ref(), profile, options);
        }
    }
}
