//! Kernels: their variants, and how they become launches.

use super::{Cost, Machine, Work};
use crate::profile::Profile;
use crate::shader::Source;
use crate::shape::View;
use crate::{DType, TensorType};

/// An op with dedicated kernels. Example: [the module `op`](crate::op).
pub trait Kernel {
    /// Its variants. If several cost the same, the planner takes the first. At least one must support all shapes and
    /// need no optional feature.
    fn variants(&self) -> &'static [Variant];

    /// The estimated time of a variant for these shapes on this device, or `None` if it does not support the shapes.
    /// Whether the device can run the variant is another question: see [`Variant::lacking`].
    ///
    /// Only the comparison with the op's other variants matters. The default is one launch that reads the inputs and
    /// writes the outputs.
    fn cost(&self, _variant: &Variant, args: &Args<'_>) -> Option<Cost> {
        let bytes: usize = args.inputs.iter().copied().chain(args.outputs).map(TensorType::bytes).sum();
        Some(args.cost(&Work { bytes: bytes as f64, ..Work::default() }))
    }

    /// Whether the variants can read input `input` with these strides; otherwise the plan makes a
    /// contiguous copy first.
    fn reads(&self, _input: usize, view: &View) -> bool {
        view.is_contiguous()
    }

    /// Whether the variants can load input `input` from a buffer of a narrow type; otherwise the plan makes a widened
    /// copy first. The plan alters the text ([`Source::stored`]), so kernels that a [`Shader`](crate::shader::Shader)
    /// assembles need nothing for it.
    fn widens(&self, _input: usize) -> bool {
        true
    }

    /// Whether a variant itself reads narrow inputs, as the words in which they are stored.
    fn unpacks(&self, _variant: &Variant) -> bool {
        false
    }

    /// The launches. Not called if every output is empty.
    fn lower(&self, variant: &Variant, args: &Args<'_>) -> Result<Lowered, String>;
}

/// What all kernels share. As a method of the trait, each kernel would have its own copy.
impl dyn Kernel + '_ {
    /// The variants that the device can run and that support these shapes, at least as precise as `precision`, cheapest
    /// first. The planner takes the first unless an option or a tuning result names another.
    pub fn candidates(&self, args: &Args<'_>, precision: Precision) -> Vec<(&'static Variant, Cost)> {
        let able = |v: &&Variant| v.precision() <= precision && v.lacking(args.profile).is_none();
        let able = self.variants().iter().filter(able);
        let mut candidates: Vec<_> = able.filter_map(|v| Some((v, self.cost(v, args)?))).collect();
        // Costs that differ by rounding only are equal. The sort is stable.
        candidates.sort_by(|(_, a), (_, b)| (a.0 as f32).total_cmp(&(b.0 as f32)));
        candidates
    }
}

/// How precisely a program multiplies f32 matrices and convolves f32 images. More precise kernels are always allowed.
///
/// It is an option of [compilation](crate::plan::Options::precision), like `torch.set_float32_matmul_precision`.
///
/// ```
/// use wgrad::Precision;
/// assert_eq!("mixed".parse::<Precision>(), Ok(Precision::Mixed));
/// assert!(Precision::Highest < Precision::Mixed); // the more precise one allows less
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// Products and sums in f32.
    #[default]
    Highest,
    /// Operands may be rounded to f16, for devices with
    /// [cooperative matrices](crate::Profile::cooperative_matrices); products are exact, and sums are in f32.
    ///
    /// Finite operands beyond the range of f16 become +-65504; infinities and NaN remain. Operands below 2^-14 in
    /// magnitude lose bits, and those below 2^-25 become 0: gradients may need a `LossScale`.
    Mixed,
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Precision, String> {
        match name {
            "highest" => Ok(Precision::Highest),
            "mixed" => Ok(Precision::Mixed),
            _ => Err(format!("there is no precision `{name}`; there are highest and mixed")),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Highest => "highest",
            Precision::Mixed => "mixed",
        })
    }
}

/// One way to compute an op on a device. Example: [the module `op`](crate::op).
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, such as `tile64`.
    pub name: &'static str,
    /// Workgroup memory it needs, in bytes.
    pub workgroup_memory: u32,
    /// Invocations per workgroup; the minimum, if the shader adapts to the device.
    pub invocations: u32,
    /// The subgroup size it requires, if any: the device's smallest and largest size must both equal it.
    pub subgroup: Option<u32>,
    /// Whether it multiplies by cooperative matrices, of any side that the device offers. It rounds the operands of
    /// products to f16 ([`Precision::Mixed`]).
    pub cooperative: bool,
    /// Whether the shader of its first launch passes each element that it reads of its first input through
    /// `prologue(v, i)` of `shaders/prelude.wgsl`, with the element's value and its position in the buffer; or through
    /// `prologue4`, four consecutive elements at a time. The plan puts the pointwise ops there that compute the input, so
    /// each element should be read once, and only the first launch may read that input.
    pub prologue: bool,
    /// Whether the shader of its last launch calls `epilogue(v, i)` of `shaders/prelude.wgsl` once per element of its
    /// first output, with the value and its row-major index, and stores the result; or `epilogue4`, for four
    /// consecutive elements at a time. The plan puts fused pointwise ops there.
    pub epilogue: bool,
}

impl Variant {
    /// A variant that runs on any device, without fused ops: 64 invocations, no workgroup memory.
    pub const fn plain(name: &'static str) -> Self {
        Variant {
            name,
            workgroup_memory: 0,
            invocations: 64,
            subgroup: None,
            cooperative: false,
            prologue: false,
            epilogue: false,
        }
    }

    /// The precision of its products.
    pub fn precision(&self) -> Precision {
        if self.cooperative { Precision::Mixed } else { Precision::Highest }
    }

    /// What the device lacks to run it, if anything.
    pub fn lacking(&self, profile: &Profile) -> Option<String> {
        if self.workgroup_memory > profile.max_workgroup_memory {
            return Some(format!("{} bytes of workgroup memory", self.workgroup_memory));
        }
        if self.invocations > profile.max_invocations {
            return Some(format!("{} invocations per workgroup", self.invocations));
        }
        if self.cooperative && profile.cooperative_matrices.is_empty() {
            return Some("cooperative matrices (off unless enabled)".into());
        }
        match self.subgroup {
            Some(size) if profile.subgroups != Some((size, size)) => Some(format!("subgroups of {size}")),
            _ => None,
        }
    }
}

/// The arguments for lowering a kernel. Example: [the module `op`](crate::op).
pub struct Args<'a> {
    /// Types of the inputs.
    pub inputs: &'a [&'a TensorType],
    /// The element type of each input's buffer: the input's, or a narrow one that the kernel [widens](Kernel::widens).
    pub stored: &'a [DType],
    /// The layout of each input in its buffer.
    pub views: &'a [View],
    /// Types of the outputs, which are contiguous.
    pub outputs: &'a [TensorType],
    /// The device.
    pub profile: &'a Profile,
}

impl Args<'_> {
    /// The time that the device takes for this work.
    pub fn cost(&self, work: &Work) -> Cost {
        Machine::of(self.profile).cost(work)
    }
}

/// A kernel's launches, run in order, and the scratch buffers they share. Example: [the module `op`](crate::op).
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The launches.
    pub launches: Vec<Launch>,
    /// Sizes of the scratch buffers, in bytes.
    pub scratch: Vec<usize>,
}

impl From<Launch> for Lowered {
    fn from(launch: Launch) -> Self {
        Lowered { launches: vec![launch], scratch: Vec::new() }
    }
}

/// One dispatch as plain data. Example: [the module `op`](crate::op).
#[derive(Clone, Debug)]
pub struct Launch {
    /// The name in reports and profiles: the entry point, plus the variant if there are several.
    pub label: String,
    /// The complete WGSL.
    pub wgsl: Source,
    /// The entry point.
    pub entry: &'static str,
    /// The bindings of group 0, by binding number.
    pub bindings: Vec<Binding>,
    /// The grid, in workgroups.
    pub workgroups: [u32; 3],
}

/// What a launch binds. Example: [the module `op`](crate::op).
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    /// `var<uniform>`: a struct of four-byte members, or an array of vec4, as words.
    Uniform(Vec<u32>),
    /// `var<storage, read>`.
    Read(Slot),
    /// `var<storage, read_write>`.
    Write(Slot),
    /// `var<storage, read_write> array<atomic<u32>, 4>`: a kernel that finds an index out of range
    /// stores 1 in the first word, and the run returns an error.
    Status,
}

/// A tensor that a kernel binds. Example: [the module `op`](crate::op).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// An input of the op, by index.
    Input(usize),
    /// An output of the op, by index.
    Output(usize),
    /// A scratch buffer of the op, by index.
    Scratch(usize),
}
