//! How many multiprocessors GPUs have, by name: for drivers that do not report it (Metal, DX12).

/// The multiprocessors of a GPU with this name, as an adapter reports it; `None` for GPUs that are not in the table.
///
/// Counts are those of the vendors' specifications: streaming multiprocessors (NVIDIA), compute units (AMD), Xe cores
/// (Intel), GPU cores (Apple). Where a name covers several counts, it is the smallest. GPUs of laptops have fewer
/// than those of the same number and are left out.
///
/// ```
/// use wgrad::profile::multiprocessors_of;
/// assert_eq!(multiprocessors_of("NVIDIA GeForce RTX 4070 Ti"), Some(60));
/// assert_eq!(multiprocessors_of("NVIDIA GeForce RTX 4070 Laptop GPU"), None);
/// assert_eq!(multiprocessors_of("AMD Radeon RX 6800M"), None);
/// assert_eq!(multiprocessors_of("Apple M2"), Some(8));
/// ```
pub fn multiprocessors_of(name: &str) -> Option<u32> {
    let whole = |end: usize| !name[end..].starts_with(char::is_alphanumeric);
    let known = |(of, _): &&(&str, u32)| name.match_indices(of).any(|(at, _)| whole(at + of.len()));
    GPUS.iter().find(known).filter(|_| !name.contains("Laptop")).map(|&(_, count)| count)
}

/// Parts of names, and counts. The first match counts, so a name precedes those that it contains.
#[doc(hidden)]
#[rustfmt::skip]
pub const GPUS: &[(&str, u32)] = &[
    ("RTX 5090", 170), ("RTX 5080", 84), ("RTX 5070 Ti", 70), ("RTX 5070", 48), ("RTX 5060 Ti", 36), ("RTX 5060", 30),
    ("RTX 4090 D", 114), ("RTX 4090", 128), ("RTX 4080 SUPER", 80), ("RTX 4080", 76), ("RTX 4070 Ti SUPER", 66), ("RTX 4070 Ti", 60),
    ("RTX 4070 SUPER", 56), ("RTX 4070", 46), ("RTX 4060 Ti", 34), ("RTX 4060", 24),
    ("RTX 3090 Ti", 84), ("RTX 3090", 82), ("RTX 3080 Ti", 80), ("RTX 3080", 68), ("RTX 3070 Ti", 48), ("RTX 3070", 46),
    ("RTX 3060 Ti", 38), ("RTX 3060", 28), ("RTX 3050", 18),
    ("RTX 2080 Ti", 68), ("RTX 2080 SUPER", 48), ("RTX 2080", 46), ("RTX 2070 SUPER", 40), ("RTX 2070", 36),
    ("RTX 2060 SUPER", 34), ("RTX 2060", 30), ("GTX 1660", 22), ("GTX 1650", 14),
    ("GTX 1080 Ti", 28), ("GTX 1080", 20), ("GTX 1070 Ti", 19), ("GTX 1070", 15), ("GTX 1060", 9),
    ("RX 9070 XT", 64), ("RX 9070", 56), ("RX 9060 XT", 32),
    ("RX 7900 XTX", 96), ("RX 7900 XT", 84), ("RX 7900 GRE", 80), ("RX 7800 XT", 60), ("RX 7700 XT", 54),
    ("RX 7600", 32), ("RX 6950 XT", 80), ("RX 6900 XT", 80), ("RX 6800 XT", 72), ("RX 6800", 60), ("RX 6750 XT", 40),
    ("RX 6700 XT", 40), ("RX 6650 XT", 32), ("RX 6600 XT", 32), ("RX 6600", 28),
    ("RX 5700 XT", 40), ("RX 5700", 36), ("RX 5600 XT", 36), ("RX 5500 XT", 22),
    ("A770", 32), ("A750", 28), ("A580", 24), ("A380", 8), ("B580", 20), ("B570", 18),
    ("M1 Ultra", 48), ("M1 Max", 24), ("M1 Pro", 14), ("Apple M1", 7),
    ("M2 Ultra", 60), ("M2 Max", 30), ("M2 Pro", 16), ("Apple M2", 8),
    ("M3 Ultra", 60), ("M3 Max", 30), ("M3 Pro", 14), ("Apple M3", 8),
    ("M4 Max", 32), ("M4 Pro", 16), ("Apple M4", 8),
];
