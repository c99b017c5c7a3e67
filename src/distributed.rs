//! Training on several devices, of one machine or of many: every process, a *rank*, computes the same steps on its
//! share of each batch, and the gradients are summed over all ranks.
//!
#![doc = include_str!("../docs/guide/distributed.md")]

mod compress;
#[cfg(feature = "mpi")]
mod mpi;
mod threads;

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crate::time::{Duration, Instant};
use crate::{Error, Result};

/// How long a rank waits for the others before it ends the job, unless [`TIMEOUT_VARIABLE`] is set.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The environment variable with the number of seconds that a rank waits for the others.
const TIMEOUT_VARIABLE: &str = "WGRAD_RANK_TIMEOUT";

/// How often an idle communication thread answers other ranks, and a waiting thread looks for failures.
const TICK: Duration = Duration::from_millis(20);

/// The ranks of a job, and this one's place among them. Cheap to clone.
///
/// All ranks must call the methods that communicate in the same order, from one thread each. A thread of its own does
/// the communication, so that it goes on while the device computes.
///
/// ```
/// use wgrad::distributed::World;
/// // Ranks as threads of one process; `World::init` joins the ranks that mpirun started.
/// let sums: Vec<f64> = std::thread::scope(|scope| {
///     let ranks: Vec<_> = World::threads(3)
///         .into_iter()
///         .map(|world| scope.spawn(move || world.sum(&[world.rank() as f64, 1.0]).expect("three ranks")[0]))
///         .collect();
///     ranks.into_iter().map(|rank| rank.join().expect("a rank")).collect()
/// });
/// assert_eq!(sums, [3.0; 3]); // 0 + 1 + 2
/// ```
///
/// If a rank fails, the others learn why: see [`World::fail`].
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    place: Place,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failure: Failure,
    traffic: Mutex<Traffic>,
}

/// Where a rank is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    rank: usize,
    /// Its number among the ranks of its node.
    on_node: usize,
    /// The name of each rank's node.
    nodes: Vec<String>,
}

/// What has been sent. Example: [`World::traffic`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Sums over all ranks.
    pub sums: u64,
    /// Bytes of this rank's operands, as they are sent.
    pub bytes: u64,
    /// How long the sums took, in seconds, including the wait for ranks that were late.
    pub seconds: f64,
}

type Job = Box<dyn FnOnce(&mut dyn Transport) + Send>;

/// Why the job has failed, once it has.
type Failure = Arc<OnceLock<String>>;

/// What communicates; used by one thread only.
pub(crate) trait Transport {
    /// The sum of the ranks' values, which are equally many.
    fn sum_f32(&mut self, values: Vec<f32>) -> Result<Vec<f32>>;

    /// The same in f64.
    fn sum_f64(&mut self, values: Vec<f64>) -> Result<Vec<f64>>;

    /// [`Transport::sum_f32`] by messages of f16; see [`compress`].
    fn sum_compressed(&mut self, values: Vec<f32>) -> Result<Vec<f32>>;

    /// The bytes of each rank.
    fn gather(&mut self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// The bytes of rank 0.
    fn broadcast(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>>;

    /// Answers other ranks. Called while there is nothing to do.
    ///
    /// # Errors
    /// If another rank has failed.
    fn serve(&mut self) -> Result<()>;

    /// Tells the other ranks that this one has failed.
    fn fail(&mut self, why: &str);

    /// Leaves the world.
    fn end(self: Box<Self>);
}

/// A result that the communication thread is going to have.
#[must_use = "the other ranks wait for this one, but the result is lost"]
pub(crate) struct Ticket<T> {
    result: Receiver<Result<T>>,
    failure: Failure,
}

impl<T> Ticket<T> {
    pub fn wait(self) -> Result<T> {
        loop {
            match self.result.recv_timeout(TICK) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(why) = self.failure.get() {
                        return Err(Error::Distributed(why.clone()));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = self.failure.get().map_or("the communication thread has ended", String::as_str);
                    return Err(Error::Distributed(why.to_owned()));
                }
            }
        }
    }
}

impl World {
    /// Joins the ranks of this process's MPI job. Without `mpirun` or `srun`, that is one rank. The environment
    /// variable `WGRAD_RANK_TIMEOUT` sets after how many seconds without a sign of another rank the job ends (default
    /// 120).
    ///
    /// ```no_run
    /// use wgrad::distributed::World;
    /// let world = World::init()?;
    /// println!("rank {} of {} on {}", world.rank(), world.ranks(), world.node());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the library was built without the feature `mpi`; if MPI cannot start, or was started before.
    pub fn init() -> Result<World> {
        let timeout = timeout()?;
        #[cfg(feature = "mpi")]
        return World::start(move |failure| mpi::Mpi::init(failure, timeout));
        #[cfg(not(feature = "mpi"))]
        {
            let _ = timeout;
            Err(Error::Distributed(
                "this program was built without MPI; build it with `--features mpi` (for wgrad: features = [\"mpi\"])"
                    .into(),
            ))
        }
    }

    /// Ranks for the threads of this process, such as one for each of several GPUs: the sums are those of MPI ranks,
    /// and no MPI is needed.
    ///
    /// Example: [`World`].
    pub fn threads(ranks: usize) -> Vec<World> {
        World::threads_within(ranks, TIMEOUT)
    }

    /// [`World::threads`] that wait this long for each other.
    pub fn threads_within(ranks: usize, timeout: Duration) -> Vec<World> {
        let ranks = threads::Threads::all(ranks.max(1), timeout).into_iter();
        // The closures never fail.
        ranks.filter_map(|make| World::start(move |failure| Ok(make(failure))).ok()).collect()
    }

    /// Starts the communication thread, which creates its transport.
    fn start<T: Transport + 'static>(
        make: impl FnOnce(&Failure) -> Result<(Place, T)> + Send + 'static,
    ) -> Result<World> {
        let failure = Failure::default();
        let (jobs, queue) = channel::<Job>();
        let (sender, place) = channel();
        let of_thread = failure.clone();
        let work = move || match make(&of_thread) {
            Ok((place, transport)) => {
                if sender.send(Ok(place)).is_ok() {
                    communicate(Box::new(transport), &queue, &of_thread);
                }
            }
            Err(error) => drop(sender.send(Err(error))),
        };
        let thread = thread::Builder::new().name("communication".into()).spawn(work);
        let cannot = |why: String| Error::Distributed(format!("the communication thread cannot start: {why}"));
        let thread = thread.map_err(|error| cannot(error.to_string()))?;
        let place = place.recv().map_err(|_| cannot("it ended".into()))??;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(World(Arc::new(Shared { place, jobs, thread, failure, traffic: Mutex::default() })))
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.place.rank
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        self.0.place.nodes.len()
    }

    /// Whether this is rank 0, which writes checkpoints and reports.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The number of this rank among those on its node, from 0.
    pub fn rank_on_node(&self) -> usize {
        self.0.place.on_node
    }

    /// The name of this rank's node.
    pub fn node(&self) -> &str {
        &self.0.place.nodes[self.rank()]
    }

    /// A rank for messages: `rank 2 (node7)`.
    pub fn name_of(&self, rank: usize) -> String {
        name_of(&self.0.place.nodes, rank)
    }

    /// The sums of the ranks' values in f64, element by element; all ranks get the same bits.
    ///
    /// # Errors
    /// If a rank fails, is not there in time, or passes another number of values.
    pub fn sum(&self, values: &[f64]) -> Result<Vec<f64>> {
        self.start_sum_f64(values.to_vec())?.wait()
    }

    /// The same in f32, as gradients are summed; if `compressed`, by messages of f16: see
    /// [`AllReduce::compressed`](crate::ops::all_reduce::AllReduce::compressed).
    ///
    /// ```
    /// let world = wgrad::distributed::World::threads(1).remove(0);
    /// assert_eq!(world.sum_f32(vec![1.0, 2.0], false)?, [1.0, 2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`World::sum`].
    pub fn sum_f32(&self, values: Vec<f32>, compressed: bool) -> Result<Vec<f32>> {
        self.start_sum_f32(values, compressed)?.wait()
    }

    /// The bytes of each rank, in order.
    ///
    /// # Errors
    /// As [`World::sum`].
    pub fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.submit(move |transport| transport.gather(bytes))?.wait()
    }

    /// The bytes of rank 0; those of the other ranks are ignored.
    ///
    /// # Errors
    /// As [`World::sum`].
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.submit(move |transport| transport.broadcast(bytes))?.wait()
    }

    /// Ends the job because of an error of this rank: all ranks get an error that names it, at once if they wait. A
    /// [`Trainer`](crate::train::Trainer) does this itself.
    ///
    /// ```
    /// use wgrad::distributed::World;
    /// let [a, b]: [World; 2] = World::threads(2).try_into().unwrap_or_else(|_| unreachable!());
    /// b.fail("out of memory");
    /// assert!(a.sum(&[1.0]).unwrap_err().to_string().contains("rank 1 failed: out of memory"));
    /// ```
    pub fn fail(&self, why: &str) {
        self.0.fail(&format!("{} failed: {why}", self.name_of(self.rank())));
    }

    /// What this rank has sent so far.
    ///
    /// ```
    /// let world = wgrad::distributed::World::threads(1).remove(0);
    /// world.sum(&[1.0, 2.0])?;
    /// assert_eq!((world.traffic().sums, world.traffic().bytes), (1, 16));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn traffic(&self) -> Traffic {
        *lock(&self.0.traffic)
    }

    /// Starts a sum in f32; if `compressed`, by messages of f16.
    pub(crate) fn start_sum_f32(&self, values: Vec<f32>, compressed: bool) -> Result<Ticket<Vec<f32>>> {
        let bytes = values.len() * if compressed { 2 } else { 4 };
        self.submit(self.counted(bytes, move |transport| {
            if compressed { transport.sum_compressed(values) } else { transport.sum_f32(values) }
        }))
    }

    /// Starts a sum in f64.
    pub(crate) fn start_sum_f64(&self, values: Vec<f64>) -> Result<Ticket<Vec<f64>>> {
        self.submit(self.counted(values.len() * 8, move |transport| transport.sum_f64(values)))
    }

    /// Counts what a sum sends, and its time.
    fn counted<T>(
        &self,
        bytes: usize,
        sum: impl FnOnce(&mut dyn Transport) -> Result<T> + Send + 'static,
    ) -> impl FnOnce(&mut dyn Transport) -> Result<T> + Send + 'static {
        let shared = Arc::downgrade(&self.0);
        move |transport| {
            let began = Instant::now();
            let result = sum(transport);
            if let Some(shared) = shared.upgrade() {
                let mut traffic = lock(&shared.traffic);
                traffic.sums += 1;
                traffic.bytes += bytes as u64;
                traffic.seconds += began.elapsed().as_secs_f64();
            }
            result
        }
    }

    fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Transport) -> Result<T> + Send + 'static,
    ) -> Result<Ticket<T>> {
        if let Some(why) = self.0.failure.get() {
            return Err(Error::Distributed(why.clone()));
        }
        let (sender, result) = channel();
        self.send(Box::new(move |transport| drop(sender.send(work(transport)))))?;
        Ok(Ticket { result, failure: self.0.failure.clone() })
    }

    fn send(&self, job: Job) -> Result<()> {
        let sent = lock(&self.0.jobs).as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        let why = || self.0.failure.get().cloned().unwrap_or_else(|| "the communication thread has ended".into());
        if sent { Ok(()) } else { Err(Error::Distributed(why())) }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(rank {} of {})", self.rank(), self.ranks())
    }
}

impl Shared {
    /// Tells the other ranks. If the communication thread is in an exchange, it sees the failure itself.
    fn fail(&self, text: &str) {
        if self.failure.set(text.to_owned()).is_err() {
            return;
        }
        let (sent, told) = channel();
        let message = text.to_owned();
        let job: Job = Box::new(move |transport| {
            transport.fail(&message);
            let _ = sent.send(());
        });
        if lock(&self.jobs).as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            let _ = told.recv_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(&format!("{} panicked", name_of(&self.place.nodes, self.place.rank)));
        }
        // Without a sender, the thread ends.
        drop(lock(&self.jobs).take());
        // After a failure, it may wait forever for a rank that will never come.
        if let Some(thread) = lock(&self.thread).take().filter(|_| self.failure.get().is_none()) {
            let _ = thread.join();
        }
    }
}

/// The communication thread.
fn communicate(mut transport: Box<dyn Transport>, jobs: &Receiver<Job>, failure: &Failure) {
    loop {
        match jobs.recv_timeout(TICK) {
            Ok(job) => job(&mut *transport),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = transport.serve() {
                    let _ = failure.set(error.to_string());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return transport.end(),
        }
    }
}

fn timeout() -> Result<Duration> {
    let Some(text) = std::env::var_os(TIMEOUT_VARIABLE) else { return Ok(TIMEOUT) };
    let seconds = text.to_str().and_then(|text| text.parse::<f64>().ok()).filter(|seconds| *seconds > 0.0);
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    timeout.ok_or_else(|| {
        Error::Input(format!("{TIMEOUT_VARIABLE} must be a positive number of seconds, not `{}`", text.display()))
    })
}

fn name_of(nodes: &[String], rank: usize) -> String {
    match nodes.get(rank).filter(|node| !node.is_empty()) {
        Some(node) => format!("rank {rank} ({node})"),
        None => format!("rank {rank}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
