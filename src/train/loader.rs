//! Prepares batches on worker threads.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::ranks::Share;
use super::{Batch, Dataset};
use crate::data::Batches;
use crate::time::{Duration, Instant};
use crate::trace::{Context, span};
use crate::{Error, Result, gpu};

/// Prepares the batches of a data set on worker threads, with a bounded queue. The order is that of [`Batches`],
/// whatever the number of threads.
///
/// ```
/// use std::ops::ControlFlow;
/// use wgrad::Tensor;
/// use wgrad::data::Batches;
/// use wgrad::train::Loader;
/// let x = Tensor::new([5], [0.0f32, 1.0, 2.0, 3.0, 4.0])?;
/// let loader = Loader::new(&x, Batches::new(5, 2)?).workers(3);
/// let mut seen = Vec::new();
/// loader.epoch(0, 0, |batch| {
///     seen.extend(batch.tensors["x"].to_f32());
///     Ok(ControlFlow::Continue(()))
/// })?;
/// assert_eq!(seen, [0.0, 1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Loader<'d> {
    data: &'d dyn Dataset,
    batches: Batches,
    workers: usize,
    ahead: usize,
    /// This rank, and the number of ranks.
    ranks: (usize, usize),
}

/// A batch from a [`Loader`]. Example: [`Loader`].
#[non_exhaustive]
pub struct Loaded {
    /// Its number within the epoch, from 0.
    pub number: usize,
    /// The numbers of the rows that its tensors hold.
    pub rows: Vec<usize>,
    /// This rank's share of the batch.
    pub(super) share: Share,
    /// Its tensors.
    pub tensors: Batch,
    /// How long the loader waited for it.
    pub waited: Duration,
}

impl<'d> Loader<'d> {
    /// Without worker threads: each batch is made when it is needed.
    pub fn new(data: &'d dyn Dataset, batches: Batches) -> Loader<'d> {
        Loader { data, batches, workers: 0, ahead: 0, ranks: (0, 1) }
    }

    /// The number of worker threads; 0 for none. Up to two batches per thread are prepared in advance.
    pub fn workers(self, workers: usize) -> Loader<'d> {
        Loader { workers, ahead: 2 * workers, ..self }
    }

    /// Prepares only the share of a rank of each batch: a range of its rows. The shares of all `ranks` make up the
    /// batch, and their sizes differ by at most one. A rank without rows gets the first row of the batch.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use wgrad::Tensor;
    /// # use wgrad::data::Batches;
    /// # use wgrad::train::Loader;
    /// let x = Tensor::new([5], [0.0f32, 1.0, 2.0, 3.0, 4.0])?;
    /// let loader = Loader::new(&x, Batches::new(5, 5)?).share(1, 2); // the second of two ranks
    /// loader.epoch(0, 0, |batch| {
    ///     assert_eq!(batch.tensors["x"].to_f32(), [2.0, 3.0, 4.0]);
    ///     Ok(ControlFlow::Continue(()))
    /// })?;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn share(self, rank: usize, ranks: usize) -> Loader<'d> {
        Loader { ranks: (rank, ranks.max(rank + 1)), ..self }
    }

    /// A number of workers for this machine: its cores but one, which runs the device, and at most 4.
    pub fn suitable_workers() -> usize {
        thread::available_parallelism().map_or(1, NonZeroUsize::get).saturating_sub(1).clamp(1, 4)
    }

    /// The batches that this loader splits its data into.
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Calls `each` with the batches of an epoch, from number `first` on, in order, until it breaks.
    ///
    /// # Errors
    /// The first error of the data set or of `each`. A panic of the data set becomes an error.
    pub fn epoch(
        &self,
        epoch: u64,
        first: usize,
        mut each: impl FnMut(Loaded) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        gpu::block_on(self.epoch_async(epoch, first, async |loaded| each(loaded)))
    }

    /// [`Loader::epoch`] with a function that waits for a device. A browser has no worker threads.
    ///
    /// # Errors
    /// As [`Loader::epoch`].
    pub async fn epoch_async(
        &self,
        epoch: u64,
        first: usize,
        mut each: impl AsyncFnMut(Loaded) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let lists: Vec<Vec<usize>> = self.batches.epoch(epoch).collect();
        let (rank, ranks) = self.ranks;
        let share = |number: usize| Share::of(lists[number].len(), rank, ranks);
        let make = |number: usize| {
            let _span = span!("make batch", number as u64);
            let step = step_of(epoch, number, lists.len());
            // Each rank draws other random changes.
            let step = step.wrapping_mul(ranks as u64).wrapping_add(rank as u64);
            let made = catch_unwind(AssertUnwindSafe(|| self.data.batch(&lists[number][share(number).rows], step)));
            made.unwrap_or_else(|panic| {
                Err(Error::Input(format!("making batch {number} of epoch {epoch} panicked: {}", message(&*panic))))
            })
        };
        let mut deliver = async |number: usize, tensors: Result<Batch>, waited| {
            let share = share(number);
            let rows = lists[number][share.rows.clone()].to_vec();
            each(Loaded { number, rows, share, tensors: tensors?, waited }).await
        };
        if self.workers == 0 || cfg!(target_family = "wasm") {
            for number in first..lists.len() {
                let (tensors, waited) = timed(|| make(number));
                if deliver(number, tensors, waited).await?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let context = Context::current();
        let queue = Queue::new(first, lists.len(), self.ahead);
        thread::scope(|scope| {
            // Also if `each` panics: the scope waits for the workers.
            let _stop = StopOnDrop(&queue);
            for number in 1..=self.workers {
                let worker = thread::Builder::new().name(format!("data worker {number}"));
                let started = worker.spawn_scoped(scope, || context.within(|| queue.work(&make)));
                started.map_err(|error| {
                    Error::Input(format!("data worker {number} of {} cannot start: {error}", self.workers))
                })?;
            }
            for number in first..lists.len() {
                let (tensors, waited) = timed(|| queue.take(number));
                if gpu::block_on(deliver(number, tensors, waited))?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// The number of a batch of an epoch, counted from the first epoch on.
pub(super) fn step_of(epoch: u64, number: usize, count: usize) -> u64 {
    epoch.wrapping_mul(count as u64).wrapping_add(number as u64)
}

/// Waits for a batch, and how long.
fn timed(batch: impl FnOnce() -> Result<Batch>) -> (Result<Batch>, Duration) {
    let _span = span!("wait for data");
    let started = Instant::now();
    (batch(), started.elapsed())
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown reason")
}

/// Finished batches, at most `ahead` of the next one that is taken.
struct Queue {
    next: AtomicUsize,
    count: usize,
    ahead: usize,
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    finished: BTreeMap<usize, Result<Batch>>,
    /// The next number to be taken.
    wanted: usize,
    stopped: bool,
}

impl Queue {
    fn new(first: usize, count: usize, ahead: usize) -> Queue {
        let state = QueueState { finished: BTreeMap::new(), wanted: first, stopped: false };
        Queue { next: AtomicUsize::new(first), count, ahead, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, state: MutexGuard<'q, QueueState>) -> MutexGuard<'q, QueueState> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker: makes one batch after the other.
    fn work(&self, make: &(impl Fn(usize) -> Result<Batch> + Sync)) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            let mut state = self.lock();
            while number >= state.wanted + self.ahead && !state.stopped {
                state = self.wait(state);
            }
            if state.stopped {
                return;
            }
            drop(state);
            let batch = make(number);
            self.lock().finished.insert(number, batch);
            self.changed.notify_all();
        }
    }

    /// Waits for a batch.
    fn take(&self, number: usize) -> Result<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.finished.remove(&number) {
                state.wanted = number + 1;
                self.changed.notify_all();
                return batch;
            }
            state = self.wait(state);
        }
    }
}

struct StopOnDrop<'q>(&'q Queue);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}
