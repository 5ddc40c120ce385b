//! Inputs that can only be read as a whole: their index is at their end. From a pipe they are [`Collected`], and a file is [`Watched`].

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::bytes::{Channel, Stamp};
use crate::error::Error;
use crate::info::{Compression, TraceInfo};
use crate::input;
use crate::load::Trace;
use crate::reader::ReadOptions;

/// How long a file must stay as it is before it is read again: a recorder that writes its index takes a moment.
const SETTLED: Duration = Duration::from_millis(400);

/// A file that is read as a whole, and again when it has changed.
#[derive(Default)]
pub(super) struct Watched {
    /// The content that was read last.
    read: Option<Stamp>,
    /// The content that was seen last, and since when it has been so.
    seen: Option<(Stamp, Instant)>,
    /// The kind of the file, for sentences.
    kind: String,
    /// Why it could not be read.
    failed: Option<String>,
    /// The recorder has not finished the file, so that its events cannot be read yet.
    unfinished: bool,
}

impl Watched {
    /// Reads the file if its content is another one than last time, and at rest. The first content is read at once.
    pub(super) fn read_if_changed(
        &mut self,
        path: &Path,
        opts: &ReadOptions,
    ) -> Result<Option<Trace>, Error> {
        let stamp = std::fs::metadata(path).map(|m| Stamp::of(&m));
        let stamp = match stamp {
            Ok(s) => s,
            // The file may be about to be replaced.
            Err(_) if self.read.is_some() => return Ok(None),
            Err(e) => return Err(Error::io(path, e)),
        };
        if self.read == Some(stamp) {
            return Ok(None);
        }
        let since = match self.seen {
            Some((seen, since)) if seen == stamp => since,
            _ => Instant::now(),
        };
        self.seen = Some((stamp, since));
        if self.read.is_some() && since.elapsed() < SETTLED {
            return Ok(None);
        }
        let first = self.read.replace(stamp).is_none();
        match Trace::load(&[path.to_path_buf()], opts) {
            Ok(trace) => {
                self.failed = None;
                self.describe(&trace.info, trace.events.is_empty());
                Ok(Some(trace))
            }
            // What cannot be read at all is no trace; what could be read before is on its way to become one again.
            Err(e @ Error::Cancelled) => Err(e),
            Err(e) if first => Err(e),
            Err(e) => {
                self.failed = Some(e.to_string());
                Ok(None)
            }
        }
    }

    fn describe(&mut self, info: &TraceInfo, empty: bool) {
        self.kind = match info.files.first() {
            Some(f) if f.compression != Compression::None => "a compressed file".to_owned(),
            Some(f) => f.kind.to_string(),
            None => "a folder".to_owned(),
        };
        self.unfinished = empty && !info.damage.is_empty();
    }

    /// Why the input is watched.
    pub(super) fn why(&self, path: &Path) -> String {
        let path = path.display();
        match &self.failed {
            Some(e) => format!("it cannot be read as it is now ({e}); it is read again when it has changed"),
            None if self.kind.is_empty() => format!("{path} is being read"),
            None if self.unfinished => format!(
                "{path} is {}, which its recorder has not finished: what its events mean is written at its end; it is read again when it has \
                 changed. `perf record -o -` and `mmuscope record` write what can be followed event by event",
                self.kind
            ),
            None => format!(
                "{path} is {}, which can only be read as a whole: it is read again when it has changed",
                self.kind
            ),
        }
    }
}

/// What a thread collects from a pipe, and reads when the pipe has ended.
pub(super) struct Collected(Receiver<Result<Trace, Error>>);

impl Collected {
    /// Starts the thread. What is large is put into a temporary file.
    pub(super) fn start(
        head: Vec<u8>,
        mut from: Channel,
        path: &Path,
        opts: &ReadOptions,
    ) -> Result<Self, Error> {
        let (send, receive) = mpsc::channel();
        let name = if path.as_os_str() == "-" { Path::new("standard input") } else { path }.to_path_buf();
        // Cancelling is for the reader that asked first; nobody cancels this thread, whose result nobody may want.
        let opts = ReadOptions { progress: None, ..opts.clone() };
        from.waits = true;
        std::thread::Builder::new()
            .name("mmuscope-collect".to_owned())
            .spawn(move || {
                let bytes = Box::new(Cursor::new(head).chain(from));
                let trace = input::stream(bytes, &name).and_then(|i| Trace::from_input(i, &opts));
                // Sending fails if the follower is gone.
                send.send(trace).ok();
            })
            .map_err(|e| Error::io(path, e))?;
        Ok(Self(receive))
    }

    /// The trace, once it has been read.
    pub(super) fn take(&self) -> Result<Option<Trace>, Error> {
        match self.0.try_recv() {
            Ok(trace) => trace.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::Unsupported {
                path: "standard input".into(),
                what: "reading it failed: this is a bug in mmuscope".to_owned(),
                next: "save it and give the file".to_owned(),
            }),
        }
    }
}
