//! Convolutions with one group as matrix products over channels-last copies.
//!
//! `conv2d_pack` copies the data to `[N, PH, PW, Q]` of vec4 (four channels each), including the zeros of the padding.
//! One branch-free product kernel then serves the forward pass and the input gradient with every kernel size, stride
//! and dilation: rows are positions, columns are output channels, and the sum runs over kernel elements and channels.
//! The weight gradient multiplies two such copies, summing over positions. On GPUs, products can also read the data
//! itself, where that takes less time than a copy ([`Windows::in_place`]).
//!
//! A strided input gradient is split into phases: an input uses only the kernel elements a whole number of strides
//! away, `ceil(K / stride)` along an axis. The inputs of one phase form a convolution of `dy` with stride 1. All phases
//! use the same windows, so they become additional columns of one product (the sub-pixel convolution of Shi et al.,
//! CVPR 2016); only the store differs. With both stride and dilation, or a stride larger than the kernel, zeros are
//! inserted between the elements of `dy` instead.

use super::{MAX_ITERATIONS, Sizes};
use crate::op::{Args, Binding, Launch, Lowered, Slot};
use crate::ops::reduce::sum_of_parts;
use crate::shader::Shader;
use crate::shape::{View, reciprocal};
use crate::{DType, Shape};

/// Most kernel rows or columns with which a product can read the data itself: the shader keeps a bit for each.
const MAX_TAPS_IN_PLACE: usize = 8;

/// Invocations per workgroup of the packing kernels.
const LANES: u64 = 64;

/// How a kernel tiles a product.
#[derive(Clone, Copy)]
pub(super) struct ConvTiling {
    pub(super) entry: &'static str,
    /// Rows of a tile: positions, or row quads for a weight gradient.
    pub(super) rows: usize,
    /// Columns of a tile, in vec4.
    pub(super) columns: usize,
    /// Tiles per workgroup.
    pub(super) tiles: usize,
}

/// One spatial axis of a product: windows over a packed copy, or over the source itself.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// Size of the source.
    source: usize,
    /// Distance of adjacent source elements in the copy: 1, or the stride if zeros are inserted.
    upsample: usize,
    /// Start of the source in the copy; negative if its first elements are never read.
    pad_before: isize,
    /// Size of the copy.
    padded: usize,
    /// Number of windows.
    windows: usize,
    /// Distance of adjacent windows.
    step: usize,
    /// Number of kernel elements.
    taps: usize,
    /// Distance of adjacent kernel elements.
    dilation: usize,
}

impl Axis {
    /// The copy holds only what the windows read.
    fn new(source: usize, upsample: usize, pad_before: isize, [windows, step, taps, dilation]: [usize; 4]) -> Self {
        let padded = windows.saturating_sub(1) * step + (taps - 1) * dilation + 1;
        Axis { source, upsample, pad_before, padded, windows, step, taps, dilation }
    }
}

/// A convolution as windows over a packed copy of its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    n: usize,
    channels: usize,
    y: Axis,
    x: Axis,
    /// Kernel columns stored as channels of the copy: 1, or all of them if there are too few channels to fill a vec4.
    fold: usize,
    /// The phases of a strided input gradient along each axis.
    phases: [Phase; 2],
    /// Whether the product reads a copy of the data, not the data itself.
    pub(super) copied: bool,
}

/// The phases along one axis.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The stride, or 1.
    count: usize,
    /// Position in the gradient of the first phase of the first window: 0, or negative (in the padding).
    origin: isize,
}

const NO_PHASES: [Phase; 2] = [Phase { count: 1, origin: 0 }; 2];

impl Windows {
    /// The windows over `x` that the forward pass and the weight gradient read.
    pub(super) fn over_input(s: &Sizes) -> Self {
        let p = &s.options;
        let axis = |i: usize, size, out, taps| {
            Axis::new(size, 1, p.padding[i] as isize, [out, p.stride[i], taps, p.dilation[i]])
        };
        let windows = Windows {
            n: s.n,
            channels: s.c,
            y: axis(0, s.h, s.oh, s.kh),
            x: axis(1, s.w, s.ow, s.kw),
            fold: 1,
            phases: NO_PHASES,
            copied: true,
        };
        windows.folded()
    }

    /// The windows over `dy` that the input gradient reads, with the kernel reversed: input `i` and kernel element
    /// `u` use `dy` at `(i + padding - u dilation) / stride`.
    pub(super) fn over_dy(s: &Sizes) -> Self {
        let p = &s.options;
        let overlap = p.stride[0] <= s.kh && p.stride[1] <= s.kw;
        if p.stride != [1, 1] && p.dilation == [1, 1] && overlap {
            return Windows::over_phases(s);
        }
        Windows::over_gaps(s)
    }

    /// The same, with zeros inserted for strides.
    pub(super) fn over_gaps(s: &Sizes) -> Self {
        let p = &s.options;
        let axis = |i: usize, size, out, taps: usize| {
            let pad_before = ((taps - 1) * p.dilation[i]) as isize - p.padding[i] as isize;
            Axis::new(out, p.stride[i], pad_before, [size, 1, taps, p.dilation[i]])
        };
        let (y, x) = (axis(0, s.h, s.oh, s.kh), axis(1, s.w, s.ow, s.kw));
        Windows { n: s.n, channels: s.o, y, x, fold: 1, phases: NO_PHASES, copied: true }.folded()
    }

    /// The same by phases. With `i + padding = q stride + r` and `u = r + v stride`, this is `dy` at `q - v`: window
    /// `q` serves all `r`.
    fn over_phases(s: &Sizes) -> Self {
        let p = &s.options;
        let first = |i: usize| p.padding[i] / p.stride[i];
        let axis = |i: usize, size: usize, out, taps: usize| {
            let windows = (size.saturating_sub(1) + p.padding[i]) / p.stride[i] - first(i) + 1;
            let taps = taps.div_ceil(p.stride[i]);
            Axis::new(out, 1, taps as isize - 1 - first(i) as isize, [windows, 1, taps, 1])
        };
        let phase = |i: usize| {
            let count = p.stride[i];
            Phase { count, origin: (first(i) * count) as isize - p.padding[i] as isize }
        };
        let (y, x) = (axis(0, s.h, s.oh, s.kh), axis(1, s.w, s.ow, s.kw));
        Windows { n: s.n, channels: s.o, y, x, fold: 1, phases: [phase(0), phase(1)], copied: true }
    }

    /// Unpadded `dy`, for the weight gradient.
    pub(super) fn plain_dy(s: &Sizes) -> Self {
        let axis = |out| Axis::new(out, 1, 0, [out, 1, 1, 1]);
        Windows { n: s.n, channels: s.o, y: axis(s.oh), x: axis(s.ow), fold: 1, phases: NO_PHASES, copied: true }
    }

    /// Folds kernel columns into channels if that wastes fewer vec4 components.
    fn folded(mut self) -> Self {
        let folded = (self.channels * self.x.taps).div_ceil(4);
        if self.channels < 4 && folded < self.x.taps {
            self.fold = self.x.taps;
            self.x.padded = self.x.windows;
        }
        self
    }

    /// The windows over the data itself, for conv2d_plane_blocks.wgsl; `None` if the shader cannot read it.
    pub(super) fn in_place(self) -> Option<Self> {
        let axes = [self.y, self.x];
        let plain = self.fold == 1 && self.channels.is_multiple_of(4);
        let able = plain && axes.iter().all(|axis| axis.upsample == 1 && axis.taps <= MAX_TAPS_IN_PLACE);
        able.then_some(Windows { copied: false, ..self })
    }

    /// Whether the source's planes consist of whole vec4.
    pub(super) fn plane_by_fours(&self) -> bool {
        (self.y.source * self.x.source).is_multiple_of(4)
    }

    /// The weight gradient `[O, C, KH, KW]` as a view, with merged axes, of the product `[O, ROWS]`.
    pub(super) fn of_rows(&self, s: &Sizes) -> View {
        let rows = 4 * self.depth();
        let (shape, strides) = match self.fold {
            1 => ([s.o, s.c, s.kh * s.kw], [rows, 1, 4 * self.quads()]),
            _ => ([s.o * s.c, s.kh, s.kw], [rows, 4 * self.quads(), 1]), // one channel
        };
        View { shape: Shape::from(shape), strides: strides.to_vec(), offset: 0 }
    }

    /// Undoes [`Windows::folded`]. (Phases are never folded.)
    pub(super) fn unfolded(mut self) -> Self {
        if self.fold > 1 {
            self.fold = 1;
            self.x = Axis::new(
                self.x.source,
                self.x.upsample,
                self.x.pad_before,
                [self.x.windows, self.x.step, self.x.taps, self.x.dilation],
            );
        }
        self
    }

    fn quads(&self) -> usize {
        (self.channels * self.fold).div_ceil(4)
    }

    /// Columns of the product per channel of its result.
    pub(super) fn phases(&self) -> usize {
        self.phases[0].count * self.phases[1].count
    }

    /// Windows of all images.
    pub(super) fn positions(&self) -> usize {
        self.n * self.y.windows * self.x.windows
    }

    /// Whether four windows are always in one row, counted from a multiple of four.
    pub(super) fn by_fours(&self) -> bool {
        self.x.windows.is_multiple_of(4)
    }

    /// Size of the copy in vec4; 0 if there is none.
    pub(super) fn packed(&self) -> usize {
        if !self.copied {
            return 0;
        }
        self.n * self.y.padded * self.x.padded * self.quads()
    }

    /// Iterations of the product's loop, one vec4 of channels each.
    pub(super) fn depth(&self) -> usize {
        self.y.taps * (self.x.taps / self.fold) * self.quads()
    }

    /// Whether the copy fits into a binding of the device and into 1 GiB.
    pub(super) fn fits(&self, args: &Args<'_>) -> bool {
        self.positions() > 0 && self.packed() as u64 * 16 <= args.profile.max_binding.min(1 << 30)
    }

    /// Whether a product can read them: the copy fits, and a loop over the terms is short enough.
    pub(super) fn multiply(&self, args: &Args<'_>) -> bool {
        self.depth() < MAX_ITERATIONS && self.fits(args)
    }

    /// Strides in the copy, in vec4, or in the data: image, row, column; kernel row, kernel column.
    fn steps(&self) -> [usize; 5] {
        let (height, width) = (self.y.source, self.x.source);
        if !self.copied {
            let image = self.channels * height * width;
            return [image, self.y.step * width, self.x.step, self.y.dilation * width, self.x.dilation];
        }
        let quads = self.quads();
        let row = self.x.padded * quads;
        let column = if self.fold > 1 { quads } else { self.x.step * quads };
        [self.y.padded * row, self.y.step * row, column, self.y.dilation * row, self.x.dilation * quads]
    }

    /// Appends the shared part of the products, which stores the results.
    pub(super) fn with_store(&self, shader: Shader) -> Shader {
        let [sy, sx] = self.phases.map(|phase| phase.count);
        let phases = self.phases() > 1;
        let vec4 = !phases && (self.y.windows * self.x.windows).is_multiple_of(4);
        shader.set("PHASES", phases).set("SY", sy).set("SX", sx).set("Y_VEC4", vec4)
    }

    /// The uniform of conv2d_product.wgsl, for `outputs` channels of the result times phases. Only tiles read the terms
    /// of a part.
    pub(super) fn product_uniform(
        &self,
        s: &Sizes,
        outputs: usize,
        [columns, column_blocks, blocks, part_terms]: [usize; 4],
    ) -> Binding {
        let plane = self.y.windows * self.x.windows;
        let [image, row, column, tap_row, tap_column] = self.steps();
        let taps_x = self.x.taps / self.fold;
        let words = [self.positions(), plane, self.x.windows, outputs, columns, column_blocks, image, row, column]
            .into_iter()
            .chain([self.y.taps, taps_x, tap_row, tap_column, self.quads(), blocks, part_terms, s.h, s.w])
            .map(|word| word as u32)
            .chain(self.phases.map(|phase| phase.origin as u32))
            .chain([s.kh, s.kw, self.y.source * self.x.source, self.y.source, self.x.source].map(|size| size as u32))
            .chain([self.y.pad_before, self.x.pad_before].map(|before| before as u32))
            .chain([self.y.step, self.x.step, self.y.dilation, self.x.dilation].map(|step| step as u32));
        let reciprocals = [plane, self.x.windows].into_iter().flat_map(reciprocal);
        Binding::Uniform(reciprocals.chain(words).collect())
    }

    /// The uniform of conv2d_weight_product.wgsl.
    pub(super) fn weight_uniform(
        &self,
        s: &Sizes,
        [row_blocks, column_blocks, blocks, stretch]: [usize; 4],
    ) -> Binding {
        let [image, row, column, tap_row, tap_column] = self.steps();
        let (height, width, taps_x) = (self.y.windows, self.x.windows, self.x.taps / self.fold);
        let words = [self.positions(), height * width, width, height, image, row, column]
            .into_iter()
            .chain([taps_x, tap_row, tap_column, self.quads()])
            .chain([self.depth(), s.o.div_ceil(4), row_blocks, column_blocks, blocks, stretch])
            .chain([s.o, self.channels, s.kh * s.kw, self.fold]);
        let words = words.map(|word| word as u32);
        Binding::Uniform(reciprocal(height * width).into_iter().chain(words).collect())
    }

    /// The launch that packs the data.
    pub(super) fn pack(&self, from: Slot, to: Slot, args: &Args<'_>) -> Result<Launch, String> {
        let (step, dilation) = if self.fold > 1 { (self.x.step, self.x.dilation) } else { (1, 0) };
        let plane = self.y.source * self.x.source;
        let packing = Packing {
            n: self.n,
            padded: [self.y.padded * self.x.padded, self.x.padded],
            fold: self.fold,
            source: [self.channels, self.y.source, self.x.source],
            upsample: [self.y.upsample, self.x.upsample],
            pad_before: [self.y.pad_before, self.x.pad_before],
            step: step as isize,
            dilation,
            offset: 0,
            strides: [self.channels * plane, plane, self.x.source].map(|stride| stride as isize),
        };
        packing.launch([from, to], args)
    }

    /// The launch that packs the weight: rows are the channels summed over, columns those of the result.
    pub(super) fn pack_weight(&self, s: &Sizes, backward: bool, to: Slot, args: &Args<'_>) -> Result<Launch, String> {
        let taps = s.kh * s.kw;
        let outputs = self.phases() * if backward { s.c } else { s.o };
        let (columns, padded_rows) = (outputs.div_ceil(4), self.quads() * 4);
        if self.phases() == 1 {
            let strides = if backward { [s.c * taps, taps] } else { [taps, s.c * taps] };
            let rows = [self.channels, padded_rows];
            return Packing::of_weight(rows, outputs, strides, [taps, self.fold], backward)
                .launch([Slot::Input(1), to], args);
        }
        let count = self.depth() * 4 * columns;
        let words = [count, s.o, s.c, columns, padded_rows, s.kh, s.kw];
        let phases = self.phases.map(|phase| phase.count);
        let words = words.into_iter().chain(phases).chain([self.y.taps, self.x.taps]);
        let words = words.map(|word| word as u32).collect();
        copy_launch(Shader::new("conv2d_pack_phases"), "conv2d_pack_phases", count, words, [Slot::Input(1), to], args)
    }
}

/// Parameters of conv2d_pack.wgsl, which makes a channels-last copy.
pub(super) struct Packing {
    n: usize,
    /// Positions per image and per row.
    padded: [usize; 2],
    /// Adjacent elements of a row stored as channels.
    fold: usize,
    /// Channels, rows and columns of the source.
    source: [usize; 3],
    /// Distance of adjacent source elements in the copy, vertically and horizontally.
    upsample: [usize; 2],
    /// Start of the source in the copy.
    pad_before: [isize; 2],
    /// Distance of adjacent columns of the copy, in elements of the padded and upsampled source.
    step: isize,
    dilation: usize,
    offset: usize,
    /// Strides of image, channel and row in the source.
    strides: [isize; 3],
}

impl Packing {
    /// Packs a weight `[.., .., taps]` to `[taps / fold, padded_rows, fold]` positions with `columns` as channels.
    /// `row` and `column` are the strides of the `rows` and `columns` in the weight. Rows and folded taps are in the
    /// order of the data's channels. With `backward`, the taps are reversed.
    pub(super) fn of_weight(
        [rows, padded_rows]: [usize; 2],
        columns: usize,
        [row, column]: [usize; 2],
        [taps, fold]: [usize; 2],
        backward: bool,
    ) -> Packing {
        let along_row = fold as isize;
        // From the last tap to the first, or from the first to the last.
        let (along, first, offset) = if backward { (-1, along_row - 1, taps - fold) } else { (1, 0, 0) };
        Packing {
            n: taps / fold,
            padded: [padded_rows, fold],
            fold: 1,
            source: [columns, rows, fold],
            upsample: [1, 1],
            pad_before: [0, -first],
            step: along,
            dilation: 0,
            offset,
            strides: [along * along_row, column as isize, row as isize],
        }
    }

    /// The launch that makes the copy.
    pub(super) fn launch(&self, [from, to]: [Slot; 2], args: &Args<'_>) -> Result<Launch, String> {
        let [image, row] = self.padded;
        let [channels, h, w] = self.source;
        let quads = (channels * self.fold).div_ceil(4);
        let blocks = quads.div_ceil(4);
        let count = self.n * image * blocks;
        let reciprocals = [blocks, image, row, self.fold].into_iter().flat_map(reciprocal);
        let sizes = [count, image, row, quads, blocks, self.fold, channels, h, w].map(|word| word as u32);
        let mut words: Vec<u32> = reciprocals.chain(sizes).collect();
        words.extend(self.pad_before.map(|before| before as u32));
        words.extend([self.step as u32, self.dilation as u32, self.offset as u32]);
        words.extend(self.strides.map(|stride| stride as u32));
        let shader = Shader::new("conv2d_pack").set("UP_Y", self.upsample[0]).set("UP_X", self.upsample[1]);
        copy_launch(shader, "conv2d_pack", count, words, [from, to], args)
    }
}

fn copy_launch(
    shader: Shader,
    entry: &'static str,
    count: usize,
    words: Vec<u32>,
    [from, to]: [Slot; 2],
    args: &Args<'_>,
) -> Result<Launch, String> {
    Ok(Launch {
        label: entry.into(),
        wgsl: shader.finish()?,
        entry,
        bindings: vec![Binding::Uniform(words), Binding::Read(from), Binding::Write(to)],
        workgroups: args.profile.grid((count as u64).div_ceil(LANES))?,
    })
}

/// Forward or, with `backward`, the input gradient: packs the data and the weight, then multiplies.
pub(super) fn product(
    s: &Sizes,
    backward: bool,
    shader: Shader,
    tiling: ConvTiling,
    args: &Args<'_>,
) -> Result<Lowered, String> {
    let (windows, outputs) = if backward { (Windows::over_dy(s), s.c) } else { (Windows::over_input(s), s.o) };
    let outputs = outputs * windows.phases();
    let columns = outputs.div_ceil(4);
    let packed_weight = windows.depth() * 4 * columns;
    let [data, weight] = [Slot::Scratch(0), Slot::Scratch(1)];
    let positions = windows.positions();
    let column_blocks = columns.div_ceil(tiling.columns);
    let blocks = positions.div_ceil(tiling.rows) * column_blocks;
    let uniform = windows.product_uniform(s, outputs, [columns, column_blocks, blocks, 0]);
    let shader = windows.with_store(shader);
    let multiply = Launch {
        label: tiling.entry.into(),
        wgsl: shader.finish()?,
        entry: tiling.entry,
        bindings: vec![uniform, Binding::Read(data), Binding::Read(weight), Binding::Write(Slot::Output(0))],
        workgroups: args.profile.grid((blocks as u64).div_ceil(tiling.tiles as u64))?,
    };
    let copy_weight = windows.pack_weight(s, backward, weight, args)?;
    Ok(Lowered {
        launches: vec![windows.pack(Slot::Input(0), data, args)?, copy_weight, multiply],
        scratch: vec![windows.packed() * 16, packed_weight * 16],
    })
}

/// The weight gradient: packs both operands, multiplies over ranges of positions, then adds the partial sums.
pub(super) fn weight_product(
    s: &Sizes,
    shader: Shader,
    tiling: ConvTiling,
    args: &Args<'_>,
) -> Result<Lowered, String> {
    let (windows, dy) = (Windows::over_input(s), Windows::plain_dy(s));
    let (rows, columns, positions) = (windows.depth(), dy.quads(), windows.positions());
    let (row_blocks, column_blocks) = (rows.div_ceil(tiling.rows), columns.div_ceil(tiling.columns));
    // Enough workgroups to fill a device; ranges long enough to be worth another launch.
    let workgroups = (row_blocks * column_blocks).div_ceil(tiling.tiles);
    let pass = if args.profile.software { 16_usize } else { 512 }.div_ceil(workgroups).max(1);
    let stretch = positions.div_ceil(pass).clamp(64, 8192).next_multiple_of(16);
    let splits = positions.div_ceil(stretch);
    let blocks = row_blocks * column_blocks * splits;
    let uniform = windows.weight_uniform(s, [row_blocks, column_blocks, blocks, stretch]);
    let [data, gradient, partial] = [Slot::Scratch(1), Slot::Scratch(2), Slot::Scratch(0)];
    let multiply = Launch {
        label: tiling.entry.into(),
        wgsl: shader.finish()?,
        entry: tiling.entry,
        bindings: vec![uniform, Binding::Read(data), Binding::Read(gradient), Binding::Write(partial)],
        workgroups: args.profile.grid((blocks as u64).div_ceil(tiling.tiles as u64))?,
    };
    let count = args.outputs[0].shape.numel();
    let sum = weight_sum(splits, count, args)?;
    Ok(Lowered {
        launches: vec![
            windows.pack(Slot::Input(0), data, args)?,
            dy.pack(Slot::Input(1), gradient, args)?,
            multiply,
            sum,
        ],
        scratch: vec![splits * count * 4, windows.packed() * 16, dy.packed() * 16],
    })
}

/// Whether this convolution is a product: it has one group, and nothing is empty.
pub(super) fn is_product(s: &Sizes) -> bool {
    s.options.groups == 1 && ![s.n, s.c, s.o, s.h, s.w].contains(&0)
}

/// Adds partial weight gradients `[splits, O, C / groups, KH, KW]`.
pub(super) fn weight_sum(splits: usize, count: usize, args: &Args<'_>) -> Result<Launch, String> {
    if splits > MAX_ITERATIONS {
        return Err("the sum over positions is too long for one launch; split the batch".into());
    }
    sum_of_parts(DType::F32, splits, count, Slot::Scratch(0), Slot::Output(0), args.profile)
}
