//! Runs plans. All resources are created at compile time; a step writes inputs, encodes and submits the
//! compute passes (one, unless the step is long), and reads back the requested outputs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::Gpu;
use super::errors::block_on;
use super::exchange::{Exchanges, StagedPhase, combined};
use super::pipelines::Key;
use super::readback::{Readback, Reading, STATUS_BYTES, check_status, discard, read, read_staged, read_words, wait};
use super::submissions::Submission;
use super::variables::Variables;
use crate::distributed::{Ticket, World};
use crate::graph::ValueId;
use crate::plan::{Bound, Bucket, BufferId, Dispatch, Plan, Role, Stored};
use crate::trace::span;
use crate::{Error, Result, Tensor};

/// A plan ready to run.
pub(crate) struct Program {
    gpu: Arc<Gpu>,
    plan: Arc<Plan>,
    buffers: Vec<wgpu::Buffer>,
    calls: Vec<Vec<Ready>>,
    /// The dispatches that commit a step that may fail.
    commits: Vec<Ready>,
    /// The kernel calls of each submission, and those of a step that starts when the device is idle.
    submissions: Vec<Range<usize>>,
    early_submissions: Vec<Range<usize>>,
    exchanges: Exchanges,
    scalars: Scalars,
    status: wgpu::Buffer,
    readback: Readback,
    /// Whether its shaders run with bounds checks.
    checked: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        let own = self.plan.buffers.iter().zip(&self.buffers).filter(|(b, _)| !matches!(b.role, Role::Variable(_)));
        own.for_each(|(_, buffer)| discard(buffer));
        discard(&self.scalars.buffer);
        discard(&self.status);
    }
}

/// A dispatch with its pipeline and bind group.
struct Ready {
    pipeline: Arc<wgpu::ComputePipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// A buffer with one uniform for each distinct list of step scalars that dispatches bind.
struct Scalars {
    buffer: wgpu::Buffer,
    /// The offset of each list, in bytes.
    offsets: HashMap<Vec<usize>, u64>,
    /// The buffer's content, kept so that a step does not allocate.
    words: Mutex<Vec<u32>>,
}

impl Program {
    /// Creates buffers, pipelines and bind groups. The variables must already exist.
    pub async fn new(gpu: &Arc<Gpu>, plan: Arc<Plan>, variables: &Variables) -> Result<Program> {
        Program::with_checks(gpu, plan, variables, gpu.checked_shaders).await
    }

    /// For untrusted shaders, which run with bounds checks.
    pub async fn untrusted(gpu: &Arc<Gpu>, plan: Arc<Plan>) -> Result<Program> {
        Program::with_checks(gpu, plan, &Variables::default(), true).await
    }

    async fn with_checks(gpu: &Arc<Gpu>, plan: Arc<Plan>, variables: &Variables, checked: bool) -> Result<Program> {
        let made = match gpu.scoped(|| Program::allocate(gpu, plan.clone(), variables, checked)) {
            Ok(program) => program.with_calls().await,
            Err(error) => Err(error),
        };
        made.map_err(|error| out_of_memory(error, gpu, &plan))
    }

    /// The program with its buffers, but without calls.
    fn allocate(gpu: &Arc<Gpu>, plan: Arc<Plan>, variables: &Variables, checked: bool) -> Result<Program> {
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
                role => gpu.scoped(|| Ok(create(&format!("{role:?}"), buffer.bytes, storage)))?,
            });
        }
        for (tensor, stored) in &plan.constants {
            gpu.queue.write_buffer(&buffers[stored.buffer], 0, bytemuck::cast_slice(&tensor.device_words()));
        }
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let (offsets, bytes) = scalar_offsets(&plan, u64::from(gpu.profile.uniform_alignment));
        let buffer = create("scalars", bytes.max(16), uniform);
        let scalars = Scalars { buffer, offsets, words: Mutex::new(vec![0; (bytes / 4) as usize]) };
        let status = create("status", STATUS_BYTES, storage);
        let readback = Readback::new(gpu, &plan);
        Ok(Program {
            gpu: gpu.clone(),
            plan: plan.clone(),
            buffers,
            calls: Vec::new(),
            commits: Vec::new(),
            submissions: plan.submissions(&gpu.profile, false),
            early_submissions: plan.submissions(&gpu.profile, true),
            exchanges: Exchanges::new(gpu, plan.exchanges()),
            scalars,
            status,
            readback,
            checked,
        })
    }

    /// Adds pipelines and bind groups.
    async fn with_calls(mut self) -> Result<Program> {
        let (gpu, plan) = (self.gpu.clone(), self.plan.clone());
        let keys: Vec<(Key, &str)> = plan.launches().map(|d| self.key(d)).collect();
        let made = gpu.pipelines.get(&gpu.device, &keys, |make| gpu.watched(make), |outcome| gpu.closed(outcome));
        let pipelines = made.await?;
        (self.calls, self.commits) = gpu.scoped(|| {
            let uniforms = self.uniforms();
            let mut at = 0;
            let launches = plan.launches().zip(pipelines);
            let mut ready = launches.map(|(dispatch, pipeline)| self.ready(dispatch, pipeline, &uniforms, &mut at));
            let calls = plan.calls.iter().map(|call| ready.by_ref().take(call.dispatches.len()).collect());
            Ok((calls.collect::<Result<_>>()?, ready.collect::<Result<_>>()?))
        })?;
        gpu.settled().await?;
        Ok(self)
    }

    /// One buffer with the words of all uniform bindings, each at an aligned offset.
    fn uniforms(&self) -> wgpu::Buffer {
        let align = self.gpu.profile.uniform_alignment as usize;
        let mut bytes: Vec<u8> = Vec::new();
        for binding in self.plan.launches().flat_map(|d| &d.bindings) {
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

    /// The key of a dispatch's pipeline, and a label for it.
    fn key<'a>(&self, dispatch: &'a Dispatch) -> (Key, &'a str) {
        let kinds = dispatch.bindings.iter().map(binding_type).collect();
        let (wgsl, entry) = (dispatch.wgsl.text.clone(), dispatch.entry.clone());
        (Key { wgsl, entry, kinds, checked: self.checked }, &dispatch.label)
    }

    /// Creates a dispatch's bind group. `at` is the next offset in the uniform buffer.
    fn ready(
        &self,
        dispatch: &Dispatch,
        pipeline: Arc<wgpu::ComputePipeline>,
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
                        let size = uniform_bytes(words.len());
                        let offset = *at;
                        *at = (offset + size).next_multiple_of(align);
                        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                            buffer: uniforms,
                            offset,
                            size: std::num::NonZeroU64::new(size),
                        })
                    }
                    Bound::Storage { buffer, .. } => self.storage(&self.buffers[*buffer]),
                    Bound::Scalars(numbers) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &self.scalars.buffer,
                        offset: self.scalars.offsets.get(numbers).copied().unwrap_or(0),
                        size: std::num::NonZeroU64::new(uniform_bytes(numbers.len())),
                    }),
                    Bound::Status => self.status.as_entire_binding(),
                };
                wgpu::BindGroupEntry { binding: binding as u32, resource }
            })
            .collect();
        let bind_group = self.gpu.scoped(|| {
            Ok(self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&dispatch.label),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            }))
        })?;
        Ok(Ready { pipeline, bind_group, workgroups: dispatch.workgroups })
    }

    /// A binding of the whole buffer, up to the binding limit; the largest buffers lose some padding.
    fn storage<'a>(&self, buffer: &'a wgpu::Buffer) -> wgpu::BindingResource<'a> {
        let size = buffer.size().min(self.gpu.profile.max_binding);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size: std::num::NonZeroU64::new(size) })
    }

    /// Bytes of the program's buffers, without variables.
    pub fn bytes(&self) -> u64 {
        let own = self.plan.buffers.iter().zip(&self.buffers).filter(|(b, _)| !matches!(b.role, Role::Variable(_)));
        own.map(|(_, buffer)| buffer.size()).sum()
    }

    /// Writes the inputs and scalars of the next run; `word` returns a scalar by index.
    pub fn upload<'a>(
        &self,
        inputs: impl Iterator<Item = (BufferId, &'a Tensor)>,
        word: impl Fn(usize) -> u32,
    ) -> Result<()> {
        self.gpu.scoped(|| {
            for (buffer, tensor) in inputs {
                self.gpu.queue.write_buffer(&self.buffers[buffer], 0, bytemuck::cast_slice(&tensor.device_words()));
            }
            let mut words = self.scalars.words.lock().unwrap_or_else(PoisonError::into_inner);
            if !words.is_empty() {
                for (numbers, offset) in &self.scalars.offsets {
                    for (place, &number) in words[(offset / 4) as usize..].iter_mut().zip(numbers) {
                        *place = word(number);
                    }
                }
                self.gpu.queue.write_buffer(&self.scalars.buffer, 0, bytemuck::cast_slice(&words));
            }
            if self.plan.watches_status {
                self.clear_status()?;
            }
            Ok(())
        })
    }

    /// Clears the status reported by kernels.
    pub fn clear_status(&self) -> Result<()> {
        self.write(&self.status, 0, &[0; STATUS_BYTES as usize / 4])
    }

    fn write(&self, buffer: &wgpu::Buffer, word: usize, words: &[u32]) -> Result<()> {
        self.gpu.scoped(|| {
            self.gpu.queue.write_buffer(buffer, word as u64 * 4, bytemuck::cast_slice(words));
            Ok(())
        })
    }

    /// Whether it exchanges values with other ranks, if there are any.
    pub fn exchanges(&self) -> bool {
        !self.exchanges.is_empty()
    }

    fn buffer(&self, stored: &Stored) -> &wgpu::Buffer {
        &self.buffers[stored.buffer]
    }

    /// Encodes kernel calls; exchanges as copies, which they are if there is one rank.
    fn encode(&self, encoder: &mut wgpu::CommandEncoder, mut calls: Range<usize>) {
        while !calls.is_empty() {
            let launches = calls.clone().take_while(|&call| !self.calls[call].is_empty()).count();
            if launches > 0 {
                self.encode_timed(encoder, calls.start..calls.start + launches, None);
            }
            calls.start += launches;
            for number in calls.clone().take_while(|&call| self.calls[call].is_empty()) {
                let call = &self.plan.calls[number];
                if let (Some(from), Some(to)) = (call.reads.first(), call.writes.first()) {
                    let bytes = to.ty.bytes() as u64;
                    encoder.copy_buffer_to_buffer(self.buffer(from), 0, self.buffer(to), 0, bytes);
                }
                calls.start += 1;
            }
        }
    }

    fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        calls: Range<usize>,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        self.calls[calls].iter().flatten().for_each(|dispatch| dispatch.encode(&mut pass));
    }

    /// Encodes all kernel calls. Submits all submissions of the step but the last, whose encoder is returned. If there
    /// are other ranks, waits for their part of exchanges.
    fn encode_calls(&self, world: Option<&World>) -> Result<wgpu::CommandEncoder> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let mut at = 0;
        if let Some((world, phases)) = self.exchanges.among(world) {
            for phase in phases {
                encoder = self.run_phase(encoder, &mut at, world, phase)?;
            }
        }
        Ok(self.encode_paced(encoder, at..self.calls.len()))
    }

    /// Encodes kernel calls, and submits where a submission of the step ends between two of them.
    fn encode_paced(&self, mut encoder: wgpu::CommandEncoder, calls: Range<usize>) -> wgpu::CommandEncoder {
        let submissions = if self.gpu.submissions.is_idle() { &self.early_submissions } else { &self.submissions };
        for submission in submissions {
            let part = calls.start.max(submission.start)..calls.end.min(submission.end);
            if part.start > calls.start && !part.is_empty() {
                self.submit_encoder(&mut encoder);
            }
            self.encode(&mut encoder, part);
        }
        encoder
    }

    /// Submits what an encoder has recorded, and replaces it by a new one.
    fn submit_encoder(&self, encoder: &mut wgpu::CommandEncoder) -> Submission {
        let next = self.gpu.device.create_command_encoder(&Default::default());
        self.gpu.submissions.submit(std::mem::replace(encoder, next))
    }

    /// Submits the kernel calls before a phase, and those before each of its buckets with a copy of the operands; `at`
    /// is the first call that is not yet encoded. Then exchanges the operands, and uploads the results. Returns the
    /// encoder for the rest.
    fn run_phase(
        &self,
        mut encoder: wgpu::CommandEncoder,
        at: &mut usize,
        world: &World,
        StagedPhase { phase, staging: buffers }: &StagedPhase,
    ) -> Result<wgpu::CommandEncoder> {
        let mut by_readiness: Vec<usize> = (0..phase.buckets.len()).collect();
        by_readiness.sort_by_key(|&number| phase.buckets[number].ready);
        let mut submissions: Vec<Option<Submission>> = vec![None; phase.buckets.len()];
        for number in by_readiness {
            let bucket = &phase.buckets[number];
            if bucket.ready > *at {
                encoder = self.encode_paced(encoder, *at..bucket.ready);
                *at = bucket.ready;
            }
            let mut end = 0;
            for (operand, _) in &bucket.members {
                let bytes = operand.ty.bytes() as u64;
                encoder.copy_buffer_to_buffer(self.buffer(operand), 0, &buffers[number], end, bytes);
                end += bytes;
            }
            submissions[number] = Some(self.submit_encoder(&mut encoder));
        }
        if phase.calls.start > *at {
            encoder = self.encode_paced(encoder, *at..phase.calls.start);
            self.submit_encoder(&mut encoder);
        }
        *at = phase.calls.end;
        let mut tickets = Vec::with_capacity(phase.buckets.len());
        for ((bucket, buffer), submission) in phase.buckets.iter().zip(buffers).zip(submissions) {
            let Some(submission) = submission else { continue };
            let values = read_staged(&self.gpu, buffer, &submission)?;
            tickets.push((bucket, world.start_sum_f32(values, bucket.exchange.compressed)?));
        }
        for (bucket, ticket) in tickets {
            self.receive(bucket, ticket, world)?;
        }
        Ok(encoder)
    }

    /// Waits for the sums of a bucket and uploads them.
    fn receive(&self, bucket: &Bucket, ticket: Ticket<Vec<f32>>, world: &World) -> Result<()> {
        let values = combined(bucket, ticket, world)?;
        let _span = span!("upload");
        self.gpu.scoped(|| {
            for (result, values) in bucket.results(&values) {
                self.gpu.queue.write_buffer(self.buffer(result), 0, bytemuck::cast_slice(values));
            }
            Ok(())
        })
    }

    /// For checking, where calls run one at a time: exchanges the operands of a phase, but does not upload the results.
    /// Returns none if there are no other ranks.
    pub fn exchange(&self, phase: usize, world: Option<&World>) -> Result<HashMap<ValueId, Vec<f32>>> {
        let Some((world, phases)) = self.exchanges.among(world) else { return Ok(HashMap::new()) };
        let mut tickets = Vec::new();
        for bucket in &phases[phase].phase.buckets {
            let mut values = Vec::with_capacity(bucket.numel());
            for (operand, _) in &bucket.members {
                values.extend(block_on(self.read(operand))?.to_f32());
            }
            tickets.push((bucket, world.start_sum_f32(values, bucket.exchange.compressed)?));
        }
        let mut results = HashMap::new();
        for (bucket, ticket) in tickets {
            for (result, values) in bucket.results(&combined(bucket, ticket, world)?) {
                results.insert(result.value, values.to_vec());
            }
        }
        Ok(results)
    }

    /// Starts a step: kernel calls, read-backs and commits, in one submission unless the step is long.
    pub fn start_reading(&self, world: Option<&World>) -> Result<Reading> {
        let _span = span!("submit");
        self.gpu.scoped(|| {
            let mut encoder = self.encode_calls(world)?;
            let staging = self.readback.take();
            let outputs = self.plan.outputs.iter().map(|(ty, buffer)| (buffer.map(|b| &self.buffers[b]), ty));
            staging.encode(&mut encoder, outputs, &self.status);
            self.encode_commits(&mut encoder);
            let submission = self.gpu.submissions.submit(encoder);
            Ok(self.readback.reading(staging, submission))
        })
    }

    /// Starts a step without read-back.
    pub fn start(&self, world: Option<&World>) -> Result<()> {
        let _span = span!("submit");
        self.gpu.scoped(|| {
            let mut encoder = self.encode_calls(world)?;
            self.encode_commits(&mut encoder);
            self.gpu.submissions.submit(encoder);
            Ok(())
        })
    }

    /// Runs kernel calls without the commits, and waits. Returns the seconds from the start of the first
    /// dispatch to the end of the last, by GPU timestamps. Without timestamps, runs nothing and returns `None`.
    pub async fn timed(&self, calls: Range<usize>) -> Result<Option<f64>> {
        match self.gpu.profile.timestamps {
            true => self.timestamps(calls).await.map(Some),
            false => Ok(None),
        }
    }

    async fn timestamps(&self, calls: Range<usize>) -> Result<f64> {
        let device = &self.gpu.device;
        let (set, ticks) = self.gpu.scoped(|| Ok(timestamp_queries(device)))?;
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        let encode = |encoder: &mut wgpu::CommandEncoder| {
            self.encode_timed(encoder, calls, Some(writes));
            encoder.resolve_query_set(&set, 0..2, &ticks, 0);
        };
        self.submit(encode).await?;
        let words = read_words(&self.gpu, &ticks, 16).await?;
        let [begin, end] = [0, 2].map(|i| u64::from(words[i]) | u64::from(words[i + 1]) << 32);
        Ok(end.wrapping_sub(begin) as f64 * f64::from(self.gpu.queue.get_timestamp_period()) * 1e-9)
    }

    fn encode_commits(&self, encoder: &mut wgpu::CommandEncoder) {
        if !self.commits.is_empty() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            self.commits.iter().for_each(|commit| commit.encode(&mut pass));
        }
        for commit in self.plan.commits.iter().filter(|commit| commit.guarded.is_none()) {
            encoder.copy_buffer_to_buffer(&self.buffers[commit.from], 0, &self.buffers[commit.to], 0, commit.bytes);
        }
    }

    /// For checking: runs one kernel call, and waits.
    pub async fn run_call(&self, call: usize) -> Result<()> {
        self.submit(|encoder| self.encode(encoder, call..call + 1)).await
    }

    /// For checking: performs the commits, and waits.
    pub async fn commit(&self) -> Result<()> {
        self.submit(|encoder| self.encode_commits(encoder)).await
    }

    async fn submit(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        self.gpu.scoped(|| {
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            encode(&mut encoder);
            self.gpu.submissions.submit(encoder);
            Ok(())
        })?;
        wait(&self.gpu).await
    }

    /// For checking: all words of a buffer, including the padding after the tensor.
    pub async fn read_buffer(&self, buffer: BufferId) -> Result<Vec<u32>> {
        read_words(&self.gpu, &self.buffers[buffer], self.buffers[buffer].size()).await
    }

    /// For checking: an error if a kernel has reported an index out of range since the upload.
    pub async fn status(&self) -> Result<()> {
        let bytes = if self.plan.watches_status { STATUS_BYTES } else { 0 };
        check_status(&read_words(&self.gpu, &self.status, bytes).await?)
    }

    /// For checking: whether a kernel has reported an index out of range since the status was
    /// cleared, even if the host has checked all indices.
    pub async fn raised(&self) -> Result<bool> {
        Ok(check_status(&read_words(&self.gpu, &self.status, STATUS_BYTES).await?).is_err())
    }

    /// For checking: a value's elements.
    pub async fn read(&self, stored: &Stored) -> Result<Tensor> {
        read(&self.gpu, &self.buffers[stored.buffer], &stored.ty).await
    }

    /// For checking: overwrites part of a buffer, starting at word `word`.
    pub fn write_buffer(&self, buffer: BufferId, word: usize, words: &[u32]) -> Result<()> {
        self.write(&self.buffers[buffer], word, words)
    }
}

impl Ready {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Queries for the times before and after a pass, and a buffer for their results.
fn timestamp_queries(device: &wgpu::Device) -> (wgpu::QuerySet, wgpu::Buffer) {
    let set =
        device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 });
    let ticks = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("timestamps"),
        size: 16,
        usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    (set, ticks)
}

/// The size of a uniform of `words` words, in bytes.
fn uniform_bytes(words: usize) -> u64 {
    (words as u64 * 4).next_multiple_of(16)
}

/// The offset of each list of step scalars in their buffer, and the buffer's size.
fn scalar_offsets(plan: &Plan, align: u64) -> (HashMap<Vec<usize>, u64>, u64) {
    let (mut offsets, mut end) = (HashMap::new(), 0u64);
    for bound in plan.calls.iter().flat_map(|u| &u.dispatches).flat_map(|d| &d.bindings) {
        if let Bound::Scalars(numbers) = bound
            && !offsets.contains_key(numbers)
        {
            let offset = end.next_multiple_of(align);
            offsets.insert(numbers.clone(), offset);
            end = offset + uniform_bytes(numbers.len());
        }
    }
    (offsets, end)
}

fn binding_type(bound: &Bound) -> wgpu::BindingType {
    let ty = match bound {
        Bound::Uniform(_) | Bound::Scalars(_) => wgpu::BufferBindingType::Uniform,
        Bound::Storage { write, .. } => wgpu::BufferBindingType::Storage { read_only: !write },
        Bound::Status => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None }
}

/// Adds the program's memory needs to an out-of-memory error.
fn out_of_memory(error: Error, gpu: &Gpu, plan: &Plan) -> Error {
    match error {
        Error::OutOfMemory(why) => {
            let mib = plan.total_bytes() as f64 / (1 << 20) as f64;
            Error::OutOfMemory(format!("the program needs {mib:.0} MiB on {}; {why}", gpu.profile.name))
        }
        other => other,
    }
}
