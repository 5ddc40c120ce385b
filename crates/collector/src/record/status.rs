//! The status line, which is drawn once a second on a terminal and never into a log.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::summary::{bytes, grouped};

/// The CPU time that this process has used so far.
pub(crate) fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Whether a write to standard error would not block now.
fn writable() -> bool {
    let err = std::io::stderr();
    let mut fds = [PollFd::new(&err, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::OUT)
}

/// The state of the status line.
pub(crate) struct Status {
    on: bool,
    drawn: bool,
    start: Instant,
    last: (Instant, u64, Duration),
    /// When the capture last had the fact, and the CPU time by then.
    noted: (Instant, Duration),
}

/// What the line shows.
pub(crate) struct Now {
    pub events: u64,
    pub lost: u64,
    /// How full the fullest ring is, 0 to 1.
    pub fill: f64,
    pub written: u64,
}

impl Status {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        let on = !quiet && std::io::stderr().is_terminal();
        Self { on, drawn: false, start: now, last: (now, 0, cpu_time()), noted: (now, cpu_time()) }
    }

    /// Whether a second has passed since the last line, and there is a terminal.
    pub(crate) fn due(&self) -> bool {
        self.on && self.last.0.elapsed() >= Duration::from_secs(1)
    }

    /// The time until the next line; a day where no line is ever drawn.
    pub(crate) fn next(&self) -> Duration {
        if self.on {
            // The time has a lower limit, so that a line that cannot be drawn now does not make the loop spin.
            Duration::from_secs(1).saturating_sub(self.last.0.elapsed()).max(Duration::from_millis(20))
        } else {
            Duration::from_hours(24)
        }
    }

    /// Whether it is time for the next fact in the capture.
    pub(crate) fn fact_is_due(&self, every: Duration) -> bool {
        self.noted.0.elapsed() >= every
    }

    pub(crate) fn draw(&mut self, now: &Now) {
        if !writable() {
            // A stopped or slow terminal (Ctrl-S) must not keep the rings from being emptied.
            return;
        }
        let cpu = cpu_time();
        let passed = self.last.0.elapsed().as_secs_f64().max(1e-3);
        let rate = (now.events - self.last.1.min(now.events)) as f64 / passed;
        let busy = cpu.saturating_sub(self.last.2).as_secs_f64() * 100.0 / passed;
        // The line is cleared and drawn in one write, so that it is never shown half.
        let line = format!(
            "\r\x1b[K{:.0} s  {} events ({}/s)  ring {:.0} %  lost {}  {}  recorder {busy:.1} % CPU",
            self.start.elapsed().as_secs_f64(),
            grouped(now.events),
            grouped(rate as u64),
            now.fill * 100.0,
            grouped(now.lost),
            bytes(now.written),
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
        self.drawn = true;
        self.last = (Instant::now(), now.events, cpu);
    }

    /// The fact that says the same in the capture, for somebody who watches it.
    pub(crate) fn fact(&mut self, now: &Now) -> (String, String) {
        let (at, before) = std::mem::replace(&mut self.noted, (Instant::now(), cpu_time()));
        let passed = at.elapsed().as_secs_f64().max(1e-3);
        let busy = cpu_time().saturating_sub(before).as_secs_f64() * 100.0 / passed;
        let text =
            format!("events {} lost {} ring {:.1} cpu {busy:.1}", now.events, now.lost, now.fill * 100.0);
        ("recorder.now".to_owned(), text)
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
