//! Lists, ranks and opens adapters; attributes device errors to the calls that caused them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::errors::{Errors, Unsettled};
use super::multiprocessors::multiprocessors;
use super::pipelines::Pipelines;
use super::submissions::Submissions;
use crate::profile::{Profile, multiprocessors_of};
use crate::{Error, Result};

/// An open device.
pub(crate) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub profile: Profile,
    pub(super) submissions: Submissions,
    pub(super) pipelines: Pipelines,
    /// Why the device was lost, if it was.
    lost: Arc<Mutex<Option<String>>>,
    unsettled: Unsettled,
    /// Whether shaders run with bounds checks, for debugging.
    pub checked_shaders: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Returns an error if the device is lost.
    pub fn alive(&self) -> Result<()> {
        lock(&self.lost).as_ref().map_or(Ok(()), |why| Err(Error::DeviceLost(why.clone())))
    }

    /// Runs wgpu calls and returns their errors. All wgpu calls that may fail go through here. Threads that share
    /// the device do not see each other's errors, because wgpu's error scopes are per thread. In a browser, errors
    /// arrive later: [`Gpu::settled`] returns them, and everything that waits calls it.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> Result<T>) -> Result<T> {
        let (result, errors) = self.watched(calls)?;
        match errors.known() {
            Ok(outcome) => self.closed(outcome)?,
            Err(unknown) => self.unsettled.push(unknown),
        }
        result
    }

    /// Runs wgpu calls; returns their result, and their errors for [`Gpu::closed`].
    pub(super) fn watched<T>(&self, calls: impl FnOnce() -> T) -> Result<(T, Errors)> {
        self.alive()?;
        Ok(Errors::of(&self.device, calls))
    }

    /// The loss of the device, if it is lost, or else this outcome of calls, which may have failed because of it.
    pub(super) fn closed(&self, outcome: Result<()>) -> Result<()> {
        self.alive().and(outcome)
    }

    /// Waits for the errors of earlier calls, and returns the first.
    pub async fn settled(&self) -> Result<()> {
        let outcome = self.unsettled.settled().await;
        self.closed(outcome)
    }

    /// The number of pipelines.
    pub fn pipelines(&self) -> usize {
        self.pipelines.count()
    }

    /// Destroys the device, as if it had been lost.
    pub fn destroy(&self) {
        self.device.destroy();
        lock(&self.lost).get_or_insert("it was destroyed".into());
    }
}

/// Vulkan, Metal and DX12. GL is queried only if requested or if there is no other adapter: opening it
/// is slow, and its loaders print messages.
const MODERN: wgpu::Backends = wgpu::Backends::PRIMARY;

/// The adapters of these backends, best first: discrete, integrated, virtual, unknown, software; Vulkan,
/// Metal and DX12 before GL.
async fn adapters(backends: wgpu::Backends) -> Vec<(wgpu::Adapter, Profile)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let mut adapters: Vec<(wgpu::Adapter, Profile)> = found
        .into_iter()
        .map(|a| {
            let p = profile(&a);
            (a, p)
        })
        .collect();
    let kinds = ["discrete GPU", "integrated GPU", "virtual GPU", "unknown", "software"];
    adapters.sort_by_key(|(_, p)| {
        (kinds.iter().position(|&kind| kind == p.kind).unwrap_or(kinds.len()), p.backend == "gl")
    });
    adapters
}

/// The profiles of all adapters, best first.
pub(crate) async fn list() -> Vec<Profile> {
    adapters(wgpu::Backends::all()).await.into_iter().map(|(_, profile)| profile).collect()
}

fn profile(adapter: &wgpu::Adapter) -> Profile {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let name = info.name.to_lowercase();
    let in_disguise = ["llvmpipe", "swiftshader", "microsoft basic render"].iter().any(|n| name.contains(n));
    let kind = match info.device_type {
        _ if in_disguise => "software",
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "unknown",
    };
    let subgroups = (info.subgroup_min_size, info.subgroup_max_size);
    Profile {
        // A browser has no name that wgpu could return.
        name: if info.name.is_empty() { "unnamed GPU".to_owned() } else { info.name.clone() },
        backend: match info.backend {
            wgpu::Backend::Vulkan => "vulkan",
            wgpu::Backend::Metal => "metal",
            wgpu::Backend::Dx12 => "dx12",
            wgpu::Backend::Gl => "gl",
            wgpu::Backend::BrowserWebGpu => "webgpu",
            wgpu::Backend::Noop => "noop",
        }
        .into(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: kind.into(),
        software: kind == "software",
        max_invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        max_workgroup_memory: limits.max_compute_workgroup_storage_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        max_uniform: limits.max_uniform_buffer_binding_size,
        memory: None,
        multiprocessors: (kind != "software")
            .then(|| multiprocessors(adapter).or_else(|| multiprocessors_of(&info.name)))
            .flatten(),
        uniform_alignment: limits.min_uniform_buffer_offset_alignment.max(16),
        // wgpu offers none in browsers, which require `enable subgroups;`; naga does not know it.
        subgroups: features.contains(wgpu::Features::SUBGROUP).then_some(subgroups),
        f16: features.contains(wgpu::Features::SHADER_F16),
        cooperative_matrices: cooperative_matrices(adapter),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// The sides of the square cooperative matrices that multiply f16 and add f32.
fn cooperative_matrices(adapter: &wgpu::Adapter) -> Vec<u32> {
    let needed =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    if !adapter.features().contains(needed) {
        return Vec::new();
    }
    let mut sides: Vec<u32> = adapter
        .cooperative_matrix_properties()
        .into_iter()
        .filter(|p| p.ab_type == wgpu::CooperativeScalarType::F16 && p.cr_type == wgpu::CooperativeScalarType::F32)
        .filter(|p| p.m_size == p.n_size && p.n_size == p.k_size && [8, 16].contains(&p.m_size)) // what WGSL has
        .map(|p| p.m_size)
        .collect();
    sides.sort_unstable();
    sides.dedup();
    sides
}

/// Opens the adapter that `wanted` names: an index in [`list`], part of a name, a backend
/// (`gl`), or both (`gl:llvmpipe`); the best one for `None`. Returns `Ok(None)` if none was named and
/// there is no adapter. `restricted` makes the profile to open from the adapter's.
pub(crate) async fn open(wanted: Option<&str>, restricted: impl Fn(Profile) -> Profile) -> Result<Option<Gpu>> {
    let request = |(adapter, profile)| request(adapter, restricted(profile));
    let Some(wanted) = wanted else {
        for backends in [MODERN, wgpu::Backends::GL] {
            if let Some(best) = adapters(backends).await.into_iter().next() {
                return request(best).await.map(Some);
            }
        }
        return Ok(None);
    };
    if wanted.parse::<usize>().is_err() {
        let mut modern = adapters(MODERN).await;
        if let Some(number) = modern.iter().position(|(_, p)| matches(p, wanted)) {
            return request(modern.swap_remove(number)).await.map(Some);
        }
    }
    let mut adapters = adapters(wgpu::Backends::all()).await;
    let number = match wanted.parse::<usize>() {
        Ok(index) => (index < adapters.len()).then_some(index),
        Err(_) => adapters.iter().position(|(_, p)| matches(p, wanted)),
    };
    match number {
        Some(number) => request(adapters.swap_remove(number)).await.map(Some),
        None => {
            let known: Vec<String> =
                adapters.iter().enumerate().map(|(i, (_, p))| format!("{i}: {} ({})", p.name, p.backend)).collect();
            let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
            Err(Error::Device(format!(
                "no adapter matches `{wanted}`; give an index, part of a name, a backend, or `cpu`. Adapters: {known}"
            )))
        }
    }
}

/// Whether `wanted` is part of the adapter's name, its backend, or `backend:part of name`.
fn matches(profile: &Profile, wanted: &str) -> bool {
    let wanted = wanted.to_lowercase();
    // An empty string is part of every name, but matches none.
    let named = |part: &str| !part.trim().is_empty() && profile.name.to_lowercase().contains(part);
    match wanted.split_once(':') {
        Some((backend, part)) => profile.backend == backend && named(part),
        None => profile.backend == wanted || named(&wanted),
    }
}

/// Opens an adapter with the profile's limits and features, which it must support, so that wgpu rejects
/// anything beyond them.
async fn request(adapter: wgpu::Adapter, profile: Profile) -> Result<Gpu> {
    let mut features = wgpu::Features::empty();
    features.set(wgpu::Features::SUBGROUP, profile.subgroups.is_some());
    features.set(wgpu::Features::SHADER_F16, profile.f16);
    features.set(wgpu::Features::TIMESTAMP_QUERY, profile.timestamps);
    features |= adapter.features() & wgpu::Features::PIPELINE_CACHE;
    let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
    if !profile.cooperative_matrices.is_empty() {
        features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        // SAFETY: the user has asked for cooperative matrices, whose documentation tells the risk: wgpu does not validate
        // their shapes, and the barriers around them are not proven sufficient. Kernels use offered shapes only.
        experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
    }
    let about = adapter.get_info();
    let all = adapter.limits();
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("wgrad"),
        required_features: features,
        experimental_features,
        required_limits: wgpu::Limits {
            max_compute_invocations_per_workgroup: profile.max_invocations.max(1),
            max_compute_workgroup_size_x: all.max_compute_workgroup_size_x.min(profile.max_invocations),
            max_compute_workgroup_size_y: all.max_compute_workgroup_size_y.min(profile.max_invocations),
            max_compute_workgroup_size_z: all.max_compute_workgroup_size_z.min(profile.max_invocations),
            max_compute_workgroups_per_dimension: profile.max_workgroups,
            max_compute_workgroup_storage_size: profile.max_workgroup_memory,
            max_storage_buffers_per_shader_stage: profile.max_storage_buffers,
            max_storage_buffer_binding_size: profile.max_binding,
            max_buffer_size: profile.max_buffer,
            max_uniform_buffer_binding_size: profile.max_uniform,
            ..all
        },
        memory_hints: wgpu::MemoryHints::Performance,
        ..Default::default()
    };
    let opened = adapter.request_device(&descriptor).await;
    let (device, queue) =
        opened.map_err(|e| Error::Device(format!("cannot open {} ({}): {e}", profile.name, profile.backend)))?;
    let lost = Arc::new(Mutex::new(None));
    // No call that may fail is made outside the error scopes. If an error occurs there anyway, its effects are
    // unknown, so treat the device as lost.
    let losses = lost.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        lock(&losses).get_or_insert(error.to_string());
    }));
    let pipelines = Pipelines::open(&device, &about);
    let losses = lost.clone();
    device.set_device_lost_callback(move |reason, message| {
        lock(&losses).get_or_insert(format!("{reason:?} {message}").trim().to_owned());
    });
    Ok(Gpu {
        submissions: Submissions::new(&device, &queue, &profile.kind),
        device,
        queue,
        profile,
        pipelines,
        lost,
        unsettled: Unsettled::default(),
        checked_shaders: std::env::var_os("WGRAD_CHECKED_SHADERS").is_some(),
    })
}
