//! Steps that have been started.

use crate::{Result, Tensor, gpu};

/// A started step; see [`Session::start`](crate::Session::start).
///
/// ```
/// use wgrad::{DType, Device, Graph, Session, Tensor};
/// let graph = Graph::new();
/// let y = graph.input("x", DType::F32, []).square();
/// let mut session = Session::new(Device::cpu());
/// let program = session.compile(&graph, &[&y])?;
/// let first = session.start(&program, &[("x", &Tensor::scalar(3.0))])?;
/// let second = session.start(&program, &[("x", &Tensor::scalar(4.0))])?; // before the first is read
/// assert_eq!((first.outputs()?[0].item()?, second.outputs()?[0].item()?), (9.0, 16.0));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[must_use = "the step runs, but its outputs are lost"]
pub struct Pending(PendingState);

enum PendingState {
    /// Already computed, by the reference.
    Done(Vec<Tensor>),
    Reading(gpu::Reading),
}

impl Pending {
    /// Of a step that has run already.
    pub(crate) fn done(outputs: Vec<Tensor>) -> Pending {
        Pending(PendingState::Done(outputs))
    }

    /// Of a step that runs on the device.
    pub(crate) fn reading(reading: gpu::Reading) -> Pending {
        Pending(PendingState::Reading(reading))
    }

    /// Waits for the step's outputs, in the order in which they were compiled.
    ///
    /// # Errors
    /// Device errors; an index computed on the device that is out of range.
    pub fn outputs(self) -> Result<Vec<Tensor>> {
        gpu::block_on(self.outputs_async())
    }

    /// [`Pending::outputs`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Pending::outputs`].
    pub async fn outputs_async(self) -> Result<Vec<Tensor>> {
        match self.0 {
            PendingState::Done(outputs) => Ok(outputs),
            PendingState::Reading(reading) => reading.outputs().await,
        }
    }
}
