//! What comes back from the device: copies into host-visible buffers, which are mapped when the
//! device is done.

use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::Gpu;
use crate::plan::Plan;
use crate::{Error, Result, Tensor, TensorType};

/// Bytes of the word in which kernels report an index out of range.
pub(super) const STATUS_BYTES: u64 = 16;

/// Host-visible buffers for what one run gives.
pub(super) struct Staging {
    /// For each output; `None` where it has no elements.
    outputs: Vec<Option<wgpu::Buffer>>,
    status: Option<wgpu::Buffer>,
}

/// A program's host-visible buffers: one set for each run that is under way, kept for later runs.
pub(super) struct Readback {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    idle: Arc<Mutex<Vec<Staging>>>,
}

/// A run that was started, and whose outputs come.
pub(crate) struct Reading {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    idle: Arc<Mutex<Vec<Staging>>>,
    staging: Staging,
    submission: wgpu::SubmissionIndex,
}

impl Staging {
    fn new(gpu: &Gpu, plan: &Plan) -> Staging {
        let outputs = plan.outputs.iter().map(|(ty, buffer)| buffer.map(|_| staging(gpu, ty.bytes() as u64)));
        Staging { outputs: outputs.collect(), status: plan.watches_status.then(|| staging(gpu, STATUS_BYTES)) }
    }

    /// The copies from the buffers on the device.
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

impl Readback {
    /// With a set for one run.
    pub fn new(gpu: &Arc<Gpu>, plan: &Arc<Plan>) -> Readback {
        let idle = Arc::new(Mutex::new(vec![Staging::new(gpu, plan)]));
        Readback { gpu: gpu.clone(), plan: plan.clone(), idle }
    }

    /// Buffers that no run is using.
    pub fn take(&self) -> Staging {
        lock(&self.idle).pop().unwrap_or_else(|| Staging::new(&self.gpu, &self.plan))
    }

    /// What is to come into `staging` from a submission.
    pub fn reading(&self, staging: Staging, submission: wgpu::SubmissionIndex) -> Reading {
        Reading { gpu: self.gpu.clone(), plan: self.plan.clone(), idle: self.idle.clone(), staging, submission }
    }
}

impl Reading {
    /// The outputs, when the device has done the run.
    pub async fn outputs(self) -> Result<Vec<Tensor>> {
        let done = wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
        let mapped = self.gpu.scoped(|| {
            let mapped: Vec<_> = self.staging.buffers().map(map).collect();
            self.gpu.device.poll(done).map_err(unreachable_device)?;
            Ok(mapped)
        })?;
        for mapped in mapped {
            mapped.await?;
        }
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

fn unreachable_device(error: wgpu::PollError) -> Error {
    Error::Gpu(format!("waiting for the device failed: {error}"))
}

fn staging(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("staging"),
        size: bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

/// Copies a buffer's first elements to the host, and waits.
pub(super) fn read(gpu: &Gpu, buffer: &wgpu::Buffer, ty: &TensorType) -> Result<Tensor> {
    let words = read_words(gpu, buffer, ty.bytes() as u64)?;
    Ok(Tensor::from_device_words(ty, &words))
}

/// The same for words.
pub(super) fn read_words(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u32>> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let (staging, mapped) = gpu.scoped(|| {
        let staging = staging(gpu, bytes);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let mapped = map(&staging);
        Ok((staging, mapped))
    })?;
    wait(gpu)?;
    pollster::block_on(mapped)?;
    read_mapped(gpu, &staging, <[u32]>::to_vec)
}

/// Asks for a buffer to be mapped; the future ends when it is.
fn map(buffer: &wgpu::Buffer) -> impl Future<Output = Result<()>> + use<> {
    let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| {
        // The receiver may be gone when an earlier error ended the run.
        let _ = sender.send(result);
    });
    async move {
        match receiver.receive().await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Error::Gpu(format!("reading back failed: {error}"))),
            None => Err(Error::DeviceLost("it vanished while reading back".into())),
        }
    }
}

/// Until the device has done all that was submitted.
pub(crate) fn wait(gpu: &Gpu) -> Result<()> {
    gpu.scoped(|| {
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).map_err(unreachable_device)?;
        Ok(())
    })
}

/// Calls `f` with the words of a mapped buffer, which is unmapped afterwards.
fn read_mapped<T>(gpu: &Gpu, buffer: &wgpu::Buffer, f: impl FnOnce(&[u32]) -> T) -> Result<T> {
    gpu.scoped(|| {
        let range = buffer.get_mapped_range(..).map_err(|error| Error::Gpu(format!("reading back failed: {error}")))?;
        let result = f(bytemuck::cast_slice(&range));
        drop(range);
        buffer.unmap();
        Ok(result)
    })
}

/// An error where a kernel has reported an index out of range.
pub(super) fn check_status(words: &[u32]) -> Result<()> {
    match words.first() {
        Some(0) | None => Ok(()),
        Some(_) => Err(Error::Input("an index computed on the device was out of range".into())),
    }
}
