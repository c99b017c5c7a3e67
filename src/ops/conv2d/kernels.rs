//! The kernels of the convolutions: direct loops for every shape; for dense convolutions matrix products, either over
//! channels-last copies (`packed`, on GPUs with `tiles`) or, for 1x1 kernels, in place (`pointwise`); for depthwise
//! convolutions sums over channels-last copies (`depthwise`).

use super::packed::{self, ConvTiling, Windows, weight_sum};
use super::tiles::{NCHW32, NCHW32X128, NCHW64, NCHW128, Product, TILE32, TILE32X128, TILE64, TILE128, TILES};
use super::{ConvPass, Convolution, MAX_ITERATIONS, Sizes, depthwise, pointwise};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Precision, Slot, Style, Variant, Work};
use crate::ops::cooperative::{COOPERATIVE64, COOPERATIVE128};
use crate::shader::Shader;

/// Invocations per workgroup of the direct kernels.
const LANES: u64 = 64;

/// For 1x1 kernels.
const POINTWISE: Variant = variant("pointwise");
/// The same by cooperative matrices.
const COOPERATIVE_POINTWISE: Variant = Variant { cooperative: true, ..variant("cooperative_pointwise") };
/// For software adapters with subgroups of 8; the wider one loads less per product.
const SHUFFLE64: Variant = Variant { workgroup_memory: 16384, ..shuffle("shuffle64") };
const SHUFFLE32: Variant = Variant { workgroup_memory: 8192, ..shuffle("shuffle32") };
/// For other software adapters.
const ROWS: Variant = Variant { invocations: 32, ..variant("rows") };
const DEPTHWISE: Variant = variant("depthwise");
/// For every shape.
const DIRECT: Variant = variant("direct");

const VARIANTS: &[Variant] = &[
    COOPERATIVE_POINTWISE,
    COOPERATIVE128,
    COOPERATIVE64,
    POINTWISE,
    SHUFFLE64,
    SHUFFLE32,
    ROWS,
    NCHW128,
    NCHW64,
    NCHW32X128,
    NCHW32,
    TILE128,
    TILE64,
    TILE32X128,
    TILE32,
    DEPTHWISE,
    DIRECT,
];

/// The same for the weight gradient, which needs no workgroup memory for shuffles.
const WEIGHT_SHUFFLE64: Variant = shuffle("shuffle64");
const WEIGHT_SHUFFLE32: Variant = shuffle("shuffle32");

const WEIGHT_VARIANTS: &[Variant] = &[
    COOPERATIVE128,
    COOPERATIVE64,
    WEIGHT_SHUFFLE64,
    WEIGHT_SHUFFLE32,
    ROWS,
    TILE128,
    TILE64,
    TILE32X128,
    TILE32,
    DEPTHWISE,
    DIRECT,
];

const fn shuffle(name: &'static str) -> Variant {
    Variant { subgroup: Some(8), invocations: 8, ..variant(name) }
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
    match *variant {
        SHUFFLE64 | WEIGHT_SHUFFLE64 => Tile { rows: 64, columns: 16, cost: 0.75 },
        SHUFFLE32 | WEIGHT_SHUFFLE32 => Tile { rows: 64, columns: 8, cost: 1.0 },
        _ => Tile { rows: 16, columns: 2, cost: 2.0 },
    }
}

/// Seconds that lavapipe takes longer to compile `shuffle64`, in a step with all three passes. Not measured: fitted to
/// the size from which `shuffle64` is preferred, 2^29 operations.
const COMPILE_MORE: f64 = 2.3;

/// The copies and their launches make up for themselves in convolutions with this many operations.
const FEW: f64 = 2e5;

impl Convolution {
    /// The work of a variant without workgroup memory that multiplies channels-last copies.
    fn packed(&self, sizes: &Sizes, variant: &Variant, software: bool) -> Work {
        let Tile { rows, columns, cost } = tile(variant);
        let (style, compile) = match *variant {
            SHUFFLE64 | WEIGHT_SHUFFLE64 => (Style::Shuffled, COMPILE_MORE),
            SHUFFLE32 | WEIGHT_SHUFFLE32 => (Style::Shuffled, 0.0),
            _ => (Style::Cached, 0.0),
        };
        let windows = self.windows(sizes);
        let outputs = sizes.o.div_ceil(4);
        // Rows and columns, and parts of the sum. The small tile of the weight gradient takes three times as long per
        // product, and is one more kernel to compile.
        let ([m, n], rows, parts, again) = match self.pass {
            ConvPass::Forward => ([windows.positions(), outputs], rows, 1, 1.0),
            ConvPass::BackwardData(_) => {
                ([windows.positions(), (sizes.c * windows.phases()).div_ceil(4)], rows, 1, 1.0)
            }
            ConvPass::BackwardFilter(_) => {
                let again = if *variant == ROWS { 2.0 } else { 1.0 };
                ([windows.depth(), outputs], rows / 4, windows.positions().div_ceil(64), again)
            }
        };
        // Tiles also compute what lies beyond the edges.
        let whole = |size: usize, tile: usize| size.next_multiple_of(tile) as f64 / size as f64;
        let padded = again * (whole(m, rows) * whole(n, columns));
        // A software adapter computes one tile after the other, whatever their number.
        let tiles = (m.div_ceil(rows) * n.div_ceil(columns) * parts) as f64;
        let workgroups = if software { f64::INFINITY } else { tiles / 32.0 };
        Work {
            style,
            launches: 3.0,
            flops: padded * sizes.flops(),
            efficiency: 0.45 / cost,
            workgroups,
            compile,
            ..Work::default()
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

    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let sizes = self.sizes(args.inputs, args.outputs);
        let packed = |variant: &Variant| self.packed(&sizes, variant, args.profile.software);
        let work = match *variant {
            // Beyond [`FEW`] operations, it is slower than the others whatever these compute beyond the edges.
            DIRECT if sizes.flops() < FEW => Work::default(),
            DIRECT => Work { launches: 30.0 * sizes.flops() / FEW, ..Work::default() },
            // The arithmetic of the fastest packed variant, without the copies, which take about a third as long.
            POINTWISE | COOPERATIVE_POINTWISE if !pointwise::supports(&sizes, self.pass) => return None,
            COOPERATIVE_POINTWISE => return pointwise::cost(&sizes, self.pass, Precision::Mixed, args.profile),
            POINTWISE if !args.profile.software => {
                return pointwise::cost(&sizes, self.pass, Precision::Highest, args.profile);
            }
            POINTWISE => {
                let able = [SHUFFLE64, SHUFFLE32, ROWS].into_iter().filter(|v| v.lacking(args.profile).is_none());
                let best = able.map(|v| packed(&v)).min_by(|a, b| args.cost(a).0.total_cmp(&args.cost(b).0))?;
                Work { flops: best.flops * pointwise::share(&sizes), ..best }
            }
            DEPTHWISE if !depthwise::supports(&sizes, self.pass, args) => return None,
            DEPTHWISE => Work { launches: 3.0, flops: sizes.flops(), efficiency: 0.3, ..Work::default() },
            _ if TILES.contains(variant) => {
                return Product::new(&sizes, self.pass, variant, args)?.cost(variant, args.profile);
            }
            _ if !packed::is_product(&sizes) || !self.windows(&sizes).multiply(args) => return None,
            _ => packed(variant),
        };
        Some(args.cost(&work))
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let s = &self.sizes(args.inputs, args.outputs);
        if TILES.contains(variant) {
            let product = Product::new(s, self.pass, variant, args).ok_or("the copies need larger bindings")?;
            return product.lower(s, self.pass, variant, args);
        }
        let Tile { rows, columns, .. } = tile(variant);
        let tiling = |entry, rows, columns, tiles| ConvTiling { entry, rows, columns, tiles };
        let wide = |shader: Shader| shader.set("WIDE", columns / 8);
        if let ConvPass::BackwardFilter(_) = self.pass {
            let (shader, tiling) = match *variant {
                WEIGHT_SHUFFLE64 | WEIGHT_SHUFFLE32 => {
                    let entry = "conv2d_weight_shuffle";
                    (wide(Shader::new("conv2d_weight_shuffle")), tiling(entry, rows / 4, columns, 1))
                }
                ROWS => (Shader::new("conv2d_weight_rows"), tiling("conv2d_weight_rows", rows / 4, columns, 32)),
                DEPTHWISE => return depthwise::weight_product(s, args),
                _ => return weight_direct(s, args),
            };
            return packed::weight_product(s, shader, tiling, args);
        }
        let backward = self.pass != ConvPass::Forward;
        let (shader, tiling) = match *variant {
            SHUFFLE64 | SHUFFLE32 => (wide(Shader::new("conv2d_shuffle")), tiling("conv2d_shuffle", rows, columns, 1)),
            ROWS => (Shader::new("conv2d_rows"), tiling("conv2d_rows", rows, columns, 32)),
            POINTWISE | COOPERATIVE_POINTWISE => {
                return pointwise::product(s, self.pass, variant.precision(), args.profile);
            }
            DEPTHWISE => return depthwise::product(s, self.pass, args),
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
