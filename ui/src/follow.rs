//! [`Following`]: the thread that appends to a capture that still grows, and [`Live`], how that goes. The viewer asks for [`Live`] in each
//! frame and draws it; the thread never waits for the window.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use mmuscope_replay::{LayoutOverride, ReplayOptions, replay};
use mmuscope_trace::{Error, Follower, POLL_EVENTS, Progress, RecorderNow, Stage, Trace};

use crate::capture::{self, Capture};
use crate::load::Source;

/// How following an input goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    /// What the input does.
    pub(crate) stage: Stage,
    /// Whether following ended because of an error.
    pub(crate) failed: bool,
    /// The number of events that have been read.
    pub(crate) read: u64,
    /// The number of events that are shown; the others wait until they are replayed, or until the user goes on.
    pub(crate) shown: u64,
    /// The number of bytes that have been read.
    pub(crate) bytes: u64,
    /// Events that came in the last second.
    pub(crate) rate: f64,
    /// Whether the user has halted the view.
    pub(crate) paused: bool,
    /// What the recorder last wrote about itself.
    pub(crate) recorder: Option<RecorderNow>,
}

impl Live {
    /// Whether more may come.
    pub(crate) fn goes_on(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }
}

/// The thread that appends to a growing capture.
pub(crate) struct Following {
    stop: Arc<Progress>,
    paused: Arc<AtomicBool>,
    live: Arc<Mutex<Live>>,
}

/// Time between two looks at a file for more: short enough that nobody sees a delay, long enough that an idle file costs nothing.
const POLL: Duration = Duration::from_millis(100);

/// Number of events that are replayed while the capture is locked, for which a frame may have to wait: about 4 ms behind a million events (`cargo
/// xtask bench replay`), of which half is what every step costs.
const BIT: usize = 5_000;

/// How long the thread looks for a moment at which nobody reads the capture, before it makes readers wait.
const POLITE: Duration = Duration::from_millis(200);

/// The stretch of time over which the rate is measured.
const RATE: Duration = Duration::from_secs(1);

impl Following {
    /// Starts the thread, which calls `wake` whenever there is something new to draw.
    pub(crate) fn start(
        capture: &Arc<RwLock<Capture>>,
        mut follower: Follower,
        layout: LayoutOverride,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Self, String> {
        let stop = Arc::new(Progress::default());
        let paused = Arc::new(AtomicBool::new(false));
        follower.report_to(Some(Arc::clone(&stop)));
        let trace = capture::read(capture).trace.clone();
        let n = trace.events.len() as u64;
        let live = Arc::new(Mutex::new(Live {
            stage: follower.stage(),
            failed: false,
            read: n,
            shown: n,
            bytes: follower.bytes(),
            rate: 0.0,
            paused: false,
            recorder: trace.info.host.recorder_now(),
        }));
        let mut thread = Appending {
            capture: Arc::clone(capture),
            replaced: follower.replaced(),
            follower,
            trace,
            stop: Arc::clone(&stop),
            paused: Arc::clone(&paused),
            live: Arc::clone(&live),
            measured: (Instant::now(), n),
            layout,
        };
        std::thread::Builder::new()
            .name("mmuscope-follow".to_owned())
            .spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| thread.run(&wake)))
                    .unwrap_or_else(|_| Err("following failed: this is a bug in mmuscope".to_owned()));
                thread.end(ended);
                wake();
            })
            .map_err(|e| format!("cannot start a thread to follow with: {e}"))?;
        Ok(Self { stop, paused, live })
    }

    /// How following goes.
    pub(crate) fn live(&self) -> Live {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Halts the view, or lets it go on. Reading goes on meanwhile, so that nobody who writes has to wait.
    pub(crate) fn pause(&self, on: bool) {
        self.paused.store(on, Ordering::Relaxed);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).paused = on;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the thread works with.
struct Appending {
    capture: Arc<RwLock<Capture>>,
    follower: Follower,
    /// Everything that was read. It shares its packed events with the capture, so that reading needs no lock.
    trace: Trace,
    /// Which trace the capture has, of those that replaced one another.
    replaced: u64,
    stop: Arc<Progress>,
    paused: Arc<AtomicBool>,
    live: Arc<Mutex<Live>>,
    /// When the rate was measured last, and the number of events by then.
    measured: (Instant, u64),
    layout: LayoutOverride,
}

impl Appending {
    fn halted(&self) -> bool {
        self.stop.cancelled.load(Ordering::Relaxed)
    }

    /// Reads and shows until the input ends or nobody is interested any more.
    fn run(&mut self, wake: &(impl Fn() + Send)) -> Result<(), String> {
        let mut waits = false;
        while !self.halted() && (!self.follower.is_done() || waits) {
            let more = match self.follower.poll(&mut self.trace) {
                Ok(n) => n,
                Err(Error::Cancelled) => return Ok(()),
                Err(e) => {
                    // What came before the error is shown.
                    self.show(wake);
                    return Err(e.to_string());
                }
            };
            let paused = self.paused.load(Ordering::Relaxed);
            if !paused && (more > 0 || waits || self.follower.is_done()) {
                self.show(wake);
            }
            waits = paused && (more > 0 || waits || self.follower.is_done());
            if self.note() {
                wake();
            }
            if more < POLL_EVENTS && !self.follower.is_done() || paused {
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Takes what was read into the capture.
    fn show(&mut self, wake: &(impl Fn() + Send)) {
        let replaced = self.follower.replaced() > self.replaced;
        if replaced {
            self.replaced = self.follower.replaced();
            let options = ReplayOptions { layout: self.layout.clone(), ..ReplayOptions::default() };
            let timeline = replay(&self.trace, &options);
            let mut cap = write(&self.capture);
            cap.trace = self.trace.clone();
            cap.timeline = timeline;
            cap.version += 1;
        } else {
            let mut left = true;
            while left && !self.halted() {
                // Many events are appended in parts, so that the window can draw in between.
                let mut guard = write(&self.capture);
                let cap = &mut *guard;
                // Some facts are known only at the end of the input: losses, how the recording ended.
                cap.trace = self.trace.clone();
                left = cap.timeline.extend_some(&cap.trace, BIT);
                cap.version += 1;
                drop(guard);
                self.note();
                wake();
                if left {
                    // The frame that shows this begins first.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Writes down how it goes; whether that has changed.
    fn note(&mut self) -> bool {
        let read = self.trace.events.len() as u64;
        let shown = capture::read(&self.capture).timeline.events() as u64;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rate = live.rate;
        let passed = self.measured.0.elapsed();
        if passed >= RATE {
            rate = read.saturating_sub(self.measured.1) as f64 / passed.as_secs_f64();
            self.measured = (Instant::now(), read);
        }
        let stage = self.follower.stage();
        // The end is shown when everything before it is.
        let stage = if self.follower.is_done() && shown < read { live.stage.clone() } else { stage };
        let recorder = self.trace.info.host.recorder_now();
        let now = Live { stage, read, shown, bytes: self.follower.bytes(), rate, recorder, ..live.clone() };
        let changed = now != *live;
        *live = now;
        changed
    }

    /// However following ended, the capture does not grow any more, and the window must show that.
    fn end(&mut self, ended: Result<(), String>) {
        let mut cap = self.capture.write().unwrap_or_else(PoisonError::into_inner);
        cap.growing = false;
        cap.version += 1;
        let shown = cap.timeline.events() as u64;
        drop(cap);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        (live.rate, live.shown, live.paused) = (0.0, shown, false);
        live.failed = ended.is_err();
        live.stage = match (ended, self.follower.stage()) {
            (Err(e), _) => Stage::Ended(e),
            (Ok(()), ended @ Stage::Ended(_)) => ended,
            (Ok(()), _) => Stage::Ended("it was stopped".to_owned()),
        };
    }
}

/// Locks a capture to change it at a moment when nobody reads it: a writer that waits would make each new reader wait, too, and with them the
/// window, until the picture that is being drawn is finished.
fn write(capture: &RwLock<Capture>) -> RwLockWriteGuard<'_, Capture> {
    let until = Instant::now() + POLITE;
    loop {
        match capture.try_write() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(guard)) => return guard.into_inner(),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_micros(500));
            }
            Err(TryLockError::WouldBlock) => {
                return capture.write().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Where an input that has ended can be read once more, or why it cannot.
pub(crate) fn again(source: &Source) -> Result<Source, String> {
    match source {
        Source::Files(_) => Ok(source.clone()),
        Source::Stdin => {
            let fd = Path::new("/proc/self/fd/0");
            match std::fs::read_link(fd) {
                // A named pipe may get another writer.
                Ok(name) if name.is_absolute() && name.exists() => Ok(Source::Files(vec![name])),
                _ => Err(
                    "what came through a pipe is over: start `mmuscope record -o - | mmuscope view -` again"
                        .to_owned(),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture that takes long does not make the window wait, although the thread that follows wants to write.
    #[test]
    fn a_writer_that_waits_keeps_no_reader_out() {
        let capture = Arc::new(RwLock::new(crate::tests::small()));
        let picture = capture.read().expect("not poisoned");
        let theirs = Arc::clone(&capture);
        let writer = std::thread::spawn(move || {
            write(&theirs).version = 7;
        });
        std::thread::sleep(Duration::from_millis(30));
        let frame = capture.try_read();
        assert!(frame.is_ok(), "a frame can be drawn");
        drop(frame);
        drop(picture);
        writer.join().expect("it writes");
        assert_eq!(capture.read().expect("not poisoned").version, 7);
    }
}
