//! Following a recording that is still being written, from a growing file or a pipe. The main type is [`Follower`]; the viewer polls it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};

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

/// Roughly the most events that one call of [`Follower::poll`] reads, so that the call returns even when the writer is as fast as the
/// reader.
pub const POLL_EVENTS: usize = 500_000;

/// Follows one input and appends its events to a trace.
///
/// Texts and the pipe form of perf.data, which mmuscope's recorder writes, grow event by event. Other formats have their index at the end;
/// such a file is read once, as it is.
pub struct Follower {
    path: PathBuf,
    opts: ReadOptions,
    cx: Cx,
    asm: Assembler,
    file: FileInfo,
    state: State,
    closed: Arc<AtomicBool>,
    /// The recorder has written that it ended. The next call reads what it wrote last, and is the last one.
    end_is_written: bool,
    /// The reader has reached the end of its input, but may still hold events.
    ended: bool,
    done: bool,
}

/// The fact with which mmuscope's recorder ends a capture.
const RECORD_END: &str = "record.end";

enum State {
    /// There is not enough input yet to recognise the format.
    Waiting {
        input: Box<dyn Read + Send>,
        head: Vec<u8>,
        is_file: bool,
    },
    Growing(Box<dyn Reader>),
    /// The next call reads the whole input.
    Whole,
    Done,
}

impl Follower {
    /// Opens a path; `-` is standard input. The file may still be empty.
    pub fn open(path: &Path, opts: &ReadOptions) -> Result<Self, Error> {
        let closed = Arc::new(AtomicBool::new(false));
        let mut is_file = false;
        let input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(Channel::new(Box::new(io::stdin()), Arc::clone(&closed)))
        } else {
            let file = File::open(path).map_err(|e| Error::io(path, e))?;
            let meta = file.metadata().map_err(|e| Error::io(path, e))?;
            is_file = meta.is_file();
            if is_file || meta.is_dir() {
                Box::new(file)
            } else {
                Box::new(Channel::new(Box::new(file), Arc::clone(&closed)))
            }
        };
        let state =
            if path.is_dir() { State::Whole } else { State::Waiting { input, head: Vec::new(), is_file } };
        Ok(Self {
            path: path.to_path_buf(),
            opts: opts.clone(),
            cx: Cx::new(opts),
            asm: Assembler::new(false).unsorted(),
            file: FileInfo { path: path.to_path_buf(), ..FileInfo::default() },
            state,
            closed,
            end_is_written: false,
            ended: false,
            done: false,
        })
    }

    /// Follows any stream of bytes.
    pub fn from_stream(input: Box<dyn Read + Send>, name: &Path, opts: &ReadOptions) -> Self {
        let closed = Arc::new(AtomicBool::new(false));
        let input = Box::new(Channel::new(input, Arc::clone(&closed)));
        Self {
            path: name.to_path_buf(),
            opts: opts.clone(),
            cx: Cx::new(opts),
            asm: Assembler::new(false).unsorted(),
            file: FileInfo { path: name.to_path_buf(), ..FileInfo::default() },
            state: State::Waiting { input, head: Vec::new(), is_file: false },
            closed,
            end_is_written: false,
            ended: false,
            done: false,
        }
    }

    /// Changes where progress is reported and who may cancel. A caller that passes a follower on should give it a progress of its own, so that
    /// cancelling the first look does not cancel the following.
    pub fn report_to(&mut self, progress: Option<Arc<Progress>>) {
        self.cx.progress.clone_from(&progress);
        self.opts.progress = progress;
    }

    /// Whether nothing more can come: the pipe was closed, the recorder has written the end of the capture, or the file is of a format that
    /// does not grow.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Appends what has come since the last call to the trace, updates its info and returns the number of new events. If that is
    /// [`POLL_EVENTS`] or more, there may be more already. It never waits. The caller must pass the same trace each time.
    pub fn poll(&mut self, trace: &mut Trace) -> Result<usize, Error> {
        if self.done {
            return Ok(0);
        }
        // This is read before the input, so that everything written before the end is read by this call.
        let closed = self.closed.load(Ordering::Acquire) || self.end_is_written;
        self.recognise(closed)?;
        match &mut self.state {
            State::Waiting { .. } | State::Done => Ok(0),
            State::Whole => {
                *trace = Trace::load(std::slice::from_ref(&self.path), &self.opts)?;
                trace.info.notes.push(format!(
                    "{} is read as it is now and not followed: {} has its index at its end. What can be followed are texts and perf.data in \
                     pipe form (mmuscope record, perf record -o -)",
                    self.path.display(),
                    match trace.info.files.first() {
                        Some(f) if f.compression != Compression::None => "a compressed file".to_owned(),
                        Some(f) => f.kind.to_string(),
                        None => "it".to_owned(),
                    }
                ));
                self.done = true;
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
                self.end_is_written = info.host.facts.iter().any(|(key, _)| key == RECORD_END);
                trace.info = info;
                std::mem::swap(&mut self.cx.strings, &mut trace.strings);
                result?;
                Ok(trace.events.len() - before)
            }
        }
    }

    /// Reads the first bytes until they show the format.
    fn recognise(&mut self, closed: bool) -> Result<(), Error> {
        let State::Waiting { input, head, is_file } = &mut self.state else { return Ok(()) };
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
        let whole = *is_file && sniff::compression(head) != Compression::None;
        let kind = if whole { None } else { Some(sniff::kind(head, &self.path)) };
        let kind = match kind {
            None => {
                self.state = State::Whole;
                return Ok(());
            }
            Some(Ok(k)) => k,
            // The input has only comments or half a line so far; more input will show what it is.
            Some(Err(_)) if !closed && head.len() < HEAD && !sniff::is_binary(head) => return Ok(()),
            Some(Err(_)) if !closed && head.len() < 16 => return Ok(()),
            Some(Err(e)) => return Err(e),
        };
        if kind == Kind::PerfPipe && head.len() < 16 && !closed {
            return Ok(());
        }
        let State::Waiting { input, head, is_file } = std::mem::replace(&mut self.state, State::Done) else {
            return Ok(());
        };
        self.state = match kind {
            Kind::Text(k) => {
                self.file.kind = k;
                self.asm = Assembler::new(true).unsorted();
                let input = Box::new(io::Cursor::new(head).chain(input));
                State::Growing(Box::new(TextReader::new(self.path.clone(), k, input).growing()))
            }
            Kind::PerfPipe => {
                self.file.kind = FormatKind::PerfPipe;
                let head = head.get(16..).unwrap_or(&[]).to_vec();
                let input = Box::new(io::Cursor::new(head).chain(input));
                State::Growing(Box::new(
                    PerfReader::records(input, &self.path, FormatKind::PerfPipe, 16).growing(),
                ))
            }
            _ if is_file => State::Whole,
            _ => {
                return Err(Error::Unsupported {
                    path: self.path.clone(),
                    what: "this kind of trace has its index at the end and cannot be followed through a pipe"
                        .to_owned(),
                    next: "save it and give the file".to_owned(),
                });
            }
        };
        Ok(())
    }
}

/// A pipe that a thread of its own reads, so that the caller never waits.
struct Channel {
    from: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Channel {
    fn new(mut input: Box<dyn Read + Send>, closed: Arc<AtomicBool>) -> Self {
        // The channel is bounded: a writer that is faster than the reader has to wait, as with a pipe.
        let (to, from) = mpsc::sync_channel::<Vec<u8>>(64);
        let closing = Closing(closed);
        std::thread::spawn(move || {
            // It is dropped even if this thread panics, so that nobody waits for bytes that cannot come.
            let _closing = closing;
            let mut buf = vec![0; 64 << 10];
            loop {
                match input.read(&mut buf) {
                    Ok(0) => break,
                    Ok(n) => {
                        if to.send(buf[..n].to_vec()).is_err() {
                            break;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            // The channel is closed first, so that the last piece is there before the end is signalled.
            drop(to);
        });
        Self { from, piece: Vec::new(), at: 0 }
    }
}

/// Signals the end of the input when it is dropped.
struct Closing(Arc<AtomicBool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            match self.from.try_recv() {
                Ok(p) => {
                    self.piece = p;
                    self.at = 0;
                }
                Err(TryRecvError::Empty) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryRecvError::Disconnected) => return Ok(0),
            }
        }
        let n = buf.len().min(self.piece.len() - self.at);
        buf[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
