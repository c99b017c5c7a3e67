//! Ranks that are processes of an MPI job.
//!
//! One thread makes all MPI calls. It starts collective operations and polls them, so that it sees in between what
//! other ranks have to say: short messages with a tag of their own. A rank that has waited too long asks the others
//! where they are, and names those that have not come.

use std::thread;

use ::mpi::collective::SystemOperation;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::Universe;
use ::mpi::request::{LocalScope, Request, scope};
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Destination, Equivalence, MatchedReceiveVec, Root, Source};
use ::mpi::{Count, Threading};

use super::{Failure, Place, Transport, compress, name_of};
use crate::time::{Duration, Instant};
use crate::{Error, Result};

/// The tag of messages outside collective operations.
const TAG: i32 = 0x3a7;

/// Bytes for messages on their way.
const MESSAGES: usize = 1 << 20;

/// How long ranks have to tell where they are.
const ANSWER: Duration = Duration::from_secs(5);

/// The largest part of a broadcast, in bytes; MPI counts in 32 bits.
const BROADCAST: usize = 256 << 20;

/// A message outside collective operations: a kind and a payload.
const ASK: u8 = 0;
const STATE: u8 = 1;
const ENDED: u8 = 2;
const FAILED: u8 = 3;

pub(super) struct Mpi {
    universe: Universe,
    nodes: Vec<String>,
    failure: Failure,
    /// Whether the ranks know of the failure.
    told: bool,
    timeout: Duration,
    /// Collective operations that this rank has begun.
    count: u64,
    /// For each rank that has ended, how many it had begun.
    ended: Vec<Option<u64>>,
    buffers: Buffers,
}

/// Buffers for compressed sums. They are reused, because touching new memory takes longer than the conversions.
#[derive(Default)]
struct Buffers {
    messages: Vec<u16>,
    received: Vec<u16>,
    sum: Vec<f32>,
    own: Vec<u16>,
}

/// A wait that has taken too long: what each rank has said about where it is.
struct Inquiry {
    until: Instant,
    states: Vec<Option<u64>>,
}

impl Mpi {
    /// Starts MPI.
    pub fn init(failure: &Failure, timeout: Duration) -> Result<(Place, Mpi)> {
        let (mut universe, _) = ::mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::Distributed("MPI was started before; a process joins one world".into()))?;
        universe.set_buffer_size(MESSAGES);
        let world = SimpleCommunicator::world();
        let on_node = world.split_shared(world.rank()).rank() as usize;
        let (failure, ended) = (failure.clone(), vec![None; world.size() as usize]);
        let mut mpi = Mpi {
            universe,
            nodes: Vec::new(),
            failure,
            told: false,
            timeout,
            count: 0,
            ended,
            buffers: Buffers::default(),
        };
        let name = ::mpi::environment::processor_name().unwrap_or_default();
        let names = mpi.gather(name.into_bytes())?;
        mpi.nodes = names.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect();
        let place = Place { rank: mpi.rank(), on_node, nodes: mpi.nodes.clone() };
        Ok((place, mpi))
    }

    fn rank(&self) -> usize {
        SimpleCommunicator::world().rank() as usize
    }

    fn ranks(&self) -> usize {
        SimpleCommunicator::world().size() as usize
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank();
        (0..self.ranks()).filter(move |&rank| rank != own)
    }

    fn name(&self, rank: usize) -> String {
        name_of(&self.nodes, rank)
    }

    fn tell(&self, rank: usize, kind: u8, payload: &[u8]) {
        let message = [&[kind], payload].concat();
        // Buffered: returns at once, even if that process has stopped.
        SimpleCommunicator::world().process_at_rank(rank as i32).buffered_send_with_tag(&message[..], TAG);
    }

    /// Reads messages. Returns what ranks have said about where they are.
    ///
    /// # Errors
    /// If a rank has failed, or this one.
    fn listen(&mut self) -> Result<Vec<(usize, u64)>> {
        if let Some(why) = self.failure.get().cloned() {
            self.fail(&why);
            return Err(Error::Distributed(why));
        }
        let mut states = Vec::new();
        while let Some(message) = SimpleCommunicator::world().any_process().immediate_matched_probe_with_tag(TAG) {
            let (bytes, status): (Vec<u8>, _) = message.matched_receive_vec();
            let from = status.source_rank() as usize;
            match bytes.split_first() {
                Some((&ASK, _)) => self.tell(from, STATE, &self.count.to_le_bytes()),
                Some((&STATE, count)) => states.extend(count.try_into().ok().map(|n| (from, u64::from_le_bytes(n)))),
                Some((&ENDED, count)) => self.ended[from] = count.try_into().ok().map(u64::from_le_bytes),
                Some((&FAILED, why)) => {
                    self.told = true;
                    return Err(self.failed(String::from_utf8_lossy(why).into_owned()));
                }
                _ => {}
            }
        }
        Ok(states)
    }

    fn failed(&self, why: String) -> Error {
        let why = self.failure.get_or_init(|| why).clone();
        Error::Distributed(why)
    }

    /// Polls an operation until it is done.
    ///
    /// After a failure, the operation is still in progress and owns its buffers, so this thread stays here; others see
    /// the failure.
    fn finish<'a, D: ?Sized>(&mut self, mut request: Request<'a, D, &LocalScope<'a>>) {
        let began = Instant::now();
        let mut inquiry = None;
        loop {
            request = match request.test() {
                Ok(_) => return,
                Err(request) => request,
            };
            if self.waits(began, &mut inquiry).is_err() {
                loop {
                    thread::park();
                }
            }
            // At first busy, because most operations take microseconds, but other threads may need the core.
            match began.elapsed() {
                short if short < Duration::from_millis(1) => thread::yield_now(),
                short if short < Duration::from_millis(20) => thread::sleep(Duration::from_micros(20)),
                _ => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Between two polls of an operation that has taken since `began`: looks for failures, and for missing ranks once
    /// it has taken too long.
    fn waits(&mut self, began: Instant, inquiry: &mut Option<Inquiry>) -> Result<()> {
        if began.elapsed() < Duration::from_millis(1) {
            return Ok(());
        }
        let states = self.listen()?;
        if let Some(gone) = self.ended.iter().position(|ended| ended.is_some_and(|count| count < self.count)) {
            let (gone, own) = (self.name(gone), self.name(self.rank()));
            let error = self.failed(format!("{gone} has ended, but {own} waits for it"));
            self.fail(&error.to_string());
            return Err(error);
        }
        if began.elapsed() < self.timeout {
            return Ok(());
        }
        let inquiry = inquiry.get_or_insert_with(|| {
            self.others().for_each(|rank| self.tell(rank, ASK, &[]));
            let states = (0..self.ranks()).map(|rank| (rank == self.rank()).then_some(self.count)).collect();
            Inquiry { until: Instant::now() + ANSWER, states }
        });
        for (rank, state) in states {
            inquiry.states[rank] = Some(state);
        }
        if Instant::now() < inquiry.until && inquiry.states.contains(&None) {
            return Ok(());
        }
        let late = |(rank, state): (usize, &Option<u64>)| match state {
            Some(state) if *state >= self.count => None,
            Some(state) => Some(format!("{} is busy after exchange {state}", self.name(rank))),
            None => Some(format!("{} does not respond", self.name(rank))),
        };
        let late: Vec<String> = inquiry.states.iter().enumerate().filter_map(late).collect();
        let why = if late.is_empty() { "all have come, but MPI does not go on".into() } else { late.join(", ") };
        let (own, seconds) = (self.name(self.rank()), self.timeout.as_secs_f64());
        let error = self.failed(format!("{own} has waited {seconds} s in exchange {}: {why}", self.count));
        self.fail(&error.to_string());
        Err(error)
    }

    fn sum<T: Equivalence + Clone + Default>(&mut self, values: Vec<T>) -> Result<Vec<T>> {
        self.begin()?;
        let mut sums = vec![T::default(); values.len()];
        let world = SimpleCommunicator::world();
        scope(|scope| {
            let request = world.immediate_all_reduce_into(scope, &values[..], &mut sums[..], SystemOperation::sum());
            self.finish(request);
        });
        Ok(sums)
    }

    fn gather_equal<T: Equivalence + Clone + Default>(&mut self, own: &[T]) -> Result<Vec<T>> {
        let mut all = vec![T::default(); own.len() * self.ranks()];
        self.gather_into(own, &mut all)?;
        Ok(all)
    }

    fn gather_into<T: Equivalence>(&mut self, own: &[T], all: &mut [T]) -> Result<()> {
        self.begin()?;
        let world = SimpleCommunicator::world();
        scope(|scope| self.finish(world.immediate_all_gather_into(scope, own, all)));
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.count += 1;
        self.listen().map(drop)
    }
}

impl Transport for Mpi {
    fn sum_f32(&mut self, values: Vec<f32>) -> Result<Vec<f32>> {
        self.sum(values)
    }

    fn sum_f64(&mut self, values: Vec<f64>) -> Result<Vec<f64>> {
        self.sum(values)
    }

    fn sum_compressed(&mut self, mut values: Vec<f32>) -> Result<Vec<f32>> {
        let (ranks, part) = (self.ranks(), compress::part(values.len(), self.ranks()));
        let words = compress::message_words(part);
        let mut buffers = std::mem::take(&mut self.buffers);
        let Buffers { messages, received, sum, own } = &mut buffers;
        compress::messages(&values, ranks, messages);
        self.begin()?;
        received.resize(words * ranks, 0);
        let world = SimpleCommunicator::world();
        scope(|scope| self.finish(world.immediate_all_to_all_into(scope, &messages[..], &mut received[..])));
        compress::sum(received.chunks(words), part, sum, own)?;
        self.gather_into(own, received)?;
        compress::restore(received.chunks(words), &mut values)?;
        self.buffers = buffers;
        Ok(values)
    }

    fn gather(&mut self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather_equal(&(bytes.len() as u64).to_le_bytes())?;
        let length = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes) as usize;
        let lengths: Vec<usize> = lengths.chunks(8).map(length).collect();
        let total: usize = lengths.iter().sum();
        if Count::try_from(total).is_err() {
            return Err(self.failed(format!("gathering {total} bytes; at most {} are possible", Count::MAX)));
        }
        self.begin()?;
        let counts: Vec<Count> = lengths.iter().map(|&length| length as Count).collect();
        let starts: Vec<Count> = counts
            .iter()
            .scan(0, |end, &count| {
                *end += count;
                Some(*end - count)
            })
            .collect();
        let mut all = vec![0u8; total];
        let world = SimpleCommunicator::world();
        let mut partition = PartitionMut::new(&mut all[..], counts, starts);
        scope(|scope| {
            self.finish(world.immediate_all_gather_varcount_into(scope, &bytes[..], &mut partition));
        });
        let mut rest = &all[..];
        Ok(lengths
            .into_iter()
            .map(|length| {
                let (own, others) = rest.split_at(length);
                rest = others;
                own.to_vec()
            })
            .collect())
    }

    fn broadcast(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let own = if self.rank() == 0 { bytes.len() as u64 } else { 0 };
        let lengths = self.gather_equal(&own.to_le_bytes())?;
        let length = lengths[..8].try_into().map_or(0, u64::from_le_bytes);
        bytes.resize(length as usize, 0);
        for part in bytes.chunks_mut(BROADCAST) {
            self.begin()?;
            let world = SimpleCommunicator::world();
            scope(|scope| self.finish(world.process_at_rank(0).immediate_broadcast_into(scope, part)));
        }
        Ok(bytes)
    }

    fn serve(&mut self) -> Result<()> {
        self.listen().map(drop)
    }

    fn fail(&mut self, why: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        // mpirun may kill this process before it can report an error, because another one has ended.
        eprintln!("{why}");
        self.others().for_each(|rank| self.tell(rank, FAILED, why.as_bytes()));
    }

    /// Waits until the other ranks end, too: MPI ends for all together.
    fn end(mut self: Box<Self>) {
        let (own, count) = (self.rank(), self.count);
        self.ended[own] = Some(count);
        self.others().for_each(|rank| self.tell(rank, ENDED, &count.to_le_bytes()));
        while self.ended.contains(&None) {
            if self.listen().is_err() {
                // Ending MPI would wait for the others.
                std::mem::forget(self);
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        drop(self.universe);
    }
}
