//! The variables of a session on its device.

use std::collections::HashMap;

use super::adapter::Gpu;
use super::readback::{discard, read, read_all, together};
use crate::{Error, Result, Tensor, TensorType};

/// The session's variables on the device.
#[derive(Default)]
pub(crate) struct Variables {
    pub(super) buffers: HashMap<String, (TensorType, wgpu::Buffer)>,
}

impl Drop for Variables {
    fn drop(&mut self) {
        self.buffers.values().for_each(|(_, buffer)| discard(buffer));
    }
}

impl Variables {
    /// Bytes of all variables.
    pub fn bytes(&self) -> u64 {
        self.buffers.values().map(|(_, buffer)| buffer.size()).sum()
    }

    /// Creates the variable's buffer and writes its value.
    pub fn create(&mut self, gpu: &Gpu, name: &str, value: &Tensor, bytes: u64) -> Result<()> {
        let create = || {
            Ok(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(name),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }))
        };
        self.buffers.insert(name.to_owned(), (value.ty(), gpu.scoped(create)?));
        self.set(gpu, name, value)
    }

    pub fn set(&self, gpu: &Gpu, name: &str, value: &Tensor) -> Result<()> {
        gpu.scoped(|| {
            if let Some((_, buffer)) = self.buffers.get(name) {
                gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&value.device_words()));
            }
            Ok(())
        })
    }

    pub async fn get(&self, gpu: &Gpu, name: &str) -> Result<Option<Tensor>> {
        match self.buffers.get(name) {
            Some((ty, buffer)) => read(gpu, buffer, ty).await.map(Some),
            None => Ok(None),
        }
    }

    /// Sets existing variables through shared staging buffers; separate writes would allocate one each.
    pub fn set_all(&self, gpu: &Gpu, values: &[(&str, &Tensor)]) -> Result<()> {
        let found = values.iter().filter_map(|(name, value)| Some((&self.buffers.get(*name)?.1, *value)));
        let wanted: Vec<_> = found.filter(|(_, value)| value.numel() > 0).collect();
        for together in together(&wanted, |(_, value)| value.ty().bytes()) {
            let create = || {
                Ok(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("upload"),
                    size: together.iter().map(|(_, value)| value.ty().bytes() as u64).sum(),
                    usage: wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                }))
            };
            let staging = gpu.scoped(create)?;
            gpu.scoped(|| {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut words: Vec<u32> = Vec::with_capacity((staging.size() / 4) as usize);
                for (buffer, value) in together {
                    let begin = words.len() as u64 * 4;
                    words.extend_from_slice(&value.device_words());
                    encoder.copy_buffer_to_buffer(&staging, begin, buffer, 0, value.ty().bytes() as u64);
                }
                let range = staging.get_mapped_range_mut(..);
                let mut range = range.map_err(|error| Error::Gpu(format!("uploading failed: {error}")))?;
                range.copy_from_slice(bytemuck::cast_slice(&words));
                drop(range);
                staging.unmap();
                gpu.submissions.submit(encoder);
                discard(&staging);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The values of existing variables, in the order of `names`.
    pub async fn get_all(&self, gpu: &Gpu, names: &[String]) -> Result<Vec<Tensor>> {
        let wanted: Vec<_> = names.iter().filter_map(|name| self.buffers.get(name)).collect();
        read_all(gpu, &wanted).await
    }
}
