//! Pipelines: compiled once per shader and device, several in parallel, and cached on disk if the driver
//! supports it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::errors::Errors;
use crate::shader::with_locations;
use crate::time::{Duration, Instant};
use crate::{Error, Result, files, parallel};

/// Identifies a pipeline.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub wgsl: Arc<str>,
    pub entry: String,
    /// The binding types, by binding number.
    pub kinds: Vec<wgpu::BindingType>,
    /// Whether the shader runs with bounds checks.
    pub checked: bool,
}

/// A device's pipelines, shared by its programs.
pub(super) struct Pipelines {
    made: Mutex<Made>,
    disk: Option<DiskCache>,
    /// [`UNUSED`], except in tests.
    unused: usize,
    /// For tests: an extra delay per pipeline, to simulate a driver that compiles slowly.
    delay: Duration,
}

/// Pipelines by key, each with the number of the request that last used it.
#[derive(Default)]
struct Made {
    pipelines: HashMap<Key, (Arc<wgpu::ComputePipeline>, u64)>,
    requests: u64,
}

/// How many pipelines are kept although no program uses them. Some drivers need a megabyte for each.
const UNUSED: usize = 2048;

impl Made {
    /// Starts a new request. The calls that follow count as its uses.
    fn begin(&mut self) {
        self.requests += 1;
    }

    fn get(&mut self, key: &Key) -> Option<Arc<wgpu::ComputePipeline>> {
        let (pipeline, used) = self.pipelines.get_mut(key)?;
        *used = self.requests;
        Some(pipeline.clone())
    }

    fn insert(&mut self, key: Key, pipeline: Arc<wgpu::ComputePipeline>) {
        self.pipelines.insert(key, (pipeline, self.requests));
    }

    /// Drops half of the pipelines that no program uses if there are more than `most`: those with the oldest requests.
    fn tidy(&mut self, most: usize) {
        let is_unused = |pipeline: &Arc<_>| Arc::strong_count(pipeline) == 1;
        let all = self.pipelines.values();
        let mut unused: Vec<u64> = all.filter(|(pipeline, _)| is_unused(pipeline)).map(|(_, used)| *used).collect();
        if unused.len() > most {
            let middle = unused.len() / 2;
            let recent = *unused.select_nth_unstable(middle).1;
            self.pipelines.retain(|_, (pipeline, used)| !is_unused(pipeline) || *used >= recent);
        }
    }
}

/// For tests: extra compile time per pipeline, in milliseconds.
const DELAY: &str = "WGRAD_TEST_PIPELINE_DELAY";

/// For tests: the number of unused pipelines to keep, instead of [`UNUSED`].
const KEPT: &str = "WGRAD_TEST_UNUSED_PIPELINES";

impl Pipelines {
    /// No pipelines yet, and the disk cache of earlier processes.
    pub fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Pipelines {
        let number = |variable| std::env::var(variable).ok()?.parse::<u64>().ok();
        let delay = number(DELAY).map_or(Duration::ZERO, Duration::from_millis);
        let unused = number(KEPT).map_or(UNUSED, |most| most as usize);
        Pipelines { made: Mutex::default(), disk: DiskCache::open(device, adapter), unused, delay }
    }

    /// The pipelines for these keys (with labels), in order; new ones are compiled in parallel. `watched` returns the
    /// device's errors, and `closed` what they mean.
    pub async fn get(
        &self,
        device: &wgpu::Device,
        wanted: &[(Key, &str)],
        watched: impl Fn(&dyn Fn() -> wgpu::ComputePipeline) -> Result<(wgpu::ComputePipeline, Errors)> + Sync,
        closed: impl Fn(Result<()>) -> Result<()>,
    ) -> Result<Vec<Arc<wgpu::ComputePipeline>>> {
        // Holding them keeps another thread from dropping them.
        let known: Vec<Option<Arc<_>>> = {
            let mut made = self.lock();
            made.begin();
            wanted.iter().map(|(key, _)| made.get(key)).collect()
        };
        let mut seen = HashSet::new();
        let missing = wanted.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(wanted, _)| wanted);
        let new: Vec<&(Key, &str)> = missing.filter(|(key, _)| seen.insert(key)).collect();
        if new.is_empty() {
            return Ok(known.into_iter().flatten().collect());
        }
        let cache = self.disk.as_ref().map(|disk| &disk.cache);
        let one = |(key, label): &(Key, &str)| -> Result<_> {
            if !self.delay.is_zero() {
                std::thread::sleep(self.delay); // a browser cannot
            }
            watched(&|| make(device, key, label, cache))
        };
        let started: Vec<_> = parallel::map(new.len(), &|at| one(new[at])).into_iter().collect::<Result<_>>()?;
        let mut pipelines = Vec::with_capacity(started.len());
        for ((pipeline, errors), (key, label)) in started.into_iter().zip(new.iter().copied()) {
            closed(errors.await).map_err(|error| match error {
                Error::Gpu(why) => Error::Gpu(format!("kernel {label}: {}", with_locations(&key.wgsl, &why))),
                other => other,
            })?;
            pipelines.push(Arc::new(pipeline));
        }
        let mut made = self.lock();
        new.iter().zip(pipelines).for_each(|((key, _), pipeline)| made.insert(key.clone(), pipeline));
        let all: Vec<_> =
            known.into_iter().zip(wanted).filter_map(|(known, (key, _))| known.or_else(|| made.get(key))).collect();
        made.tidy(self.unused);
        drop(made);
        if let Some(disk) = &self.disk {
            disk.save(SAVE_INTERVAL);
        }
        Ok(all)
    }

    /// The number of pipelines that exist.
    pub fn count(&self) -> usize {
        self.lock().pipelines.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            disk.save(Duration::ZERO);
        }
    }
}

fn make(device: &wgpu::Device, key: &Key, label: &str, cache: Option<&wgpu::PipelineCache>) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderModuleDescriptor {
        label: Some(label),
        source: wgpu::ShaderSource::Wgsl(std::borrow::Cow::Borrowed(&key.wgsl)),
    };
    let checks =
        if key.checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() };
    // SAFETY: only our own shaders run without checks. They access only elements within the bindings of the plan
    // (user-supplied indices are validated on upload and guarded in the kernels), never divide by zero,
    // and their loops terminate.
    let module = unsafe { device.create_shader_module_trusted(source, checks) };
    let entries: Vec<wgpu::BindGroupLayoutEntry> = key
        .kinds
        .iter()
        .enumerate()
        .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: *ty,
            count: None,
        })
        .collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(label),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(&key.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache,
    })
}

/// Minimum time between saves; a final save follows when the device is closed.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum size of the cache file; larger files are neither written nor read.
const MAX_BYTES: u64 = 256 << 20;

/// The driver's pipeline cache, in a file in [`files::cache_folder`]. It is optional: a corrupt file or one
/// of another driver is ignored, and write errors are too.
struct DiskCache {
    cache: wgpu::PipelineCache,
    file: PathBuf,
    saved: Mutex<Saved>,
}

struct Saved {
    hash: u64,
    at: Option<Instant>,
}

impl DiskCache {
    /// `None` if the driver or wgpu's backend has no such cache, or the system has no cache folder.
    fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo) -> Option<DiskCache> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = files::cache_folder()?.join(wgpu::util::pipeline_cache_key(adapter)?);
        let data = read(&file);
        let hash = data.as_deref().map_or(0, hash);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgrad"), data: data.as_deref(), fallback: true };
        // SAFETY: the hash before the data shows that they are unchanged from `get_data`; wgpu and the
        // driver validate adapter and version.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(DiskCache { cache, file, saved: Mutex::new(Saved { hash, at: None }) })
    }

    /// Writes the cache if it has changed and the last save was at least `interval` ago.
    fn save(&self, interval: Duration) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        saved.at = Some(Instant::now());
        let Some(data) = self.cache.get_data().filter(|data| data.len() as u64 <= MAX_BYTES) else { return };
        let hash = hash(&data);
        if hash == saved.hash {
            return;
        }
        let bytes = [&hash.to_le_bytes()[..], &data].concat();
        let folder = self.file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if folder.is_ok() && files::write_atomically(&self.file, &bytes).is_ok() {
            saved.hash = hash;
        }
    }
}

/// The data of a cache file, if its hash is correct.
fn read(file: &Path) -> Option<Vec<u8>> {
    let length = std::fs::metadata(file).ok()?.len();
    let mut bytes = files::read(file).ok().filter(|_| length <= MAX_BYTES)?;
    let data = bytes.split_off(bytes.len().min(8));
    (bytes == hash(&data).to_le_bytes()).then_some(data)
}

fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}
