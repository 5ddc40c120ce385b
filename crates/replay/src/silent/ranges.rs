//! [`Ranges`]: the mmu_notifier ranges there were, and which of them may still be about to zap something. Filled and asked by
//! [`notifiers`](super::notifiers); it knows no entry.

use std::collections::VecDeque;

use mmuscope_trace::Trace;

/// After this long a range's zap has come, even if its thread never makes another event (a helper thread of the VMM that frees memory).
///
/// Between event and zap the thread does nothing but wait for `mmu_lock`, whose queue is fair. It can only be kept from that by not
/// running at all, and the scheduler withholds the CPU from a runnable thread for one bandwidth period at most, which is never above 1 s.
const PATIENCE: u64 = 2_000_000_000;

/// Ranges that are remembered.
const RECENT: usize = 64;

/// A notifier range whose thread has not gone on: the zap may still be to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenRange {
    pub(super) tid: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) ts: u64,
    pub(super) ev: u32,
}

/// A page invalidated in a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cow {
    pub(super) hva: u64,
    /// Page of the address that the fault is for, and its first event.
    pub(super) page: u64,
    pub(super) fault: u32,
    /// It was not the only one in that fault.
    pub(super) several: bool,
}

/// The ranges there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    pub(super) open: Vec<OpenRange>,
    /// The last ones, open or not, with the first of the events that are remembered.
    pub(super) recent: VecDeque<OpenRange>,
    pub(super) from: u32,
    /// Such ranges are recorded in this trace.
    pub(super) recorded: bool,
    /// Not all of them: the recording is of some threads only, and any thread of the host may take pages from a guest.
    pub(super) partial: bool,
    /// Until when, in nanoseconds on the trace's clock, a range may still be about to zap whose event is not in the trace: it came before the
    /// first event, or was lost.
    unseen_until: u64,
}

impl Ranges {
    /// What a capture of ours says about itself.
    pub(super) fn of(trace: &Trace) -> Self {
        let facts = |name: &'static str| {
            trace.info.host.facts.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
        };
        let whole = facts("record.scope").all(|s| s == "the whole system");
        let sieved = facts("record.filter").any(|f| f.starts_with("kvm:kvm_unmap_hva_range"));
        let partial = !whole || sieved;
        Self { partial, ..Self::default() }
    }

    /// Every event from `ts` on is in the trace, and the one that announced a range may have come just before.
    pub(super) fn seen_from(&mut self, ts: u64) {
        self.unseen_until = ts.saturating_add(PATIENCE);
    }

    /// Whether a range may be about to zap at `ts` whose event is not in the trace.
    pub(super) fn unseen(&self, ts: u64) -> bool {
        ts < self.unseen_until
    }

    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.recent.clear();
        self.from = u32::MAX;
    }

    /// A thread's open range holds these addresses.
    pub(super) fn covers(&self, tid: u32, start: u64, end: u64) -> bool {
        self.open.iter().any(|r| r.tid == tid && r.start <= start && end <= r.end)
    }

    pub(super) fn close(&mut self, tid: u32) {
        if !self.open.is_empty() {
            self.open.retain(|r| r.tid != tid);
        }
    }

    pub(super) fn open(&mut self, r: OpenRange) {
        self.open.retain(|o| r.ts.saturating_sub(o.ts) < PATIENCE);
        self.open.push(r);
        if self.recent.len() >= RECENT
            && let Some(old) = self.recent.pop_front()
        {
            self.from = old.ev + 1;
        }
        if self.recent.is_empty() {
            self.from = self.from.min(r.ev);
        }
        self.recent.push_back(r);
    }

    /// Those whose zap may still be to come, of other threads.
    pub(super) fn pending(&self, tid: u32, ts: u64) -> impl Iterator<Item = &OpenRange> {
        self.open.iter().filter(move |r| r.tid != tid && ts.saturating_sub(r.ts) < PATIENCE)
    }
}
