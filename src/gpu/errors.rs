//! Errors of wgpu calls: known at once natively, and later in a browser.

use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Error, Result};

/// The first error of some calls, when it is known.
pub(super) struct Errors {
    /// Those not known yet, the first to wait for last. Natively there are none, and nothing is allocated.
    scopes: Vec<Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>>,
    first: Option<wgpu::Error>,
}

impl Errors {
    /// Makes the calls inside error scopes.
    pub fn of<T>(device: &wgpu::Device, calls: impl FnOnce() -> T) -> (T, Errors) {
        let filters = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| device.push_error_scope(filter));
        let result = calls();
        let mut errors = Errors { scopes: Vec::new(), first: None };
        // Out-of-memory comes first: later errors only follow from the failed allocation.
        for scope in scopes.into_iter().rev() {
            if cfg!(target_family = "wasm") {
                errors.scopes.insert(0, Box::pin(scope.pop()));
                continue;
            }
            let known = pin!(scope.pop()).poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(error) = known {
                errors.first = errors.first.or(error);
            }
        }
        (result, errors)
    }

    /// Whether all errors are known.
    fn is_known(&mut self) -> bool {
        self.advance(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The outcome of the calls, or else what is not known yet.
    pub fn known(mut self) -> std::result::Result<Result<()>, Errors> {
        if self.is_known() { Ok(self.outcome()) } else { Err(self) }
    }

    fn outcome(&mut self) -> Result<()> {
        match self.first.take() {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                Err(Error::OutOfMemory("an allocation failed; use a smaller batch".into()))
            }
            Some(other) => Err(Error::Gpu(other.to_string())),
        }
    }

    fn advance(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(scope) = self.scopes.last_mut() {
            let Poll::Ready(error) = scope.as_mut().poll(context) else { return Poll::Pending };
            self.scopes.pop();
            self.first = self.first.take().or(error);
        }
        Poll::Ready(())
    }
}

impl Future for Errors {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.advance(context).map(|()| self.outcome())
    }
}

/// The errors of earlier calls that are not known yet.
#[derive(Default)]
pub(super) struct Unsettled(Mutex<Vec<Errors>>);

impl Unsettled {
    /// Adds errors that are not known yet.
    pub fn push(&self, errors: Errors) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(errors);
        // Those of calls that have succeeded are dropped from time to time.
        if all.len().is_power_of_two() {
            all.retain_mut(|errors| !errors.is_known() || errors.first.is_some());
        }
    }

    /// Waits for all errors, and returns the first.
    pub async fn settled(&self) -> Result<()> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for errors in all {
            result = result.and(errors.await);
        }
        result
    }
}

/// Waits for a future of this crate.
///
/// # Errors
/// The future's; [`Error::Device`] if the result would arrive later, in a browser, where nothing can wait.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    #[cfg(not(target_family = "wasm"))]
    return pollster::block_on(future);
    #[cfg(target_family = "wasm")]
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::Device("a browser cannot wait for its GPU; use the async form of the call".into())),
    }
}
