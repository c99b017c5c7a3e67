//! The kernels of the convolutions: direct loops for every shape, and (in `packed`) matrix
//! products over channels-last copies for dense ones.

use super::packed::{self, Tiling, Windows};
use super::{Convolution, MOST_ITERATIONS, Sizes, Wanted};
use crate::op::{Args, Binding, Kernel, Launch, Lowered, Slot, Variant};
use crate::shader::Shader;
use crate::wgsl;

/// Invocations of a workgroup of the direct kernels.
const LANES: u64 = 64;

/// The variants, best first: for software adapters with subgroups of 8, for those without, for
/// GPUs, and for every shape.
const VARIANTS: &[Variant] = &[
    Variant {
        subgroup: Some(8),
        software: true,
        epilogue: true,
        invocations: 8,
        workgroup_memory: 8192,
        ..Variant::plain("shuffle")
    },
    Variant { software: true, epilogue: true, invocations: 32, ..Variant::plain("rows") },
    Variant { workgroup_memory: 8192, epilogue: true, invocations: 64, ..Variant::plain("tile") },
    Variant { epilogue: true, invocations: 64, ..Variant::plain("direct") },
];

/// The same for the weight gradient, whose tile keeps positions in workgroup memory too.
const WEIGHT_VARIANTS: &[Variant] = &[
    Variant { subgroup: Some(8), software: true, epilogue: true, invocations: 8, ..Variant::plain("shuffle") },
    Variant { software: true, epilogue: true, invocations: 32, ..Variant::plain("rows") },
    Variant { workgroup_memory: 8448, epilogue: true, invocations: 64, ..Variant::plain("tile") },
    Variant { epilogue: true, invocations: 64, ..Variant::plain("direct") },
];

/// Rows and vec4 columns of a tile of the variant `shuffle`, and of `rows`; for the weight
/// gradient, whose rows are vec4 too, a quarter as many rows.
const SHUFFLE: [usize; 2] = [64, 8];
const ROWS: [usize; 2] = [16, 2];

impl Convolution {
    /// The share of the product's tiles that holds results.
    fn filled(&self, sizes: &Sizes, [rows, columns]: [usize; 2]) -> f64 {
        let share = |size: usize, tile: usize| size as f64 / (size.div_ceil(tile) * tile).max(1) as f64;
        let windows = self.windows(sizes);
        match self.wanted {
            Wanted::Output => share(windows.positions(), rows) * share(sizes.o.div_ceil(4), columns),
            Wanted::InputGrad(_) => {
                share(windows.positions(), rows) * share((sizes.c * windows.phases()).div_ceil(4), columns)
            }
            Wanted::WeightGrad(_) => share(windows.depth(), rows / 4) * share(sizes.o.div_ceil(4), columns),
        }
    }

    /// The windows that the packed kernels walk over.
    fn windows(&self, sizes: &Sizes) -> Windows {
        match self.wanted {
            Wanted::InputGrad(_) => Windows::over_dy(sizes),
            _ => Windows::over_input(sizes),
        }
    }
}

impl Kernel for Convolution {
    fn variants(&self) -> &'static [Variant] {
        if let Wanted::WeightGrad(_) = self.wanted { WEIGHT_VARIANTS } else { VARIANTS }
    }

    fn suits(&self, variant: &Variant, args: &Args<'_>) -> bool {
        if variant.name == "direct" {
            return true;
        }
        let sizes = self.sizes(args.inputs, args.outputs);
        // Below this the copies and their launches cost more than they save.
        if variant.software != args.profile.software || sizes.flops() < 2e5 {
            return false;
        }
        // Full, the shuffled tile is twice as fast as the smaller one; it may be less well filled.
        variant.name != "shuffle" || 2.0 * self.filled(&sizes, SHUFFLE) > self.filled(&sizes, ROWS)
    }

    fn supports(&self, variant: &Variant, args: &Args<'_>) -> bool {
        let sizes = self.sizes(args.inputs, args.outputs);
        variant.name == "direct" || packed::supports(&sizes, || self.windows(&sizes), args)
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let s = &self.sizes(args.inputs, args.outputs);
        let tiling = |entry, rows, columns, tiles| Tiling { entry, rows, columns, tiles };
        let ([shuffle_rows, shuffle_columns], [rows, columns]) = (SHUFFLE, ROWS);
        if let Wanted::WeightGrad(_) = self.wanted {
            let (shader, tiling) = match variant.name {
                "shuffle" => (
                    wgsl!("conv2d_weight_shuffle"),
                    tiling("conv2d_weight_shuffle", shuffle_rows / 4, shuffle_columns, 1),
                ),
                "rows" => (wgsl!("conv2d_weight_rows"), tiling("conv2d_weight_rows", rows / 4, columns, 32)),
                "tile" => (wgsl!("conv2d_weight_tile"), tiling("conv2d_weight_tile", 16, 16, 1)),
                _ => return weight_direct(s, args),
            };
            return packed::weight_product(s, shader, tiling, args);
        }
        let backward = self.wanted != Wanted::Output;
        let (shader, tiling) = match variant.name {
            "shuffle" => (wgsl!("conv2d_shuffle"), tiling("conv2d_shuffle", shuffle_rows, shuffle_columns, 1)),
            "rows" => (wgsl!("conv2d_rows"), tiling("conv2d_rows", rows, columns, 32)),
            "tile" => (wgsl!("conv2d_tile"), tiling("conv2d_tile", 64, 16, 1)),
            _ if backward => {
                return direct(wgsl!("conv2d_input_direct"), "conv2d_input_direct", s, s.group_o(), args);
            }
            _ => return direct(wgsl!("conv2d_direct"), "conv2d_direct", s, s.group_c(), args),
        };
        packed::product(s, backward, shader, tiling, args)
    }
}

/// The uniform that the direct kernels share.
fn uniform(s: &Sizes, range: [usize; 2], count: usize, splits: usize) -> Binding {
    let Sizes { c, h, w, o, kh, kw, oh, ow, options, .. } = *s;
    let ([sy, sx], [py, px], [dy, dx]) = (options.stride, options.padding, options.dilation);
    let sizes = [c, h, w, o, kh, kw, oh, ow, sy, sx, py, px, dy, dx, s.group_c(), s.group_o()];
    let work = [range[0], range[1], count, splits];
    Binding::Uniform(sizes.into_iter().chain(work).map(|size| size as u32).collect())
}

/// One invocation for each output, which sums over `channels` and the kernel, in several launches
/// where that is too long for one.
fn direct(shader: Shader, entry: &'static str, s: &Sizes, channels: usize, args: &Args<'_>) -> Result<Lowered, String> {
    let taps = s.kh * s.kw;
    let step = (MOST_ITERATIONS / taps).max(1);
    let count = args.outputs[0].shape.numel();
    let workgroups = args.profile.grid((count as u64).div_ceil(LANES))?;
    let mut launches = Vec::new();
    for begin in (0..channels.max(1)).step_by(step) {
        let end = (begin + step).min(channels);
        let last = end == channels;
        // What is to happen to the finished sums happens in the last launch.
        let shader = shader.clone();
        let shader = if last { shader } else { shader.function("epilogue", "") };
        let shader = if last { shader } else { shader.function("store", raw_store(entry)) };
        launches.push(Launch {
            label: entry.into(),
            wgsl: shader.finish()?,
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

/// A store without epilogue.
fn raw_store(entry: &str) -> &'static str {
    if entry == "conv2d_direct" {
        "fn store(v: f32, i: u32) { y[i] = v; }"
    } else {
        "fn store(v: f32, i: u32) { dx[i] = v; }"
    }
}

/// One invocation for each weight element and stretch of positions, then the sum of the stretches.
fn weight_direct(s: &Sizes, args: &Args<'_>) -> Result<Lowered, String> {
    let count = args.outputs[0].shape.numel();
    let positions = s.n * s.oh * s.ow;
    // Stretches short enough for one loop, and enough of them to fill a device.
    let wanted = (1_usize << 14).div_ceil(count).min(positions.div_ceil(256)).max(1);
    let stretch = positions.div_ceil(wanted).clamp(1, 4096).max(positions.div_ceil(MOST_ITERATIONS));
    let splits = positions.div_ceil(stretch).max(1);
    let workgroups = args.profile.grid((count as u64 * splits as u64).div_ceil(LANES))?;
    let entry = "conv2d_weight_direct";
    let partial = Launch {
        label: entry.into(),
        wgsl: wgsl!("conv2d_weight_direct").finish()?,
        entry,
        bindings: vec![
            uniform(s, [positions, stretch], count, splits),
            Binding::Read(Slot::Input(0)),
            Binding::Read(Slot::Input(1)),
            Binding::Write(Slot::Scratch(0)),
        ],
        workgroups,
    };
    let taps = s.kh * s.kw;
    let strides = [count, s.group_c() * taps, taps, 1, 0];
    let sum = weight_sum(s, splits, taps, 1, strides, args)?;
    Ok(Lowered { launches: vec![partial, sum], scratch: vec![count * splits * 4] })
}

/// Adds partial weight gradients. `strides`: split, output channel, channel, `tap / fold`, `tap % fold`.
pub(super) fn weight_sum(
    s: &Sizes,
    splits: usize,
    taps: usize,
    fold: usize,
    strides: [usize; 5],
    args: &Args<'_>,
) -> Result<Launch, String> {
    if splits > MOST_ITERATIONS {
        return Err("it sums over too many positions for one launch; split the batch".into());
    }
    let count = args.outputs[0].shape.numel();
    let words = [count, splits, s.group_c(), taps, fold].into_iter().chain(strides);
    let entry = "conv2d_weight_sum";
    Ok(Launch {
        label: entry.into(),
        wgsl: wgsl!("conv2d_weight_sum").finish()?,
        entry,
        bindings: vec![
            Binding::Uniform(words.map(|word| word as u32).collect()),
            Binding::Read(Slot::Scratch(0)),
            Binding::Write(Slot::Output(0)),
        ],
        workgroups: args.profile.grid((count as u64).div_ceil(LANES))?,
    })
}
