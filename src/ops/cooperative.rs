//! Products by cooperative matrices (`shaders/cooperative_tile.wgsl`): the variants that ops have in common, and how
//! subgroups divide a tile.

use crate::Profile;
use crate::op::Variant;
use crate::shader::Shader;

/// For GPUs with cooperative matrices: tiles of f16 in workgroup memory, multiplied by subgroups.
pub(super) const COOPERATIVE128: Variant =
    Variant { invocations: 256, workgroup_memory: 28672, ..variant("cooperative128") };
pub(super) const COOPERATIVE64: Variant =
    Variant { invocations: 128, workgroup_memory: 14336, ..variant("cooperative64") };

const fn variant(name: &'static str) -> Variant {
    Variant { cooperative: true, epilogue: true, ..Variant::plain(name) }
}

/// Terms of a sum for which tiles are staged at a time.
pub(super) const TERMS: usize = 32;

/// The share of the speed that remains where lavapipe emulates them: 4 GFLOP/s, and 46 by shuffles.
pub(super) const EMULATED: f64 = 1.0 / 8.0;

/// The side of a variant's tile.
fn tile(variant: &Variant) -> usize {
    if *variant == COOPERATIVE128 { 128 } else { 64 }
}

/// How the subgroups of a workgroup divide its tile.
pub(super) struct Layout {
    /// The side of cooperative matrices.
    side: usize,
    /// Matrices that a subgroup computes, down and across.
    blocks: [usize; 2],
    /// Subgroups side by side.
    across: usize,
}

impl Layout {
    /// The layout of a square tile; `None` if it does not fit. Subgroups may be smaller than the largest that the device
    /// declares, but not larger.
    pub(super) fn of(variant: &Variant, tile: usize, profile: &Profile) -> Option<Layout> {
        let side = *profile.cooperative_matrices.last()? as usize;
        let (_, lanes) = profile.subgroups?;
        let subgroups =
            (variant.invocations as usize).checked_div(lanes as usize).filter(|count| count.is_power_of_two())?;
        let across = 1 << subgroups.ilog2().div_ceil(2);
        let blocks = [tile * across / subgroups / side, tile / across / side];
        let fits = blocks[0] * blocks[1] * subgroups * side * side == tile * tile;
        let memory = 2 * (2 * tile) * (TERMS + 8) + 4 * subgroups * side * side;
        (fits && memory <= variant.workgroup_memory as usize).then_some(Layout { side, blocks, across })
    }

    /// Sets the constants of a kernel that imports `shaders/cooperative_matrices.wgsl`.
    pub(super) fn set(&self, shader: Shader, profile: &Profile) -> Shader {
        shader
            .set("SIDE", self.side)
            .set("BLOCKS_M", self.blocks[0])
            .set("BLOCKS_N", self.blocks[1])
            .set("SUBGROUPS_N", self.across)
            .set("SURPLUS", profile.subgroups.is_some_and(|(least, most)| least < most))
            .set("NUMBERS", profile.backend == "metal")
    }
}

/// Whether the device can run a variant of products or convolutions.
pub(super) fn fits(variant: &Variant, profile: &Profile) -> bool {
    Layout::of(variant, tile(variant), profile).is_some()
}

/// The shader of a variant of products or convolutions.
pub(super) fn shader(variant: &Variant, profile: &Profile) -> Result<Shader, String> {
    let tile = tile(variant);
    let layout = Layout::of(variant, tile, profile).ok_or("no cooperative matrices fit the tile")?;
    Ok(layout.set(Shader::new("cooperative_tile").set("TILE", tile).set("TERMS", TERMS), profile))
}
