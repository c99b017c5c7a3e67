//! Runs a plan: everything is made once at compile time; a step writes inputs, re-encodes one
//! compute pass, submits once, and reads back what was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::adapter::Gpu;
use super::pipelines::Key;
use super::readback::{Readback, Reading, STATUS_BYTES, check_status, read, read_all, read_words, together, wait};
use crate::plan::{Bound, BufferId, Dispatch, MAX_SCALARS, Plan, Role, Stored};
use crate::{Error, Result, Tensor, TensorType};

/// The session's variables on the device.
#[derive(Default)]
pub(crate) struct Variables {
    buffers: HashMap<String, (TensorType, wgpu::Buffer)>,
}

/// A plan ready to run.
pub(crate) struct Program {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    buffers: Vec<wgpu::Buffer>,
    units: Vec<Vec<Ready>>,
    /// The units of each submission.
    submissions: Vec<std::ops::Range<usize>>,
    scalars: wgpu::Buffer,
    status: wgpu::Buffer,
    readback: Readback,
    /// Whether its shaders run with bounds checks.
    checked: bool,
}

/// A dispatch with its objects.
struct Ready {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

const SCALAR_BYTES: u64 = MAX_SCALARS as u64 * 4;

impl Variables {
    /// Bytes of all variables.
    pub fn bytes(&self) -> u64 {
        self.buffers.values().map(|(_, buffer)| buffer.size()).sum()
    }

    /// Creates the variable's buffer and fills it.
    pub fn create(&mut self, gpu: &Gpu, name: &str, value: &Tensor, bytes: u64) -> Result<()> {
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(name),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        gpu.trouble()?;
        self.buffers.insert(name.to_owned(), (value.ty(), buffer));
        self.set(gpu, name, value)
    }

    pub fn set(&self, gpu: &Gpu, name: &str, value: &Tensor) -> Result<()> {
        if let Some((_, buffer)) = self.buffers.get(name) {
            gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&value.device_words()));
        }
        gpu.trouble()
    }

    pub fn get(&self, gpu: &Gpu, name: &str) -> Result<Option<Tensor>> {
        match self.buffers.get(name) {
            Some((ty, buffer)) => read(gpu, buffer, ty).map(Some),
            None => Ok(None),
        }
    }

    /// Sets variables that exist. Written one by one, each would have a staging buffer of its own.
    pub fn set_all(&self, gpu: &Gpu, values: &[(&str, &Tensor)]) -> Result<()> {
        let found = values.iter().filter_map(|(name, value)| Some((&self.buffers.get(*name)?.1, *value)));
        let wanted: Vec<_> = found.filter(|(_, value)| value.numel() > 0).collect();
        for together in together(&wanted, |(_, value)| value.ty().bytes()) {
            let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: together.iter().map(|(_, value)| value.ty().bytes() as u64).sum(),
                usage: wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            gpu.trouble()?;
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
            gpu.queue.submit([encoder.finish()]);
        }
        gpu.trouble()
    }

    /// The values of variables that exist, in the order of their names here.
    pub fn get_all(&self, gpu: &Gpu, names: &[String]) -> Result<Vec<Tensor>> {
        let wanted: Vec<_> = names.iter().filter_map(|name| self.buffers.get(name)).collect();
        read_all(gpu, &wanted)
    }
}

impl Program {
    /// Makes buffers, pipelines and bind groups. The variables exist already.
    pub fn new(gpu: &Arc<Gpu>, plan: Arc<Plan>, variables: &Variables) -> Result<Program> {
        Program::with_checks(gpu, plan, variables, gpu.checked_shaders)
    }

    /// For texts that are not our own: they run with bounds checks.
    pub fn untrusted(gpu: &Arc<Gpu>, plan: Arc<Plan>) -> Result<Program> {
        Program::with_checks(gpu, plan, &Variables::default(), true)
    }

    fn with_checks(gpu: &Arc<Gpu>, plan: Arc<Plan>, variables: &Variables, checked: bool) -> Result<Program> {
        gpu.trouble()?;
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let create = |label: &str, size: u64, usage: wgpu::BufferUsages| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let mut buffers = Vec::with_capacity(plan.buffers.len());
        for buffer in &plan.buffers {
            buffers.push(match &buffer.role {
                Role::Variable(name) => match variables.buffers.get(name) {
                    Some((_, buffer)) => buffer.clone(),
                    None => return Err(Error::Input(format!("internal: variable `{name}` has no buffer"))),
                },
                role => create(&format!("{role:?}"), buffer.bytes, storage),
            });
            out_of_memory(gpu, &plan)?;
        }
        for (tensor, stored) in &plan.constants {
            gpu.queue.write_buffer(&buffers[stored.buffer], 0, bytemuck::cast_slice(&tensor.device_words()));
        }
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let scalars = create("scalars", SCALAR_BYTES, uniform);
        let status = create("status", STATUS_BYTES, storage);
        let readback = Readback::new(gpu, &plan);
        out_of_memory(gpu, &plan)?;
        let mut program = Program {
            gpu: gpu.clone(),
            plan: plan.clone(),
            buffers,
            units: Vec::new(),
            submissions: plan.submissions(&gpu.profile),
            scalars,
            status,
            readback,
            checked,
        };
        let uniforms = program.uniforms();
        let keys: Vec<(Key, &str)> = plan.units.iter().flat_map(|u| &u.dispatches).map(|d| program.key(d)).collect();
        let mut pipelines = gpu.pipelines.get(gpu, &keys)?.into_iter();
        let mut at = 0;
        for unit in &plan.units {
            let mut ready = Vec::with_capacity(unit.dispatches.len());
            for (dispatch, pipeline) in unit.dispatches.iter().zip(&mut pipelines) {
                ready.push(program.ready(dispatch, pipeline, &uniforms, &mut at)?);
            }
            program.units.push(ready);
        }
        Ok(program)
    }

    /// One buffer with the words of all uniform bindings, each at an aligned offset.
    fn uniforms(&self) -> wgpu::Buffer {
        let align = self.gpu.profile.uniform_alignment as usize;
        let mut bytes: Vec<u8> = Vec::new();
        for binding in self.plan.units.iter().flat_map(|u| &u.dispatches).flat_map(|d| &d.bindings) {
            if let Bound::Uniform(words) = binding {
                bytes.extend_from_slice(bytemuck::cast_slice(words));
                bytes.resize(bytes.len().next_multiple_of(16).next_multiple_of(align), 0);
            }
        }
        bytes.resize(bytes.len().max(16), 0);
        let buffer = self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("uniforms"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.gpu.queue.write_buffer(&buffer, 0, &bytes);
        buffer
    }

    /// What names a dispatch's pipeline, and a label for it.
    fn key<'a>(&self, dispatch: &'a Dispatch) -> (Key, &'a str) {
        let kinds = dispatch.bindings.iter().map(binding_type).collect();
        let (wgsl, entry) = (dispatch.wgsl.clone(), dispatch.entry.clone());
        (Key { wgsl, entry, kinds, checked: self.checked }, &dispatch.label)
    }

    /// A dispatch with its bind group. `at` walks through the uniform buffer.
    fn ready(
        &self,
        dispatch: &Dispatch,
        pipeline: wgpu::ComputePipeline,
        uniforms: &wgpu::Buffer,
        at: &mut u64,
    ) -> Result<Ready> {
        let align = u64::from(self.gpu.profile.uniform_alignment);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = dispatch
            .bindings
            .iter()
            .enumerate()
            .map(|(binding, bound)| {
                let resource = match bound {
                    Bound::Uniform(words) => {
                        let size = (words.len() as u64 * 4).next_multiple_of(16);
                        let offset = *at;
                        *at = (offset + size).next_multiple_of(align);
                        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                            buffer: uniforms,
                            offset,
                            size: std::num::NonZeroU64::new(size),
                        })
                    }
                    Bound::Storage { buffer, .. } => self.buffers[*buffer].as_entire_binding(),
                    Bound::Scalars => self.scalars.as_entire_binding(),
                    Bound::Status => self.status.as_entire_binding(),
                };
                wgpu::BindGroupEntry { binding: binding as u32, resource }
            })
            .collect();
        let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.gpu.trouble()?;
        Ok(Ready { pipeline, bind_group, workgroups: dispatch.workgroups })
    }

    /// Bytes that the run's buffers take, variables left out.
    pub fn bytes(&self) -> u64 {
        let own = self.plan.buffers.iter().zip(&self.buffers).filter(|(b, _)| !matches!(b.role, Role::Variable(_)));
        own.map(|(_, buffer)| buffer.size()).sum()
    }

    /// Writes inputs and scalars for the next run.
    pub fn upload<'a>(&self, inputs: impl Iterator<Item = (BufferId, &'a Tensor)>, scalars: &[u32]) {
        for (buffer, tensor) in inputs {
            self.gpu.queue.write_buffer(&self.buffers[buffer], 0, bytemuck::cast_slice(&tensor.device_words()));
        }
        if !scalars.is_empty() {
            self.gpu.queue.write_buffer(&self.scalars, 0, bytemuck::cast_slice(scalars));
        }
        if self.plan.watches_status {
            self.clear_status();
        }
    }

    /// For checking: takes back what kernels have reported.
    pub fn clear_status(&self) {
        self.gpu.queue.write_buffer(&self.status, 0, &[0; STATUS_BYTES as usize]);
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, units: std::ops::Range<usize>) {
        self.encode_timed(encoder, units, None);
    }

    fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        units: std::ops::Range<usize>,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        for dispatch in self.units[units].iter().flatten() {
            pass.set_pipeline(&dispatch.pipeline);
            pass.set_bind_group(0, &dispatch.bind_group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Encodes all units; submits what must not be in one submission with the last of them.
    fn encode_units(&self) -> wgpu::CommandEncoder {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for (number, units) in self.submissions.iter().enumerate() {
            if number > 0 {
                self.gpu.queue.submit([encoder.finish()]);
                encoder = self.gpu.device.create_command_encoder(&Default::default());
            }
            self.encode(&mut encoder, units.clone());
        }
        encoder
    }

    /// Starts a step: all units, the read-backs, the commits; one submission, unless it is a long one.
    pub fn start_reading(&self) -> Reading {
        let mut encoder = self.encode_units();
        let staging = self.readback.take();
        let outputs = self.plan.outputs.iter().map(|(ty, buffer)| (buffer.map(|b| &self.buffers[b]), ty));
        staging.encode(&mut encoder, outputs, &self.status);
        self.encode_commits(&mut encoder);
        let submission = self.gpu.queue.submit([encoder.finish()]);
        self.readback.reading(staging, submission)
    }

    /// A step whose outputs nobody reads: queued, not waited for.
    pub fn start(&self) -> Result<()> {
        let mut encoder = self.encode_units();
        self.encode_commits(&mut encoder);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.trouble()
    }

    /// Runs units without the commits, and waits: the seconds from the first launch's begin to the
    /// last one's end on the device's own clock. `None`, and nothing is run, where it has none.
    pub fn timed(&self, units: std::ops::Range<usize>) -> Result<Option<f64>> {
        let device = &self.gpu.device;
        if !self.gpu.profile.timestamps {
            return Ok(None);
        }
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let ticks = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        self.submit(|encoder| {
            self.encode_timed(encoder, units, Some(writes));
            encoder.resolve_query_set(&set, 0..2, &ticks, 0);
        })?;
        let words = read_words(&self.gpu, &ticks, 16)?;
        let [begin, end] = [0, 2].map(|i| u64::from(words[i]) | u64::from(words[i + 1]) << 32);
        Ok(Some(end.wrapping_sub(begin) as f64 * f64::from(self.gpu.queue.get_timestamp_period()) * 1e-9))
    }

    fn encode_commits(&self, encoder: &mut wgpu::CommandEncoder) {
        for commit in &self.plan.commits {
            encoder.copy_buffer_to_buffer(&self.buffers[commit.from], 0, &self.buffers[commit.to], 0, commit.bytes);
        }
    }

    /// For checking: runs one unit alone, and waits.
    pub fn run_unit(&self, unit: usize) -> Result<()> {
        self.submit(|encoder| self.encode(encoder, unit..unit + 1))
    }

    /// For checking: carries out the commits.
    pub fn commit(&self) -> Result<()> {
        self.submit(|encoder| self.encode_commits(encoder))
    }

    fn submit(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encode(&mut encoder);
        self.gpu.queue.submit([encoder.finish()]);
        wait(&self.gpu)
    }

    /// For checking: all words of a buffer, the slack behind the tensor included.
    pub fn read_buffer(&self, buffer: BufferId) -> Result<Vec<u32>> {
        read_words(&self.gpu, &self.buffers[buffer], self.buffers[buffer].size())
    }

    /// For checking: what the kernels have reported since the upload.
    pub fn status(&self) -> Result<()> {
        let bytes = if self.plan.watches_status { STATUS_BYTES } else { 0 };
        check_status(&read_words(&self.gpu, &self.status, bytes)?)
    }

    /// For checking: whether a kernel has reported an index out of range since the status was
    /// cleared, also where the host has seen all indices.
    pub fn raised(&self) -> Result<bool> {
        Ok(check_status(&read_words(&self.gpu, &self.status, STATUS_BYTES)?).is_err())
    }

    /// For checking: a value's elements.
    pub fn read(&self, stored: &Stored) -> Result<Tensor> {
        read(&self.gpu, &self.buffers[stored.buffer], &stored.ty)
    }

    /// For checking: overwrites a buffer from a word on.
    pub fn write_buffer(&self, buffer: BufferId, word: usize, words: &[u32]) {
        self.gpu.queue.write_buffer(&self.buffers[buffer], word as u64 * 4, bytemuck::cast_slice(words));
    }
}

fn binding_type(bound: &Bound) -> wgpu::BindingType {
    let ty = match bound {
        Bound::Uniform(_) | Bound::Scalars => wgpu::BufferBindingType::Uniform,
        Bound::Storage { write, .. } => wgpu::BufferBindingType::Storage { read_only: !write },
        Bound::Status => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None }
}

/// Tells how much the program needs when an allocation failed.
fn out_of_memory(gpu: &Gpu, plan: &Plan) -> Result<()> {
    gpu.trouble().map_err(|error| match error {
        Error::OutOfMemory(why) => {
            let mib = plan.total_bytes() as f64 / (1 << 20) as f64;
            Error::OutOfMemory(format!("the program needs {mib:.0} MiB on {}; {why}", gpu.profile.name))
        }
        other => other,
    })
}
