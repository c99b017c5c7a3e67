//! Devices: a GPU, or the CPU reference.

use std::sync::Arc;

use crate::distributed::World;
use crate::gpu::{self, Gpu};
use crate::op::Precision;
use crate::profile::Profile;
use crate::{Error, Result};

/// How to open a device.
///
/// ```
/// use wgrad::{Device, OpenOptions, Profile};
/// let options = OpenOptions { within: Some(Profile::webgpu_defaults()), ..OpenOptions::default() };
/// let device = Device::open_with(None, &options)?;
/// assert!(device.is_cpu() || device.profile().max_storage_buffers <= 8);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Restricts the device to these limits and features, to test what would run on a less capable device. Kernels are
    /// chosen for these limits, and wgpu enforces them.
    pub within: Option<Profile>,
    /// Enables cooperative matrices (matrix units), if the adapter offers them: see
    /// [`Profile::cooperative_matrices`]. Programs use them only with [`Precision::Mixed`].
    ///
    /// They are an experimental feature of wgpu: it does not check the shapes that shaders use, and the barriers that
    /// it emits around them are formally insufficient on Vulkan. Run `wgrad check --precision mixed` before you rely on a
    /// device.
    pub cooperative_matrices: bool,
}

impl OpenOptions {
    /// Enables what programs of this precision can use.
    pub fn of(precision: Precision) -> OpenOptions {
        OpenOptions { cooperative_matrices: precision == Precision::Mixed, ..OpenOptions::default() }
    }
}

/// A device to compute on. Cheap to clone; programs on one device share compiled kernels.
///
/// ```
/// use wgrad::Device;
/// let reference = Device::cpu();
/// assert!(reference.is_cpu());
/// let best = Device::open(None)?; // the reference if there is no adapter
/// println!("{best}"); // llvmpipe (LLVM 15.0.6, 256 bits), software, vulkan
/// assert!(best.is_cpu() || best.profile().max_invocations >= 64);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    pub(crate) gpu: Option<Arc<Gpu>>,
    profile: Arc<Profile>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({self})")
    }
}

impl std::fmt::Display for Device {
    /// Name, kind and backend: `llvmpipe (LLVM 15.0.6, 256 bits), software, vulkan`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_cpu() {
            return f.write_str(&self.profile.name);
        }
        write!(f, "{}, {}, {}", self.profile.name, self.profile.kind, self.profile.backend)
    }
}

impl Device {
    /// The CPU reference, in f64.
    pub fn cpu() -> Device {
        Device { gpu: None, profile: Arc::new(Profile::reference()) }
    }

    /// Opens a device: by index in [`Device::list`], by part of an adapter's name, by backend
    /// (`gl`, or `gl:llvmpipe` for both), or `cpu` for the reference. `None` means the environment
    /// variable `WGRAD_DEVICE`, else the best adapter (discrete, integrated, virtual, software),
    /// else the reference: see [`Device::is_cpu`].
    ///
    /// # Errors
    /// [`Error::Device`] if a named adapter does not exist (the message lists the available ones) or
    /// cannot be opened. An empty `WGRAD_DEVICE` counts as unset; an empty name is an error.
    pub fn open(name: Option<&str>) -> Result<Device> {
        Device::open_with(name, &OpenOptions::default())
    }

    /// Opens a device restricted to the limits and features of `limits`: see [`OpenOptions::within`].
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_within(name: Option<&str>, limits: Option<&Profile>) -> Result<Device> {
        Device::open_with(name, &OpenOptions { within: limits.cloned(), ..OpenOptions::default() })
    }

    /// [`Device::open`] with options.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(name: Option<&str>, options: &OpenOptions) -> Result<Device> {
        gpu::block_on(Device::open_async(name, options))
    }

    /// [`Device::open_with`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(name: Option<&str>, options: &OpenOptions) -> Result<Device> {
        let variable = std::env::var_os("WGRAD_DEVICE").filter(|v| name.is_none() && !v.is_empty());
        if let Some(variable) = variable {
            let lossy = variable.to_string_lossy(); // adapter names are UTF-8
            return Device::open_named(Some(&lossy), options).await.map_err(|error| match error {
                Error::Device(why) => Error::Device(format!("WGRAD_DEVICE: {why}")),
                other => other,
            });
        }
        Device::open_named(name, options).await
    }

    async fn open_named(name: Option<&str>, options: &OpenOptions) -> Result<Device> {
        if name.is_some_and(|name| name.eq_ignore_ascii_case("cpu")) {
            return Ok(Device::cpu());
        }
        let restricted = |mut offered: Profile| {
            if !options.cooperative_matrices {
                offered.cooperative_matrices.clear();
            }
            options.within.as_ref().map_or(offered.clone(), |limits| offered.within(limits))
        };
        Ok(match gpu::open(name, restricted).await? {
            Some(gpu) => Device { profile: Arc::new(gpu.profile.clone()), gpu: Some(Arc::new(gpu)) },
            None => Device::cpu(),
        })
    }

    /// The device of a rank of a job: the one with this name, or that `WGRAD_DEVICE` names, or else one of those of the
    /// same kind and backend as the best adapter, in turn by [`World::rank_on_node`], so that each of several GPUs of a
    /// node gets as many ranks.
    ///
    /// ```
    /// use wgrad::Device;
    /// use wgrad::distributed::World;
    /// let world = World::threads(1).remove(0);
    /// let device = Device::of_rank(&world, None)?;
    /// assert_eq!(device.profile().name, Device::open(None)?.profile().name); // the first one
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn of_rank(world: &World, name: Option<&str>) -> Result<Device> {
        if name.is_some() || std::env::var_os("WGRAD_DEVICE").is_some_and(|name| !name.is_empty()) {
            return Device::open(name);
        }
        let all = Device::list();
        let like_best = |profile: &Profile| {
            all.first().is_some_and(|best| (&profile.kind, &profile.backend) == (&best.kind, &best.backend))
        };
        let suitable: Vec<usize> = (0..all.len()).filter(|&number| like_best(&all[number])).collect();
        if suitable.len() < 2 {
            return Device::open(None);
        }
        Device::open(Some(&suitable[world.rank_on_node() % suitable.len()].to_string()))
    }

    /// The best GPU adapter, or the one that `WGRAD_DEVICE` names.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none, with instructions to install a driver.
    pub fn gpu() -> Result<Device> {
        let device = Device::open(None)?;
        if device.is_cpu() {
            return Err(Error::Device(NO_ADAPTER.into()));
        }
        Ok(device)
    }

    /// Destroys the device: later operations on it return [`Error::DeviceLost`], as if the driver had
    /// reset it. Has no effect on the reference.
    pub fn destroy(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.destroy();
        }
    }

    /// All adapters, best first.
    pub fn list() -> Vec<Profile> {
        gpu::block_on(async { Ok(Device::list_async().await) }).unwrap_or_default()
    }

    /// [`Device::list`] for use with an async executor.
    pub async fn list_async() -> Vec<Profile> {
        gpu::list().await
    }

    /// The device's limits and features.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The number of pipelines on this device: one per shader, shared by all programs, and up to 2,048 that no program
    /// uses any more. 0 on the reference.
    pub fn pipelines(&self) -> usize {
        self.gpu.as_ref().map_or(0, |gpu| gpu.pipelines())
    }

    /// Whether this is the CPU reference.
    pub fn is_cpu(&self) -> bool {
        self.gpu.is_none()
    }
}

/// The error message if there is no GPU adapter.
pub const NO_ADAPTER: &str = "no GPU adapter was found. Install your GPU's Vulkan driver, or a software one \
    (Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)";
