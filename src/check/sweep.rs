//! Numbered cases and their seeds, so that a case named in a report can be run again.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::op::Case;

/// A case with its number within its op. Example: [`check_case`](crate::check::check_case).
pub struct Numbered {
    /// The number: listed cases count from 0, those in narrow types from [`NARROW`], large ones from [`LARGE`], random
    /// ones from [`RANDOM`].
    pub number: u64,
    /// The case.
    pub case: Case,
}

/// The number of an op's first case in a narrow float type.
pub const NARROW: u64 = 500;

/// The number of an op's first case that needs more workgroups than one dimension of a dispatch allows.
pub const LARGE: u64 = 900;

/// The number of a family's first random case.
pub const RANDOM: u64 = 1000;

impl Numbered {
    /// The seed of its inputs, different for each op and number.
    pub fn seed(&self, seed: u64) -> u64 {
        mixed(seed, self.case.op, self.number)
    }
}

/// FNV-1a over all three: the same on every machine and in every version.
fn mixed(seed: u64, name: &str, number: u64) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes()).chain(number.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Every listed case, and some of each op in narrow float types.
pub fn listed() -> Vec<Numbered> {
    let mut all = numbered(crate::ops::cases(), 0);
    all.extend(numbered(crate::ops::narrow_cases(), NARROW));
    all
}

/// The cases that need more workgroups than one dimension of a dispatch allows.
pub fn large() -> Vec<Numbered> {
    numbered(crate::ops::large_cases(), LARGE)
}

fn numbered(cases: Vec<Case>, first: u64) -> Vec<Numbered> {
    let mut counts = std::collections::HashMap::new();
    let count = |case: Case| {
        let next = counts.entry(case.op).or_insert(first);
        *next += 1;
        Numbered { number: *next - 1, case }
    };
    cases.into_iter().map(count).collect()
}

/// Random case number `k` (from 0) of every family that has a sweep.
pub fn random(seed: u64, k: u64) -> Vec<Numbered> {
    let families = crate::ops::families().into_iter();
    let case = |family: crate::ops::Family| {
        let mut rng = StdRng::seed_from_u64(mixed(seed, family.name, k));
        Some(Numbered { number: RANDOM + k, case: family.sweep?(&mut rng) })
    };
    families.filter_map(case).collect()
}
