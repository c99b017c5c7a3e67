//! wgrad in a browser: what the pages in `web` call. `scripts/web` builds it.
//!
//! A page's worker (`web/worker.js`) opens a [`Gpu`] and passes it to a [`Doctor`], a [`Lesson`] or a [`Bench`]. What
//! waits for the GPU returns a promise. Structured results are plain JavaScript objects; errors are strings.
//!
//! Natively there is only [`network`], so that programs can load the weights of the lesson.

pub mod network;

#[cfg(target_family = "wasm")]
mod bench;
#[cfg(target_family = "wasm")]
mod doctor;
#[cfg(target_family = "wasm")]
mod lesson;
#[cfg(target_family = "wasm")]
mod page;

#[cfg(target_family = "wasm")]
pub use {bench::Bench, doctor::Doctor, lesson::Lesson, page::Gpu};
