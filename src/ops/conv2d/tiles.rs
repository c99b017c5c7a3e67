//! The products of `packed` by tiles in workgroup memory, for GPUs. Sums are split into parts where there are too few
//! tiles to fill the device. Cooperative matrices multiply the same operands.

use super::packed::{Windows, is_product};
use super::{ConvPass, Sizes};
use crate::op::{Args, Binding, Cost, Launch, Lowered, Machine, Slot, Style, Variant, Work};
use crate::ops::cooperative::{self, COOPERATIVE64, COOPERATIVE128};
use crate::ops::matmul::kernels::padded;
use crate::ops::reduce::{adds_together, sum_of_parts, sum_of_views};
use crate::shader::Shader;
use crate::{DType, Profile};

/// The variants, by the sides of their tile. An invocation computes 8 x 8 results; in the smallest tile, 4 x 4, so that
/// there are four times as many workgroups as with [`TILE64`].
pub(super) const TILE128: Variant = variant("tile128", 256, 16384);
pub(super) const TILE64: Variant = variant("tile64", 64, 8192);
/// For few channels.
pub(super) const TILE32X128: Variant = variant("tile32x128", 64, 5120);
pub(super) const TILE32: Variant = variant("tile32", 64, 4096);
/// The same tiles for the forward pass and the input gradient. They read the data itself, not a channels-last copy.
pub(super) const NCHW128: Variant = Variant { name: "nchw128", ..TILE128 };
pub(super) const NCHW64: Variant = Variant { name: "nchw64", ..TILE64 };
pub(super) const NCHW32X128: Variant = Variant { name: "nchw32x128", ..TILE32X128 };
pub(super) const NCHW32: Variant = Variant { name: "nchw32", ..TILE32 };
pub(super) const TILES: [Variant; 10] =
    [COOPERATIVE128, COOPERATIVE64, TILE128, TILE64, TILE32X128, TILE32, NCHW128, NCHW64, NCHW32X128, NCHW32];

const fn variant(name: &'static str, invocations: u32, workgroup_memory: u32) -> Variant {
    Variant { epilogue: true, invocations, workgroup_memory, ..Variant::plain(name) }
}

/// How a variant tiles a product.
struct Tiling {
    /// Rows and columns.
    tile: [usize; 2],
    /// Workgroups that keep a multiprocessor busy: 256 invocations, two for each lane of NVIDIA's.
    resident: f64,
    /// The share of the peak that the loop reaches, as for the matrix product with the same tile.
    efficiency: f64,
    /// Terms that it adds up in a round.
    round: usize,
    /// Whether it reads the data itself.
    in_place: bool,
}

/// The speed with data in place, relative to a copy. Not measured: NVIDIA's compiler for CUDA generates 0.79 multiply-adds
/// per instruction in a round of `nchw64`, and 0.84 in one of `tile64`.
const IN_PLACE: f64 = 0.94;

impl Tiling {
    fn of(variant: &Variant) -> Tiling {
        let tiling = |tile, resident, efficiency, round| Tiling { tile, resident, efficiency, round, in_place: false };
        match *variant {
            COOPERATIVE128 => tiling([128, 128], 2.0, 2.4, cooperative::TERMS),
            COOPERATIVE64 => tiling([64, 64], 4.0, 1.6, cooperative::TERMS),
            TILE128 => tiling([128, 128], 1.0, 0.69, 16),
            TILE64 => tiling([64, 64], 4.0, 0.6, 16),
            TILE32X128 => tiling([32, 128], 4.0, 0.53, 8),
            TILE32 => tiling([32, 32], 4.0, 0.4, 16),
            NCHW128 => Tiling::of(&TILE128).in_place(),
            NCHW64 => Tiling::of(&TILE64).in_place(),
            NCHW32X128 => Tiling::of(&TILE32X128).in_place(),
            _ => Tiling::of(&TILE32).in_place(),
        }
    }

    /// The same tile for data that is not copied: a 4 x 4 block takes 16 loads instead of 4.
    fn in_place(self) -> Tiling {
        Tiling { efficiency: IN_PLACE * self.efficiency, in_place: true, ..self }
    }
}

/// The entry point of a variant, which is also the name of its file, and the shader.
fn shader(variant: &Variant, args: &Args<'_>) -> Result<(&'static str, Shader), String> {
    if variant.cooperative {
        // Copies hold what they copy. Rows are those of the second input.
        let shader = cooperative::shader(variant, args.profile)?;
        let [left, right] = [args.stored[1], args.stored[0]].map(|dtype| dtype == DType::F16);
        return Ok(("cooperative_tile", shader.set("LEFT_IN_RANGE", left).set("RIGHT_IN_RANGE", right)));
    }
    let Tiling { tile: [tile_m, tile_n], round, in_place, .. } = Tiling::of(variant);
    // Vec4 of rows, and of columns, per invocation.
    let quads = if tile_n == 32 { 1 } else { 2 };
    let shader = Shader::new("conv2d_tile").set("TILE_M", tile_m).set("TILE_N", tile_n).set("TERMS", round);
    Ok(("conv2d_tile", shader.set("QUADS", quads).set("LANES", variant.invocations).set("COPIED", !in_place)))
}

/// Whether neighbours load terms of operands that are contiguous along them.
fn neighbours_load_terms(variant: &Variant, args: &Args<'_>) -> bool {
    variant.cooperative || padded(variant, args.profile)
}

/// Fewest terms in a part of a sum, as in a matrix product.
const MIN_PART: usize = 128;

/// Most terms: some drivers silently stop long loops.
const MAX_PART: usize = 12_000;

/// Parts that are added up in the time of a launch: an invocation adds them one after the other, and 80 ns is a guess.
const PARTS_PER_LAUNCH: f64 = 64.0;

/// The product of a convolution.
pub(super) struct Product {
    /// The windows over `x` or `dy`.
    windows: Windows,
    /// Rows, columns and terms; see `shaders/conv2d_tile.wgsl`.
    sizes: [usize; 3],
    /// The copies of operands, the vec4 that they write, and the elements that they read.
    copies: usize,
    copied: usize,
    read: usize,
    /// Whether it goes to scratch memory even if it has one part.
    in_parts: bool,
}

/// A product cut into tiles, and its sum into parts.
struct Cut {
    row_blocks: usize,
    column_blocks: usize,
    parts: usize,
    /// Terms per part.
    terms: usize,
    cost: Cost,
}

impl Cut {
    fn workgroups(&self) -> usize {
        self.row_blocks * self.column_blocks * self.parts
    }
}

impl Product {
    /// The product of a pass with a variant; `None` if its copies do not fit the device, or it cannot read the data.
    pub(super) fn new(s: &Sizes, pass: ConvPass, variant: &Variant, args: &Args<'_>) -> Option<Product> {
        if !is_product(s) {
            return None;
        }
        let read = args.inputs.iter().map(|ty| ty.shape.numel()).sum();
        let product = match pass {
            ConvPass::BackwardFilter(_) => {
                let windows = Windows::over_input(s);
                // Folded kernel columns of several channels would be a fourth axis of the result.
                let windows = if s.c == 1 { windows } else { windows.unfolded() };
                let dy = Windows::plain_dy(s);
                let (copies, read) = if dy.plane_by_fours() {
                    (vec![windows], args.inputs[0].shape.numel())
                } else {
                    (vec![windows, dy], read)
                };
                let copied = copies.iter().map(Windows::packed).sum();
                let sizes = [s.o, windows.depth() * 4, windows.positions()];
                Product { windows, sizes, copies: copies.len(), copied, read, in_parts: true }
            }
            _ => {
                let backward = pass != ConvPass::Forward;
                let windows = if backward { Windows::over_dy(s) } else { Windows::over_input(s) };
                let windows = if Tiling::of(variant).in_place { windows.in_place()? } else { windows };
                let rows = windows.phases() * if backward { s.c } else { s.o };
                let sizes = [rows, windows.positions(), windows.depth() * 4];
                let copied = windows.packed() + sizes[2] * rows.div_ceil(4);
                let (copies, read) = if windows.copied { (2, read) } else { (1, args.inputs[1].shape.numel()) };
                Product { windows, sizes, copies, copied, read, in_parts: false }
            }
        };
        product.windows.multiply(args).then_some(product)
    }

    /// The estimated time with a variant.
    pub(super) fn cost(&self, variant: &Variant, profile: &Profile) -> Option<Cost> {
        if variant.cooperative && !cooperative::fits(variant, profile) {
            return None;
        }
        Some(self.cut(variant, profile)?.cost)
    }

    /// The fastest number of parts; `None` if no number of them fits the device.
    fn cut(&self, variant: &Variant, profile: &Profile) -> Option<Cut> {
        let machine = Machine::of(profile);
        let tiling = Tiling::of(variant);
        let emulated = variant.cooperative && profile.software;
        let efficiency = tiling.efficiency * if emulated { cooperative::EMULATED } else { 1.0 };
        let [m, n, k] = self.sizes;
        let [tile_m, tile_n] = tiling.tile;
        let [row_blocks, column_blocks] = [m.div_ceil(tile_m), n.div_ceil(tile_n)];
        let tiles = row_blocks * column_blocks;
        // Partial sums in scratch memory.
        let sums = |parts| if parts > 1 || self.in_parts { parts } else { 0 };
        let cut = |parts: usize| {
            let terms = k.div_ceil(parts).next_multiple_of(tiling.round);
            let parts = k.div_ceil(terms);
            let one_by_one = if adds_together(profile, parts, m * n) { 0.0 } else { parts as f64 / PARTS_PER_LAUNCH };
            let sum = if sums(parts) > 0 { 1.0 + one_by_one } else { 0.0 };
            let work = Work {
                style: Style::Shared,
                // The copies, the product, and the sum of the parts.
                launches: self.copies as f64 + 1.0 + sum,
                flops: 2.0 * (tiles * parts * terms * tile_m * tile_n) as f64,
                efficiency,
                workgroups: (tiles * parts) as f64,
                resident: tiling.resident,
                scratch: 4.0 * (self.read + 4 * self.copied + 2 * sums(parts) * m * n) as f64,
                ..Work::default()
            };
            Cut { row_blocks, column_blocks, parts, terms, cost: machine.cost(&work) }
        };
        let fit = profile.max_binding as usize / (4 * m * n);
        // Twice as many workgroups as fill the device spread evenly.
        let useful = (2.0 * machine.fill(tiling.resident)) as usize / tiles;
        let least = k.div_ceil(MAX_PART);
        let most = useful.min(k / MIN_PART).min(fit).max(least);
        let cuts = (least..=most).map(cut).filter(|cut| sums(cut.parts) <= fit);
        cuts.min_by(|a, b| a.cost.0.total_cmp(&b.cost.0))
    }

    /// The launches with a variant.
    pub(super) fn lower(
        &self,
        s: &Sizes,
        pass: ConvPass,
        variant: &Variant,
        args: &Args<'_>,
    ) -> Result<Lowered, String> {
        let cut = self.cut(variant, args.profile).ok_or("the sums need larger bindings")?;
        match pass {
            ConvPass::BackwardFilter(_) => self.weight(s, &cut, variant, args),
            _ => self.product(s, pass != ConvPass::Forward, &cut, variant, args),
        }
    }

    /// Forward or, with `backward`, the input gradient.
    fn product(
        &self,
        s: &Sizes,
        backward: bool,
        cut: &Cut,
        variant: &Variant,
        args: &Args<'_>,
    ) -> Result<Lowered, String> {
        let Product { windows, sizes: [m, _, k], .. } = self;
        let (entry, shader) = shader(variant, args)?;
        let shader = if variant.cooperative { shader.set("CONV2D", true) } else { shader };
        // Copies are contiguous along the terms.
        let shader = shader.set("RIGHT_BY_TERMS", windows.copied && neighbours_load_terms(variant, args));
        let mut scratch = Vec::new();
        let mut allocate = |bytes| {
            scratch.push(bytes);
            Slot::Scratch(scratch.len() - 1)
        };
        let columns = m.div_ceil(4);
        let weight = allocate(k * columns * 16);
        let mut launches = vec![windows.pack_weight(s, backward, weight, args)?];
        let mut data = Slot::Input(0);
        if windows.copied {
            data = allocate(windows.packed() * 16);
            launches.push(windows.pack(Slot::Input(0), data, args)?);
        }
        let count = args.outputs[0].shape.numel();
        let target = if cut.parts > 1 { allocate(cut.parts * count * 4) } else { Slot::Output(0) };
        let blocks = [columns, cut.row_blocks, cut.workgroups(), cut.terms];
        launches.push(Launch {
            label: format!("conv2d {}", variant.name),
            wgsl: windows.with_store(shader).finish()?,
            entry,
            bindings: vec![
                windows.product_uniform(s, *m, blocks),
                Binding::Read(data),
                Binding::Read(weight),
                Binding::Write(target),
            ],
            workgroups: args.profile.grid(cut.workgroups() as u64)?,
        });
        if cut.parts > 1 {
            launches.push(sum_of_parts(DType::F32, cut.parts, count, target, Slot::Output(0), args.profile)?);
        }
        Ok(Lowered { launches, scratch })
    }

    /// The weight gradient.
    fn weight(&self, s: &Sizes, cut: &Cut, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let Product { windows, sizes: [m, n, _], .. } = self;
        let (entry, shader) = shader(variant, args)?;
        let dy = Windows::plain_dy(s);
        let [sums, data] = [0, 1].map(Slot::Scratch);
        let mut launches = vec![windows.pack(Slot::Input(0), data, args)?];
        let mut scratch = vec![cut.parts * m * n * 4, windows.packed() * 16];
        let mut gradient = Slot::Input(1);
        if self.copies == 2 {
            gradient = Slot::Scratch(2);
            launches.push(dy.pack(Slot::Input(1), gradient, args)?);
            scratch.push(dy.packed() * 16);
        }
        let planes = self.copies == 1;
        let shader = shader.set("LEFT_BY_TERMS", planes && neighbours_load_terms(variant, args));
        let shader = shader.set("WHOLE", windows.by_fours()).set("PLANES", planes);
        let blocks = [cut.column_blocks, cut.row_blocks, cut.workgroups(), cut.terms];
        let multiply = Launch {
            label: format!("conv2d_weight {}", variant.name),
            wgsl: shader.set("CONV2D_WEIGHT", true).finish()?,
            entry,
            bindings: vec![
                windows.weight_uniform(s, blocks),
                Binding::Read(data),
                Binding::Read(gradient),
                Binding::Write(sums),
            ],
            workgroups: args.profile.grid(cut.workgroups() as u64)?,
        };
        let sum = sum_of_views(cut.parts, m * n, &windows.of_rows(s), sums, Slot::Output(0), args.profile)?;
        launches.extend([multiply, sum]);
        Ok(Lowered { launches, scratch })
    }
}
