//! The kernels of the convolutions: direct loops for every shape; for dense convolutions matrix products, either over
//! channels-last copies (`packed`) or, for 1x1 kernels, in place (`pointwise`); for depthwise convolutions sums over
//! channels-last copies (`depthwise`).

use super::packed::{self, ConvTiling, Windows};
use super::{ConvPass, Convolution, MAX_ITERATIONS, Sizes, depthwise, pointwise};
use crate::DType;
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};
use crate::ops::reduce::sum_of_parts;
use crate::shader::Shader;

/// Invocations per workgroup of the direct kernels.
const LANES: u64 = 64;

/// The variants, best first: for 1x1 kernels, for software adapters with subgroups of 8 (the wider one loads less per
/// product), for other software adapters, for GPUs, for depthwise convolutions, and for every shape.
const VARIANTS: &[Variant] = &[
    variant("pointwise"),
    Variant { workgroup_memory: 16384, ..shuffle("shuffle64") },
    Variant { workgroup_memory: 8192, ..shuffle("shuffle32") },
    Variant { software: true, invocations: 32, ..variant("rows") },
    Variant { workgroup_memory: 8192, ..variant("tile") },
    variant("depthwise"),
    variant("direct"),
];

/// The variants of the weight gradient, whose tile also keeps positions in workgroup memory.
const WEIGHT_VARIANTS: &[Variant] = &[
    shuffle("shuffle64"),
    shuffle("shuffle32"),
    Variant { software: true, invocations: 32, ..variant("rows") },
    Variant { workgroup_memory: 8448, ..variant("tile") },
    variant("depthwise"),
    variant("direct"),
];

const fn shuffle(name: &'static str) -> Variant {
    Variant { subgroup: Some(8), software: true, invocations: 8, ..variant(name) }
}

const fn variant(name: &'static str) -> Variant {
    Variant { epilogue: true, invocations: 64, ..Variant::plain(name) }
}

/// The tile size of a variant for software adapters.
struct Tile {
    /// Positions; for the weight gradient, four times its row quads.
    rows: usize,
    /// vec4 of channels.
    columns: usize,
    /// Relative time per multiply-add.
    cost: f64,
}

fn tile(variant: &Variant) -> Tile {
    match variant.name {
        "shuffle64" => Tile { rows: 64, columns: 16, cost: 0.75 },
        "shuffle32" => Tile { rows: 64, columns: 8, cost: 1.0 },
        _ => Tile { rows: 16, columns: 2, cost: 2.0 },
    }
}

/// With fewer terms than this, a software adapter would need about a thousand products to make up for the longer
/// compile time of the wider kernel.
const LARGE: f64 = (1 << 28) as f64;

impl Convolution {
    /// Relative time of a variant: tiles also compute what lies beyond the edges.
    fn cost(&self, sizes: &Sizes, variant: &Variant) -> f64 {
        let Tile { rows, columns, cost } = tile(variant);
        let whole = |size: usize, tile: usize| size.next_multiple_of(tile) as f64;
        let windows = self.windows(sizes);
        let outputs = sizes.o.div_ceil(4);
        cost * match self.pass {
            ConvPass::Forward => whole(windows.positions(), rows) * whole(outputs, columns),
            ConvPass::BackwardData(_) => {
                whole(windows.positions(), rows) * whole((sizes.c * windows.phases()).div_ceil(4), columns)
            }
            // The small tile takes three times as long per product, and is one more kernel to compile.
            ConvPass::BackwardFilter(_) => {
                let again = if variant.name == "rows" { 2.0 } else { 1.0 };
                again * 4.0 * whole(windows.depth(), rows / 4) * whole(outputs, columns)
            }
        }
    }

    /// The windows that the packed kernels read.
    fn windows(&self, sizes: &Sizes) -> Windows {
        match self.pass {
            ConvPass::BackwardData(_) => Windows::over_dy(sizes),
            _ => Windows::over_input(sizes),
        }
    }
}

impl Kernel for Convolution {
    fn variants(&self) -> &'static [Variant] {
        if let ConvPass::BackwardFilter(_) = self.pass { WEIGHT_VARIANTS } else { VARIANTS }
    }

    fn suits(&self, variant: &Variant, args: &Args<'_>) -> bool {
        if variant.name == "direct" {
            return true;
        }
        let sizes = self.sizes(args.inputs, args.outputs);
        // Below this, the copies and their launches cost more than they save.
        if sizes.flops() < 2e5 {
            return false;
        }
        match variant.name {
            "pointwise" => return pointwise::suits(&sizes),
            "depthwise" => return true,
            _ if variant.software != args.profile.software => return false,
            _ => {}
        }
        let able = |v: &&Variant| {
            v.software && v.lacking(args.profile).is_none() && (v.name != "shuffle64" || sizes.flops() >= 2.0 * LARGE)
        };
        let least = self.variants().iter().filter(able).map(|v| self.cost(&sizes, v)).reduce(f64::min);
        !variant.software || able(&variant) && Some(self.cost(&sizes, variant)) == least
    }

    fn supports(&self, variant: &Variant, args: &Args<'_>) -> bool {
        let sizes = self.sizes(args.inputs, args.outputs);
        match variant.name {
            "direct" => true,
            "pointwise" => pointwise::supports(&sizes, self.pass),
            "depthwise" => depthwise::supports(&sizes, self.pass, args),
            _ => packed::supports(&sizes, || self.windows(&sizes), args),
        }
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let s = &self.sizes(args.inputs, args.outputs);
        let Tile { rows, columns, .. } = tile(variant);
        let tiling = |entry, rows, columns, tiles| ConvTiling { entry, rows, columns, tiles };
        let wide = |shader: Shader| shader.set("WIDE", columns / 8);
        if let ConvPass::BackwardFilter(_) = self.pass {
            let (shader, tiling) = match variant.name {
                "shuffle64" | "shuffle32" => {
                    let entry = "conv2d_weight_shuffle";
                    (wide(Shader::new("conv2d_weight_shuffle")), tiling(entry, rows / 4, columns, 1))
                }
                "rows" => (Shader::new("conv2d_weight_rows"), tiling("conv2d_weight_rows", rows / 4, columns, 32)),
                "tile" => (Shader::new("conv2d_weight_tile"), tiling("conv2d_weight_tile", 16, 16, 1)),
                "depthwise" => return depthwise::weight_product(s, args),
                _ => return weight_direct(s, args),
            };
            return packed::weight_product(s, shader, tiling, args);
        }
        let backward = self.pass != ConvPass::Forward;
        let (shader, tiling) = match variant.name {
            "shuffle64" | "shuffle32" => {
                (wide(Shader::new("conv2d_shuffle")), tiling("conv2d_shuffle", rows, columns, 1))
            }
            "rows" => (Shader::new("conv2d_rows"), tiling("conv2d_rows", rows, columns, 32)),
            "tile" => (Shader::new("conv2d_tile"), tiling("conv2d_tile", 64, 16, 1)),
            "pointwise" => return pointwise::product(s, self.pass, args),
            "depthwise" => return depthwise::product(s, self.pass, args),
            _ if backward => {
                return direct(Shader::new("conv2d_input_direct"), "conv2d_input_direct", s, s.group_o(), args);
            }
            _ => return direct(Shader::new("conv2d_direct"), "conv2d_direct", s, s.group_c(), args),
        };
        packed::product(s, backward, shader, tiling, args)
    }
}

/// The uniform of the direct kernels.
fn uniform(s: &Sizes, range: [usize; 2], count: usize, splits: usize) -> Binding {
    let Sizes { c, h, w, o, kh, kw, oh, ow, options, .. } = *s;
    let ([sy, sx], [py, px], [dy, dx]) = (options.stride, options.padding, options.dilation);
    let sizes = [c, h, w, o, kh, kw, oh, ow, sy, sx, py, px, dy, dx, s.group_c(), s.group_o()];
    let work = [range[0], range[1], count, splits];
    Binding::Uniform(sizes.into_iter().chain(work).map(|size| size as u32).collect())
}

/// One invocation per output sums over `channels` and the kernel, split into several launches if the loop would be
/// too long.
fn direct(shader: Shader, entry: &'static str, s: &Sizes, channels: usize, args: &Args<'_>) -> Result<Lowered, String> {
    let taps = s.kh * s.kw;
    let step = (MAX_ITERATIONS / taps).max(1);
    let count = args.outputs[0].shape.numel();
    let workgroups = args.profile.grid((count as u64).div_ceil(LANES))?;
    let text = shader.finish()?;
    let mut launches = Vec::new();
    for begin in (0..channels.max(1)).step_by(step) {
        let end = (begin + step).min(channels);
        launches.push(Launch {
            label: entry.into(),
            wgsl: text.clone(),
            entry,
            bindings: vec![
                uniform(s, [begin, end], count, 1),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(Slot::Output(0)),
            ],
            workgroups,
        });
    }
    Ok(Lowered { launches, scratch: Vec::new() })
}

/// One invocation per weight element and range of positions; a second launch adds the partial sums.
fn weight_direct(s: &Sizes, args: &Args<'_>) -> Result<Lowered, String> {
    let count = args.outputs[0].shape.numel();
    let positions = s.n * s.oh * s.ow;
    // Ranges short enough for one loop, and enough of them to fill a device.
    let pass = (1_usize << 14).div_ceil(count).min(positions.div_ceil(256)).max(1);
    let stretch = positions.div_ceil(pass).clamp(1, 4096).max(positions.div_ceil(MAX_ITERATIONS));
    let splits = positions.div_ceil(stretch).max(1);
    let workgroups = args.profile.grid((count as u64 * splits as u64).div_ceil(LANES))?;
    let entry = "conv2d_weight_direct";
    let partial = Launch {
        label: entry.into(),
        wgsl: Shader::new("conv2d_weight_direct").finish()?,
        entry,
        bindings: vec![
            uniform(s, [positions, stretch], count, splits),
            Binding::Read(Slot::Input(0)),
            Binding::Read(Slot::Input(1)),
            Binding::Write(Slot::Scratch(0)),
        ],
        workgroups,
    };
    let sum = weight_sum(splits, count, args)?;
    Ok(Lowered { launches: vec![partial, sum], scratch: vec![count * splits * 4] })
}

/// Adds partial weight gradients `[splits, O, C / groups, KH, KW]`.
pub(super) fn weight_sum(splits: usize, count: usize, args: &Args<'_>) -> Result<Launch, String> {
    if splits > MAX_ITERATIONS {
        return Err("the sum over positions is too long for one launch; split the batch".into());
    }
    sum_of_parts(DType::F32, splits, count, Slot::Scratch(0), Slot::Output(0), args.profile)
}
