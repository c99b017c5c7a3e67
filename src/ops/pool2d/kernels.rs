//! Pooling kernels: one invocation per window, or per element of a gradient.

use super::{Pool2d, PoolKind, Pooling, Sizes};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Slot, Variant, Work};
use crate::shader::Shader;
use crate::shape::reciprocal;

/// Invocations per workgroup.
const LANES: u64 = 64;

/// Largest window whose loops are unrolled in the shader source: not every driver's compiler unrolls loops, and loop
/// overhead exceeds the cost of an iteration.
const MAX_UNROLLED: usize = 16;

/// Iterations of the nested loops as lavapipe counts them, including the final evaluation of each condition. It
/// silently stops loops after 65,535.
fn rounds([rows, columns]: [usize; 2]) -> usize {
    rows * (columns + 2) + 1
}
const MAX_ROUNDS: usize = 48_000;

const GATHER: Variant = Variant { epilogue: true, invocations: 64, ..Variant::plain("gather") };
const DISJOINT: Variant = Variant { name: "disjoint", ..GATHER };
const PAIRS: Variant = Variant { name: "pairs", ..GATHER };

impl Kernel for Pooling {
    fn variants(&self) -> &'static [Variant] {
        match self.kind {
            PoolKind::Max => &[PAIRS, GATHER],
            PoolKind::MaxGrad => &[PAIRS, DISJOINT, GATHER],
            _ => &[GATHER],
        }
    }

    /// `pairs`: a window of 2x2 is two vec2; rows must be whole vec2, and for the gradient the windows must cover the
    /// plane. `disjoint`: if no two windows share an element, each window writes its own part of the gradient, provided
    /// that part is small enough: the last window's part extends to the edge.
    /// `gather` launches a maximum's gradient twice.
    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let Sizes { h, w, oh, ow, options: Pool2d { kernel, stride, padding, .. }, .. } =
            self.sizes(args.inputs, args.outputs);
        let twos = [kernel, stride] == [[2, 2]; 2] && padding == [0, 0];
        let part = |i: usize, size: usize, windows: usize| stride[i].max(size + padding[i] - (windows - 1) * stride[i]);
        let supported = match *variant {
            PAIRS => twos && w.is_multiple_of(2) && (self.kind == PoolKind::Max || h == 2 * oh),
            DISJOINT => self.overlap() == 1 && rounds(kernel) + rounds([part(0, h, oh), part(1, w, ow)]) < MAX_ROUNDS,
            _ => true,
        };
        let launches = if *variant == GATHER && self.kind == PoolKind::MaxGrad { 2.0 } else { 1.0 };
        let bytes = 4.0 * launches * args.inputs[0].shape.numel() as f64;
        supported.then(|| args.cost(&Work { launches, bytes, ..Work::default() }))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let s = self.sizes(args.inputs, args.outputs);
        let p = s.options;
        let exact = p.padding == [0, 0] && [s.h, s.w] == [s.oh * p.stride[0], s.ow * p.stride[1]];
        // One invocation per window, or per element.
        let (windows, elements) = ([s.oh, s.ow], [s.h, s.w]);
        let launch = |entry: &'static str, [rows, columns]: [usize; 2], mut tensors: Vec<Binding>| {
            let count = s.planes * rows * columns;
            let sizes = [count, columns, rows, s.h, s.w, s.oh, s.ow, p.padding[0], p.padding[1]];
            let words = [reciprocal(columns), reciprocal(rows)].into_iter().flatten();
            let words = words.chain(sizes.map(|size| size as u32)).chain([u32::from(p.count_include_pad)]);
            let most = (p.kernel[0] * p.kernel[1]).max(if exact { p.stride[0] * p.stride[1] } else { 0 });
            let mut shader = Shader::new(entry)
                .set("KH", p.kernel[0])
                .set("KW", p.kernel[1])
                .set("SY", p.stride[0])
                .set("SX", p.stride[1])
                .set("PADDED", p.padding != [0, 0])
                .set("UNROLL", most <= MAX_UNROLLED);
            if entry == "max_pool2d_grad_disjoint" {
                shader = shader.set("EXACT", exact);
            }
            tensors.insert(0, Binding::Uniform(words.collect()));
            let workgroups = args.profile.grid((count as u64).div_ceil(LANES))?;
            Ok::<_, String>(Launch {
                label: entry.into(),
                wgsl: shader.finish()?,
                entry,
                bindings: tensors,
                workgroups,
            })
        };
        let [a, b] = [Binding::Read(Slot::Input(0)), Binding::Read(Slot::Input(1))];
        let y = Binding::Write(Slot::Output(0));
        match self.kind {
            PoolKind::Max if *variant == PAIRS => Ok(launch("max_pool2d_pairs", windows, vec![a, y])?.into()),
            PoolKind::MaxGrad if *variant == PAIRS => {
                Ok(launch("max_pool2d_grad_pairs", windows, vec![a, b, y])?.into())
            }
            PoolKind::Max | PoolKind::MaxPick => {
                let v = if self.kind == PoolKind::Max { a.clone() } else { b };
                Ok(launch("max_pool2d", windows, vec![a, v, y])?.into())
            }
            PoolKind::Avg => Ok(launch("avg_pool2d", windows, vec![a, y])?.into()),
            PoolKind::AvgGrad(_) => Ok(launch("avg_pool2d_grad", elements, vec![a, y])?.into()),
            PoolKind::MaxGrad if *variant == DISJOINT => {
                Ok(launch("max_pool2d_grad_disjoint", windows, vec![a, b, y])?.into())
            }
            PoolKind::MaxGrad => {
                let place = Slot::Scratch(0);
                let find = vec![a, Binding::Write(place)];
                let gather = vec![Binding::Read(place), b, y];
                Ok(Lowered {
                    launches: vec![
                        launch("max_pool2d_index", windows, find)?,
                        launch("max_pool2d_grad", elements, gather)?,
                    ],
                    scratch: vec![s.planes * s.oh * s.ow * 4],
                })
            }
        }
    }
}
