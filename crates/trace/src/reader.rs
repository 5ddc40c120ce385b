//! What every format reader is to the rest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;
use crate::event::{Body, Event};
use crate::info::{Compression, Damage, TraceInfo};
use crate::raw::RawBatch;
use crate::records::Formats;
use crate::store::Whos;
use crate::strings::Strings;

/// How far reading has come; shared with whoever shows it, and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read (of the files as stored).
    pub done: AtomicU64,
    /// Bytes in all files; 0 where not known.
    pub total: AtomicU64,
    /// Events so far.
    pub events: AtomicU64,
    /// Set to stop.
    pub cancelled: AtomicBool,
}

impl Progress {
    /// Asks the reader to stop; it returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Share done, 0 to 1, where the total is known.
    pub fn fraction(&self) -> Option<f32> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.done.load(Ordering::Relaxed) as f32 / total as f32).min(1.0))
    }
}

/// How to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Threads to use; 0: as many as there are processors.
    pub threads: usize,
    /// Where to report to, and who may cancel.
    pub progress: Option<Arc<Progress>>,
    /// A folder of tracefs' `format` files (a copy of `events`), for files whose own are missing. Numbers of tracepoints differ between
    /// kernels: the folder must be of the kernel that recorded.
    pub formats: Option<PathBuf>,
}

impl ReadOptions {
    pub(crate) fn threads(&self) -> usize {
        if self.threads > 0 {
            self.threads
        } else {
            std::thread::available_parallelism().map_or(1, usize::from)
        }
    }
}

/// What readers share while they read.
#[derive(Default)]
pub(crate) struct Cx {
    pub(crate) strings: Strings,
    /// CPUs and tasks of undecoded records.
    pub(crate) whos: Whos,
    /// What was noticed when files were opened.
    pub(crate) notes: Vec<String>,
    pub(crate) damage: Vec<Damage>,
    /// Damage not listed one by one any more.
    pub(crate) more_damage: u64,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) threads: usize,
    /// Formats for files without.
    pub(crate) formats: Option<Arc<Formats>>,
    /// Bytes of records that may wait for older ones of other CPUs.
    pub(crate) most_waiting: usize,
}

/// Most places of damage that are listed.
const MAX_DAMAGE: usize = 1000;

impl Cx {
    pub(crate) fn new(opts: &ReadOptions) -> Self {
        Self {
            progress: opts.progress.clone(),
            threads: opts.threads(),
            most_waiting: 1 << 30,
            ..Self::default()
        }
    }

    /// Formats from the user's folder, in place of those that a file lacks.
    pub(crate) fn given_formats(&mut self, path: &Path, have: &mut Arc<Formats>) {
        if let Some(given) = self.formats.as_ref().filter(|_| have.is_empty()) {
            *have = Arc::clone(given);
            self.notes.push(format!(
                "{}: the formats of the events are missing; those of the given folder are assumed to be of the same kernel",
                path.display()
            ));
        }
    }

    /// Notes damage; gives the event for it unless there were too many.
    pub(crate) fn damaged(&mut self, d: Damage) -> Option<Body> {
        if self.damage.len() >= MAX_DAMAGE {
            self.more_damage += 1;
            return None;
        }
        self.damage.push(d);
        Some(Body::Damage { index: self.damage.len() as u32 - 1 })
    }

    /// Reports bytes and looks whether to stop.
    pub(crate) fn advance(&self, bytes: u64) -> Result<(), Error> {
        if let Some(p) = &self.progress {
            p.done.fetch_add(bytes, Ordering::Relaxed);
            if p.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }
}

/// A source of events in time order.
pub(crate) trait Reader: Send {
    /// Appends some events; `false` when there will be no more (for now, if the input grows).
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error>;

    /// Adds what it learned besides events. Called after the last event, and by a follower now and then.
    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx);

    /// The reader as one that gives records undecoded, if it is one; its [`read`](Self::read) and this may not be mixed.
    fn raw(&mut self) -> Option<&mut dyn RawReader> {
        None
    }

    /// Compression inside each file: appends one for each.
    fn inside(&self, out: &mut Vec<Compression>) {
        out.push(Compression::None);
    }

    /// A growing input has ended after all.
    fn end(&mut self) {}

    /// What is known of the host before the first event.
    fn describe_early(&mut self, _info: &mut TraceInfo) {}
}

/// A source of records in time order, to be decoded by whoever wants them.
pub(crate) trait RawReader: Reader {
    /// Appends some records; `false` when there will be no more (for now, if the input grows).
    fn read_raw(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error>;

    /// Room that is used again for each batch of [`read_decoded`].
    fn batch(&mut self) -> &mut RawBatch;
}

/// [`Reader::read`] of a reader of records.
pub(crate) fn read_decoded<R: RawReader>(
    reader: &mut R,
    out: &mut Vec<Event>,
    cx: &mut Cx,
) -> Result<bool, Error> {
    let mut batch = std::mem::take(reader.batch());
    batch.clear();
    let more = reader.read_raw(&mut batch, cx);
    batch.events(&cx.whos, out);
    *reader.batch() = batch;
    more
}

/// Damage at a place.
pub(crate) fn damage(
    path: &Path,
    offset: u64,
    expected: &str,
    message: impl Into<String>,
    resumed: bool,
) -> Damage {
    Damage {
        file: PathBuf::from(path),
        offset,
        expected: expected.to_owned(),
        message: message.into(),
        resumed,
    }
}

/// Events a batch has, about.
pub(crate) const BATCH: usize = 8192;
