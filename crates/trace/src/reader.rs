//! The interface of all format readers: [`Reader`] gives events, [`RawReader`] gives records that are not decoded yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mmuscope_snapshot::Piece;

use crate::error::Error;
use crate::event::{Body, Event};
use crate::info::{Compression, Damage, TraceInfo};
use crate::raw::RawBatch;
use crate::records::Formats;
use crate::store::Whos;
use crate::strings::Strings;

/// The progress of reading. It is shared with whoever shows it, and it is also the way to stop reading.
#[derive(Debug, Default)]
pub struct Progress {
    /// The number of bytes read (of the files as stored).
    pub done: AtomicU64,
    /// The number of bytes in all files; 0 where not known.
    pub total: AtomicU64,
    /// The number of events so far.
    pub events: AtomicU64,
    /// Set to true to stop reading.
    pub cancelled: AtomicBool,
}

impl Progress {
    /// Asks the reader to stop; it returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The share that is done, 0 to 1, where the total is known.
    pub fn fraction(&self) -> Option<f32> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.done.load(Ordering::Relaxed) as f32 / total as f32).min(1.0))
    }
}

/// Options for reading.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The number of threads to use; 0 means as many as there are processors.
    pub threads: usize,
    /// Where progress is reported, and from where reading can be cancelled.
    pub progress: Option<Arc<Progress>>,
    /// A folder of tracefs' `format` files (a copy of `events`), for files that have none. The numbers of tracepoints differ between kernels,
    /// so the folder must come from the kernel that recorded.
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
    /// The CPUs and tasks of records that are not decoded yet.
    pub(crate) whos: Whos,
    /// Remarks from opening the files.
    pub(crate) notes: Vec<String>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) snapshots: Vec<Arc<Piece>>,
    /// The number of damaged places that were too many to be listed.
    pub(crate) more_damage: u64,
    pub(crate) progress: Option<Arc<Progress>>,
    pub(crate) threads: usize,
    /// Formats for files that have none.
    pub(crate) formats: Option<Arc<Formats>>,
    /// The most bytes of records that may wait for earlier ones of other CPUs.
    pub(crate) most_waiting: usize,
}

/// The most damaged places that are listed.
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

    /// Uses the formats in the user's folder in place of those that a file lacks.
    pub(crate) fn given_formats(&mut self, path: &Path, have: &mut Arc<Formats>) {
        if let Some(given) = self.formats.as_ref().filter(|_| have.is_empty()) {
            *have = Arc::clone(given);
            self.notes.push(format!(
                "{}: the formats of the events are missing; those of the given folder are assumed to be of the same kernel",
                path.display()
            ));
        }
    }

    /// Notes damage. The result is the event for it, unless there were too many.
    pub(crate) fn damaged(&mut self, d: Damage) -> Option<Body> {
        if self.damage.len() >= MAX_DAMAGE {
            self.more_damage += 1;
            return None;
        }
        self.damage.push(d);
        Some(Body::Damage { index: self.damage.len() as u32 - 1 })
    }

    /// Stores a part of a snapshot. The result is the event for it.
    pub(crate) fn snapshot(&mut self, piece: Piece) -> Body {
        self.snapshots.push(Arc::new(piece));
        Body::Snapshot { index: self.snapshots.len() as u32 - 1 }
    }

    /// Reports progress in bytes, and returns an error if reading was cancelled.
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
    /// Appends some events; the result is `false` when no more will come (for now, if the input grows).
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error>;

    /// Adds what was learned besides events. It is called after the last event, and by a follower now and then.
    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx);

    /// This reader as one that gives records that are not decoded, if it is one. Calls of it and of [`read`](Self::read) must not be mixed.
    fn raw(&mut self) -> Option<&mut dyn RawReader> {
        None
    }

    /// Appends the compression inside each of its files.
    fn inside(&self, out: &mut Vec<Compression>) {
        out.push(Compression::None);
    }

    /// Declares that an input that could grow has ended.
    fn end(&mut self) {}

    /// Adds what is known about the host before the first event.
    fn describe_early(&mut self, _info: &mut TraceInfo) {}
}

/// A source of records in time order, which the caller decodes.
pub(crate) trait RawReader: Reader {
    /// Appends some records; the result is `false` when no more will come (for now, if the input grows).
    fn read_raw(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error>;

    /// Memory that is used again for each batch of [`read_decoded`].
    fn batch(&mut self) -> &mut RawBatch;
}

/// Implements [`Reader::read`] for a reader of records.
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

/// Makes a note of damage at an offset.
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

/// The approximate number of events in a batch.
pub(crate) const BATCH: usize = 8192;
