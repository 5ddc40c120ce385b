//! The stage between the rings and the file. A thread of its own compresses and writes, so that emptying the rings is never more than copying.
//! The main type is [`Feed`]; the recording loop puts bytes into it and never waits for the thread.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::capture::Capture;
use crate::preamble::{PIECE, Preamble};

/// The most pieces that may wait for a slow disk or reader (64 MiB). When so many wait, the rings are not emptied until there is room again;
/// they fill up, and the kernel counts what they lose.
const WAITING: usize = 256;

/// The number of bytes that are given to a pipe at once. Its reader has to take so many to show that it is still there.
pub(crate) const SIP: usize = 4 << 10;

enum Work {
    /// Adds a part of the record stream.
    Data(Vec<u8>),
    /// Adds whole records that are not compressed.
    Plain(Vec<u8>),
    /// Ends a pass over the rings; the number says how many events came before it.
    Round(u64),
    /// Ends the capture, with the facts that are known only at the end.
    End(Vec<(String, String)>),
}

/// The counters that both sides see.
#[derive(Default)]
struct Shared {
    /// The number of bytes written.
    written: AtomicU64,
    /// The number of bytes that writes have passed on, counted also while a part of the capture is still being written.
    taken: AtomicU64,
    /// The number of events in whole rounds that were written.
    events: AtomicU64,
    /// The number of pieces that wait.
    waiting: AtomicUsize,
    /// The number of works that are done, of those sent.
    done: AtomicU64,
}

/// How a capture ended.
pub(crate) struct Finished {
    /// The number of bytes written.
    pub written: u64,
    /// The error that ended it, if one did.
    pub error: Option<io::Error>,
    /// The most events at its end that may not have been written, because the reader did not take the bytes in time.
    pub left_behind: u64,
}

/// How long the end of a capture may wait for its reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace {
    /// The longest time in which nothing at all is taken.
    pub stuck: Duration,
    /// The longest time in total.
    pub whole: Duration,
}

/// The side of a capture into which the rings are emptied.
pub(crate) struct Feed {
    piece: Vec<u8>,
    /// When the oldest byte came that was not passed on yet.
    since: Option<Instant>,
    patience: Duration,
    /// When a round was passed on after which no other came. A reader releases the events of a round with the next one, so that one is owed.
    owed: Option<Instant>,
    to: Option<Sender<Work>>,
    empty: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    /// The number of works sent.
    sent: u64,
    thread: Option<JoinHandle<io::Result<u64>>>,
    /// The number of bytes of records before compression.
    pub raw: u64,
}

/// A writer that counts what a pipe takes, piece by piece.
struct Counted<W> {
    to: W,
    /// The most bytes of one write.
    sip: usize,
    shared: Arc<Shared>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(&bytes[..bytes.len().min(self.sip)])?;
        self.shared.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn work<W: Write>(
    mut capture: Capture<W>,
    from: &Receiver<Work>,
    used: &Sender<Vec<u8>>,
    shared: &Shared,
) -> io::Result<u64> {
    capture.flush()?;
    shared.written.store(capture.written, Ordering::Relaxed);
    while let Ok(work) = from.recv() {
        match work {
            Work::Data(mut piece) => {
                capture.data(&piece)?;
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
                piece.clear();
                // At the end, nobody takes the used buffer back.
                let _ = used.send(piece);
            }
            Work::Plain(records) => {
                capture.plain(&records);
                // Somebody who watches a quiet recording sees it at once.
                capture.flush()?;
            }
            Work::Round(events) => {
                capture.end_round()?;
                shared.events.store(events, Ordering::Relaxed);
            }
            Work::End(facts) => return capture.finish(&facts),
        }
        shared.written.store(capture.written, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::Release);
    }
    Ok(capture.written)
}

impl Feed {
    /// Starts a capture and its thread, which does all of the writing, so that nothing here ever waits for the disk. Bytes are passed to the thread
    /// after `patience` at the latest, and are written in parts of at most `sip` bytes.
    pub(crate) fn start<W: Write + Send + 'static>(
        to: W,
        preamble: &Preamble,
        patience: Duration,
        sip: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let capture = Capture::new(Counted { to, sip, shared: Arc::clone(&shared) }, preamble)?;
        let (send, from) = channel();
        let (used, empty) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("mmuscope-write".into())
            .spawn(move || work(capture, &from, &used, &theirs))?;
        let piece = Vec::with_capacity(PIECE);
        Ok(Self {
            piece,
            since: None,
            patience,
            owed: None,
            to: Some(send),
            empty,
            shared,
            sent: 0,
            thread: Some(thread),
            raw: 0,
        })
    }

    /// Adds bytes of the record stream, which may be cut anywhere.
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

    /// Adds whole records outside of the compressed stream, which must be at the end of a record.
    pub(crate) fn plain(&mut self, records: Vec<u8>) {
        self.hand_on();
        self.send(Work::Plain(records));
    }

    /// Whether there is room for more. Without room, the caller should leave the rings as they are; what it adds anyway is kept.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) < WAITING
    }

    /// Ends a pass over all rings, by which there were `events` events in total. It is passed on when enough bytes have gathered, or when they
    /// have waited long enough. When nothing comes after it, an empty round follows, without which a reader would hold the last events back.
    pub(crate) fn end_round(&mut self, events: u64) {
        if self.piece.len() >= PIECE / 2 || self.since.is_some_and(|s| s.elapsed() >= self.patience) {
            self.hand_on();
            self.since = None;
            self.owed = Some(Instant::now());
            self.send(Work::Round(events));
        } else if self.piece.is_empty() && self.owed.is_some_and(|s| s.elapsed() >= self.patience) {
            self.owed = None;
            self.send(Work::Round(events));
        }
    }

    /// Passes on what has waited long enough without ending a round, so that a reader keeps the events and can put earlier ones before them.
    pub(crate) fn go_on(&mut self) {
        if self.piece.len() >= PIECE / 2 || self.since.is_some_and(|s| s.elapsed() >= self.patience) {
            self.hand_on();
            self.since = None;
        }
    }

    /// The number of bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Passes on everything and waits until it is written, so that [`written`](Self::written) is exact. It waits only a short time, because the
    /// rings fill up meanwhile. `events` is the number of events so far.
    pub(crate) fn settle(&mut self, events: u64) {
        const LONGEST: Duration = Duration::from_millis(50);
        self.hand_on();
        self.since = None;
        self.send(Work::Round(events));
        let began = Instant::now();
        while !self.failed()
            && self.shared.done.load(Ordering::Acquire) < self.sent
            && began.elapsed() < LONGEST
        {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether the writing thread has given up, so that nothing more will be written.
    pub(crate) fn failed(&self) -> bool {
        self.to.is_none() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn hand_on(&mut self) {
        if !self.piece.is_empty() {
            let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
            let full = std::mem::replace(&mut self.piece, next);
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
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

    /// Ends the capture, which has `events` events. With a grace, what is not written by then is left behind, and so is the thread if its write
    /// does not return.
    pub(crate) fn finish(
        mut self,
        end_facts: Vec<(String, String)>,
        events: u64,
        grace: Option<Grace>,
    ) -> Finished {
        self.hand_on();
        // This ends the last round, so that its events are counted; the capture's own end is a round, too.
        self.send(Work::Round(events));
        self.send(Work::End(end_facts));
        self.to = None;
        if grace.is_some_and(|g| !self.ends_within(g)) {
            let left_behind = events - self.shared.events.load(Ordering::Relaxed).min(events);
            return Finished { written: self.shared.taken.load(Ordering::Relaxed), error: None, left_behind };
        }
        let ended = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(io::Error::other("the writing thread broke down")),
        };
        match ended {
            Ok(written) => Finished { written, error: None, left_behind: 0 },
            Err(e) => Finished { written: self.written(), error: Some(e), left_behind: 0 },
        }
    }

    /// Waits for the thread as long as bytes are taken.
    fn ends_within(&self, grace: Grace) -> bool {
        let begun = Instant::now();
        let taken = || self.shared.taken.load(Ordering::Relaxed);
        let (mut last, mut since) = (taken(), begun);
        while !self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            if taken() != last {
                (last, since) = (taken(), Instant::now());
            }
            if since.elapsed() >= grace.stuck || begun.elapsed() >= grace.whole {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// A file that several may hold, and that can be made to block or to fail.
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

    /// The number of bytes of the preamble, once it is written.
    fn head(disk: &Disk) -> usize {
        for _ in 0..1000 {
            if len(disk) > 0 {
                return len(disk);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the preamble is not written");
    }

    #[test]
    fn everything_arrives_in_order() {
        let disk = Disk::default();
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::from_hours(1), SIP).unwrap();
        let head = head(&disk);
        let sent: Vec<u8> = (0..PIECE * 3 + 17).map(|i| (i / 3) as u8).collect();
        for part in sent.chunks(1000) {
            feed.data(part);
            feed.end_round(0);
        }
        assert_eq!(feed.raw, sent.len() as u64);
        let end = feed.finish(Vec::new(), 0, None);
        assert!(end.error.is_none());
        let bytes = disk.0.0.lock().unwrap().bytes.clone();
        assert_eq!(end.written as usize, bytes.len());
        // Without compression, the file has the records, a FINISHED_ROUND (68, 8 bytes) after at least each half piece, and one at the end.
        let round = [68, 0, 0, 0, 0, 0, 8, 0];
        let rounds = bytes[head..].windows(8).filter(|w| *w == round).count();
        assert_eq!(bytes.len() - head, sent.len() + 8 * rounds);
        assert!((4..=9).contains(&rounds), "{rounds} rounds");
    }

    #[test]
    fn little_is_written_after_a_while_not_at_once() {
        let disk = Disk::default();
        let mut feed =
            Feed::start(disk.clone(), &Preamble::default(), Duration::from_millis(20), SIP).unwrap();
        let head = head(&disk);
        feed.data(&[1; 64]);
        feed.end_round(1);
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(len(&disk), head, "nobody has handed it on");
        feed.end_round(1);
        let wait_for = |n: usize, what: &str| {
            for _ in 0..500 {
                if len(&disk) == head + n {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("{} bytes instead of {what}", len(&disk) - head);
        };
        wait_for(72, "a record and the end of a round");
        // Nothing comes after it. A reader releases the events of a round when it sees the next.
        std::thread::sleep(Duration::from_millis(25));
        feed.end_round(1);
        wait_for(80, "another end of a round");
        std::thread::sleep(Duration::from_millis(25));
        feed.end_round(1);
        feed.settle(1);
        assert_eq!(len(&disk), head + 88, "one round for settling, and none for the quiet");
    }

    #[test]
    fn a_slow_disk_does_not_stop_the_rings_from_being_emptied_and_a_full_one_is_reported() {
        let disk = Disk::default();
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::ZERO, SIP).unwrap();
        change(&disk, |s| s.blocked = true);
        // 32 MiB are added while nothing at all is written.
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
        let end = feed.finish(Vec::new(), 0, None);
        assert_eq!(end.error.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    /// The reader stops reading: nothing here waits for it, the number of waiting pieces is bounded, and the end comes without it.
    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up() {
        let disk = Disk::default();
        change(&disk, |s| s.blocked = true);
        let mut feed = Feed::start(disk.clone(), &Preamble::default(), Duration::ZERO, SIP).unwrap();
        let mut rounds = 0;
        while feed.has_room() {
            feed.data(&vec![0; PIECE]);
            rounds += 1;
            feed.end_round(rounds);
            assert!(rounds <= WAITING as u64, "there is an end to what may wait");
        }
        assert_eq!(rounds, WAITING as u64);
        let grace = Grace { stuck: Duration::from_millis(50), whole: Duration::from_mins(1) };
        let begun = Instant::now();
        let end = feed.finish(Vec::new(), rounds, Some(grace));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!((end.left_behind, end.written, len(&disk)), (rounds, 0, 0));
        change(&disk, |s| s.blocked = false);
    }

    /// A slow reader gets what it can take in time, and the rest is counted.
    #[test]
    fn a_slow_reader_gets_what_it_takes_in_time() {
        struct Slow(Disk, Duration);
        impl Write for Slow {
            fn write(&mut self, b: &[u8]) -> io::Result<usize> {
                std::thread::sleep(self.1);
                self.0.write(b)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let grace = Grace { stuck: Duration::from_secs(20), whole: Duration::from_millis(200) };
        for (pause, all) in [(Duration::ZERO, true), (Duration::from_millis(10), false)] {
            let disk = Disk::default();
            let slow = Slow(disk.clone(), pause);
            let mut feed = Feed::start(slow, &Preamble::default(), Duration::ZERO, SIP).unwrap();
            for n in 1..=8 {
                feed.data(&vec![0; PIECE]);
                feed.end_round(n);
            }
            let grace = if all { Grace { whole: Duration::from_secs(20), ..grace } } else { grace };
            let end = feed.finish(Vec::new(), 8, Some(grace));
            // At most 4 KiB every 10 ms are taken, so not one of the pieces of 256 KiB is complete after 200 ms.
            assert_eq!(end.left_behind, if all { 0 } else { 8 });
            assert!(end.error.is_none() && end.written > 0);
            assert!(!all || end.written as usize == len(&disk));
        }
    }
}
