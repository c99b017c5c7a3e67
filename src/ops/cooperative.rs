//! Products by cooperative matrices (`shaders/cooperative_tile.wgsl`): the variants that ops have in common, and how
//! subgroups divide a tile.

use crate::op::Variant;
use crate::shader::Shader;
use crate::{DType, Profile};

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

/// [`layout_of`] the tile of [`COOPERATIVE128`] or [`COOPERATIVE64`].
pub(super) fn layout(variant: &Variant, profile: &Profile) -> Option<[usize; 4]> {
    layout_of(variant, tile(variant), profile)
}

/// How the subgroups of a variant divide a square tile: the side of cooperative matrices, how many a subgroup computes down
/// and across, and subgroups across the tile; `None` if they do not fit. Subgroups may be smaller than the largest that
/// the device declares, but not larger.
pub(super) fn layout_of(variant: &Variant, tile: usize, profile: &Profile) -> Option<[usize; 4]> {
    let side = *profile.cooperative_matrices.last()? as usize;
    let (_, lanes) = profile.subgroups?;
    let subgroups =
        (variant.invocations as usize).checked_div(lanes as usize).filter(|count| count.is_power_of_two())?;
    let across = 1 << subgroups.ilog2().div_ceil(2);
    let (blocks_m, blocks_n) = (tile * across / subgroups / side, tile / across / side);
    let fits = blocks_m * blocks_n * subgroups * side * side == tile * tile;
    let memory = 2 * (2 * tile) * (TERMS + 8) + 4 * subgroups * side * side;
    (fits && memory <= variant.workgroup_memory as usize).then_some([side, blocks_m, blocks_n, across])
}

/// The shader of a variant, for operands stored in these types.
pub(super) fn shader(variant: &Variant, left: DType, right: DType, profile: &Profile) -> Result<Shader, String> {
    let layout = layout(variant, profile).ok_or("no cooperative matrices fit the tile")?;
    let [side, blocks_m, blocks_n, subgroups_n] = layout;
    Ok(Shader::new("cooperative_tile")
        .set("SIDE", side)
        .set("TILE", tile(variant))
        .set("TERMS", TERMS)
        .set("BLOCKS_M", blocks_m)
        .set("BLOCKS_N", blocks_n)
        .set("SUBGROUPS_N", subgroups_n)
        .set("SURPLUS", profile.subgroups.is_some_and(|(least, most)| least < most))
        .set("LEFT_IS_F16", left == DType::F16)
        .set("RIGHT_IS_F16", right == DType::F16))
}
