//! Sessions: variables that live on a device, and programs that share them.

mod feeds;
mod pending;
mod ranks;
mod reference;
mod variables;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use feeds::Feeds;
pub use pending::Pending;
use reference::{leaves, run_on_cpu};

use crate::cpu::Values;
use crate::distributed::World;
use crate::graph::{Nodes, ValueId};
use crate::plan::{self, Choices, Finding, Options, Plan};
use crate::profile::Profile;
use crate::trace::span;
use crate::{Device, Error, Graph, Result, Tensor, TensorType, Value, gpu};

/// Holds variables on one device, and compiles and runs programs that use them.
///
/// A *variable* is a parameter, optimiser state or running statistic; it is created when a program that declares it is
/// first compiled, and shared by name with all later programs: the training step, the evaluation, another batch size.
///
/// ```
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let count = graph.variable("count", Tensor::scalar(0.0));
/// graph.assign(&count, &(&count + graph.input("x", DType::F32, [])));
/// let mut session = Session::new(Device::cpu());
/// let step = session.compile(&graph, &[&count])?;
/// for x in [2.0, 3.0] {
///     session.run(&step, &[("x", &Tensor::scalar(x))])?;
/// }
/// assert_eq!(session.get("count")?.item()?, 5.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Session {
    /// Identifies its programs.
    id: u64,
    device: Device,
    types: BTreeMap<String, TensorType>,
    store: Store,
    counters: BTreeMap<String, u64>,
    choices: Choices,
    world: Option<World>,
}

/// Where the variables are stored.
enum Store {
    Cpu(HashMap<String, Tensor>),
    Gpu(Arc<gpu::Gpu>, gpu::Variables),
}

/// A compiled graph. It runs in the session that compiled it, on that session's variables.
///
/// ```
/// use wgrad::{DType, Device, Graph, Session};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, [64]).exp();
/// let program = Session::new(Device::cpu()).compile(&graph, &[&y])?;
/// assert_eq!(program.plan().inputs[0].name, "x");
/// println!("{program}"); // the launches, with their variants, grids and buffers
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Program {
    /// The session's id.
    session: u64,
    plan: Arc<Plan>,
    gpu: Option<gpu::Program>,
    /// The original graph, for the reference.
    nodes: Nodes,
    targets: Vec<ValueId>,
    /// A buffer for a step's scalars, so that a step does not allocate.
    scalars: Mutex<Vec<f64>>,
}

impl Session {
    /// A new session, without variables.
    pub fn new(device: Device) -> Session {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        let store = match &device.gpu {
            Some(gpu) => Store::Gpu(gpu.clone(), gpu::Variables::default()),
            None => Store::Cpu(HashMap::new()),
        };
        Session {
            id: SESSIONS.fetch_add(1, Ordering::Relaxed),
            device,
            types: BTreeMap::new(),
            store,
            counters: BTreeMap::new(),
            choices: Choices::default(),
            world: None,
        }
    }

    /// Distinguishes sessions.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The device it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The variants that [`Session::compile`] prefers: none until [`Session::tune`] or [`Session::load_tuning`] sets them.
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Sets the choices for later compilations; existing programs keep their plans.
    pub fn set_choices(&mut self, choices: Choices) {
        self.choices = choices;
    }

    /// Compiles a graph into a program that computes `outputs` and performs the graph's assignments.
    /// Variables that the session does not have yet are created with their initial values.
    ///
    /// # Errors
    /// [`Error::Graph`] with every mistake made while the graph was built; [`Error::Limit`] if the
    /// graph does not fit the device; [`Error::Input`] if a variable has another type in this session.
    pub fn compile(&mut self, graph: &Graph, outputs: &[&Value]) -> Result<Program> {
        gpu::block_on(self.compile_async(graph, outputs))
    }

    /// [`Session::compile`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub async fn compile_async(&mut self, graph: &Graph, outputs: &[&Value]) -> Result<Program> {
        let options = Options { choices: self.choices.clone(), ..Options::default() };
        self.compile_with_async(graph, outputs, &options).await
    }

    /// Compiles with the given options only: the session's [choices](Session::choices) are not used.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn compile_with(&mut self, graph: &Graph, outputs: &[&Value], options: &Options) -> Result<Program> {
        gpu::block_on(self.compile_with_async(graph, outputs, options))
    }

    /// [`Session::compile_with`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub async fn compile_with_async(
        &mut self,
        graph: &Graph,
        outputs: &[&Value],
        options: &Options,
    ) -> Result<Program> {
        self.compile_edited_async(graph, outputs, options, |_| Ok(())).await
    }

    /// Compiles, and lets `edit` alter the finished plan before it is used: to test that checks detect
    /// faults.
    #[doc(hidden)]
    pub fn compile_edited(
        &mut self,
        graph: &Graph,
        outputs: &[&Value],
        options: &Options,
        edit: impl FnOnce(&mut Plan) -> Result<()>,
    ) -> Result<Program> {
        gpu::block_on(self.compile_edited_async(graph, outputs, options, edit))
    }

    pub(crate) async fn compile_edited_async(
        &mut self,
        graph: &Graph,
        outputs: &[&Value],
        options: &Options,
        edit: impl FnOnce(&mut Plan) -> Result<()>,
    ) -> Result<Program> {
        let (nodes, targets) = Session::accepted(graph, outputs)?;
        for variable in &nodes.variables {
            let ty = variable.initial.ty();
            if let Some(known) = self.types.get(&variable.name).filter(|known| **known != ty) {
                return Err(Error::Input(format!(
                    "variable `{}` is {ty} in this graph and {known} in the session; give one of them another name, \
                     such as a prefix by Scope::part",
                    variable.name
                )));
            }
        }
        self.compile_nodes(nodes, targets, options, edit).await
    }

    /// The content of a graph and the ids of its outputs, if it has no errors.
    pub(crate) fn accepted(graph: &Graph, outputs: &[&Value]) -> Result<(Nodes, Vec<ValueId>)> {
        let nodes = graph.nodes();
        if !nodes.errors.is_empty() {
            return Err(Error::Graph(nodes.errors));
        }
        Ok((nodes, graph.outputs(outputs)?))
    }

    /// Compiles nodes without errors.
    pub(crate) async fn compile_nodes(
        &mut self,
        nodes: Nodes,
        targets: Vec<ValueId>,
        options: &Options,
        edit: impl FnOnce(&mut Plan) -> Result<()>,
    ) -> Result<Program> {
        let _span = span!("compile");
        let mut plan = Plan::new(nodes.clone(), &targets, self.device.profile(), options)?;
        edit(&mut plan)?;
        let plan = Arc::new(plan);
        for variable in &nodes.variables {
            if !self.types.contains_key(&variable.name) {
                self.create(&variable.name, &variable.initial)?;
            }
        }
        let gpu = match &self.store {
            Store::Gpu(gpu, variables) => Some(gpu::Program::new(gpu, plan.clone(), variables).await?),
            Store::Cpu(_) => None,
        };
        let scalars = Mutex::new(Vec::with_capacity(plan.scalars.len()));
        Ok(Program { session: self.id, plan, gpu, nodes, targets, scalars })
    }

    /// Checks a program against a device profile; the device need not be present. Lists what prevents its graph from
    /// running there ([`Finding::refused`]), then what prevents only this plan, with what would be planned instead. If
    /// the list is empty, the program runs there unchanged. The program may belong to another session. To check a graph
    /// without a session, see [`lint`](crate::lint).
    pub fn lint(&self, program: &Program, profile: &Profile) -> Vec<Finding> {
        plan::lint::explain_for(&program.plan, &program.nodes, &program.targets, profile)
    }

    /// The number of runs of programs that use the counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// All counters.
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    /// Sets a counter, to continue where another session stopped.
    pub fn set_counter(&mut self, name: &str, count: u64) {
        self.counters.insert(name.to_owned(), count);
    }

    /// Runs a step: feeds inputs and step scalars by name, returns the outputs in the order in
    /// which they were compiled, and commits the assignments. A step that returns [`Error::Input`] has no
    /// effect: variables and counters are unchanged.
    ///
    /// # Errors
    /// [`Error::Input`] for a program of another session, for missing, unknown or ill-typed feeds, and for indices
    /// out of range. All are detected before anything runs, except indices computed on the device. Device errors.
    pub fn run(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        let _span = span!("run");
        gpu::block_on(self.run_async(program, feeds))
    }

    /// [`Session::run`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_async(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>> {
        let before = program.plan.watches_status.then(|| self.counters.clone());
        let outputs = self.start(program, feeds)?.outputs_async().await;
        if let (Err(Error::Input(_)), Some(before)) = (&outputs, before) {
            self.counters = before; // no step has been started since
        }
        outputs
    }

    /// Starts a step like [`Session::run`], but does not wait for it: the host continues while the
    /// device computes, and reads the outputs later.
    ///
    /// Steps take effect in the order in which they were started, no matter when or whether their
    /// outputs are read.
    ///
    /// If an index computed on the device is out of range, the step assigns nothing and reading its outputs
    /// returns an error. Later steps compute as if it had not run, except for the counters: it is counted, because
    /// steps started after it already used the following counts. ([`Session::run`] waits, and undoes the count.)
    ///
    /// ```
    /// # use wgrad::{DType, Device, Graph, Session, Tensor};
    /// # let mut session = Session::new(Device::cpu());
    /// # let graph = Graph::new();
    /// # let total = graph.variable("total", Tensor::scalar(0.0));
    /// # let x = graph.input("x", DType::F32, []);
    /// # let sum = &total + &x;
    /// # graph.assign(&total, &sum);
    /// # let program = session.compile(&graph, &[&sum])?;
    /// let mut pending = None;
    /// for x in [1.0, 2.0, 3.0] {
    ///     let next = session.start(&program, &[("x", &Tensor::scalar(x))])?;
    ///     if let Some(previous) = pending.replace(next) {
    ///         println!("the step before: {}", previous.outputs()?[0].item()?);
    ///     }
    /// }
    /// assert_eq!(pending.unwrap().outputs()?[0].item()?, 6.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] as for [`Session::run`].
    pub fn start(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Pending> {
        let pending = self.start_uncounted(program, feeds)?;
        self.count(program);
        Ok(pending)
    }

    /// [`Session::start`] that counts nothing: the next step draws the same random numbers.
    pub(crate) fn start_uncounted(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Pending> {
        let upload = span!("upload");
        let feeds = self.bind(program, feeds)?;
        match (&program.gpu, &mut self.store) {
            (Some(gpu), Store::Gpu(..)) => {
                feeds.upload(gpu)?;
                drop(upload);
                Ok(Pending::reading(gpu.start_reading(self.world.as_ref())?))
            }
            (None, Store::Cpu(values)) => {
                drop(upload);
                Ok(Pending::done(run_on_cpu(program, &feeds, values, self.world.as_ref())?))
            }
            _ => Err(elsewhere()),
        }
    }

    /// Starts a step like [`Session::run`], but neither waits for it nor reads anything back: for
    /// steps whose loss is not needed. Steps take effect in the order in which they were started,
    /// and later reads from the session see all of them. A step in which an index computed on the device is
    /// out of range assigns nothing, as for [`Session::start`], but no error is reported.
    ///
    /// # Errors
    /// [`Error::Input`] as for [`Session::run`]; device errors that are already known, such as the
    /// loss of the device.
    pub fn submit(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<()> {
        let upload = span!("upload");
        let feeds = self.bind(program, feeds)?;
        match (&program.gpu, &mut self.store) {
            (Some(gpu), Store::Gpu(..)) => {
                feeds.upload(gpu)?;
                drop(upload);
                gpu.start(self.world.as_ref())?;
            }
            (None, Store::Cpu(values)) => {
                drop(upload);
                run_on_cpu(program, &feeds, values, self.world.as_ref())?;
            }
            _ => return Err(elsewhere()),
        }
        self.count(program);
        Ok(())
    }

    /// [`Session::submit`] and [`Session::wait`], for benchmarks: returns the seconds that the step's
    /// launches took by GPU timestamps, or `None` without timestamps. Their reliability depends on the
    /// driver.
    ///
    /// # Errors
    /// As [`Session::submit`].
    #[doc(hidden)]
    pub fn submit_timed(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Option<f64>> {
        gpu::block_on(self.submit_timed_async(program, feeds))
    }

    async fn submit_timed_async(&mut self, program: &Program, feeds: &[(&str, &Tensor)]) -> Result<Option<f64>> {
        let feeds = self.bind(program, feeds)?;
        let Some(gpu) = program.gpu.as_ref().filter(|gpu| !gpu.exchanges()) else { return Ok(None) };
        feeds.upload(gpu)?;
        let Some(seconds) = gpu.timed(0..program.plan.calls.len()).await? else { return Ok(None) };
        gpu.commit().await?;
        gpu.status().await?;
        self.count(program);
        Ok(Some(seconds))
    }

    /// Waits until all started steps have finished.
    ///
    /// # Errors
    /// Device errors since the last call that could report one.
    pub fn wait(&self) -> Result<()> {
        gpu::block_on(self.wait_async())
    }

    /// [`Session::wait`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::wait`].
    pub async fn wait_async(&self) -> Result<()> {
        match &self.store {
            Store::Gpu(gpu, _) => gpu::wait(gpu).await,
            Store::Cpu(_) => Ok(()),
        }
    }

    /// Uploads the feeds for a check; returns the device program and the step's scalars.
    pub(crate) fn start_check<'p>(
        &self,
        program: &'p Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<(&'p gpu::Program, Vec<(ValueId, Tensor)>)> {
        let feeds = self.bind(program, feeds)?;
        let gpu = program
            .gpu
            .as_ref()
            .ok_or_else(|| Error::Device("the reference has nothing to be compared with; open a GPU device".into()))?;
        feeds.upload(gpu)?;
        Ok((gpu, feeds.scalar_values(true)))
    }

    /// Finishes a step whose calls have run: reads the outputs and performs the commits.
    pub(crate) async fn finish_check(&mut self, program: &Program, gpu: &gpu::Program) -> Result<Vec<Tensor>> {
        let mut outputs = Vec::with_capacity(program.plan.outputs.len());
        for (ty, buffer) in &program.plan.outputs {
            let words = match buffer {
                Some(buffer) => gpu.read_buffer(*buffer).await?,
                None => Vec::new(),
            };
            outputs.push(Tensor::from_device_words(ty, words.get(..ty.words()).unwrap_or_default()));
        }
        gpu.commit().await?;
        gpu.status().await?;
        self.count(program);
        Ok(outputs)
    }

    /// On the reference: the original graph, and the values of its leaves at the start of the step.
    /// `None` on a GPU.
    pub(crate) fn leaves<'p>(
        &self,
        program: &'p Program,
        feeds: &[(&str, &Tensor)],
    ) -> Result<Option<(&'p Nodes, Values)>> {
        let feeds = self.bind(program, feeds)?;
        Ok(match &self.store {
            Store::Cpu(variables) => Some((&program.nodes, leaves(program, &feeds, variables))),
            Store::Gpu(..) => None,
        })
    }

    /// For checking: resets all counters, so that the next run draws the same random numbers as the first.
    pub(crate) fn restart(&mut self) {
        self.counters.clear();
    }

    pub(crate) fn count(&mut self, program: &Program) {
        for counter in &program.plan.counters {
            // A loaded file may have set it to u64::MAX.
            match self.counters.get_mut(counter) {
                Some(count) => *count = count.saturating_add(1),
                None => drop(self.counters.insert(counter.clone(), 1)),
            }
        }
    }

    /// Validates the feeds before a run has any effect.
    fn bind<'a>(&self, program: &'a Program, feeds: &'a [(&'a str, &'a Tensor)]) -> Result<Feeds<'a>> {
        if program.session != self.id {
            return Err(elsewhere());
        }
        Feeds::new(program, feeds, &self.counters)
    }
}

/// The error for a program of another session.
fn elsewhere() -> Error {
    Error::Input(
        "the program was compiled in another session and uses its variables; run it there, or compile its graph in \
         this session"
            .into(),
    )
}

impl Program {
    /// The device program.
    pub(crate) fn engine(&self) -> Result<&gpu::Program> {
        self.gpu.as_ref().ok_or_else(elsewhere)
    }

    /// The requested outputs.
    pub(crate) fn targets(&self) -> &[ValueId] {
        &self.targets
    }

    /// The plan: kernel calls, dispatches, buffers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Device memory used by a run besides the variables, in bytes.
    pub fn device_bytes(&self) -> u64 {
        self.gpu.as_ref().map_or(0, gpu::Program::bytes)
    }
}

impl std::fmt::Display for Program {
    /// Its [`Plan`].
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&*self.plan, f)
    }
}
