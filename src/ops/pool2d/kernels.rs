//! The kernels of the poolings: one invocation for each window, or for each element of a gradient.

use super::{Kind, Pooling};
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};
use crate::shader::Shader;
use crate::wgsl;

/// Invocations of a workgroup.
const LANES: u64 = 64;

impl Kernel for Pooling {
    fn variants(&self) -> &'static [Variant] {
        const GATHER: Variant = Variant { epilogue: true, invocations: 64, ..Variant::plain("gather") };
        const DISJOINT: Variant = Variant { name: "disjoint", ..GATHER };
        if self.kind == Kind::MaxGrad { &[DISJOINT, GATHER] } else { &[GATHER] }
    }

    /// Where no two windows share an element, each window can write its own part of the gradient.
    fn supports(&self, variant: &Variant, _: &Args<'_>) -> bool {
        variant.name == "gather" || self.overlap() == 1
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let s = self.sizes(args.inputs, args.outputs);
        let launch = |shader: Shader, entry: &'static str, count: usize, mut tensors: Vec<Binding>| {
            let p = s.options;
            let sizes = [count, s.h, s.w, s.oh, s.ow];
            let rest = [p.padding[0], p.padding[1], usize::from(p.count_include_pad)];
            let words = sizes.into_iter().chain(rest).map(|size| size as u32).collect();
            let shader = shader.constant("KH", p.kernel[0]).constant("KW", p.kernel[1]);
            let shader = shader.constant("SY", p.stride[0]).constant("SX", p.stride[1]);
            tensors.insert(0, Binding::Uniform(words));
            let workgroups = args.profile.grid((count as u64).div_ceil(LANES))?;
            Ok::<_, String>(Launch {
                label: entry.into(),
                wgsl: shader.finish()?,
                entry,
                bindings: tensors,
                workgroups,
            })
        };
        let (large, small) = (s.planes * s.h * s.w, s.planes * s.oh * s.ow);
        let [a, b] = [Binding::Read(Slot::Input(0)), Binding::Read(Slot::Input(1))];
        let y = Binding::Write(Slot::Output(0));
        match self.kind {
            Kind::Max => Ok(launch(wgsl!("max_pool2d"), "max_pool2d", small, vec![a.clone(), a, y])?.into()),
            Kind::MaxPick => Ok(launch(wgsl!("max_pool2d"), "max_pool2d", small, vec![a, b, y])?.into()),
            Kind::Avg => Ok(launch(wgsl!("avg_pool2d"), "avg_pool2d", small, vec![a, y])?.into()),
            Kind::AvgGrad(_) => Ok(launch(wgsl!("avg_pool2d_grad"), "avg_pool2d_grad", large, vec![a, y])?.into()),
            Kind::MaxGrad if variant.name == "disjoint" => {
                let shader = wgsl!("max_pool2d_grad_disjoint");
                Ok(launch(shader, "max_pool2d_grad_disjoint", small, vec![a, b, y])?.into())
            }
            Kind::MaxGrad => {
                let place = Slot::Scratch(0);
                let find = vec![a, Binding::Write(place)];
                let gather = vec![Binding::Read(place), b, y];
                Ok(Lowered {
                    launches: vec![
                        launch(wgsl!("max_pool2d_index"), "max_pool2d_index", small, find)?,
                        launch(wgsl!("max_pool2d_grad"), "max_pool2d_grad", large, gather)?,
                    ],
                    scratch: vec![small * 4],
                })
            }
        }
    }
}
