//! Bytes that are read while they are being written. The main type is [`Bytes`]; the follower reads it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// What distinguishes one file, and one content of a file, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    /// Time of the last change, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(m: &Metadata) -> Self {
        Self { device: m.dev(), inode: m.ino(), len: m.len(), changed: (m.mtime(), m.mtime_nsec()) }
    }

    pub(super) fn same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// An input of which the follower never waits for more.
pub(super) enum Bytes {
    File(Counted),
    Pipe(Channel),
}

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(f) => f.read(buf),
            Self::Pipe(c) => c.read(buf),
        }
    }
}

/// A file that counts what is read of it.
pub(super) struct Counted {
    pub(super) input: File,
    pub(super) bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A pipe that a thread of its own reads, so that the caller never waits.
pub(super) struct Channel {
    from: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    /// Whether [`read`](Read::read) waits, as other readers do.
    pub(super) waits: bool,
}

impl Channel {
    /// Starts the thread. `closed` is set when the input ends; `bytes` counts what has come.
    pub(super) fn new(
        mut input: Box<dyn Read + Send>,
        closed: Arc<AtomicBool>,
        bytes: Arc<AtomicU64>,
    ) -> Self {
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
                        bytes.fetch_add(n as u64, Ordering::Relaxed);
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
        Self { from, piece: Vec::new(), at: 0, waits: false }
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
            let next = if self.waits {
                self.from.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.from.try_recv()
            };
            match next {
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
