//! Matrix product kernels: tiling, kernel selection and operand loading.

use super::{Matmul, batch, sizes};
use crate::op::{Args, Binding, Cost, Kernel, Launch, Lowered, Machine, Slot, Style, Variant, Work};
use crate::ops::cooperative::{self, COOPERATIVE64, COOPERATIVE128};
use crate::ops::reduce::sum_of_parts;
use crate::shader::Shader;
use crate::shape::{View, merge_axes};
use crate::{DType, Profile};

/// For GPUs, few rows or columns by a matrix that is contiguous along k: the invocations of a workgroup share a tile and
/// split k.
const GEMV: Variant = Variant { workgroup_memory: 8192, ..variant("gemv") };
/// The same for a matrix that is contiguous along its other axis: four neighbours read 64 adjacent bytes.
const GEMV_ACROSS: Variant = Variant { invocations: 256, workgroup_memory: 16384, ..variant("gemv_across") };
/// 64 rows x 2 vec4 per lane, one operand shared by subgroup shuffles. For lavapipe, where a load takes as long as a
/// dozen vec4 multiply-adds: larger tiles need fewer loads per multiply-add.
const SHUFFLE64: Variant = Variant { workgroup_memory: 16384, ..shuffle("shuffle64") };
/// 32 rows x 1 vec4: a quarter of the code, which compiles in a fifth of the time.
pub(in crate::ops) const SHUFFLE32: Variant = Variant { workgroup_memory: 4096, ..shuffle("shuffle32") };
/// For GPUs, tiles in workgroup memory, 8 x 8 elements per invocation: larger tiles need fewer reads per multiply-add.
pub(in crate::ops) const TILE128: Variant = Variant { invocations: 256, workgroup_memory: 16384, ..variant("tile128") };
/// 8 x 16 elements per invocation: three quarters of the reads and half of the barriers. NVIDIA's compiler for CUDA needs
/// 225 to 231 registers, and one workgroup fits on a multiprocessor, as with `tile128`.
const TILE128X256: Variant = Variant { invocations: 256, workgroup_memory: 24576, ..variant("tile128x256") };
pub(in crate::ops) const TILE64: Variant = Variant { workgroup_memory: 8192, ..variant("tile64") };
/// The same for results of few rows or columns.
pub(in crate::ops) const TILE32X128: Variant = Variant { workgroup_memory: 5120, ..variant("tile32x128") };
const TILE128X32: Variant = Variant { workgroup_memory: 5120, ..variant("tile128x32") };
/// For small products: 4 x 4 elements per invocation.
pub(in crate::ops) const TILE32: Variant = Variant { workgroup_memory: 8192, ..variant("tile32") };
/// 8 x 8 elements per invocation, without workgroup memory: for software adapters without subgroups of 8.
const REGISTER8: Variant = variant("register8");
/// 4 x 4 elements per invocation, without workgroup memory: for products with vectors.
pub(in crate::ops) const REGISTER4: Variant = variant("register4");

pub(in crate::ops) const fn shuffle(name: &'static str) -> Variant {
    Variant { subgroup: Some(8), invocations: 8, ..variant(name) }
}

pub(in crate::ops) const fn variant(name: &'static str) -> Variant {
    Variant { invocations: 64, epilogue: true, ..Variant::plain(name) }
}

/// How a variant tiles the work.
pub(in crate::ops) struct MatmulTiling {
    /// Rows and columns of a tile.
    pub(in crate::ops) tile: [usize; 2],
    /// Tiles per workgroup.
    pub(in crate::ops) tiles_in_group: usize,
    /// Terms of the sum per loop iteration.
    pub(in crate::ops) terms: usize,
    /// Workgroups that keep a multiprocessor of a GPU busy. NVIDIA's compiler gives an invocation of `tile128` so many
    /// registers that one workgroup of 256 fits.
    pub(in crate::ops) resident: usize,
    /// Time of one multiply-add, relative to other variants on the same kind of device. (For tiles in workgroup memory,
    /// estimated from the reads per multiply-add.)
    pub(in crate::ops) cost: usize,
}

pub(in crate::ops) fn tiling(variant: &Variant, m: usize, n: usize) -> MatmulTiling {
    let tiling = |tile, resident, terms, cost| MatmulTiling { tile, tiles_in_group: 1, resident, terms, cost };
    // 16 on a multiprocessor: on an H100, 256 workgroups read 64 MiB in 76 us, and 512 of them in 50 us.
    let registers = |tile, cost| MatmulTiling { tiles_in_group: 64, ..tiling(tile, 16, 4, cost) };
    match *variant {
        GEMV if n > 4 && n <= 8 => tiling([4, 8], 4, 256, 16),
        GEMV if m > 4 => tiling([8, 4], 4, 256, 16),
        GEMV => tiling([4, 4], 4, 256, 16),
        // The resident workgroups have 32 KiB of the matrix in flight.
        GEMV_ACROSS => {
            let few = if m.min(n) > 4 { 8 } else { 4 };
            let terms = 4 * variant.invocations as usize / ACROSS;
            tiling(if m < n { [few, 4 * ACROSS] } else { [4 * ACROSS, few] }, 2, terms, 16)
        }
        SHUFFLE64 => tiling([64, 64], 4, 4, 6),
        SHUFFLE32 => tiling([32, 32], 4, 4, 8),
        TILE128X256 => tiling([128, 256], 1, 1, 6),
        TILE128 => tiling([128, 128], 1, 1, 7),
        TILE64 => tiling([64, 64], 4, 1, 8),
        TILE32X128 => tiling([32, 128], 4, 1, 9),
        TILE128X32 => tiling([128, 32], 4, 1, 9),
        TILE32 => tiling([32, 32], 4, 1, 12),
        // On an H100, a prototype reached up to 3 times the rate of `tile128` (docs/measurements).
        COOPERATIVE128 => tiling([128, 128], 2, cooperative::TERMS, 2),
        COOPERATIVE64 => tiling([64, 64], 4, cooperative::TERMS, 3),
        REGISTER8 => registers([8, 8], 16),
        // Reads a large matrix once. (Small products share the text of other sizes.) The cost is interpolated.
        REGISTER4 if m > 4 && m <= 8 && n >= 256 => registers([8, 4], 24),
        _ => registers([4, 4], 32),
    }
}

/// Neighbours of [`GEMV_ACROSS`] that compute adjacent blocks.
const ACROSS: usize = 4;

/// Maximum loop iterations per invocation. Some drivers silently stop loops after 65,535.
const MAX_ROUNDS: usize = 12_000;

/// Parts of a split sum are multiples of this: whole blocks of quantised weights.
const PART: usize = 32;

/// Minimum number of terms in a part of a split sum. Small results of long sums are split along k to fill the device.
const MIN_PART: usize = 128;

/// What loading the first blocks of a tile and storing its results takes, in terms of the sum: other workgroups on the
/// multiprocessor hide it. On an H100, `tile128` takes 12.5 us for 64 terms, and 475 us for 4,096.
const START: f64 = 43.0;

/// The tiles and parts into which a [`MatmulTiling`] divides a product.
pub(in crate::ops) struct SplitK {
    tiles_m: usize,
    tiles_n: usize,
    /// Number of parts of the sum, and terms per part.
    pub(in crate::ops) parts: usize,
    split_k_len: usize,
    pub(in crate::ops) workgroups: usize,
}

impl SplitK {
    /// The words of `Params` in `shaders/matmul_operands.wgsl`.
    pub(in crate::ops) fn words(&self, [m, n, k]: [usize; 3], batches: usize, [a, b]: &[Operand; 2]) -> Vec<u32> {
        let words = [batches, m, n, k, self.parts, self.split_k_len, self.tiles_m, self.tiles_n].map(|x| x as u32);
        words.into_iter().chain(a.words).chain(b.words).collect()
    }

    /// The launch, followed by the sum over the parts of its `count` elements if there are several.
    pub(in crate::ops) fn with_sum(
        &self,
        launch: Launch,
        dtype: DType,
        count: usize,
        profile: &Profile,
    ) -> Result<Lowered, String> {
        if self.parts == 1 {
            return Ok(launch.into());
        }
        let sum = sum_of_parts(dtype, self.parts, count, Slot::Scratch(0), Slot::Output(0), profile)?;
        Ok(Lowered { launches: vec![launch, sum], scratch: vec![self.parts * count * 4] })
    }
}

impl MatmulTiling {
    pub(in crate::ops) fn cut(&self, [m, n, k]: [usize; 3], batches: usize, profile: &Profile) -> SplitK {
        let (tiles_m, tiles_n) = (m.div_ceil(self.tile[0]), n.div_ceil(self.tile[1]));
        let groups = (tiles_m * tiles_n * batches).div_ceil(self.tiles_in_group);
        // A core of a software adapter runs one workgroup after the other; a few more balance the load.
        let resident = if profile.software { 4 } else { self.resident };
        let fills = Machine::of(profile).fill(resident as f64) as usize;
        let parts = (fills / groups.max(1)).min(k / MIN_PART.max(4 * self.terms));
        let parts = parts.max(k.div_ceil(MAX_ROUNDS * self.terms)).max(1);
        let split_k_len = k.div_ceil(parts).next_multiple_of(PART).max(PART);
        let parts = k.div_ceil(split_k_len).max(1);
        SplitK { tiles_m, tiles_n, parts, split_k_len, workgroups: groups * parts }
    }

    /// The work of the launches on a device. A software adapter sums tiles one after the other, whatever their number.
    /// (The launch that adds the parts of a sum is not counted: nearly every small product has one.)
    pub(in crate::ops) fn work(
        &self,
        style: Style,
        sizes @ [m, n, k]: [usize; 3],
        batches: usize,
        profile: &Profile,
    ) -> Work {
        let [tile_m, tile_n] = self.tile;
        if profile.software {
            let products = m.next_multiple_of(tile_m) as f64 * n.next_multiple_of(tile_n) as f64 * k as f64;
            return Work {
                style,
                flops: 2.0 * products * batches as f64,
                efficiency: 3.6 / self.cost as f64,
                ..Work::default()
            };
        }
        let SplitK { parts, split_k_len, workgroups, .. } = self.cut(sizes, batches, profile);
        let in_parts = if parts > 1 { parts * batches * m * n } else { 0 };
        // With more, reads wait for less, but arithmetic is no faster.
        let resident = self.resident.min(4) as f64;
        let tiles = workgroups as f64 * (self.tiles_in_group * tile_m * tile_n) as f64;
        let products = tiles * (split_k_len as f64 + START / resident);
        Work {
            style,
            flops: 2.0 * products,
            efficiency: 4.8 / self.cost as f64,
            workgroups: workgroups as f64,
            resident,
            scratch: 8.0 * in_parts as f64,
            ..Work::default()
        }
    }
}

/// How a variant gets its operands.
pub(in crate::ops) fn style(variant: &Variant) -> Style {
    match *variant {
        SHUFFLE64 | SHUFFLE32 => Style::Shuffled,
        REGISTER8 => Style::Cached,
        REGISTER4 => Style::Adjacent,
        _ => Style::Shared,
    }
}

/// Seconds that lavapipe takes to compile a variant. The wider tile pays off sooner for products whose sides are all at
/// least [`WIDE`], where it saves the most loads: only part of the time counts. These times are fitted to the sizes from
/// which a variant is preferred; only their order was measured.
pub(in crate::ops) fn compile(variant: &Variant, sizes: [usize; 3]) -> f64 {
    match *variant {
        SHUFFLE64 if sizes.iter().all(|&side| side >= WIDE) => COMPILE32 + COMPILE_MORE / 4.0,
        SHUFFLE64 => COMPILE32 + COMPILE_MORE,
        REGISTER4 => 0.095,
        _ => COMPILE32,
    }
}
const COMPILE32: f64 = 0.15;
/// What [`SHUFFLE64`] takes longer.
const COMPILE_MORE: f64 = 0.57;
const WIDE: usize = 256;

/// Most rows or columns for [`GEMV`] and [`GEMV_ACROSS`], and fewest terms, so that every invocation has some.
const FEW: usize = 8;
const LONG: usize = 256;

/// The variant for a product of few rows or columns with long sums, by the axis along which the large operand is
/// contiguous.
fn gemv(args: &Args<'_>) -> Option<Variant> {
    let [m, n, k] = sizes(&args.inputs[0].shape, &args.inputs[1].shape);
    let matrix = args.views[0].shape.rank() - 2;
    let [rows, columns] = [matrix, matrix + 1].map(|axis| args.views[usize::from(m < n)].strides[axis]);
    let [along_k, across] = if m < n { [rows, columns] } else { [columns, rows] };
    let few = m.min(n) <= FEW && k >= LONG;
    if few && along_k == 1 { Some(GEMV) } else { (few && across == 1).then_some(GEMV_ACROSS) }
}

impl Kernel for Matmul {
    fn variants(&self) -> &'static [Variant] {
        const VARIANTS: &[Variant] = &[
            COOPERATIVE128,
            COOPERATIVE64,
            GEMV,
            GEMV_ACROSS,
            SHUFFLE64,
            SHUFFLE32,
            TILE128X256,
            TILE128,
            TILE64,
            TILE32X128,
            TILE128X32,
            TILE32,
            REGISTER8,
            REGISTER4,
        ];
        VARIANTS
    }

    /// Tiles waste work beyond the edges, and large tiles leave a GPU idle. `gemv` and `gemv_across` can compute every
    /// product, but are slow where their invocations have too few terms or read elements that are far apart, and
    /// `tile128x256` is for NVIDIA's GPUs.
    fn cost(&self, variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let sizes @ [m, n, _] = sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let batches = batch(&args.outputs[0].shape).numel();
        if variant.cooperative && !cooperative::fits(variant, args.profile) {
            return None;
        }
        let mut work = tiling(variant, m, n).work(style(variant), sizes, batches, args.profile);
        work.compile = compile(variant, sizes);
        let suits = match *variant {
            GEMV | GEMV_ACROSS => gemv(args).as_ref() == Some(variant),
            // NVIDIA's GPUs. Others have fewer registers per invocation, or would run half as many invocations at a time.
            TILE128X256 => args.profile.subgroups == Some((32, 32)) && args.profile.kind == "discrete GPU",
            _ => true,
        };
        if !suits {
            work.efficiency /= 1024.0;
        }
        if variant.cooperative && args.profile.software {
            work.efficiency *= cooperative::EMULATED;
        }
        Some(args.cost(&work))
    }

    /// One of the two matrix axes must be contiguous, and the merged batch axes must be at most three: the uniform has
    /// room for three strides.
    fn reads(&self, _input: usize, view: &View) -> bool {
        let matrix = view.shape.rank() - 2;
        let contiguous = (matrix..matrix + 2).any(|axis| view.shape[axis] <= 1 || view.strides[axis] == 1);
        contiguous && merge_axes(&batch(&view.shape), &[&view.strides[..matrix]]).sizes.len() <= 3
    }

    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String> {
        let sizes @ [m, n, k] = sizes(&args.inputs[0].shape, &args.inputs[1].shape);
        let batches = batch(&args.outputs[0].shape).numel();
        let operands = [Operand::new(&args.views[0], m, k, false), Operand::new(&args.views[1], n, k, true)];
        let [a, b] = &operands;
        let tiling = tiling(variant, m, n);
        let cut = tiling.cut(sizes, batches, args.profile);
        let by_terms = [a, b].map(|operand| operand.blocks == Blocks::AlongInner);
        let (entry, shader) = match variant.cooperative {
            true => {
                let element = |i: usize| if args.stored[i] == DType::F16 { "f16" } else { "f32" };
                let shader = cooperative::shader(variant, args.profile)?;
                let shader = shader.set("LEFT_BY_TERMS", by_terms[0]).set("RIGHT_BY_TERMS", by_terms[1]);
                ("cooperative_tile", shader.set("ElementA", element(0)).set("ElementB", element(1)))
            }
            false => shader(variant, tiling.tile, by_terms, args.profile),
        };
        // Element-wise loads are slow anyway: they share one shader for every k.
        let whole = k.is_multiple_of(4) && (a.blocks != Blocks::Elements || b.blocks == Blocks::AlongInner);
        let shader = shader
            .set("A_ALONG_K", a.blocks == Blocks::AlongInner)
            .set("A_ALONG_M", a.blocks == Blocks::AlongOuter)
            .set("B_ALONG_K", b.blocks == Blocks::AlongInner)
            .set("B_ALONG_N", b.blocks == Blocks::AlongOuter)
            .set("WHOLE_BLOCKS", whole)
            .set("Y_VEC4", n.is_multiple_of(4));
        let target = if cut.parts > 1 { Slot::Scratch(0) } else { Slot::Output(0) };
        let launch = Launch {
            label: format!("matmul {}", variant.name),
            wgsl: shader.finish()?,
            entry,
            bindings: vec![
                Binding::Uniform(cut.words(sizes, batches, &operands)),
                Binding::Read(Slot::Input(0)),
                Binding::Read(Slot::Input(1)),
                Binding::Write(target),
            ],
            workgroups: args.profile.grid(cut.workgroups as u64)?,
        };
        cut.with_sum(launch, DType::F32, batches * m * n, args.profile)
    }
}

/// The entry point of a variant, which is also the name of its file, and the shader, for operands that are contiguous
/// along the terms or not.
pub(in crate::ops) fn shader(
    variant: &Variant,
    tile @ [tile_m, tile_n]: [usize; 2],
    by_terms: [bool; 2],
    profile: &Profile,
) -> (&'static str, Shader) {
    match *variant {
        GEMV => ("matmul_gemv", Shader::new("matmul_gemv").set("TM", tile_m).set("TN", tile_n)),
        GEMV_ACROSS => {
            let [across_m, across_n] = if tile_m < tile_n { [1, ACROSS] } else { [ACROSS, 1] };
            let shader = Shader::new("matmul_gemv").set("TM", tile_m / across_m).set("TN", tile_n / across_n);
            let shader = shader.set("ACROSS_M", across_m).set("ACROSS_N", across_n);
            ("matmul_gemv", shader.set("LANES", variant.invocations).set("AT_ONCE", 4))
        }
        SHUFFLE64 | SHUFFLE32 => {
            let shader = Shader::new("matmul_shuffle").set("BLOCKS", tile_m / 32).set("COLUMNS", tile_n / 32);
            ("matmul_shuffle", shader)
        }
        REGISTER8 | REGISTER4 => {
            ("matmul_register", Shader::new("matmul_register").set("TM", tile_m).set("TN", tile_n))
        }
        _ => {
            let [left, right] = by_terms.map(|by_terms| by_terms && padded(variant, profile));
            let shader = workgroup_tile(variant, tile).set("LEFT_BY_TERMS", left).set("RIGHT_BY_TERMS", right);
            ("matmul_tile", shader)
        }
    }
}

/// The shader of a variant with tiles in workgroup memory.
fn workgroup_tile(variant: &Variant, [tile_m, tile_n]: [usize; 2]) -> Shader {
    let terms = variant.workgroup_memory as usize / 4 / (tile_m + tile_n);
    // 4 x 4 blocks per invocation.
    let [quads_m, quads_n] = match tile_m * tile_n / 16 / variant.invocations as usize {
        1 => [1, 1],
        4 => [2, 2],
        _ => [2, 4],
    };
    Shader::new("matmul_tile")
        .set("TILE_M", tile_m)
        .set("TILE_N", tile_n)
        .set("TERMS", terms)
        .set("QUADS_M", quads_m)
        .set("QUADS_N", quads_n)
        .set("LANES", variant.invocations)
}

/// Whether there is room to pad the tile of a variant, by 128 bytes for each operand.
pub(in crate::ops) fn padded(variant: &Variant, profile: &Profile) -> bool {
    variant.workgroup_memory + 256 <= profile.max_workgroup_memory
}

/// How 4 x 4 blocks of an operand are loaded.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum Blocks {
    /// Element by element.
    Elements,
    /// By vec4 along the axis k.
    AlongInner,
    /// By vec4 along the other axis.
    AlongOuter,
}

/// An operand's layout for the kernels.
pub(in crate::ops) struct Operand {
    pub(in crate::ops) blocks: Blocks,
    /// Offset, stride of the outer axis (m or n), stride of k, batch sizes and strides.
    words: [u32; 8],
}

impl Operand {
    /// From a view; k precedes the outer axis in `b` and follows it in `a`.
    pub(in crate::ops) fn new(view: &View, outer: usize, k: usize, is_b: bool) -> Self {
        let matrix = view.shape.rank() - 2;
        let (outer_stride, k_stride) = if is_b {
            (view.strides[matrix + 1], view.strides[matrix])
        } else {
            (view.strides[matrix], view.strides[matrix + 1])
        };
        let merged = merge_axes(&batch(&view.shape), &[&view.strides[..matrix]]);
        let (mut sizes, mut strides) = ([1; 3], [0; 3]);
        let skipped = 3 - merged.sizes.len(); // at most three, by `reads`
        sizes[skipped..].copy_from_slice(&merged.sizes);
        strides[skipped..].copy_from_slice(&merged.strides[0]);

        let aligned = |stride: &usize| stride.is_multiple_of(4);
        let starts_aligned = aligned(&view.offset) && strides.iter().all(aligned);
        // An axis can be loaded by vec4 if it is contiguous, a multiple of 4 long, and every other stride is a multiple
        // of 4.
        let along = |size: usize, stride: usize, other: usize, others: usize| {
            starts_aligned && size > 0 && aligned(&size) && stride == 1 && (others <= 1 || aligned(&other))
        };
        let blocks = if along(k, k_stride, outer_stride, outer) {
            Blocks::AlongInner
        } else if along(outer, outer_stride, k_stride, k) {
            Blocks::AlongOuter
        } else {
            Blocks::Elements
        };
        let words = [view.offset, outer_stride, k_stride, sizes[1], sizes[2], strides[0], strides[1], strides[2]];
        Operand { blocks, words: words.map(|x| x as u32) }
    }
}
