//! Copies that move another axis innermost, on GPUs: tiles are staged through workgroup memory
//! (`shaders/transpose.wgsl`), so that reads and writes are both coalesced.

use crate::profile::Profile;
use crate::shader::{Shader, Source};
use crate::shape::{Shape, View, merge_axes};

/// Fewest elements of both axes: a narrower tile would be mostly empty.
const MIN_SIZE: usize = 16;

/// Rows and columns of a tile.
const TILE: usize = 32;

/// A copy by tiles.
pub(super) struct Transpose {
    pub wgsl: Source,
    /// `Params` of the shader.
    pub words: Vec<u32>,
    pub workgroups: u64,
}

/// How to copy a view by tiles, or `None` if its innermost axis is that of the source, if one of the two axes is short,
/// if the device is a CPU, whose caches serve either order, or if there are more than three other axes.
pub(super) fn transpose(view: &View, profile: &Profile) -> Option<Transpose> {
    let merged = merge_axes(&view.shape, &[&view.strides]);
    let (sizes, strides) = (&merged.sizes, &merged.strides[0]);
    let q = sizes.len().checked_sub(1)?;
    let p = strides.iter().position(|&stride| stride == 1)?;
    let narrow = sizes[p].min(sizes[q]) < MIN_SIZE;
    if profile.software || profile.max_invocations < 128 || strides[q] <= 1 || narrow {
        return None;
    }
    let contiguous = Shape::from(sizes.clone()).strides();
    let others: Vec<usize> = (0..q).filter(|&axis| axis != p).collect();
    let skipped = 3usize.checked_sub(others.len())?;
    let (mut other_sizes, mut from, mut to) = ([1; 3], [0; 3], [0; 3]);
    for (slot, &axis) in (skipped..).zip(&others) {
        (other_sizes[slot], from[slot], to[slot]) = (sizes[axis], strides[axis], contiguous[axis]);
    }
    let tiles = [p, q].map(|axis| sizes[axis].div_ceil(TILE));
    let count: usize = other_sizes.iter().product();
    let words = [
        [sizes[p], sizes[q], view.offset, strides[q]],
        [contiguous[p], tiles[0], tiles[1], count],
        [other_sizes[1], other_sizes[2], from[0], from[1]],
        [from[2], to[0], to[1], to[2]],
    ];
    Some(Transpose {
        wgsl: Shader::new("transpose").finish().ok()?,
        words: words.concat().into_iter().map(|word| word as u32).collect(),
        workgroups: (tiles[0] * tiles[1] * count) as u64,
    })
}
