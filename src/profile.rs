//! A device's limits and features as plain data, used by the planner and to choose kernel variants.

mod gpus;

pub use gpus::{GPUS, multiprocessors_of};

/// Limits and features of a device that matter to wgrad.
///
/// ```
/// use wgrad::{DType, Graph, Profile, lint};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [1 << 13, 1 << 13]).exp(); // 256 MiB
/// let found = lint(&graph, &[&y], &Profile::webgpu_defaults())?;
/// assert_eq!((found[0].limit.name(), found[0].allows), ("binding", 128 << 20));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The adapter's name, such as `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub name: String,
    /// The graphics API: `vulkan`, `metal`, `dx12`, `gl`; `cpu` for the reference.
    pub backend: String,
    /// The driver and its version, as it reports them.
    pub driver: String,
    /// The device type: `discrete GPU`, `integrated GPU`, `virtual GPU`, `software`, `reference`, `unknown`.
    pub kind: String,
    /// Whether the adapter is a software rasteriser, where kernels without barriers are faster.
    pub software: bool,
    /// Invocations per workgroup.
    pub max_invocations: u32,
    /// Workgroups per dimension of one dispatch.
    pub max_workgroups: u32,
    /// Workgroup memory, in bytes.
    pub max_workgroup_memory: u32,
    /// Storage buffers that one kernel may bind. One is reserved (Metal uses one for buffer sizes).
    pub max_storage_buffers: u32,
    /// Largest storage buffer binding, in bytes.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Largest uniform buffer binding, in bytes.
    pub max_uniform: u64,
    /// Bytes available for all buffers together, if known.
    pub memory: Option<u64>,
    /// Multiprocessors (NVIDIA), compute units (AMD), shader cores (ARM), Xe cores (Intel) or GPU cores (Apple): as the
    /// driver reports, else by [name](multiprocessors_of), if known.
    pub multiprocessors: Option<u32>,
    /// Alignment of uniform offsets, in bytes.
    pub uniform_alignment: u32,
    /// Smallest and largest subgroup size, if subgroup operations are supported.
    pub subgroups: Option<(u32, u32)>,
    /// Whether kernels may use 16-bit floats.
    pub f16: bool,
    /// Sides of the square cooperative matrices (matrix units, such as NVIDIA's tensor cores) that multiply f16 and add
    /// f32, in increasing order. An open device has none unless [they were requested](crate::OpenOptions).
    pub cooperative_matrices: Vec<u32>,
    /// Whether GPU timestamps are supported.
    pub timestamps: bool,
}

impl Profile {
    /// The limits that every WebGPU implementation guarantees (WebGPU specification, section 3.6.2).
    pub fn webgpu_defaults() -> Self {
        Profile {
            name: "WebGPU default limits".into(),
            backend: "webgpu".into(),
            driver: String::new(),
            kind: "unknown".into(),
            software: false,
            max_invocations: 256,
            max_workgroups: 65_535,
            max_workgroup_memory: 16_384,
            max_storage_buffers: 8,
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            max_uniform: 65_536,
            memory: None,
            multiprocessors: None,
            uniform_alignment: 256,
            subgroups: None,
            f16: false,
            cooperative_matrices: Vec::new(),
            timestamps: false,
        }
    }

    /// WebGPU's compatibility mode, which runs on OpenGL ES 3.1 and Direct3D 11: half the
    /// invocations, a quarter of the uniform size (gpuweb, *WebGPU Compatibility Mode*, section "Lower
    /// limits"; storage buffers per stage from Dawn's `Limits.cpp`: 8 for compute).
    pub fn webgpu_compat() -> Self {
        Profile {
            name: "WebGPU compatibility mode".into(),
            max_invocations: 128,
            max_uniform: 16_384,
            ..Profile::webgpu_defaults()
        }
    }

    /// What Android phones guarantee (Khronos, `VP_ANDROID_vulkan_profile_2021`: 128 MiB bindings, 128
    /// invocations, 16 KiB of workgroup memory and of uniform), with the 8 storage buffers that WebGPU
    /// requires. Vulkan guarantees no amount of memory; 1 GiB, a quarter of a phone's 4 GiB, is a rule of
    /// thumb.
    pub fn phone() -> Self {
        Profile {
            name: "Android phone (Vulkan profile 2021)".into(),
            backend: "vulkan".into(),
            kind: "integrated GPU".into(),
            max_invocations: 128,
            max_uniform: 16_384,
            memory: Some(1 << 30),
            ..Profile::webgpu_defaults()
        }
    }

    /// Apple GPUs (Metal feature set tables, Apple 7 and later): a kernel has 31 buffer slots. Its
    /// uniforms use up to three; the sizes of its storage buffers use another, hidden one.
    pub fn metal() -> Self {
        Profile {
            name: "Metal (Apple 7)".into(),
            backend: "metal".into(),
            kind: "integrated GPU".into(),
            max_invocations: 1024,
            max_workgroup_memory: 32_768,
            max_storage_buffers: 31 - 3,
            max_binding: 256 << 20,
            subgroups: Some((32, 32)),
            f16: true,
            timestamps: true,
            ..Profile::webgpu_defaults()
        }
    }

    /// Low limits that exercise every grid fold, split and fallback: 128 invocations, 64 workgroups
    /// per dimension, no optional features.
    pub fn low() -> Self {
        Profile { name: "low limits".into(), max_invocations: 128, max_workgroups: 64, ..Profile::webgpu_defaults() }
    }

    /// [`Profile::low`] with bindings and buffers of at most 1 MiB.
    pub fn low_1mib() -> Self {
        Profile { name: "low limits, 1 MiB".into(), max_binding: 1 << 20, max_buffer: 1 << 20, ..Profile::low() }
    }

    /// The named profiles: first those of devices, then those for tests.
    pub fn named() -> Vec<(&'static str, Profile)> {
        vec![
            ("webgpu", Profile::webgpu_defaults()),
            ("webgpu-compat", Profile::webgpu_compat()),
            ("phone", Profile::phone()),
            ("metal", Profile::metal()),
            ("low", Profile::low()),
            ("low-1mib", Profile::low_1mib()),
        ]
    }

    /// The CPU reference, limited only by memory.
    pub fn reference() -> Self {
        Profile {
            name: "CPU reference (f64)".into(),
            backend: "cpu".into(),
            kind: "reference".into(),
            software: true,
            max_invocations: 256,
            max_workgroups: u32::MAX,
            max_workgroup_memory: 1 << 20,
            max_storage_buffers: 1 << 20,
            max_binding: u64::MAX,
            max_buffer: u64::MAX,
            max_uniform: u64::MAX,
            ..Profile::webgpu_defaults()
        }
    }

    /// This profile restricted to the limits and features of `other`, to emulate that device.
    pub fn within(&self, other: &Profile) -> Profile {
        let smaller = |a: u32, b: u32| a.min(b);
        let common = |a: &[u32], b: &[u32]| a.iter().copied().filter(|x| b.contains(x)).collect();
        Profile {
            name: format!("{} within {}", self.name, other.name),
            software: self.software && other.software,
            max_invocations: smaller(self.max_invocations, other.max_invocations),
            max_workgroups: smaller(self.max_workgroups, other.max_workgroups),
            max_workgroup_memory: smaller(self.max_workgroup_memory, other.max_workgroup_memory),
            max_storage_buffers: smaller(self.max_storage_buffers, other.max_storage_buffers),
            max_binding: self.max_binding.min(other.max_binding),
            max_buffer: self.max_buffer.min(other.max_buffer),
            max_uniform: self.max_uniform.min(other.max_uniform),
            memory: [self.memory, other.memory].into_iter().flatten().min(),
            multiprocessors: [self.multiprocessors, other.multiprocessors].into_iter().flatten().min(),
            uniform_alignment: self.uniform_alignment.max(other.uniform_alignment),
            // The sizes that either may have: a kernel for those of `other` must be right for those of this device.
            subgroups: (self.subgroups.zip(other.subgroups))
                .map(|((least, most), (less, more))| (least.min(less), most.max(more))),
            f16: self.f16 && other.f16,
            cooperative_matrices: common(&self.cooperative_matrices, &other.cooperative_matrices),
            timestamps: self.timestamps && other.timestamps,
            ..self.clone()
        }
    }

    /// Storage buffers that a kernel may use: all but the reserved one.
    pub fn usable_storage_buffers(&self) -> usize {
        self.max_storage_buffers.saturating_sub(1) as usize
    }

    /// A grid of at least `workgroups` workgroups. If one dimension is too small, the grid is folded
    /// near-square over two, and then over three. Kernels compute the linear index from `workgroup_id`
    /// and `num_workgroups`, and guard against surplus workgroups.
    pub fn grid(&self, workgroups: u64) -> Result<[u32; 3], String> {
        let max = u64::from(self.max_workgroups);
        if workgroups <= max {
            return Ok([workgroups as u32, 1, 1]);
        }
        let z = workgroups.div_ceil(max.saturating_mul(max).max(1));
        let layer = workgroups.div_ceil(z);
        let y = layer.isqrt().max(layer.div_ceil(max.max(1)));
        let x = layer.div_ceil(y);
        if x > max || y > max || z > max {
            return Err(format!(
                "it needs {workgroups} workgroups, and the device allows {max} x {max} x {max}; split the tensor"
            ));
        }
        Ok([x as u32, y as u32, z as u32])
    }
}
