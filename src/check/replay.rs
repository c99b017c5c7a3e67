//! Case files: one kernel call of a plan as plain data, with its inputs and expected outputs, to be run alone
//! on any device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::bound::Bounded;
use super::{CallReport, POISON, RAISED, built, expect, sentinel};
use crate::graph::ValueId;
use crate::io::safetensors::{self, Contents};
use crate::plan::{Bound, Buffer, BufferId, Dispatch, KernelCall, Plan, Role, Stored, largest_buffer, padded};
use crate::shader::Source;
use crate::{DType, Device, Error, Profile, Program, Result, Session, Tensor, TensorType, gpu};

/// One kernel call that can run without its graph.
///
/// ```no_run
/// use wgrad::Device;
/// use wgrad::check::KernelCase;
/// // A file that a shadow run has written; on any device.
/// let case = KernelCase::load("case.wgrad")?;
/// let report = case.replay(&Device::open(None)?)?;
/// println!("{}: {}", report.label, if report.passed() { "correct" } else { "wrong" });
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KernelCase {
    /// What the kernel call computes, such as `matmul.tile64 + add + relu`.
    pub label: String,
    /// The kernel's op and variant, if it has one.
    pub kernel: Option<(String, String)>,
    /// The device on which the case was found.
    pub device: String,
    /// The version of wgrad that found it.
    pub version: String,
    /// Sizes of the buffers, in bytes.
    pub buffers: Vec<u64>,
    /// The dispatches, in order, bound to these buffers.
    pub dispatches: Vec<Dispatch>,
    /// Its inputs: buffer and contents.
    pub reads: Vec<(BufferId, Tensor)>,
    /// Its outputs.
    pub writes: Vec<Expected>,
    /// The words of the step's scalars.
    pub scalars: Vec<u32>,
}

/// An output of a kernel call, as computed by the reference. Example: [`KernelCase`].
#[derive(Clone, Debug)]
pub struct Expected {
    /// The op whose output it is, and the user's line that made it.
    pub node: String,
    /// Its buffer.
    pub buffer: BufferId,
    /// The exact value.
    pub value: Tensor,
    /// The allowed error of each element; `None` if none is allowed.
    pub bound: Option<Vec<f64>>,
    /// Whether an element may as well be NaN.
    pub may_be_nan: Option<Vec<bool>>,
}

/// The file format version that this version of wgrad writes and reads.
const FORMAT: u64 = 1;
/// The key of the description in the file's metadata.
const KEY: &str = "wgrad.case";
/// Maximum bytes of a case's buffers beyond its tensors: scratch, and buffers shared with others.
const MAX_EXTRA: u64 = 1 << 31;
/// Bytes of a uniform binding that every device supports.
const MAX_UNIFORM: usize = 16 << 10;

impl KernelCase {
    /// The case of a kernel call with these inputs. The reference computes the expected outputs.
    pub(super) fn new(
        device: &str,
        plan: &Plan,
        call: &KernelCall,
        reads: &[(Stored, Tensor)],
        scalars: &[(ValueId, Tensor)],
    ) -> Result<KernelCase> {
        let expected = expect(plan, call, reads, scalars)?;
        let mut used: Vec<BufferId> = call.reads.iter().chain(&call.writes).map(|stored| stored.buffer).collect();
        let bindings = call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
        used.extend(bindings.filter_map(|bound| match bound {
            Bound::Storage { buffer, .. } => Some(*buffer),
            _ => None,
        }));
        used.sort_unstable();
        used.dedup();
        let renumbered = |buffer: BufferId| used.partition_point(|&known| known < buffer);
        let mut dispatches = call.dispatches.clone();
        for bound in dispatches.iter_mut().flat_map(|dispatch| &mut dispatch.bindings) {
            if let Bound::Storage { buffer, .. } = bound {
                *buffer = renumbered(*buffer);
            }
        }
        let writes = call.writes.iter().map(|stored| {
            let Bounded { value, error: bound, may_be_nan } = expected[&stored.value].clone();
            Expected { node: built(&plan.nodes, stored), buffer: renumbered(stored.buffer), value, bound, may_be_nan }
        });
        Ok(KernelCase {
            label: call.label.clone(),
            kernel: call.kernel.map(|(op, variant)| (op.to_owned(), variant.to_owned())),
            device: device.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            buffers: used.iter().map(|&buffer| plan.buffers[buffer].bytes).collect(),
            dispatches,
            reads: reads.iter().map(|(stored, tensor)| (renumbered(stored.buffer), tensor.clone())).collect(),
            writes: writes.collect(),
            scalars: scalars.iter().flat_map(|(_, tensor)| tensor.device_words().into_owned()).collect(),
        })
    }

    /// Writes a case file atomically: safetensors, with the description as JSON in the metadata.
    ///
    /// # Errors
    /// [`Error::Io`] from the system.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = BTreeMap::new();
        for (number, (_, tensor)) in self.reads.iter().enumerate() {
            tensors.insert(format!("read.{number}"), tensor.clone());
        }
        for (number, expected) in self.writes.iter().enumerate() {
            tensors.insert(format!("expected.{number}"), expected.value.clone());
            if let Some(bound) = &expected.bound {
                tensors.insert(format!("bound.{number}"), Tensor::of(expected.value.shape(), bound.clone()));
            }
            if let Some(which) = &expected.may_be_nan {
                tensors.insert(format!("may_be_nan.{number}"), Tensor::of(expected.value.shape(), which.clone()));
            }
        }
        let metadata = BTreeMap::from([(KEY.to_owned(), self.describe().to_string())]);
        safetensors::save(path, &tensors, &metadata)
    }

    fn describe(&self) -> Json {
        let dispatches = self.dispatches.iter().map(|dispatch| {
            let bindings = dispatch.bindings.iter().map(|bound| match bound {
                Bound::Uniform(words) => json!({"uniform": words}),
                Bound::Storage { buffer, write } => json!({"buffer": buffer, "write": write}),
                Bound::Scalars(numbers) => json!({"scalars": numbers}),
                Bound::Status => json!("status"),
            });
            json!({
                "label": dispatch.label,
                "wgsl": &*dispatch.wgsl.text,
                "invocations": dispatch.wgsl.invocations,
                "f16": dispatch.wgsl.f16,
                "cooperative": dispatch.wgsl.cooperative,
                "subgroups": dispatch.wgsl.subgroups,
                "entry": dispatch.entry,
                "workgroups": dispatch.workgroups,
                "bindings": bindings.collect::<Vec<_>>(),
            })
        });
        json!({
            "format": FORMAT,
            "wgrad": self.version,
            "device": self.device,
            "label": self.label,
            "kernel": self.kernel.as_ref().map(|(op, variant)| json!({"op": op, "variant": variant})),
            "buffers": self.buffers,
            "dispatches": dispatches.collect::<Vec<_>>(),
            "reads": self.reads.iter().map(|(buffer, _)| json!({"buffer": buffer})).collect::<Vec<_>>(),
            "writes": self.writes.iter().map(|w| json!({"buffer": w.buffer, "node": w.node})).collect::<Vec<_>>(),
            "scalars": self.scalars,
        })
    }

    /// Reads a case file. Nothing in it is trusted: sizes, buffer numbers and types are checked for consistency
    /// before anything runs.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::File`] if it is not a complete case file.
    pub fn load(path: impl AsRef<Path>) -> Result<KernelCase> {
        let path = path.as_ref();
        let contents = safetensors::read(path)?;
        parse(contents).map_err(|why| Error::file(path, format!("not a case file: {why}")))
    }

    /// Runs the kernel call alone on a device, with poisoned outputs and sentinels, and compares with the
    /// expected outputs. The shaders come from a file, so they run with bounds checks; a stray read or write
    /// may have other effects than in the run that found the case.
    ///
    /// # Errors
    /// [`Error::Device`] on the reference, which has nothing to replay; [`Error::Limit`] if the device is too
    /// small; device errors, such as a rejected shader.
    pub fn replay(&self, device: &Device) -> Result<CallReport> {
        gpu::block_on(self.replay_async(device))
    }

    /// [`KernelCase::replay`] for use with an async executor.
    ///
    /// # Errors
    /// As [`KernelCase::replay`].
    pub async fn replay_async(&self, device: &Device) -> Result<CallReport> {
        let Some(gpu) = &device.gpu else {
            let why = "there is nothing to replay on the reference, which the case is compared with; open a GPU device";
            return Err(Error::Device(why.into()));
        };
        self.fits(device.profile())?;
        let program = gpu::Program::untrusted(gpu, Arc::new(self.plan())).await?;
        program.upload(std::iter::empty(), |number| self.scalars.get(number).copied().unwrap_or(0))?;
        for (buffer, &bytes) in self.buffers.iter().enumerate() {
            let mut words = vec![POISON; (bytes / 4) as usize];
            let written = self.writes.iter().filter(|w| w.buffer == buffer).map(|w| w.value.ty().words()).max();
            // A buffer without outputs is only read, or scratch.
            if let Some(n) = written {
                words[n..].fill(sentinel(0));
            }
            for (_, tensor) in self.reads.iter().filter(|(read, _)| *read == buffer) {
                words[..tensor.ty().words()].copy_from_slice(&tensor.device_words());
            }
            program.write_buffer(buffer, 0, &words)?;
        }
        program.run_call(0).await?;
        let mut report = CallReport::new(self.label.clone(), None);
        report.status = program.raised().await?.then(|| RAISED.to_owned());
        for expected in &self.writes {
            let words = program.read_buffer(expected.buffer).await?;
            let Expected { value, bound, may_be_nan, .. } = expected;
            let want = Bounded { value: value.clone(), error: bound.clone(), may_be_nan: may_be_nan.clone() };
            report.compare(&expected.node, &expected.value.ty(), (&words, sentinel(0)), &want);
        }
        Ok(report)
    }

    /// A plan with this kernel call only.
    fn plan(&self) -> Plan {
        let call = KernelCall {
            label: self.label.clone(),
            kernel: None,
            dispatches: self.dispatches.clone(),
            reads: Vec::new(),
            writes: Vec::new(),
            scratch: Vec::new(),
        };
        let bindings = call.dispatches.iter().flat_map(|dispatch| &dispatch.bindings);
        let watches_status = bindings.clone().any(|bound| *bound == Bound::Status);
        let buffers = self.buffers.iter().map(|&bytes| Buffer { bytes, role: Role::Temporary }).collect();
        Plan { buffers, calls: vec![call], watches_status, ..Plan::default() }
    }

    /// Checks the case against a device's limits.
    fn fits(&self, profile: &Profile) -> Result<()> {
        if let Some(bytes) = self.buffers.iter().find(|&&bytes| bytes > largest_buffer(profile)) {
            let (name, most) = (&profile.name, largest_buffer(profile));
            return Err(Error::Limit(format!("the case needs a buffer of {bytes} bytes, but {name} allows {most}")));
        }
        for dispatch in &self.dispatches {
            if dispatch.workgroups.iter().any(|&n| n > profile.max_workgroups) {
                return Err(Error::Limit(format!(
                    "the case has a grid of {:?} workgroups, but {} allows {} per dimension",
                    dispatch.workgroups, profile.name, profile.max_workgroups
                )));
            }
            if dispatch.wgsl.cooperative && profile.cooperative_matrices.is_empty() {
                return Err(Error::Limit(format!(
                    "the case needs cooperative matrices, and {} has none enabled; use --precision mixed, or OpenOptions",
                    profile.name
                )));
            }
            let storage = dispatch.bindings.iter().filter(|b| matches!(b, Bound::Storage { .. } | Bound::Status));
            let storage = storage.count();
            if storage > profile.max_storage_buffers as usize {
                return Err(Error::Limit(format!(
                    "the case binds {storage} storage buffers, but {} allows {}",
                    profile.name, profile.max_storage_buffers
                )));
            }
        }
        Ok(())
    }

    /// Checks that the parts of the case are consistent.
    fn consistent(&self) -> Parsed<()> {
        if self.writes.is_empty() || self.dispatches.is_empty() {
            return Err("it runs nothing, or compares nothing".into());
        }
        let backed = self.reads.iter().map(|(_, tensor)| tensor);
        let backed: u64 = backed.chain(self.writes.iter().map(|w| &w.value)).map(|t| padded(t.ty().bytes())).sum();
        let total = self.buffers.iter().try_fold(0u64, |sum, &bytes| sum.checked_add(bytes));
        if total.is_none_or(|total| total > backed.saturating_add(MAX_EXTRA)) {
            return Err(format!("its buffers are too large: {:?} bytes for {backed} bytes of tensors", self.buffers));
        }
        if let Some(bytes) = self.buffers.iter().find(|&&bytes| bytes == 0 || bytes % 4 != 0) {
            return Err(format!("a buffer of {bytes} bytes"));
        }
        let holds = |buffer: BufferId, ty: TensorType| match self.buffers.get(buffer) {
            None => Err(format!("buffer {buffer} of {}", self.buffers.len())),
            Some(&bytes) if (ty.bytes() as u64) > bytes => Err(format!("{ty} in a buffer of {bytes} bytes")),
            Some(_) => Ok(()),
        };
        self.reads.iter().try_for_each(|(buffer, tensor)| holds(*buffer, tensor.ty()))?;
        self.writes.iter().try_for_each(|expected| holds(expected.buffer, expected.value.ty()))?;
        for bound in self.dispatches.iter().flat_map(|dispatch| &dispatch.bindings) {
            match bound {
                Bound::Storage { buffer, .. } => holds(*buffer, TensorType::new(DType::U32, [0]))?,
                Bound::Uniform(words) if words.is_empty() || words.len() * 4 > MAX_UNIFORM => {
                    return Err(format!("a uniform of {} words", words.len()));
                }
                Bound::Scalars(numbers) if numbers.is_empty() || numbers.len() * 4 > MAX_UNIFORM => {
                    return Err(format!("a uniform of {} scalars", numbers.len()));
                }
                Bound::Scalars(numbers) => {
                    if let Some(number) = numbers.iter().find(|&&number| number >= self.scalars.len()) {
                        return Err(format!("scalar {number} of {}", self.scalars.len()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A parsed value, or why it is invalid.
type Parsed<T> = std::result::Result<T, String>;

fn field<'a>(object: &'a Json, name: &str) -> Parsed<&'a Json> {
    object.get(name).ok_or_else(|| format!("`{name}` is missing"))
}

fn text(object: &Json, name: &str) -> Parsed<String> {
    let found = field(object, name)?.as_str();
    Ok(found.ok_or_else(|| format!("`{name}` is not a string"))?.to_owned())
}

fn whole(object: &Json, name: &str) -> Parsed<u64> {
    field(object, name)?.as_u64().ok_or_else(|| format!("`{name}` is not a whole number"))
}

fn list<T>(object: &Json, name: &str, element: impl Fn(&Json) -> Parsed<T>) -> Parsed<Vec<T>> {
    let found = field(object, name)?.as_array().ok_or_else(|| format!("`{name}` is not a list"))?;
    found.iter().map(element).collect()
}

fn word(json: &Json) -> Parsed<u32> {
    json.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| format!("{json} is not a 32-bit word"))
}

fn buffer(object: &Json) -> Parsed<BufferId> {
    usize::try_from(whole(object, "buffer")?).map_err(|e| e.to_string())
}

fn binding(json: &Json) -> Parsed<Bound> {
    match json.as_str() {
        Some("status") => return Ok(Bound::Status),
        Some(other) => return Err(format!("unknown binding `{other}`")),
        None => {}
    }
    if json.get("uniform").is_some() {
        return Ok(Bound::Uniform(list(json, "uniform", word)?));
    }
    if json.get("scalars").is_some() {
        return Ok(Bound::Scalars(list(json, "scalars", |number| word(number).map(|number| number as usize))?));
    }
    let write = field(json, "write")?.as_bool().ok_or("`write` is neither true nor false")?;
    Ok(Bound::Storage { buffer: buffer(json)?, write })
}

fn dispatch(json: &Json) -> Parsed<Dispatch> {
    let workgroups = list(json, "workgroups", word)?;
    // Files of earlier versions lack `invocations`, `f16`, `cooperative` and `subgroups`.
    let mut wgsl = Source::new(text(json, "wgsl")?, json.get("invocations").map_or(Ok(0), word)?);
    let flag = |name| json.get(name).and_then(Json::as_bool).unwrap_or(false);
    (wgsl.f16, wgsl.cooperative) = (flag("f16"), flag("cooperative"));
    wgsl.subgroups = json.get("subgroups").and_then(Json::as_u64).and_then(|size| u32::try_from(size).ok());
    Ok(Dispatch {
        label: text(json, "label")?,
        wgsl,
        entry: text(json, "entry")?,
        bindings: list(json, "bindings", binding)?,
        workgroups: workgroups.try_into().map_err(|_| "`workgroups` needs three numbers")?,
    })
}

fn parse(contents: Contents) -> Parsed<KernelCase> {
    let Contents { mut tensors, metadata } = contents;
    let description = metadata.get(KEY).ok_or_else(|| format!("it has no `{KEY}`"))?;
    let json: Json = serde_json::from_str(description).map_err(|e| format!("its description: {e}"))?;
    let format = whole(&json, "format")?;
    if format != FORMAT {
        return Err(format!("format {format}; this version reads {FORMAT}"));
    }
    let mut tensor = |name: String| tensors.remove(&name).ok_or_else(|| format!("tensor `{name}` is missing"));
    let kernel = match field(&json, "kernel")? {
        Json::Null => None,
        kernel => Some((text(kernel, "op")?, text(kernel, "variant")?)),
    };
    let mut reads = Vec::new();
    for (number, buffer) in list(&json, "reads", buffer)?.into_iter().enumerate() {
        reads.push((buffer, tensor(format!("read.{number}"))?));
    }
    let mut writes = Vec::new();
    for (number, (buffer, node)) in
        list(&json, "writes", |w| Ok((buffer(w)?, text(w, "node")?)))?.into_iter().enumerate()
    {
        let value = tensor(format!("expected.{number}"))?.to_reference();
        let bound = tensor(format!("bound.{number}")).ok().map(|bound| bound.to_f64());
        if bound.as_ref().is_some_and(|bound| bound.len() != value.numel()) {
            return Err(format!("bound.{number} and expected.{number} differ in size"));
        }
        let may_be_nan = tensor(format!("may_be_nan.{number}")).ok();
        let may_be_nan: Option<Vec<bool>> = may_be_nan.map(|which| which.to_f64().iter().map(|&x| x != 0.0).collect());
        if may_be_nan.as_ref().is_some_and(|which| which.len() != value.numel()) {
            return Err(format!("may_be_nan.{number} and expected.{number} differ in size"));
        }
        writes.push(Expected { node, buffer, value, bound, may_be_nan });
    }
    let case = KernelCase {
        label: text(&json, "label")?,
        kernel,
        device: text(&json, "device")?,
        version: text(&json, "wgrad")?,
        buffers: list(&json, "buffers", |n| n.as_u64().ok_or_else(|| format!("{n} bytes")))?,
        dispatches: list(&json, "dispatches", dispatch)?,
        reads,
        writes,
        scalars: list(&json, "scalars", word)?,
    };
    case.consistent()?;
    Ok(case)
}

impl Session {
    /// Runs a step as [`Session::run`] does, but one kernel call at a time. Returns the outputs, and each kernel call
    /// as a case, with the inputs that it read and the outputs that the reference expects. [`KernelCase::save`] writes
    /// one to a file, to run it alone on another device.
    ///
    /// # Errors
    /// As [`Session::check`].
    pub fn kernel_cases(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(Vec<Tensor>, Vec<KernelCase>)> {
        gpu::block_on(self.kernel_cases_async(program, feeds))
    }

    async fn kernel_cases_async(
        &mut self,
        program: &Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(Vec<Tensor>, Vec<KernelCase>)> {
        self.alone(program, "recording kernel cases")?;
        let (gpu, scalars) = self.start_check(program, feeds)?;
        let (plan, device) = (program.plan(), self.device().to_string());
        let mut cases = Vec::with_capacity(plan.calls.len());
        for (number, call) in plan.calls.iter().enumerate() {
            let mut reads: Vec<(Stored, Tensor)> = Vec::with_capacity(call.reads.len());
            for stored in &call.reads {
                reads.push((stored.clone(), gpu.read(stored).await?));
            }
            cases.push(KernelCase::new(&device, plan, call, &reads, &scalars)?);
            gpu.run_call(number).await?;
        }
        Ok((self.finish_check(program, gpu).await?, cases))
    }
}
