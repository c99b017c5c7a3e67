//! Shaders whose workgroups share rows: sizes of workgroups, and how they combine values (`shaders/tree.wgsl`).

use crate::op::{Machine, Work};
use crate::profile::Profile;
use crate::shader::Shader;

/// Workgroup size when each invocation has its own row, and of several short rows.
pub(crate) const ALONE: u32 = 64;

/// Workgroup size when a workgroup shares one row: MAX_THREADS, or MIN_THREADS, which every device supports.
pub(crate) const MIN_THREADS: u32 = 128;
pub(crate) const MAX_THREADS: u32 = 256;

/// Number of invocations that share a row on this device.
pub(crate) fn together_on(profile: &Profile) -> u32 {
    if profile.max_invocations >= MAX_THREADS { MAX_THREADS } else { MIN_THREADS }
}

/// Elements that an invocation of such a workgroup keeps in registers (HELD in the shaders), at least.
const HELD: usize = 4;

/// Registers of an invocation for the elements that it keeps, at most.
const HELD_REGISTERS: usize = 32;

/// Number of invocations that share a row of `size` elements: the smallest workgroup that can hold it in registers, or
/// the largest.
pub(crate) fn threads_per_row(profile: &Profile, size: usize) -> u32 {
    if size > HELD * MIN_THREADS as usize { together_on(profile) } else { MIN_THREADS }
}

/// The smallest and the largest subgroup, if subgroups combine the values of workgroups: on GPUs, with sizes in WebGPU's
/// range.
fn combining_subgroups(profile: &Profile) -> Option<(u32, u32)> {
    profile.subgroups.filter(|&(least, most)| !profile.software && least >= 4 && most <= 128)
}

/// The longest row that shares its workgroup with others.
const SHORT: usize = HELD * ALONE as usize / 2;

/// Row lengths for test cases, in numbers or whole vec4: short ones, with and without idle invocations, and one that is
/// just too long.
pub(crate) const SHORT_ROWS: [usize; 6] = [16, 33, 127, 128, 4 * 65, 4 * 129];

/// The number of invocations for one of `rows` short rows of `size` elements, and of elements for each of these, at most
/// `held`. On GPUs, several such rows share a workgroup of [`ALONE`], unless there are so few that each can have its own
/// at the same time. Where subgroups combine values, a row lies in one subgroup.
fn short_row(profile: &Profile, rows: usize, size: usize, held: usize) -> Option<(u32, usize)> {
    let machine = Machine::of(profile);
    let few = rows as f64 <= machine.fill(Work::default().resident);
    let most = combining_subgroups(profile).map_or(ALONE / 2, |(least, _)| least.min(ALONE / 2));
    let lanes = (size.div_ceil(HELD).next_power_of_two() as u32).clamp(4, most);
    let each = size.div_ceil(lanes as usize).next_power_of_two().max(HELD);
    (!profile.software && !few && size <= SHORT && each <= held).then_some((lanes, each))
}

/// Barriers of a tree that reduces the values of a workgroup of [`MIN_THREADS`].
pub(crate) const TREE: f64 = 7.0;

/// The cost of combining the values of one of `rows` rows of `size` numbers, in barriers: those of a tree of
/// [`MIN_THREADS`], or for a short row as many as make a row of 16 numbers worth several invocations.
pub(crate) fn barriers_per_row(profile: &Profile, rows: usize, size: usize) -> f64 {
    if short_row(profile, rows, size, usize::MAX).is_some() { 1.75 } else { TREE }
}

/// A shader, and the number of rows of each workgroup.
pub(crate) struct RowShader {
    pub text: Shader,
    rows: u32,
}

impl RowShader {
    /// For a row per invocation.
    pub fn alone(text: Shader) -> RowShader {
        RowShader { text, rows: ALONE }
    }

    /// For workgroups of `threads` invocations that combine their values.
    pub fn whole(text: Shader, threads: u32, profile: &Profile) -> RowShader {
        let text = text.set("THREADS", threads);
        let text = match combining_subgroups(profile) {
            Some((least, most)) => {
                text.set("SUBGROUPS", true).set("SUBGROUP_SIZE", if least == most { least } else { 0 })
            }
            None => text,
        };
        RowShader { text, rows: 1 }
    }

    /// For `rows` rows of `size` elements, with `threads` invocations each unless they are short.
    pub fn new(text: Shader, [rows, size]: [usize; 2], threads: u32, profile: &Profile) -> RowShader {
        match short_row(profile, rows, size, usize::MAX) {
            Some((lanes, _)) => RowShader::several(text, lanes, profile),
            None => RowShader::whole(text, threads, profile),
        }
    }

    /// For kernels that keep rows of `size` elements of `registers` registers each, and read again what does not fit. GPUs
    /// with subgroups, whose larger workgroups need no more barriers, use the smallest workgroup that keeps all of a
    /// row, or the largest one if it keeps at least half.
    pub fn keeping(text: Shader, [rows, size]: [usize; 2], registers: usize, profile: &Profile) -> RowShader {
        let usual = threads_per_row(profile, size);
        let least = if size <= HELD * ALONE as usize { ALONE } else { usual };
        let most_held = HELD.max(HELD_REGISTERS / registers);
        if let Some((lanes, held)) = short_row(profile, rows, size, most_held) {
            return RowShader::several(text.set("HELD", held), lanes, profile);
        }
        // 1024 invocations need more registers than Apple's cores have, or AMD's with subgroups of 64.
        let small = profile.backend == "metal" || profile.subgroups.is_some_and(|(least, _)| least == 64);
        let largest = if small { 512 } else { 1024 };
        let keeps = |threads: u32| threads as usize * most_held;
        let mut sizes =
            [least, 512, 1024].into_iter().filter(|&threads| threads <= largest.min(profile.max_invocations));
        let (threads, held) = match sizes.clone().find(|&threads| size <= keeps(threads)).or(sizes.next_back()) {
            Some(threads) if !profile.software && profile.subgroups.is_some() && size <= 2 * keeps(threads) => {
                (threads, size.div_ceil(threads as usize).next_power_of_two().clamp(HELD, most_held))
            }
            _ => (usual, HELD),
        };
        RowShader::whole(text.set("HELD", held), threads, profile)
    }

    /// For as many rows of `lanes` invocations as a workgroup of [`ALONE`] has.
    fn several(text: Shader, lanes: u32, profile: &Profile) -> RowShader {
        let rows = ALONE / lanes;
        RowShader { rows, ..RowShader::whole(text.set("ROWS", rows), ALONE, profile) }
    }

    /// Workgroups for `rows` rows.
    pub fn workgroups(&self, rows: usize) -> u64 {
        rows.div_ceil(self.rows as usize) as u64
    }
}
