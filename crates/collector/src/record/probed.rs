//! What the probes of a recording do: [`Probed`] notices requests for memory slots, and switches the probes off where they are hit too often.

use std::time::{Duration, Instant};

use mmuscope_snapshot::{Packer, Piece};
use mmuscope_units::count;

use super::plan::Recorder;
use crate::host::monotonic;
use crate::probes::Probe;
use crate::{Probes, preamble, sys};

/// The functions whose probe shows that memory slots change.
const SLOTS: [&str; 2] = ["__kvm_set_memory_region", "kvm_set_memory_region"];
/// Over how long hits are counted against the limit.
const WINDOW: Duration = Duration::from_secs(1);

/// The most hits in a second of a recording that names no other limit: about half of one CPU's time. A hit takes about a microsecond, and 50 ns
/// more for each CPU, because perf sets every probe once for each.
pub(super) fn default_limit(cpus: usize) -> u64 {
    10_000_000 / (20 + cpus as u64)
}

/// The hits of the probes.
pub(super) struct Probed {
    limit: u64,
    /// The hits of all probes when the window began, and when that was.
    before: u64,
    began: Instant,
    slot_requests: u64,
    /// The number of CPUs on which the probes were switched off.
    off: Option<usize>,
}

/// What came of a look at the probes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// A VMM asked for other memory slots.
    pub slots: bool,
    /// The probes were switched off; these are the records that say so.
    pub stopped: Option<Vec<u8>>,
}

impl Probed {
    pub(super) fn new(r: &Recorder<'_>) -> Self {
        let limit = r.options.probe_limit.unwrap_or_else(|| default_limit(r.cpus.len()));
        Self { limit, before: 0, began: Instant::now(), slot_requests: 0, off: None }
    }

    /// What the user should know where shadow pages were there at the end, and nothing showed what their MMU does without an event: a nested guest
    /// that was started during the recording, or probes that this host cannot have.
    pub(super) fn unprobed(r: &Recorder<'_>, shadow_pages: bool) -> Option<String> {
        let probed =
            r.plan.probes.iter().any(|p| !SLOTS.iter().any(|s| s.as_bytes() == p.function.as_bytes()));
        (shadow_pages && !probed && r.options.probes == Probes::Auto).then(|| {
            "a VM has shadow pages now (a nested guest was started meanwhile?), and no probe showed what their MMU does without an event; with \
             --probes on they are set from the beginning"
                .to_owned()
        })
    }

    /// The hits of the probes that `of` accepts by the name of their function.
    fn hits(r: &Recorder<'_>, of: impl Fn(&str) -> bool) -> u64 {
        let first = 1 + r.plan.events.len();
        let wanted = r.plan.probes.iter().enumerate().filter(|(_, p)| p.function.to_str().is_ok_and(&of));
        wanted.flat_map(|(i, _)| r.cpus.iter().map(move |c| c.seen[first + i])).sum()
    }

    /// Switches off all probes but the one on memory slots, which VMMs hit rarely.
    fn switch_off(r: &Recorder<'_>) {
        let first = 1 + r.plan.events.len();
        let hot = |p: &Probe| !SLOTS.iter().any(|s| s.as_bytes() == p.function.as_bytes());
        for (i, _) in r.plan.probes.iter().enumerate().filter(|(_, p)| hot(p)) {
            for c in &r.cpus {
                // A CPU that went offline has nothing left to switch off.
                let _ = sys::disable(&c.fds[first + i]);
            }
        }
    }

    /// Looks at what the rings held since the last call.
    pub(super) fn look(&mut self, r: &mut Recorder<'_>) -> Seen {
        let mut seen = Seen::default();
        if r.plan.probes.is_empty() {
            return seen;
        }
        let requests = Self::hits(r, |f| SLOTS.contains(&f));
        seen.slots = requests > std::mem::replace(&mut self.slot_requests, requests);
        if let Some(cpus) = &mut self.off {
            if *cpus < r.cpus.len() {
                *cpus = r.cpus.len();
                Self::switch_off(r);
            }
            return seen;
        }
        let (hits, elapsed) = (Self::hits(r, |f| !SLOTS.contains(&f)), self.began.elapsed());
        let came = hits - self.before;
        // A burst that reaches the limit need not last for a second.
        if came > self.limit {
            seen.stopped = Some(self.stop(r, came, elapsed.min(WINDOW)));
        } else if elapsed >= WINDOW {
            (self.before, self.began) = (hits, Instant::now());
        }
        seen
    }

    fn stop(&mut self, r: &mut Recorder<'_>, came: u64, within: Duration) -> Vec<u8> {
        let at = monotonic();
        Self::switch_off(r);
        self.off = Some(r.cpus.len());
        let names = r.plan.probes.iter().map(|p| p.function.to_string_lossy().into_owned());
        let events = names.filter(|f| !SLOTS.contains(&f.as_str())).collect();
        r.notes.push(format!(
            "THE PROBES WERE SWITCHED OFF: they were hit {} times within {}, and the limit is {} in a second (--probe-limit). What this host's MMU \
             does without an event is not traced from there on",
            count(came),
            mmuscope_units::duration(within.as_nanos() as u64),
            count(self.limit)
        ));
        let mut pack = Packer::default();
        pack.push(&Piece::Stopped { at, events });
        let mut out = Vec::new();
        for body in pack.records() {
            preamble::snapshot(&mut out, &body);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_cpus_allow_fewer_hits() {
        assert_eq!(default_limit(2), 454_545);
        assert_eq!(default_limit(180), 50_000);
    }
}
