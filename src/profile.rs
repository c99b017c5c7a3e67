//! What a device declares about itself, as plain data: the planner reads it, kernels choose by it.

/// Limits and features of a device that matter to wgrad.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The adapter's name, such as `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub name: String,
    /// The graphics API: `vulkan`, `metal`, `dx12`, `gl`; `cpu` for the reference.
    pub backend: String,
    /// The driver and its version, as it reports them.
    pub driver: String,
    /// What it is: `discrete GPU`, `integrated GPU`, `virtual GPU`, `software`, `reference`, `unknown`.
    pub kind: String,
    /// Whether the adapter is a CPU in disguise: kernels without barriers win there.
    pub software: bool,
    /// Invocations per workgroup.
    pub max_invocations: u32,
    /// Workgroups per dimension of one dispatch.
    pub max_workgroups: u32,
    /// Workgroup memory, in bytes.
    pub max_workgroup_memory: u32,
    /// Storage buffers one kernel may bind. One is kept back (Metal spends one on buffer sizes).
    pub max_storage_buffers: u32,
    /// Largest range of one buffer that a kernel may see, in bytes.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Alignment of uniform offsets, in bytes.
    pub uniform_alignment: u32,
    /// Smallest and largest subgroup size, where subgroup operations work.
    pub subgroups: Option<(u32, u32)>,
    /// Whether kernels may use 16-bit floats.
    pub f16: bool,
    /// Whether GPU timestamps work.
    pub timestamps: bool,
}

impl Profile {
    /// The limits every WebGPU implementation guarantees (WebGPU specification, section 3.6.2).
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
            uniform_alignment: 256,
            subgroups: None,
            f16: false,
            timestamps: false,
        }
    }

    /// The reference on the CPU, which has no limits but memory.
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
            ..Profile::webgpu_defaults()
        }
    }

    /// This device with no more than `other` has: to run here as if there.
    pub fn within(&self, other: &Profile) -> Profile {
        let smaller = |a: u32, b: u32| a.min(b);
        Profile {
            name: format!("{} within {}", self.name, other.name),
            software: self.software && other.software,
            max_invocations: smaller(self.max_invocations, other.max_invocations),
            max_workgroups: smaller(self.max_workgroups, other.max_workgroups),
            max_workgroup_memory: smaller(self.max_workgroup_memory, other.max_workgroup_memory),
            max_storage_buffers: smaller(self.max_storage_buffers, other.max_storage_buffers),
            max_binding: self.max_binding.min(other.max_binding),
            max_buffer: self.max_buffer.min(other.max_buffer),
            uniform_alignment: self.uniform_alignment.max(other.uniform_alignment),
            subgroups: self.subgroups.filter(|_| other.subgroups.is_some()),
            f16: self.f16 && other.f16,
            timestamps: self.timestamps && other.timestamps,
            ..self.clone()
        }
    }

    /// Storage buffers that a kernel may use: all but the one kept back.
    pub fn usable_storage_buffers(&self) -> usize {
        self.max_storage_buffers.saturating_sub(1) as usize
    }

    /// A grid of at least `workgroups` workgroups, folded near-square over two dimensions where one
    /// does not hold them. Kernels rebuild the linear number from `workgroup_id` and
    /// `num_workgroups`, and guard against the surplus.
    pub fn grid(&self, workgroups: u64) -> Result<[u32; 3], String> {
        let max = u64::from(self.max_workgroups);
        if workgroups <= max {
            return Ok([workgroups as u32, 1, 1]);
        }
        let y = workgroups.isqrt().max(workgroups.div_ceil(max));
        let x = workgroups.div_ceil(y);
        if x > max || y > max {
            return Err(format!(
                "it needs {workgroups} workgroups, and the device allows {max} x {max}; split the tensor"
            ));
        }
        Ok([x as u32, y as u32, 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_without_much_surplus() {
        let mut profile = Profile::webgpu_defaults();
        profile.max_workgroups = 64;
        for n in [0u64, 1, 63, 64, 65, 1000, 4095, 4096] {
            let [x, y, z] = profile.grid(n).expect("fits");
            let cells = u64::from(x) * u64::from(y) * u64::from(z);
            assert!(cells >= n && cells <= n + 64, "{n} -> {x}x{y}");
        }
        assert!(profile.grid(4097).is_err());
    }
}
