//! Training on the ranks of a job: shares of batches, and what the ranks tell each other besides gradients.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use serde_json::{Value as Json, json};

use super::state::State;
use super::{Dataset, Loader, Trainer};
use crate::data::Batches;
use crate::distributed::World;
use crate::graph::ValueId;
use crate::ops::all_reduce::AllReduce;
use crate::optim::{self, Gradient};
use crate::{DType, Error, Graph, Result, Session, Tensor, TensorType, Value};

/// The scalar with the part of the batch that is this rank's.
pub(super) const SHARE: &str = "rank.share";

/// The scalar with this rank's wish to end the training; see [`Wish`].
pub(super) const STOP: &str = "rank.stop";

/// Steps after which the variables of all ranks are compared, unless it is the end of an epoch.
pub(super) const COMPARE: u64 = 100;

/// A rank's wish to end the training, as a number: the sum over all ranks tells what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    GoOn,
    TimeBudget,
    Interrupted,
}

impl Wish {
    const INTERRUPTED: f64 = 65_536.0;

    pub fn vote(self) -> f64 {
        match self {
            Wish::GoOn => 0.0,
            Wish::TimeBudget => 1.0,
            Wish::Interrupted => Wish::INTERRUPTED,
        }
    }

    pub fn of(votes: f64) -> Wish {
        match votes {
            votes if votes >= Wish::INTERRUPTED => Wish::Interrupted,
            votes if votes > 0.0 => Wish::TimeBudget,
            _ => Wish::GoOn,
        }
    }
}

/// A rank's rows of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    /// Which of the batch's rows the rank computes: its own, or the first if it has none, because every rank takes every
    /// step.
    pub rows: Range<usize>,
    /// The number of its own rows.
    pub own: usize,
    /// The number of rows of the batch.
    pub total: usize,
}

impl Share {
    /// The share of a rank of a batch with `total` rows. The sizes of the shares differ by at most one.
    pub fn of(total: usize, rank: usize, ranks: usize) -> Share {
        let at = |rank: usize| total * rank / ranks.max(1);
        let own = at(rank)..at(rank + 1);
        let count = own.len();
        Share { rows: if own.is_empty() { 0..total.min(1) } else { own }, own: count, total }
    }

    /// Its part of the batch.
    pub fn part(&self) -> f64 {
        self.own as f64 / self.total.max(1) as f64
    }
}

impl Trainer {
    /// Trains as one of the ranks of a job; all ranks must call [`fit`](Trainer::fit) with the same settings and data.
    /// [`Trainer::batch`] is the number of rows of all ranks together.
    ///
    /// Each rank computes a share of every batch, the same rows as one rank would take. The loss is the mean over all
    /// rows, and gradients are summed, so that the weights are those of one rank, up to rounding. Statistics of batch
    /// norm are those of the share. Rank 0 writes the folder of the run and shows progress, and its variables are the
    /// initial ones of all. Every 100 steps and after each epoch, the variables of the ranks are compared, bit by bit.
    ///
    /// With [`Trainer::shadow`], one rank after the other checks a step. See the
    /// [guide](crate::distributed) for how to start a job.
    ///
    /// ```
    /// use wgrad::distributed::World;
    /// use wgrad::prelude::*;
    /// use wgrad::train::{Model, Trainer};
    /// fn weight(world: Option<World>) -> wgrad::Result<Tensor> {
    ///     let x = Tensor::new([7, 1], [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    ///     let model = Model::new([1], |nn, x| nn.linear("fc", x, 1));
    ///     let mut trainer = Trainer::new(&model, |p, y| p.mse_loss(y, Reduction::Mean)).batch(4).epochs(5).quiet();
    ///     trainer = world.iter().fold(trainer, |trainer, world| trainer.distributed(world));
    ///     let mut session = Session::new(Device::cpu());
    ///     trainer.fit(&mut session, &(x.clone(), x), None)?;
    ///     session.get("fc.weight")
    /// }
    /// let alone = weight(None)?.item()?;
    /// std::thread::scope(|scope| {
    ///     let ranks: Vec<_> = World::threads(3).into_iter().map(|w| scope.spawn(|| weight(Some(w)))).collect();
    ///     for rank in ranks {
    ///         assert!((rank.join().expect("a rank")?.item()? - alone).abs() < 1e-12);
    ///     }
    ///     Ok::<(), wgrad::Error>(())
    /// })?;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn distributed(mut self, world: &World) -> Trainer {
        self.world = Some(world.clone()).filter(|world| world.ranks() > 1);
        self
    }

    /// Sends gradients to other ranks as f16; see [`AllReduce::compressed`]. Off by default.
    pub fn compress_gradients(mut self, compress: bool) -> Trainer {
        self.compress = compress;
        self
    }

    /// The number of this rank, and how many there are.
    pub(super) fn place(&self) -> (usize, usize) {
        self.world.as_ref().map_or((0, 1), |world| (world.rank(), world.ranks()))
    }

    /// This rank's share of a batch with `total` rows.
    pub(super) fn share(&self, total: usize) -> Share {
        let (rank, ranks) = self.place();
        Share::of(total, rank, ranks)
    }

    /// Prepares this rank's share of each batch.
    pub(super) fn loader<'d>(&self, data: &'d dyn Dataset, batches: Batches) -> Loader<'d> {
        let (rank, ranks) = self.place();
        Loader::new(data, batches).workers(self.workers).share(rank, ranks)
    }

    /// Whether this rank writes files and shows progress.
    pub(super) fn is_first(&self) -> bool {
        self.world.as_ref().is_none_or(World::is_first)
    }

    /// Tells the other ranks about an error.
    pub(super) fn reporting<T>(&self, result: Result<T>) -> Result<T> {
        if let (Err(error), Some(world)) = (&result, &self.world) {
            world.fail(&error.to_string());
        }
        result
    }

    /// The gradients times the share of the batch.
    pub(super) fn weighted(&self, graph: &Graph, gradients: Vec<Gradient>) -> Vec<Gradient> {
        if self.world.is_none() {
            return gradients;
        }
        let share = graph.scalar(SHARE, 1.0);
        let weighted = |g: Gradient| Gradient { value: g.value.widen() * &share, ..g };
        gradients.into_iter().map(weighted).collect()
    }

    /// The sums of weighted gradients over the ranks.
    pub(super) fn reduced(&self, gradients: Vec<Gradient>) -> Vec<Gradient> {
        match &self.world {
            None => gradients,
            Some(_) if self.compress => optim::all_reduce(&gradients, AllReduce::SUM.compressed()),
            Some(_) => optim::all_reduce(&gradients, AllReduce::SUM),
        }
    }

    /// The loss of the whole batch, and the votes to end the training.
    pub(super) fn loss_of_all(&self, graph: &Graph, loss: &Value) -> Vec<Value> {
        if self.world.is_none() {
            return vec![loss.clone()];
        }
        let votes = graph.scalar(STOP, 0.0);
        let weighted = loss * graph.scalar(SHARE, 1.0);
        [weighted, votes].iter().map(|value| value.all_reduce(AllReduce::SUM)).collect()
    }

    /// Makes the changes that the model assigns to its variables, such as running statistics, the means of the ranks'
    /// changes: those of the first `count` assignments.
    pub(super) fn share_assignments(&self, graph: &Graph, count: usize) {
        if self.world.is_none() {
            return;
        }
        let assignments = graph.lock().assignments[..count].to_vec();
        let share = graph.scalar(SHARE, 1.0);
        for (number, assignment) in assignments.into_iter().enumerate() {
            let old = graph.value_of(ValueId { node: assignment.variable, output: 0 });
            if old.dtype() != DType::F32 {
                continue;
            }
            graph.at(assignment.location, || {
                let change = (graph.value_of(assignment.value) - &old) * &share;
                // A rank without rows may have anything.
                let counts = share.gt(&share.zeros_like());
                let change = counts.where_(&change, &change.zeros_like());
                let new = &old + change.all_reduce(AllReduce::SUM);
                graph.lock().assignments[number].value = new.id();
            });
        }
    }
}

/// Gives all ranks the state, variables and counters of rank 0.
pub(super) fn synchronise(world: &World, session: &mut Session, state: &mut State) -> Result<()> {
    let header = json!({"state": state.to_json(), "counters": session.counters(), "variables": types(session)});
    let header = world.broadcast(header.to_string().into_bytes())?;
    let header: Json = serde_json::from_slice(&header).map_err(|error| internal(&error.to_string()))?;
    let of_first: BTreeMap<String, String> =
        serde_json::from_value(header["variables"].clone()).map_err(|error| internal(&error.to_string()))?;
    let own = types(session);
    let differs = |(name, ty): &(&String, &String)| own.get(*name) != Some(*ty);
    if let Some((name, ty)) = of_first.iter().find(differs) {
        let own = own.get(name).map_or("missing", String::as_str);
        let (rank, first) = (world.name_of(world.rank()), world.name_of(0));
        return Err(Error::Distributed(format!(
            "variable `{name}` is {ty} on {first} and {own} on {rank}; all ranks must train the same model"
        )));
    }
    *state = State::from_json(&header["state"]).ok_or_else(|| internal("the state of the training"))?;
    for (counter, count) in header["counters"].as_object().into_iter().flatten() {
        session.set_counter(counter, count.as_u64().unwrap_or_default());
    }
    broadcast_variables(world, session, of_first.keys())
}

/// Gives all ranks the variables of rank 0.
pub(super) fn broadcast_variables<'a>(
    world: &World,
    session: &mut Session,
    names: impl Iterator<Item = &'a String>,
) -> Result<()> {
    for name in names {
        let value = session.get(name)?;
        let bytes = world.broadcast(bytemuck::cast_slice(&value.device_words()).to_vec())?;
        // Also on rank 0: the reference has variables in f64.
        session.set(name, &tensor(value.ty(), &bytes)?)?;
    }
    Ok(())
}

/// The names and types of all variables.
fn types(session: &Session) -> BTreeMap<String, String> {
    let ty = |name: &String| session.variable_type(name).map_or_else(String::new, ToString::to_string);
    session.names().into_iter().map(|name| (name.clone(), ty(&name))).collect()
}

fn internal(what: &str) -> Error {
    Error::Distributed(format!("internal: the ranks do not understand each other: {what}"))
}

/// A tensor from the words of its type.
fn tensor(ty: TensorType, bytes: &[u8]) -> Result<Tensor> {
    let words: Vec<u32> =
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    if words.len() != ty.words() {
        return Err(internal(&format!("{} words for {ty}", words.len())));
    }
    Ok(Tensor::from_device_words(&ty, &words))
}

/// An error if the variables of the ranks are not the same, bit for bit.
pub(super) fn compare(world: &World, session: &Session) -> Result<()> {
    let values = session.get_all(session.names())?;
    let hash = |value: &Tensor| {
        let mut hasher = DefaultHasher::new();
        (value.dtype().to_string(), &value.device_words()[..]).hash(&mut hasher);
        if let crate::Data::F64(exact) = value.data() {
            exact.iter().for_each(|x| x.to_bits().hash(&mut hasher));
        }
        hasher.finish()
    };
    let own: Vec<u8> = values.values().flat_map(|value| hash(value).to_le_bytes()).collect();
    let all = world.gather(own)?;
    for (number, name) in values.keys().enumerate() {
        let of = |rank: usize| all[rank].chunks_exact(8).nth(number);
        let count = |rank: usize| (0..all.len()).filter(|&other| of(other) == of(rank)).count();
        let usual = (0..all.len()).max_by_key(|&rank| (count(rank), all.len() - rank)).unwrap_or(0);
        if let Some(other) = (0..all.len()).find(|&rank| of(rank) != of(usual)) {
            let [other, usual] = [other, usual].map(|rank| world.name_of(rank));
            return Err(Error::Training(format!(
                "variable `{name}` of {other} has other bits than that of {usual}: a device or a transfer is faulty; \
                 run `wgrad check` on both"
            )));
        }
    }
    Ok(())
}

/// What a rank has computed of a batch of an evaluation.
pub(super) struct Outputs {
    pub loss: f64,
    pub rows: usize,
    /// Prediction and target.
    pub tensors: Option<(Tensor, Tensor)>,
}

/// What the ranks that have rows of a batch with `total` rows have computed.
pub(super) fn gather_outputs(
    world: &World,
    total: usize,
    own: (f64, Option<(&Tensor, &Tensor)>),
) -> Result<Vec<Outputs>> {
    let (loss, tensors) = own;
    let mut bytes = loss.to_le_bytes().to_vec();
    for tensor in tensors.into_iter().flat_map(|(prediction, target)| [prediction, target]) {
        bytes.extend_from_slice(bytemuck::cast_slice(&tensor.device_words()));
    }
    let share = |rank: usize| Share::of(total, rank, world.ranks());
    let computed = share(world.rank()).rows.len();
    let mut found = Vec::new();
    for (rank, bytes) in world.gather(bytes)?.into_iter().enumerate() {
        let Share { own, .. } = share(rank);
        if own == 0 {
            continue;
        }
        let (loss, mut rest) = bytes.split_at_checked(8).ok_or_else(|| internal("a loss"))?;
        let loss = loss.try_into().map_or(f64::NAN, f64::from_le_bytes);
        let mut next = |like: &Tensor| {
            let ty = resized(&like.ty(), computed, own)?;
            let (bytes, others) = rest.split_at_checked(ty.words() * 4).ok_or_else(|| internal("a tensor"))?;
            rest = others;
            tensor(ty, bytes)
        };
        let tensors = match tensors {
            Some((prediction, target)) => Some((next(prediction)?, next(target)?)),
            None => None,
        };
        found.push(Outputs { loss, rows: own, tensors });
    }
    Ok(found)
}

/// The type of a tensor of `rows` rows, if `like` has `computed`.
fn resized(like: &TensorType, computed: usize, rows: usize) -> Result<TensorType> {
    let mut sizes = like.shape.to_vec();
    match sizes.first_mut() {
        Some(first) if first.is_multiple_of(computed) => *first = *first / computed * rows,
        _ => {
            return Err(Error::Input(format!(
                "metrics of several ranks need predictions and targets whose first axis is that of the rows, but \
                 {like} belongs to {computed} rows"
            )));
        }
    }
    Ok(TensorType::new(like.dtype, sizes))
}
