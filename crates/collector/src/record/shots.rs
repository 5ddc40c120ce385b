//! Snapshots of KVM's tables during a recording. The main type is [`Shots`]: it takes them on a thread of its own, because the rings must be
//! emptied meanwhile, and hands their records to the capture.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Recorder;
use super::whole::obstacle;
use crate::When;
use crate::host::monotonic;
use crate::preamble;
use crate::scrub::Hidden;
use crate::snapshot::{Host, Shot};

/// How long the end of a recording waits for its snapshot.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long after a request the memory slots are read, at least how long between two such readings, and after how long no request can still be
/// under way.
const SLOTS_SOON: Duration = Duration::from_millis(20);
const SLOTS_APART: Duration = Duration::from_millis(500);
const SLOTS_SURE: Duration = Duration::from_millis(2200);

/// What is read.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Everything.
    All { all_on: Option<u64> },
    /// Memory slots only.
    Slots,
}

/// The snapshots of one recording.
pub(super) struct Shots {
    when: When,
    /// The processes whose VMs are read; `None` for all.
    pid: Option<u32>,
    hidden: Option<Hidden>,
    /// What was found of this host.
    host: Arc<Mutex<Option<Host>>>,
    under_way: Option<(What, Receiver<Result<Shot, String>>)>,
    last: Instant,
    /// How long the end waits.
    patience: Duration,
    /// When the memory slots are to be read again, because the VMM changed them, the next time first.
    slots_due: Vec<Instant>,
    /// When they were read last.
    slots_read: Option<Instant>,
    /// What was read, one sentence each.
    pub said: Vec<String>,
    /// How many snapshots were taken.
    pub taken: u32,
    /// The last of them read shadow pages.
    pub shadow_pages: bool,
    failed: bool,
}

impl Shots {
    pub(super) fn new(r: &Recorder<'_>) -> Self {
        let o = r.options;
        let mut said = Vec::new();
        let when = match obstacle(o) {
            Some(_) if o.snapshot == When::OFF => When::OFF,
            Some(why) => {
                said.push(format!("no snapshot of KVM's tables: {why}"));
                When::OFF
            }
            None => o.snapshot,
        };
        let pid = r.sieve.only_pid();
        let (under_way, last, taken, shadow_pages, failed) = (None, Instant::now(), 0, false, false);
        let (hidden, slots_due, slots_read) = (r.sieve.hidden(), Vec::new(), None);
        let (host, patience) = (Arc::default(), PATIENCE);
        Self {
            when,
            pid,
            hidden,
            host,
            under_way,
            last,
            patience,
            slots_due,
            slots_read,
            said,
            taken,
            shadow_pages,
            failed,
        }
    }

    fn begin(&mut self, what: What) {
        if self.under_way.is_some() || self.failed {
            return;
        }
        let (to, from) = channel();
        let (pid, hidden, host) = (self.pid, self.hidden, Arc::clone(&self.host));
        let run = move || {
            let wanted = |p| pid.is_none_or(|own| own == p);
            // A thread that failed while it held this left nothing half done.
            let mut known = host.lock().unwrap_or_else(PoisonError::into_inner);
            let found = known.take().map_or_else(Host::find, Ok);
            let shot = found.map(|h| {
                let shot = match what {
                    What::All { all_on } => h.take(&wanted, hidden, all_on),
                    What::Slots => h.slots(&wanted, hidden),
                };
                *known = Some(h);
                shot
            });
            // Whoever no longer waits needs no snapshot.
            let _ = to.send(shot);
        };
        if thread::Builder::new().name("snapshot".into()).spawn(run).is_ok() {
            self.under_way = Some((what, from));
        }
        match what {
            What::All { .. } => self.last = Instant::now(),
            What::Slots => self.slots_read = Some(Instant::now()),
        }
    }

    /// A VMM asks for other memory slots. They are read again soon, and later, when KVM has surely carried it out.
    pub(super) fn slots_asked(&mut self) {
        if self.when == When::OFF {
            return;
        }
        let now = Instant::now();
        let first = self.slots_read.map_or(now, |t| now.max(t + SLOTS_APART)) + SLOTS_SOON;
        let earliest = self.slots_due.first().copied().filter(|t| *t < first).unwrap_or(first);
        self.slots_due = vec![earliest, now + SLOTS_APART, now + SLOTS_SURE];
    }

    /// Starts the first one, if it is wanted. All events of the recording have just been switched on.
    pub(super) fn start(&mut self) {
        if self.when.start {
            self.begin(What::All { all_on: Some(monotonic()) });
        }
    }

    /// Starts the next one if it is time, and returns the records of one that is done.
    pub(super) fn step(&mut self) -> Option<Vec<u8>> {
        if self.when.every.is_some_and(|t| self.last.elapsed() >= t) {
            self.begin(What::All { all_on: None });
        }
        let now = Instant::now();
        if self.under_way.is_none() && self.slots_due.first().is_some_and(|t| *t <= now) {
            self.slots_due.retain(|t| *t > now);
            self.begin(What::Slots);
        }
        self.done()
    }

    /// Whether one is being taken, or taken and not yet handed on.
    pub(super) fn under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// How long until something is due.
    pub(super) fn patience(&self, rhythm: Duration) -> Duration {
        let soon = self.under_way.is_some() || !self.slots_due.is_empty();
        if soon { rhythm.min(Duration::from_millis(20)) } else { rhythm }
    }

    fn done(&mut self) -> Option<Vec<u8>> {
        let (what, from) = self.under_way.as_ref()?;
        let what = *what;
        let answer = match from.try_recv() {
            Ok(a) => a,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("reading failed".into()),
        };
        self.under_way = None;
        match answer {
            Ok(shot) => {
                if matches!(what, What::All { .. }) {
                    self.taken += 1;
                    self.shadow_pages = shot.vms.iter().any(|v| v.shadow > 0);
                    self.said.push(shot.to_string());
                }
                let mut out = Vec::new();
                for body in &shot.records {
                    preamble::snapshot(&mut out, body);
                }
                Some(out)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failed, true) {
                    self.said.push(format!("no snapshot of KVM's tables: {why}"));
                }
                None
            }
        }
    }

    /// Takes the last one. `meanwhile` is called again and again until it is there.
    pub(super) fn end(&mut self, mut meanwhile: impl FnMut()) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let began = Instant::now();
        // One that is under way, of the start of a short recording, comes first.
        for last in [false, true] {
            if last && self.when.end {
                self.begin(What::All { all_on: None });
            }
            while self.under_way.is_some() && began.elapsed() < self.patience {
                meanwhile();
                out.extend(self.done());
                if self.under_way.is_some() {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        if self.under_way.is_some() {
            let what = if self.when.end {
                "no snapshot of KVM's tables at the end"
            } else {
                "a snapshot of KVM's tables is missing"
            };
            let patience = mmuscope_units::duration(self.patience.as_nanos() as u64);
            self.said
                .push(format!("{what}: reading took longer than {patience}, and the recording did not wait"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Seen;

    fn shots(under_way: Option<(What, Receiver<Result<Shot, String>>)>, patience: Duration) -> Shots {
        Shots {
            when: When { start: false, every: None, end: true },
            pid: None,
            hidden: None,
            host: Arc::default(),
            under_way,
            last: Instant::now(),
            patience,
            slots_due: Vec::new(),
            slots_read: None,
            said: Vec::new(),
            taken: 0,
            shadow_pages: false,
            failed: false,
        }
    }

    #[test]
    fn an_end_that_does_not_wait_says_so() {
        // The sender lives and sends nothing: something is being read all the time.
        let (_to, from) = channel();
        let mut s = shots(Some((What::Slots, from)), Duration::from_millis(5));
        assert!(s.end(|| ()).is_empty());
        assert_eq!(
            s.said,
            [
                "no snapshot of KVM's tables at the end: reading took longer than 5 ms, and the recording did not wait"
            ]
        );
    }

    #[test]
    fn what_was_being_read_comes_before_the_last() {
        let (to, from) = channel();
        let vm = Seen {
            pid: 7,
            name: "vm".into(),
            vcpus: 1,
            slots: 1,
            tables: 3,
            shadow: 2,
            torn: 0,
            complete: true,
        };
        to.send(Ok(Shot { records: vec![vec![1]], vms: vec![vm], ..Shot::default() }))
            .expect("somebody waits");
        let mut s = shots(Some((What::All { all_on: None }, from)), PATIENCE);
        s.when.end = false;
        assert_eq!((s.end(|| ()).len(), s.taken, s.shadow_pages), (1, 1, true));
        assert_eq!(s.said.len(), 1);
    }
}
