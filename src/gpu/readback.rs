//! Read-back: copies into host-visible staging buffers, which are mapped when the device is done.

use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::Gpu;
use super::errors::block_on;
use super::submissions::Submission;
use crate::plan::Plan;
use crate::trace::span;
use crate::{Error, Result, Tensor, TensorType};

/// Size of the status buffer, in whose first word kernels report an index out of range.
pub(super) const STATUS_BYTES: u64 = 16;

/// Host-visible buffers for the results of one run.
pub(super) struct Staging {
    /// One per output; `None` if it has no elements.
    outputs: Vec<Option<wgpu::Buffer>>,
    status: Option<wgpu::Buffer>,
}

/// A program's host-visible buffers: one set per run in flight, reused by later runs.
pub(super) struct Readback {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    idle: Arc<Mutex<Vec<Staging>>>,
}

/// A started run whose outputs are pending.
pub(crate) struct Reading {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    idle: Arc<Mutex<Vec<Staging>>>,
    staging: Staging,
    submission: Submission,
}

impl Staging {
    fn new(gpu: &Gpu, plan: &Plan) -> Staging {
        let outputs = plan.outputs.iter().map(|(ty, buffer)| buffer.map(|_| staging(gpu, ty.bytes() as u64)));
        Staging { outputs: outputs.collect(), status: plan.watches_status.then(|| staging(gpu, STATUS_BYTES)) }
    }

    /// Encodes the copies from the device buffers.
    pub fn encode<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        outputs: impl Iterator<Item = (Option<&'a wgpu::Buffer>, &'a TensorType)>,
        status: &wgpu::Buffer,
    ) {
        for ((buffer, ty), staging) in outputs.zip(&self.outputs) {
            if let (Some(buffer), Some(staging)) = (buffer, staging) {
                encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, ty.bytes() as u64);
            }
        }
        if let Some(staging) = &self.status {
            encoder.copy_buffer_to_buffer(status, 0, staging, 0, STATUS_BYTES);
        }
    }

    fn buffers(&self) -> impl Iterator<Item = &wgpu::Buffer> {
        self.outputs.iter().chain([&self.status]).flatten()
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        lock(&self.idle).iter().flat_map(Staging::buffers).for_each(discard);
    }
}

impl Readback {
    /// Creates the buffers for one run.
    pub fn new(gpu: &Arc<Gpu>, plan: &Arc<Plan>) -> Readback {
        let idle = Arc::new(Mutex::new(vec![Staging::new(gpu, plan)]));
        Readback { gpu: gpu.clone(), plan: plan.clone(), idle }
    }

    /// Takes a set that no run is using, or creates one.
    pub fn take(&self) -> Staging {
        lock(&self.idle).pop().unwrap_or_else(|| Staging::new(&self.gpu, &self.plan))
    }

    /// The pending results of a submission, which it copies to `staging`.
    pub fn reading(&self, staging: Staging, submission: Submission) -> Reading {
        Reading { gpu: self.gpu.clone(), plan: self.plan.clone(), idle: self.idle.clone(), staging, submission }
    }
}

impl Reading {
    /// Waits for the run and returns its outputs.
    pub async fn outputs(self) -> Result<Vec<Tensor>> {
        let mapped = self.gpu.scoped(|| {
            let _span = span!("wait for the device");
            let mapped: Vec<_> = self.staging.buffers().map(map).collect();
            self.gpu.submissions.finish(Some(&self.submission))?;
            Ok(mapped)
        })?;
        let mut outcome = Ok(());
        for mapped in mapped {
            outcome = outcome.and(mapped.await);
        }
        self.gpu.settled().await.and(outcome)?; // the errors of the step are the cause
        let _span = span!("read back");
        let mut outputs = Vec::with_capacity(self.plan.outputs.len());
        for ((ty, _), staging) in self.plan.outputs.iter().zip(&self.staging.outputs) {
            outputs.push(match staging {
                Some(staging) => read_mapped(&self.gpu, staging, |words| Tensor::from_device_words(ty, words))?,
                None => Tensor::from_device_words(ty, &[]),
            });
        }
        let status = match &self.staging.status {
            Some(staging) => read_mapped(&self.gpu, staging, check_status)?,
            None => Ok(()),
        };
        lock(&self.idle).push(self.staging);
        status.map(|()| outputs)
    }
}

fn lock(idle: &Mutex<Vec<Staging>>) -> std::sync::MutexGuard<'_, Vec<Staging>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn staging(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("staging"),
        size: bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Reads a tensor back from the start of a buffer.
pub(super) async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, ty: &TensorType) -> Result<Tensor> {
    let words = read_words(gpu, buffer, ty.bytes() as u64).await?;
    Ok(Tensor::from_device_words(ty, &words))
}

/// Reads words back from the start of a buffer.
pub(super) async fn read_words(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u32>> {
    read_together(gpu, &[(buffer, bytes)], <[u32]>::to_vec).await
}

/// Maximum bytes per batch of copies. Batching pays because a wait for the device costs as much as copying a megabyte.
const TOGETHER: usize = 64 << 20;

/// Splits a list into batches of at most [`TOGETHER`] bytes, or of one larger item.
pub(super) fn together<T>(mut items: &[T], bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    while !items.is_empty() {
        let mut sum = 0;
        let count = items.iter().take_while(|item| {
            sum += bytes(item);
            sum <= TOGETHER
        });
        let (now, later) = items.split_at(count.count().max(1));
        parts.push(now);
        items = later;
    }
    parts
}

/// [`read`] for several buffers.
pub(super) async fn read_all(gpu: &Gpu, buffers: &[&(TensorType, wgpu::Buffer)]) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::with_capacity(buffers.len());
    for now in together(buffers, |(ty, _)| ty.bytes()) {
        let sources: Vec<_> = now.iter().map(|(ty, buffer)| (buffer, ty.bytes() as u64)).collect();
        read_together(gpu, &sources, |mut words| {
            for (ty, _) in now {
                let (own, others) = words.split_at(ty.words());
                tensors.push(Tensor::from_device_words(ty, own));
                words = others;
            }
        })
        .await?;
    }
    Ok(tensors)
}

/// Copies the first bytes of several buffers to one host-visible buffer, back to back, and calls `f` with
/// its words.
async fn read_together<T>(gpu: &Gpu, sources: &[(&wgpu::Buffer, u64)], f: impl FnOnce(&[u32]) -> T) -> Result<T> {
    let bytes = sources.iter().map(|(_, bytes)| bytes).sum();
    if bytes == 0 {
        return Ok(f(&[]));
    }
    let (staging, mapped) = gpu.scoped(|| {
        let staging = staging(gpu, bytes);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut at = 0;
        for (buffer, bytes) in sources.iter().filter(|(_, bytes)| *bytes > 0) {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, at, *bytes);
            at += bytes;
        }
        gpu.submissions.submit(encoder);
        let mapped = map(&staging);
        Ok((staging, mapped))
    })?;
    gpu.scoped(|| gpu.submissions.finish(None))?;
    let outcome = mapped.await;
    gpu.settled().await.and(outcome)?;
    let result = read_mapped(gpu, &staging, f);
    discard(&staging);
    result
}

/// Frees the memory of a buffer that is no longer used. Natively it is freed when the last reference is dropped; a
/// browser would wait until it collects garbage.
pub(super) fn discard(buffer: &wgpu::Buffer) {
    if cfg!(target_family = "wasm") {
        buffer.destroy();
    }
}

/// Waits for a submission, and reads the floats that it has copied to a host-visible buffer.
pub(super) fn read_staged(gpu: &Gpu, staging: &wgpu::Buffer, submission: &Submission) -> Result<Vec<f32>> {
    let mapped = gpu.scoped(|| {
        let _span = span!("wait for the device");
        let mapped = map(staging);
        gpu.submissions.finish(Some(submission))?;
        Ok(mapped)
    })?;
    block_on(mapped)?;
    let _span = span!("read back");
    read_mapped(gpu, staging, |words| bytemuck::cast_slice::<u32, f32>(words).to_vec())
}

/// Maps a buffer; the future resolves when it is mapped.
fn map(buffer: &wgpu::Buffer) -> impl Future<Output = Result<()>> + use<> {
    let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| {
        // The receiver may have been dropped if an earlier error ended the run.
        let _ = sender.send(result);
    });
    async move {
        match receiver.receive().await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Error::Gpu(format!("reading back failed: {error}"))),
            None => Err(Error::DeviceLost("it was lost while reading back".into())),
        }
    }
}

/// Waits until the device has finished all submitted work.
pub(crate) async fn wait(gpu: &Gpu) -> Result<()> {
    gpu.scoped(|| gpu.submissions.finish(None))?;
    if cfg!(target_family = "wasm") {
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        gpu.queue.on_submitted_work_done(move || drop(sender.send(())));
        receiver.receive().await;
    }
    gpu.settled().await
}

/// Calls `f` with the words of a mapped buffer, then unmaps it.
fn read_mapped<T>(gpu: &Gpu, buffer: &wgpu::Buffer, f: impl FnOnce(&[u32]) -> T) -> Result<T> {
    gpu.scoped(|| {
        let range = buffer.get_mapped_range(..).map_err(|error| Error::Gpu(format!("reading back failed: {error}")))?;
        let result = f(bytemuck::cast_slice(&range));
        drop(range);
        buffer.unmap();
        Ok(result)
    })
}

/// Returns an error if a kernel has reported an index out of range.
pub(super) fn check_status(words: &[u32]) -> Result<()> {
    match words.first() {
        Some(0) | None => Ok(()),
        Some(_) => Err(Error::Input("an index computed on the device was out of range".into())),
    }
}
