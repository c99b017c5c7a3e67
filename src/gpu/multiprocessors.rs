//! How many multiprocessors a GPU has (NVIDIA: streaming multiprocessors; AMD: compute units; ARM: shader cores). wgpu
//! does not report it; Vulkan drivers do, through vendor extensions.

/// The number of multiprocessors, if the driver reports it.
#[cfg(any(target_vendor = "apple", target_family = "wasm"))]
pub(super) fn multiprocessors(_: &wgpu::Adapter) -> Option<u32> {
    None
}

/// The number of multiprocessors, if the driver reports it.
#[cfg(not(any(target_vendor = "apple", target_family = "wasm")))]
pub(super) fn multiprocessors(adapter: &wgpu::Adapter) -> Option<u32> {
    use ash::{amd, arm, nv, vk};

    // SAFETY: the handles are used only here, while `adapter` keeps them alive, and nothing is destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (about, instance) = (adapter.physical_device_capabilities(), adapter.shared_instance());
    if about.properties().api_version.min(instance.instance_api_version()) < vk::API_VERSION_1_1 {
        return None; // there is no vkGetPhysicalDeviceProperties2
    }
    let mut of_nvidia = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut of_amd = vk::PhysicalDeviceShaderCoreProperties2AMD::default();
    let mut of_arm = vk::PhysicalDeviceShaderCoreBuiltinsPropertiesARM::default();
    let mut properties = vk::PhysicalDeviceProperties2::default();
    if about.supports_extension(nv::shader_sm_builtins::NAME) {
        properties = properties.push_next(&mut of_nvidia);
    }
    if about.supports_extension(amd::shader_core_properties2::NAME) {
        properties = properties.push_next(&mut of_amd);
    }
    if about.supports_extension(arm::shader_core_builtins::NAME) {
        properties = properties.push_next(&mut of_arm);
    }
    // SAFETY: the device belongs to the instance, and the chain holds only structures of extensions that it supports.
    unsafe { instance.raw_instance().get_physical_device_properties2(adapter.raw_physical_device(), &mut properties) };
    let counts = [of_nvidia.shader_sm_count, of_amd.active_compute_unit_count, of_arm.shader_core_count];
    counts.into_iter().find(|&count| count > 0)
}
