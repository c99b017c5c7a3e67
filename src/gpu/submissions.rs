//! Submissions to the device, and waiting for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::{Duration, Instant};
use crate::{Error, Result};

/// How long to poll a kind of device before blocking: a thread that sleeps longer wakes up later. On a machine with an
/// H100, the host's clock showed 60 us more than the device's for a short launch, 200 us for one of 4 ms, and 310 us for
/// one of 30 ms.
fn polling(kind: &str) -> Duration {
    Duration::from_millis(match kind {
        "software" => 0, // it computes on the same cores
        "discrete GPU" => 10,
        _ => 1, // a busy core takes power from an integrated GPU
    })
}

/// Submits work, and knows whether the device has finished it.
pub(super) struct Submissions {
    device: wgpu::Device,
    queue: wgpu::Queue,
    polling: Duration,
    submitted: AtomicU64,
    /// How many are known to have finished.
    finished: Arc<AtomicU64>,
}

/// Submitted work.
#[derive(Clone)]
pub(super) struct Submission {
    index: wgpu::SubmissionIndex,
    number: u64,
}

impl Submissions {
    /// For a device of this kind; see [`Profile::kind`](crate::Profile::kind).
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue, kind: &str) -> Submissions {
        Submissions {
            device: device.clone(),
            queue: queue.clone(),
            polling: polling(kind),
            submitted: AtomicU64::new(0),
            finished: Arc::default(),
        }
    }

    /// Submits what an encoder has recorded.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Submission {
        let index = self.queue.submit([encoder.finish()]);
        let number = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        if !cfg!(target_family = "wasm") {
            let finished = self.finished.clone();
            self.queue.on_submitted_work_done(move || {
                finished.fetch_max(number, Ordering::Relaxed);
            });
        }
        Submission { index, number }
    }

    /// Whether the device is known to have finished everything. In a browser, this is never known.
    pub fn is_idle(&self) -> bool {
        !cfg!(target_family = "wasm") && self.has_finished(self.submitted.load(Ordering::Relaxed))
    }

    fn has_finished(&self, number: u64) -> bool {
        self.finished.load(Ordering::Relaxed) >= number
    }

    /// Waits until the device has finished a submission, or all of them, and has called back. In a browser, which calls
    /// back by itself, this does nothing.
    pub fn finish(&self, submission: Option<&Submission>) -> Result<()> {
        if cfg!(target_family = "wasm") {
            return Ok(());
        }
        let number = submission.map_or_else(|| self.submitted.load(Ordering::Relaxed), |s| s.number);
        let poll = |how| match self.device.poll(how) {
            Ok(_) => Ok(self.has_finished(number)),
            Err(error) => Err(Error::Gpu(format!("waiting for the device failed: {error}"))),
        };
        // Not a wait with a timeout: it panics in wgpu 30.0 if another thread polls between its two looks at the fence.
        let began = Instant::now();
        while !poll(wgpu::PollType::Poll)? {
            if began.elapsed() >= self.polling {
                let submission_index = submission.map(|submission| submission.index.clone());
                poll(wgpu::PollType::Wait { submission_index, timeout: None })?;
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}
