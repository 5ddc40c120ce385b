//! Following a recording that is still being written, from a growing file or a pipe. The main type is [`Follower`]; the viewer polls it.

mod bytes;
mod whole;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::assemble::Assembler;
use crate::error::Error;
use crate::event::Event;
use crate::info::{Compression, FileInfo, FormatKind, TraceInfo};
use crate::input::HEAD;
use crate::load::{Trace, finish};
use crate::perf::PerfReader;
use crate::reader::{BATCH, Cx, Progress, ReadOptions, Reader};
use crate::sniff::{self, Kind};
use crate::text::TextReader;
use bytes::{Bytes, Channel, Counted, Stamp};
use whole::{Collected, Watched};

/// Roughly the most events that one call of [`Follower::poll`] reads, so that the call returns even when the writer is as fast as the
/// reader.
pub const POLL_EVENTS: usize = 500_000;

/// Where following an input has got to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing can be read yet; the sentence says what is waited for.
    Waiting(String),
    /// Events are appended as they come.
    Growing,
    /// The format can only be read as a whole. What the pipe brings is put aside until it ends.
    Collecting,
    /// The format can only be read as a whole. It is read again whenever the file has changed; the sentence says why.
    Watching(String),
    /// Nothing more comes; the sentence says why.
    Ended(String),
}

/// Follows one input and appends its events to a trace.
///
/// Texts and the pipe form of perf.data, which mmuscope's recorder writes, grow event by event. Other formats have their index at the end:
/// from a pipe they are collected and read when the pipe ends, and a file is read again whenever it has changed.
pub struct Follower {
    path: PathBuf,
    opts: ReadOptions,
    cx: Cx,
    asm: Assembler,
    file: FileInfo,
    state: State,
    closed: Arc<AtomicBool>,
    /// The number of bytes that have been read.
    bytes: Arc<AtomicU64>,
    /// The file that is read, to see whether another one has taken its name.
    stamp: Option<Stamp>,
    /// Goes up whenever a trace is replaced by another instead of appended to.
    replaced: u64,
    /// Why nothing more comes.
    reason: String,
    /// The recorder has written that it ended, and why. The next call reads what it wrote last, and is the last one.
    end_is_written: Option<String>,
    /// The reader has reached the end of its input, but may still hold events.
    ended: bool,
    done: bool,
}

/// The fact with which mmuscope's recorder ends a capture.
const RECORD_END: &str = "record.end";

enum State {
    /// There is no such file yet.
    Missing,
    /// There is not enough input yet to recognise the format.
    Waiting {
        input: Bytes,
        head: Vec<u8>,
    },
    Growing(Box<dyn Reader>),
    /// A file or folder that is read as a whole, and read again when it changes.
    Whole(Watched),
    /// A pipe whose content is put aside, to be read as a whole.
    Collecting(Collected),
    Done,
}

impl Follower {
    /// Opens a path; `-` is standard input. The file may still be empty, and need not exist yet if its folder does.
    pub fn open(path: &Path, opts: &ReadOptions) -> Result<Self, Error> {
        let mut follower = Self::new(path, opts);
        if path.as_os_str() == "-" {
            follower.state =
                State::Waiting { input: follower.channel(Box::new(io::stdin())), head: Vec::new() };
            return Ok(follower);
        }
        match follower.open_file() {
            Err(Error::NotFound { .. }) if folder(path).is_dir() => {}
            opened => opened?,
        }
        Ok(follower)
    }

    /// Follows any stream of bytes.
    pub fn from_stream(input: Box<dyn Read + Send>, name: &Path, opts: &ReadOptions) -> Self {
        let mut follower = Self::new(name, opts);
        follower.state = State::Waiting { input: follower.channel(input), head: Vec::new() };
        follower
    }

    fn new(path: &Path, opts: &ReadOptions) -> Self {
        Self {
            path: path.to_path_buf(),
            opts: opts.clone(),
            cx: Cx::new(opts),
            asm: Assembler::new(false).unsorted(),
            file: FileInfo { path: path.to_path_buf(), ..FileInfo::default() },
            state: State::Missing,
            closed: Arc::default(),
            bytes: Arc::default(),
            stamp: None,
            replaced: 0,
            reason: String::new(),
            end_is_written: None,
            ended: false,
            done: false,
        }
    }

    fn channel(&self, input: Box<dyn Read + Send>) -> Bytes {
        Bytes::Pipe(Channel::new(input, Arc::clone(&self.closed), Arc::clone(&self.bytes)))
    }

    fn open_file(&mut self) -> Result<(), Error> {
        let path = &self.path;
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        self.state = if meta.is_dir() {
            State::Whole(Watched::default())
        } else if meta.is_file() {
            self.stamp = Some(Stamp::of(&meta));
            let input = Counted { input: file, bytes: Arc::clone(&self.bytes) };
            State::Waiting { input: Bytes::File(input), head: Vec::new() }
        } else {
            State::Waiting { input: self.channel(Box::new(file)), head: Vec::new() }
        };
        Ok(())
    }

    /// Changes where progress is reported and who may cancel. A caller that passes a follower on should give it a progress of its own, so that
    /// cancelling the first look does not cancel the following.
    pub fn report_to(&mut self, progress: Option<Arc<Progress>>) {
        self.cx.progress.clone_from(&progress);
        self.opts.progress = progress;
    }

    /// Whether nothing more can come: the pipe was closed, the recorder has written the end of the capture, or another file has taken the
    /// name of the one that was read.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Where following has got to.
    pub fn stage(&self) -> Stage {
        if self.done {
            return Stage::Ended(self.reason.clone());
        }
        let path = self.path.display();
        match &self.state {
            State::Missing => Stage::Waiting(format!("{path} does not exist yet")),
            State::Waiting { head, .. } if !head.is_empty() => {
                Stage::Waiting(format!("{} bytes have come, too few to see what they are", head.len()))
            }
            State::Waiting { .. } if self.stamp.is_some() => Stage::Waiting(format!("{path} is still empty")),
            State::Waiting { .. } => Stage::Waiting("nothing has been written yet".to_owned()),
            State::Growing(_) => Stage::Growing,
            State::Collecting(_) => Stage::Collecting,
            State::Whole(w) => Stage::Watching(w.why(&self.path)),
            State::Done => Stage::Ended(self.reason.clone()),
        }
    }

    /// The number of bytes that have been read so far, as they are in the input.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A number that goes up whenever [`poll`](Self::poll) has replaced the trace by another one, instead of appending to it.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Appends what has come since the last call to the trace, updates its info and returns the number of new events. If that is
    /// [`POLL_EVENTS`] or more, there may be more already. It does not wait for input. The caller must pass the same trace each time.
    pub fn poll(&mut self, trace: &mut Trace) -> Result<usize, Error> {
        let polled = self.poll_once(trace);
        if let Err(e) = &polled
            && !matches!(e, Error::Cancelled)
        {
            self.reason = e.to_string();
        }
        polled
    }

    fn poll_once(&mut self, trace: &mut Trace) -> Result<usize, Error> {
        if self.done {
            return Ok(0);
        }
        if matches!(self.state, State::Missing) {
            match self.open_file() {
                Err(Error::NotFound { .. }) => return Ok(0),
                opened => opened?,
            }
        }
        // This is read before the input, so that everything written before the end is read by this call.
        let gone = if matches!(self.state, State::Whole(_)) { None } else { self.replaced_file() };
        let closed = self.closed.load(Ordering::Acquire) || self.end_is_written.is_some() || gone.is_some();
        self.recognise(closed)?;
        match &mut self.state {
            State::Missing | State::Waiting { .. } | State::Done => Ok(0),
            State::Whole(watched) => {
                let Some(read) = watched.read_if_changed(&self.path, &self.opts)? else { return Ok(0) };
                *trace = read;
                self.replaced += 1;
                self.bytes.store(trace.info.files.iter().map(|f| f.size).sum(), Ordering::Relaxed);
                Ok(trace.events.len())
            }
            State::Collecting(collected) => {
                let Some(read) = collected.take()? else { return Ok(0) };
                *trace = read;
                self.replaced += 1;
                self.done = true;
                "the writer has closed the pipe".clone_into(&mut self.reason);
                self.state = State::Done;
                Ok(trace.events.len())
            }
            State::Growing(reader) => {
                std::mem::swap(&mut self.cx.strings, &mut trace.strings);
                let before = trace.events.len();
                let mut batch: Vec<Event> = Vec::with_capacity(BATCH);
                let mut result = Ok(());
                while trace.events.len() - before < POLL_EVENTS {
                    let more = match reader.read(&mut batch, &mut self.cx) {
                        Ok(more) => more,
                        Err(e) => {
                            result = Err(e);
                            false
                        }
                    };
                    for e in &mut batch {
                        self.asm.event(e);
                        trace.events.push(e);
                    }
                    batch.clear();
                    if more {
                        continue;
                    }
                    if self.ended || !closed || result.is_err() {
                        self.done = self.ended;
                        break;
                    }
                    // Events that waited for later ones are released now.
                    reader.end();
                    self.ended = true;
                }
                // The damage that is reported at the end of input is reported again by each poll, so it is removed afterwards.
                let listed = self.cx.damage.len();
                let mut info = TraceInfo::default();
                reader.describe(&mut info, &mut self.cx);
                self.asm.set_vendor(info.host.vendor);
                let mut inside = Vec::new();
                reader.inside(&mut inside);
                finish(&mut info, vec![self.file.clone()], &inside, &self.asm, &mut self.cx);
                self.cx.damage.truncate(listed);
                self.end_is_written = info.host.facts.iter().find(|f| f.0 == RECORD_END).map(|f| f.1.clone());
                self.reason = match (&self.end_is_written, gone) {
                    (Some(why), _) => format!("the recorder ended: {why}"),
                    (None, Some(gone)) => gone,
                    (None, None) if info.host.tool.as_deref().is_some_and(|t| t.starts_with("mmuscope")) => {
                        "the pipe was closed before the recorder wrote its end".to_owned()
                    }
                    (None, None) => "the writer has closed the pipe".to_owned(),
                };
                trace.info = info;
                std::mem::swap(&mut self.cx.strings, &mut trace.strings);
                result?;
                Ok(trace.events.len() - before)
            }
        }
    }

    /// Says that another file has taken the name of the one that is read, or that it was cut, if so.
    fn replaced_file(&self) -> Option<String> {
        let was = self.stamp?;
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(now) if !Stamp::of(&now).same_file(was) => {
                Some(format!("{path} was replaced by another file"))
            }
            Ok(now) if now.len() < self.bytes() => Some(format!("{path} was written anew")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(format!("{path} was removed")),
            _ => None,
        }
    }

    /// Reads the first bytes until they show the format.
    fn recognise(&mut self, closed: bool) -> Result<(), Error> {
        let State::Waiting { input, head } = &mut self.state else { return Ok(()) };
        let mut buf = [0; 4096];
        while head.len() < HEAD {
            match input.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => head.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(Error::io(&self.path, e)),
            }
        }
        if head.is_empty() && !closed {
            return Ok(());
        }
        let compressed = sniff::compression(head) != Compression::None;
        let kind = if compressed { None } else { Some(sniff::kind(head, &self.path)) };
        let kind = match kind {
            None => None,
            Some(Ok(k)) => Some(k),
            // The input has only comments or half a line so far; more input will show what it is.
            Some(Err(_)) if !closed && head.len() < HEAD && !sniff::is_binary(head) => return Ok(()),
            Some(Err(_)) if !closed && head.len() < 16 => return Ok(()),
            Some(Err(e)) => return Err(e),
        };
        if matches!(kind, Some(Kind::PerfPipe | Kind::PerfFile)) && head.len() < 16 && !closed {
            return Ok(());
        }
        let State::Waiting { input, head } = std::mem::replace(&mut self.state, State::Done) else {
            return Ok(());
        };
        self.state = match kind {
            Some(Kind::Text(k)) => {
                self.file.kind = k;
                self.asm = Assembler::new(true).unsorted();
                let input = Box::new(io::Cursor::new(head).chain(input));
                State::Growing(Box::new(TextReader::new(self.path.clone(), k, input).growing()))
            }
            Some(Kind::PerfPipe) => {
                self.file.kind = FormatKind::PerfPipe;
                let head = head.get(16..).unwrap_or(&[]).to_vec();
                let input = Box::new(io::Cursor::new(head).chain(input));
                State::Growing(Box::new(
                    PerfReader::records(input, &self.path, FormatKind::PerfPipe, 16).growing(),
                ))
            }
            _ => match input {
                Bytes::File(_) => State::Whole(Watched::default()),
                Bytes::Pipe(channel) => {
                    State::Collecting(Collected::start(head, channel, &self.path, &self.opts)?)
                }
            },
        };
        Ok(())
    }
}

/// The folder of a path.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}
