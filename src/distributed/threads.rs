//! Ranks that are threads of one process.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Failure, Place, TICK, Transport, compress};
use crate::time::{Duration, Instant};
use crate::{Error, Result};

/// The messages of an exchange: a slot for each rank.
type Slots = Vec<Option<Arc<dyn Any + Send + Sync>>>;

#[derive(Default)]
struct Board {
    /// The exchanges that some rank has not read yet, by number, and how many have.
    exchanges: BTreeMap<u64, (Slots, usize)>,
    /// The ranks that have ended.
    ended: Vec<bool>,
    failure: Option<String>,
}

#[derive(Default)]
struct Meeting {
    board: Mutex<Board>,
    changed: Condvar,
}

/// A rank.
pub(super) struct Threads {
    meeting: Arc<Meeting>,
    rank: usize,
    ranks: usize,
    timeout: Duration,
    failure: Failure,
    /// Exchanges so far.
    count: u64,
}

impl Threads {
    /// All ranks of a new world; each is created when its thread has a place for failures.
    pub fn all(ranks: usize, timeout: Duration) -> Vec<impl FnOnce(&Failure) -> (Place, Threads) + Send> {
        let board = Board { ended: vec![false; ranks], ..Board::default() };
        let meeting = Arc::new(Meeting { board: Mutex::new(board), changed: Condvar::new() });
        let rank = |rank| {
            let meeting = meeting.clone();
            move |failure: &Failure| {
                let place = Place { rank, on_node: rank, nodes: vec![String::new(); ranks] };
                (place, Threads { meeting, rank, ranks, timeout, failure: failure.clone(), count: 0 })
            }
        };
        (0..ranks).map(rank).collect()
    }

    /// What each rank has brought to this exchange.
    fn exchange<T: Any + Send + Sync>(&mut self, own: T) -> Result<Vec<Arc<T>>> {
        self.count += 1;
        let (number, ranks) = (self.count, self.ranks);
        let until = Instant::now() + self.timeout;
        let mut board = self.meeting.board.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = &mut board.exchanges.entry(number).or_insert_with(|| (vec![None; ranks], 0)).0;
        slots[self.rank] = Some(Arc::new(own));
        self.meeting.changed.notify_all();
        loop {
            if let Some(why) = self.failure.get() {
                board.failure.get_or_insert_with(|| why.clone());
                self.meeting.changed.notify_all();
            }
            if let Some(why) = &board.failure {
                return Err(Error::Distributed(why.clone()));
            }
            let missing = |board: &Board| -> Vec<usize> {
                let slots = board.exchanges.get(&number).map_or(&[][..], |(slots, _)| slots);
                (0..ranks).filter(|&rank| slots.get(rank).is_none_or(Option::is_none)).collect()
            };
            let missing = missing(&board);
            if missing.is_empty() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            let gone = missing.iter().find(|&&rank| board.ended[rank]);
            let why = match gone {
                Some(rank) => format!("rank {rank} has ended, but rank {} waits for it", self.rank),
                None if left.is_zero() => {
                    let names: Vec<String> = missing.iter().map(|rank| format!("rank {rank}")).collect();
                    let seconds = self.timeout.as_secs_f64();
                    format!("{} did not take part in exchange {number} within {seconds} s", names.join(", "))
                }
                None => {
                    let waited = self.meeting.changed.wait_timeout(board, left.min(TICK));
                    board = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            };
            board.failure.get_or_insert(why.clone());
            self.meeting.changed.notify_all();
            return Err(Error::Distributed(why));
        }
        let (slots, read) = board.exchanges.get_mut(&number).map_or((&[][..], None), |(s, read)| (&s[..], Some(read)));
        let all: Option<Vec<Arc<T>>> =
            slots.iter().map(|slot| slot.clone().and_then(|slot| slot.downcast::<T>().ok())).collect();
        let last = read.is_some_and(|read| {
            *read += 1;
            *read == ranks
        });
        if last {
            board.exchanges.remove(&number);
        }
        drop(board);
        all.ok_or_else(|| self.broken(number, "the ranks exchange different types"))
    }

    fn broken(&self, number: u64, what: &str) -> Error {
        Error::Distributed(format!("exchange {number}: {what}; all ranks must run the same program"))
    }

    fn sum<T>(&mut self, values: Vec<T>) -> Result<Vec<T>>
    where
        T: Copy + Default + std::ops::AddAssign + Send + Sync + 'static,
    {
        let all = self.exchange(values)?;
        let mut sum = vec![T::default(); all[0].len()];
        for (rank, values) in all.iter().enumerate() {
            if values.len() != sum.len() {
                let what = format!("rank 0 adds {} values and rank {rank} {}", sum.len(), values.len());
                return Err(self.broken(self.count, &what));
            }
            sum.iter_mut().zip(values.iter()).for_each(|(sum, &x)| *sum += x);
        }
        Ok(sum)
    }
}

impl Transport for Threads {
    fn sum_f32(&mut self, values: Vec<f32>) -> Result<Vec<f32>> {
        self.sum(values)
    }

    fn sum_f64(&mut self, values: Vec<f64>) -> Result<Vec<f64>> {
        self.sum(values)
    }

    fn sum_compressed(&mut self, mut values: Vec<f32>) -> Result<Vec<f32>> {
        let part = compress::part(values.len(), self.ranks);
        let words = compress::message_words(part);
        let (mut messages, mut own) = (Vec::new(), Vec::new());
        compress::messages(&values, self.ranks, &mut messages);
        let received = self.exchange(messages)?;
        if received.iter().any(|messages| messages.len() != words * self.ranks) {
            return Err(self.broken(self.count, "the ranks add different numbers of values"));
        }
        let to_this = received.iter().map(|messages| &messages[self.rank * words..(self.rank + 1) * words]);
        compress::sum(to_this, part, &mut Vec::new(), &mut own)?;
        compress::restore(self.exchange(own)?.iter().map(|message| &message[..]), &mut values)?;
        Ok(values)
    }

    fn gather(&mut self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(self.exchange(bytes)?.iter().map(|bytes| bytes.to_vec()).collect())
    }

    fn broadcast(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let own = if self.rank == 0 { bytes } else { Vec::new() };
        Ok(self.exchange(own)?[0].to_vec())
    }

    fn serve(&mut self) -> Result<()> {
        let board = self.meeting.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.failure.clone().map_or(Ok(()), |why| Err(Error::Distributed(why)))
    }

    fn fail(&mut self, why: &str) {
        let mut board = self.meeting.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.failure.get_or_insert_with(|| why.to_owned());
        self.meeting.changed.notify_all();
    }

    fn end(self: Box<Self>) {
        let mut board = self.meeting.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.ended[self.rank] = true;
        self.meeting.changed.notify_all();
    }
}
