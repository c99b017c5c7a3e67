//! Depthwise convolutions: the same channels-last copies as in `packed`, so that four channels form one vec4, but
//! sums of vec4 instead of a matrix product.

use super::packed::{Packing, Windows, weight_sum};
use super::{ConvPass, MAX_ITERATIONS, Sizes};
use crate::op::{Args, Binding, Launch, Lowered, Slot};
use crate::shader::Shader;

/// Invocations per workgroup.
const LANES: usize = 64;

/// Positions per invocation.
const STEP: usize = 4;

/// The windows over `x` or `dy` that the kernels read.
fn windows(s: &Sizes, pass: ConvPass) -> Windows {
    match pass {
        ConvPass::BackwardData(_) => Windows::over_dy(s),
        _ => Windows::over_input(s),
    }
    .unfolded()
}

/// Whether the convolution is depthwise and its copies fit.
pub(super) fn supports(s: &Sizes, pass: ConvPass, args: &Args<'_>) -> bool {
    let depthwise = s.options.groups == s.c && s.c == s.o && s.c > 1;
    depthwise && ![s.n, s.h, s.w].contains(&0) && 4 * s.kh * s.kw <= MAX_ITERATIONS && windows(s, pass).fits(args)
}

/// Forward or, with [`ConvPass::BackwardData`], the input gradient: packs the data and the weight, then sums.
pub(super) fn product(s: &Sizes, pass: ConvPass, args: &Args<'_>) -> Result<Lowered, String> {
    let windows = windows(s, pass);
    let [data, weight] = [Slot::Scratch(0), Slot::Scratch(1)];
    let (quads, taps, phases) = (s.c.div_ceil(4), s.kh * s.kw, windows.phases());
    let blocks = windows.positions().div_ceil(STEP) * quads * phases;
    let uniform = windows.product_uniform(s, s.c * phases, [quads, 1, blocks, 0]);
    let entry = "conv2d_depthwise";
    let sums = Launch {
        label: entry.into(),
        wgsl: windows.with_store(Shader::new("conv2d_depthwise")).finish()?,
        entry,
        bindings: vec![uniform, Binding::Read(data), Binding::Read(weight), Binding::Write(Slot::Output(0))],
        workgroups: args.profile.grid(blocks.div_ceil(LANES) as u64)?,
    };
    // One row, whose columns are the channels, one kernel apart.
    let packing = Packing::of_weight([1, 1], s.c, [0, taps], [taps, 1], pass != ConvPass::Forward);
    Ok(Lowered {
        launches: vec![
            windows.pack(Slot::Input(0), data, args)?,
            packing.launch([Slot::Input(1), weight], args)?,
            sums,
        ],
        scratch: vec![windows.packed() * 16, taps * quads * 16],
    })
}

/// The weight gradient: packs both operands, sums over ranges of positions, then adds the partial sums.
pub(super) fn weight_product(s: &Sizes, args: &Args<'_>) -> Result<Lowered, String> {
    let (windows, dy) = (windows(s, ConvPass::BackwardFilter([s.kh, s.kw])), Windows::plain_dy(s));
    let positions = windows.positions();
    let rows = s.kh * s.kw * s.c.div_ceil(4);
    // Enough invocations to fill a device; ranges long enough to be worth another launch.
    let pass = if args.profile.software { 1024_usize } else { 65_536 }.div_ceil(rows);
    let stretch = positions.div_ceil(pass).clamp(64, 8192).max(positions.div_ceil(MAX_ITERATIONS));
    let splits = positions.div_ceil(stretch);
    let uniform = windows.weight_uniform(s, [1, 1, rows * splits, stretch]);
    let [data, gradient, partial] = [Slot::Scratch(1), Slot::Scratch(2), Slot::Scratch(0)];
    let count = args.outputs[0].shape.numel();
    let entry = "conv2d_depthwise_weight";
    let sums = Launch {
        label: entry.into(),
        wgsl: Shader::new("conv2d_depthwise_weight").finish()?,
        entry,
        bindings: vec![uniform, Binding::Read(data), Binding::Read(gradient), Binding::Write(partial)],
        workgroups: args.profile.grid((rows * splits).div_ceil(LANES) as u64)?,
    };
    Ok(Lowered {
        launches: vec![
            windows.pack(Slot::Input(0), data, args)?,
            dy.pack(Slot::Input(1), gradient, args)?,
            sums,
            weight_sum(splits, count, args)?,
        ],
        scratch: vec![splits * count * 4, windows.packed() * 16, dy.packed() * 16],
    })
}
