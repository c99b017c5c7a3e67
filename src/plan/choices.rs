//! Measured choices of variants, by op and shape class, as plain data. `choose` consults them before the
//! estimated costs; the measuring is done elsewhere.

use std::collections::BTreeMap;
use std::hash::Hasher;

use crate::TensorType;
use crate::op::{Args, Op};

/// Variants by op and shape class.
///
/// The *shape class* of a kernel is a string: the op's sizes and flags, then the type of each input
/// and output. Sizes above 8 are rounded to the nearest power of two, to limit the number of measurements,
/// and are marked with `~` if they are not a multiple of 4, because vectorised kernels then fall back to
/// scalar loads. A non-contiguous input is followed by `@` and its strides, rounded likewise:
/// `f32[64,1024] f32[1024,16~]@1,1024 -> f32[64,16~]`.
///
/// A choice is ignored if the op has no such variant, the device cannot run it, or it does not support
/// the shapes. The same choices always give the same plan.
///
/// ```
/// use wgrad::plan::Choices;
/// let mut choices = Choices::default();
/// choices.set("matmul", "a class of shapes", "tile64");
/// assert_eq!(choices.get("matmul", "a class of shapes"), Some("tile64"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeMap<String, BTreeMap<String, String>>);

impl Choices {
    /// Sets the variant of an op for a class.
    pub fn set(&mut self, op: &str, class: &str, variant: &str) {
        self.0.entry(op.to_owned()).or_default().insert(class.to_owned(), variant.to_owned());
    }

    /// The variant of an op for a class.
    pub fn get(&self, op: &str, class: &str) -> Option<&str> {
        self.0.get(op)?.get(class).map(String::as_str)
    }

    /// All choices: op, class, variant.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.0.iter().flat_map(|(op, classes)| classes.iter().map(move |(class, v)| (&**op, &**class, &**v)))
    }

    /// The number of choices.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether there are no choices.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The variant for an op being planned.
    pub(super) fn wanted(&self, op: &dyn Op, args: &Args<'_>) -> Option<&str> {
        // Look up the op first: without choices for it, there is no need to build the class string.
        self.0.get(op.name())?.get(&class(op, args)).map(String::as_str)
    }
}

/// The shape class; see [`Choices`].
pub(super) fn class(op: &dyn Op, args: &Args<'_>) -> String {
    let tensor = |ty: &TensorType| {
        let size = |&n: &usize| {
            let mark = if n > EXACT && !n.is_multiple_of(4) { "~" } else { "" };
            format!("{}{mark}", rounded(n))
        };
        format!("{}[{}]", ty.dtype, ty.shape.iter().map(size).collect::<Vec<_>>().join(","))
    };
    let mut attributes = Attributes::default();
    op.hash_attributes(&mut attributes);
    let mut parts = Vec::new();
    if !attributes.0.is_empty() {
        parts.push(format!("({})", attributes.0.join(",")));
    }
    for (ty, view) in args.inputs.iter().zip(args.views) {
        let mut text = tensor(ty);
        if !view.is_contiguous() {
            let strides = view.strides.iter().map(|&stride| rounded(stride).to_string());
            text += &format!("@{}", strides.collect::<Vec<_>>().join(","));
        }
        parts.push(text);
    }
    parts.push("->".into());
    parts.extend(args.outputs.iter().map(tensor));
    parts.join(" ")
}

/// Sizes up to this are not rounded: window sizes, small channel counts.
const EXACT: usize = 8;

/// The nearest power of two, rounding up from 1.5 times a power; sizes up to [`EXACT`] unchanged.
fn rounded(n: usize) -> usize {
    if n <= EXACT {
        return n;
    }
    let below = 1 << n.ilog2();
    if n < below + below / 2 { below } else { below.saturating_mul(2) }
}

/// An op's attributes as recorded from its `Hash`: sizes and flags in the order of its fields, sizes rounded. Floats
/// ([`Bits`](crate::op::Bits)) are left out, because no kernel depends on their values.
#[derive(Default)]
struct Attributes(Vec<String>);

impl Hasher for Attributes {
    /// The elements of an array of integers. Ops have only arrays of `usize`.
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks();
        words.iter().for_each(|word| self.write_usize(usize::from_ne_bytes(*word)));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_usize(n as usize);
    }

    fn write_u64(&mut self, _: u64) {}

    fn write_usize(&mut self, n: usize) {
        self.0.push(rounded(n).to_string());
    }

    /// The variant of an enum.
    fn write_isize(&mut self, n: isize) {
        self.0.push(n.to_string());
    }

    fn finish(&self) -> u64 {
        0 // Only what was recorded is used.
    }
}
