//! Event files for TensorBoard.
//!
//! A file is a sequence of records (`tensorflow/core/lib/io/record_writer.h`):
//!
//! ```text
//! u64 length, u32 masked CRC of the length, bytes, u32 masked CRC of the bytes
//! ```
//!
//! in little-endian order, with CRC-32C (Castagnoli), masked as `((crc >> 15) | (crc << 17)) + 0xa282ead8` (32 bits).
//! Each record is a protocol buffer `Event` (`tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto`). The fields that are used, with their numbers:
//!
//! ```text
//! Event          { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//!                  SessionLog session_log = 7; }
//! Summary        { repeated Value value = 1; }
//! Value          { string tag = 1; float simple_value = 2; HistogramProto histo = 5; }
//! HistogramProto { double min = 1; double max = 2; double num = 3; double sum = 4; double sum_squares = 5;
//!                  repeated double bucket_limit = 6 [packed]; repeated double bucket = 7 [packed]; }
//! SessionLog     { SessionStatus status = 1; }  // START = 1
//! ```
//!
//! A resumed run writes a new file, which begins with a `SessionLog` START: TensorBoard then forgets events of earlier
//! files from that step on.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::Trainer;
use crate::time::{Duration, SystemTime, UNIX_EPOCH};
use crate::{Error, Result};

/// How long events may wait before they are handed to the system.
const FLUSH: Duration = Duration::from_secs(5);

impl Trainer {
    /// Also writes events for TensorBoard, `events.out.tfevents.*` in the run's [folder](Trainer::folder), which is
    /// required: losses, learning rate, validation metrics, throughput, and if the training is
    /// [watched](Trainer::watch), norms and histograms by parameter. `tensorboard --logdir runs` shows them; names are
    /// `loss/train`, `loss/validation`, `validation/METRIC`, `norms/gradient/PARAMETER` and so on.
    ///
    /// Off by default, because the same numbers are in `metrics.jsonl` and `report.html`.
    pub fn tensorboard(mut self) -> Trainer {
        self.tensorboard = true;
        self
    }
}

/// An event file.
pub(super) struct Events {
    path: PathBuf,
    file: BufWriter<File>,
    flushed: SystemTime,
}

impl Events {
    /// Creates a new file. If the run is resumed after some steps, events of later steps in earlier files are void.
    pub fn open(folder: &Path, steps: u64) -> Result<Events> {
        // Readers take files in the order of their names. A run that is resumed within a second gets the next one.
        let mut seconds = now().max(0.0) as u64;
        let (path, file) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.wgrad"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => seconds += 1,
                Err(error) => return Err(Error::io(&path)(error)),
            }
        };
        let mut events = Events { path, file: BufWriter::new(file), flushed: SystemTime::now() };
        events.record(&Message::default().double(1, now()).bytes(3, b"brain.Event:2"))?;
        if steps > 0 {
            let start = Message::default().integer(1, 1);
            events.record(&Message::default().double(1, now()).integer(2, steps + 1).bytes(7, &start.0))?;
        }
        Ok(events)
    }

    /// Writes a line of the log as an event.
    pub fn write(&mut self, line: &Json) -> Result<()> {
        let values = values(line);
        if values.0.is_empty() {
            return Ok(());
        }
        let step = line["step"].as_u64().unwrap_or(0);
        self.record(&Message::default().double(1, now()).integer(2, step).bytes(5, &values.0))?;
        if self.flushed.elapsed().is_ok_and(|since| since < FLUSH) { Ok(()) } else { self.flush() }
    }

    fn record(&mut self, event: &Message) -> Result<()> {
        self.file.write_all(&framed(&event.0)).map_err(Error::io(&self.path))
    }

    pub fn flush(&mut self) -> Result<()> {
        self.flushed = SystemTime::now();
        self.file.flush().map_err(Error::io(&self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The `Summary` of a line of the log.
fn values(line: &Json) -> Message {
    let mut summary = Message::default();
    let mut scalar = |tag: &str, value: &Json| {
        // Numbers that are not finite are null in the log.
        if !value.is_null() || tag == "loss/train" {
            let value = value.as_f64().unwrap_or(f64::NAN) as f32;
            summary =
                std::mem::take(&mut summary).bytes(1, &Message::default().bytes(1, tag.as_bytes()).float(2, value).0);
        }
    };
    match line["kind"].as_str() {
        Some("step") => {
            scalar("loss/train", &line["loss"]);
            scalar("lr", &line["lr"]);
        }
        Some("epoch") => {
            scalar("loss/epoch", &line["loss"]);
            scalar("speed/rows per second", &line["rows_per_second"]);
            scalar("speed/share of waiting", &line["waiting"]);
            for (name, value) in line["validation"].as_object().into_iter().flatten().filter(|(_, v)| !v.is_array()) {
                let tag = if name == "loss" { "loss/validation".to_owned() } else { format!("validation/{name}") };
                scalar(&tag, value);
            }
        }
        Some("norms") => {
            for kind in ["gradient", "weight", "update"] {
                for (name, norm) in line[kind].as_object().into_iter().flatten() {
                    scalar(&format!("norms/{kind}/{name}"), norm);
                }
            }
        }
        Some("weights") => {
            for (name, histogram) in line["parameters"].as_object().into_iter().flatten() {
                let value = Message::default().bytes(1, format!("weights/{name}").as_bytes());
                summary = std::mem::take(&mut summary).bytes(1, &value.bytes(5, &histogram_proto(histogram).0).0);
            }
        }
        _ => {}
    }
    summary
}

/// A histogram with equal bins; a bucket holds the numbers up to its limit.
fn histogram_proto(histogram: &Json) -> Message {
    let number = |name: &str| histogram[name].as_f64().unwrap_or(0.0);
    let (min, max, count, mean, deviation) =
        (number("min"), number("max"), number("count"), number("mean"), number("std"));
    let bins: Vec<f64> = histogram["bins"].as_array().into_iter().flatten().filter_map(Json::as_f64).collect();
    let limits: Vec<f64> = (1..=bins.len()).map(|n| min + (max - min) * n as f64 / bins.len() as f64).collect();
    let squares = count * (deviation * deviation + mean * mean);
    let moments = Message::default().double(1, min).double(2, max).double(3, count).double(4, count * mean);
    moments.double(5, squares).doubles(6, &limits).doubles(7, &bins)
}

/// A protocol buffer: each field is a key, `number << 3 | wire type`, and a value. Wire types: 0 varint, 1 eight bytes,
/// 2 a length and bytes, 5 four bytes.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Message {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Message {
        self.0.extend(bytes);
        self
    }

    fn integer(self, field: u64, value: u64) -> Message {
        self.varint(field << 3).varint(value)
    }

    fn double(self, field: u64, value: f64) -> Message {
        self.varint(field << 3 | 1).raw(&value.to_le_bytes())
    }

    fn float(self, field: u64, value: f32) -> Message {
        self.varint(field << 3 | 5).raw(&value.to_le_bytes())
    }

    fn bytes(self, field: u64, value: &[u8]) -> Message {
        self.varint(field << 3 | 2).varint(value.len() as u64).raw(value)
    }

    fn doubles(self, field: u64, values: &[f64]) -> Message {
        self.bytes(field, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }
}

/// A record with its length and checksums.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(crc32c(bytes)).to_le_bytes());
    record
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C: the polynomial 0x1edc6f41, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}
