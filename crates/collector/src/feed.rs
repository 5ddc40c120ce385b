//! Between the rings and the file: a thread of its own compresses and writes, so that emptying the rings is never more than copying.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::capture::{Capture, PIECE};
use crate::preamble::Preamble;

/// Pieces that may wait for a slow disk (64 MiB). When they do, the rings fill, and what they lose is counted.
const WAITING: usize = 256;

enum Work {
    /// A part of the record stream.
    Data(Vec<u8>),
    /// Whole records that stay uncompressed.
    Plain(Vec<u8>),
    /// A pass over the rings is complete.
    Round,
    /// What is known only at the end.
    End(Vec<(String, String)>),
}

/// The side of a capture that the rings are emptied into.
pub(crate) struct Feed {
    piece: Vec<u8>,
    /// When the oldest byte that has not been handed on came.
    since: Option<Instant>,
    patience: Duration,
    to: Option<SyncSender<Work>>,
    empty: Receiver<Vec<u8>>,
    written: Arc<AtomicU64>,
    /// Works sent, and of those the ones that are done.
    sent: u64,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<u64>>>,
    /// Bytes of events and other records before compression.
    pub raw: u64,
}

fn work<W: Write>(
    mut capture: Capture<W>,
    from: &Receiver<Work>,
    used: &Sender<Vec<u8>>,
    written: &AtomicU64,
    done: &AtomicU64,
) -> io::Result<u64> {
    while let Ok(work) = from.recv() {
        match work {
            Work::Data(mut piece) => {
                capture.data(&piece)?;
                piece.clear();
                // Nobody wants it back at the end.
                let _ = used.send(piece);
            }
            Work::Plain(records) => capture.plain(&records),
            Work::Round => capture.end_round()?,
            Work::End(facts) => return capture.finish(&facts),
        }
        written.store(capture.written, Ordering::Relaxed);
        done.fetch_add(1, Ordering::Release);
    }
    Ok(capture.written)
}

impl Feed {
    /// Starts a capture and its thread. Nothing waits here longer than `patience` before it is written.
    pub(crate) fn start<W: Write + Send + 'static>(
        to: W,
        preamble: &Preamble,
        patience: Duration,
    ) -> io::Result<Self> {
        let capture = Capture::start(to, preamble)?;
        let written = Arc::new(AtomicU64::new(capture.written));
        let (send, from) = sync_channel(WAITING);
        let (used, empty) = channel();
        let done = Arc::new(AtomicU64::new(0));
        let theirs = (Arc::clone(&written), Arc::clone(&done));
        let thread = std::thread::Builder::new()
            .name("mmuscope-write".into())
            .spawn(move || work(capture, &from, &used, &theirs.0, &theirs.1))?;
        let piece = Vec::with_capacity(PIECE);
        Ok(Self {
            piece,
            since: None,
            patience,
            to: Some(send),
            empty,
            written,
            sent: 0,
            done,
            thread: Some(thread),
            raw: 0,
        })
    }

    /// Adds bytes of the record stream (any part of it).
    pub(crate) fn data(&mut self, mut bytes: &[u8]) {
        self.raw += bytes.len() as u64;
        while !bytes.is_empty() {
            self.since.get_or_insert_with(Instant::now);
            let n = bytes.len().min(PIECE - self.piece.len());
            self.piece.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.piece.len() == PIECE {
                self.hand_on();
            }
        }
    }

    /// Adds whole records outside of the compressed stream. The stream must be at a record boundary.
    pub(crate) fn plain(&mut self, records: Vec<u8>) {
        self.hand_on();
        self.send(Work::Plain(records));
    }

    /// A pass over all rings is complete. It is passed on when there is enough of it, or when it has waited long enough.
    pub(crate) fn end_round(&mut self) {
        if self.piece.len() >= PIECE / 2 || self.since.is_some_and(|s| s.elapsed() >= self.patience) {
            self.hand_on();
            self.since = None;
            self.send(Work::Round);
        }
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Hands on what there is and waits until it is written, so that [`written`](Self::written) is exact; not long, for the rings fill meanwhile.
    pub(crate) fn settle(&mut self) {
        const LONGEST: Duration = Duration::from_millis(50);
        self.hand_on();
        self.since = None;
        self.send(Work::Round);
        let began = Instant::now();
        while !self.failed() && self.done.load(Ordering::Acquire) < self.sent && began.elapsed() < LONGEST {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether the writing thread has given up: nothing more will be written.
    pub(crate) fn failed(&self) -> bool {
        self.to.is_none() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn hand_on(&mut self) {
        if !self.piece.is_empty() {
            let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
            let full = std::mem::replace(&mut self.piece, next);
            self.send(Work::Data(full));
        }
    }

    fn send(&mut self, work: Work) {
        self.sent += 1;
        if let Some(to) = &self.to
            && to.send(work).is_err()
        {
            self.to = None;
        }
    }

    /// Ends the capture. The bytes written, and the error that ended it if one did.
    pub(crate) fn finish(mut self, end_facts: Vec<(String, String)>) -> (u64, Option<io::Error>) {
        self.hand_on();
        self.send(Work::End(end_facts));
        self.to = None;
        let ended = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(io::Error::other("the writing thread broke down")),
        };
        match ended {
            Ok(n) => (n, None),
            Err(e) => (self.written(), Some(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// A file that several hold, which can be made to block or to fail.
    #[derive(Clone, Default)]
    struct Disk(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        bytes: Vec<u8>,
        blocked: bool,
        full: bool,
    }

    impl Write for Disk {
        fn write(&mut self, b: &[u8]) -> io::Result<usize> {
            let mut s = self.0.1.wait_while(self.0.0.lock().unwrap(), |s| s.blocked).unwrap();
            if s.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            s.bytes.extend_from_slice(b);
            Ok(b.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn change(disk: &Disk, f: impl FnOnce(&mut State)) {
        f(&mut disk.0.0.lock().unwrap());
        disk.0.1.notify_all();
    }

    fn len(disk: &Disk) -> usize {
        disk.0.0.lock().unwrap().bytes.len()
    }

    #[test]
    fn everything_arrives_in_order() {
        let disk = Disk::default();
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::from_hours(1)).unwrap();
        let head = len(&disk);
        let sent: Vec<u8> = (0..PIECE * 3 + 17).map(|i| (i / 3) as u8).collect();
        for part in sent.chunks(1000) {
            feed.data(part);
            feed.end_round();
        }
        assert_eq!(feed.raw, sent.len() as u64);
        let (written, error) = feed.finish(Vec::new());
        assert!(error.is_none());
        let bytes = disk.0.0.lock().unwrap().bytes.clone();
        assert_eq!(written as usize, bytes.len());
        // Without compression: the records, and FINISHED_ROUND (68, 8 bytes) after each half piece or more, and at the end.
        let round = [68, 0, 0, 0, 0, 0, 8, 0];
        let rounds = bytes[head..].windows(8).filter(|w| *w == round).count();
        assert_eq!(bytes.len() - head, sent.len() + 8 * rounds);
        assert!((4..=8).contains(&rounds), "{rounds} rounds");
    }

    #[test]
    fn little_is_written_after_a_while_not_at_once() {
        let disk = Disk::default();
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::from_millis(20)).unwrap();
        let head = len(&disk);
        feed.data(&[1; 64]);
        feed.end_round();
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(len(&disk), head, "nobody has handed it on");
        feed.end_round();
        for _ in 0..500 {
            if len(&disk) == head + 72 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} bytes instead of a record and the end of a round", len(&disk) - head);
    }

    #[test]
    fn a_slow_disk_does_not_stop_the_rings_from_being_emptied_and_a_full_one_is_reported() {
        let disk = Disk::default();
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::ZERO).unwrap();
        change(&disk, |s| s.blocked = true);
        // 32 MiB while nothing at all is written.
        for _ in 0..128 {
            feed.data(&vec![0; PIECE]);
        }
        assert!(!feed.failed());
        change(&disk, |s| (s.blocked, s.full) = (false, true));
        for _ in 0..500 {
            if feed.failed() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(feed.failed());
        feed.data(&[0; 64]);
        let (_, error) = feed.finish(Vec::new());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
