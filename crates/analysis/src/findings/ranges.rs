//! [`Ranges`]: the ranges of host memory that were invalidated, how long each may have been open, and where they lie in guest memory.
//!
//! `kvm_unmap_hva_range` shows that an invalidation begins. Its end is not traced: it is open at most until the thread's next event that is no
//! part of it.

use mmuscope_spte::State;
use rustc_hash::FxHashMap as HashMap;
use std::cmp::Ordering;

use super::cause::{Cause, What};
use super::moment::{At, Change};

/// Most invalidations that are kept.
const MOST: usize = 1 << 20;
/// Most places that memory slots are remembered by.
const SLOTS: usize = 64;

/// One invalidated range.
#[derive(Clone, Debug)]
pub(super) struct Range {
    pub(super) event: u32,
    pub(super) ts: u64,
    pub(super) tid: u32,
    pub(super) vm: u16,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Lowest and highest frame that the thread zapped while the range was open, and how many entries.
    pub(super) zapped: Option<(u64, u64)>,
    pub(super) zaps: u64,
    /// Time and number of the thread's last zap while the range was open.
    pub(super) last: Option<(u64, u32)>,
    /// The thread's next event that is no part of the invalidation: number and time.
    pub(super) closed: Option<(u32, u64)>,
}

/// The invalidated ranges in the order of their events, and where host memory lies in guest memory.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    pub(super) all: Vec<Range>,
    open: HashMap<u32, usize>,
    /// By VM, `hva - gfn * 4096` of what was zapped alone in an invalidation of one page, with how often.
    slots: HashMap<(u16, u64), u32>,
}

impl Ranges {
    pub(super) fn begin(&mut self, range: Range) {
        self.close(range.tid, range.event, range.ts);
        if self.all.len() < MOST {
            self.open.insert(range.tid, self.all.len());
            self.all.push(range);
        }
    }

    /// Notes that a thread went on to something else.
    pub(super) fn close(&mut self, tid: u32, event: u32, ts: u64) {
        let Some(i) = self.open.remove(&tid) else { return };
        let r = &mut self.all[i];
        r.closed = Some((event, ts));
        let Some((lo, hi)) = r.zapped else { return };
        // Every page of the range was mapped by an entry of its own: the first entry maps the first page.
        let whole = r.zaps == hi - lo + 1 && (hi - lo + 1) << 12 == r.end.wrapping_sub(r.start);
        if whole
            && (self.slots.len() < SLOTS || self.slots.contains_key(&(r.vm, r.start.wrapping_sub(lo << 12))))
        {
            *self.slots.entry((r.vm, r.start.wrapping_sub(lo << 12))).or_default() += 1;
        }
    }

    /// A thread's change, which may be part of its open invalidation.
    pub(super) fn change(&mut self, c: &Change) {
        let Some(i) = self.open.get(&c.tid) else { return };
        if c.old.state == State::Present && c.new.state != State::Present {
            let r = &mut self.all[*i];
            let (lo, hi) = r.zapped.unwrap_or((c.gfn, c.gfn));
            r.zapped = Some((lo.min(c.gfn), hi.max(c.gfn)));
            r.zaps += 1;
            r.last = Some((c.ts, c.event));
        }
    }

    /// A zap that a probe shows, which names no frame.
    pub(super) fn cleared(&mut self, at: &At<'_>) {
        let Some(i) = self.open.get(&at.tid) else { return };
        let r = &mut self.all[*i];
        r.zaps += 1;
        r.last = Some((at.ts, at.event));
    }

    /// Every invalidation.
    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> + '_ {
        self.all.iter().map(|r| Cause {
            end: r.closed.map(|c| c.1),
            last_event: r.last.map_or(r.event, |l| l.1),
            gfns: r.zapped,
            ..Cause::new(
                r.tid,
                (r.ts, r.event),
                What::Notifier { start: r.start, end: r.end, zapped: r.zaps },
            )
        })
    }

    /// The invalidation that a thread has begun and not left.
    pub(super) fn of(&self, tid: u32) -> Option<usize> {
        self.open.get(&tid).copied()
    }

    /// Whether a range covers a frame: entries around it were zapped, or it is where the memory slots put it. `hva` is the frame's host address, where
    /// its slot is known.
    pub(super) fn covers(&self, r: &Range, gfn: u64, hva: Option<u64>) -> bool {
        let among = |hva: u64| (r.start..r.end).contains(&hva);
        r.zapped.is_some_and(|(lo, hi)| (lo..=hi).contains(&gfn))
            || hva.map_or_else(
                || self.slots.keys().any(|(vm, offset)| *vm == r.vm && among(offset.wrapping_add(gfn << 12))),
                among,
            )
    }

    /// On which side of a frame a range lies (`Less`: below it), where that is known of all the places it may have.
    pub(super) fn side(&self, r: &Range, gfn: u64, hva: Option<u64>) -> Option<Ordering> {
        let between = |start: u64, end: u64, at: u64| {
            if end <= at {
                Some(Ordering::Less)
            } else if start > at {
                Some(Ordering::Greater)
            } else {
                None
            }
        };
        if let Some(hva) = hva {
            return between(r.start, r.end, hva);
        }
        let at = |start: u64, end: u64| between(start, end, gfn);
        if let Some((lo, hi)) = r.zapped {
            return at(lo, hi + 1);
        }
        // The one slot that is known; of several it may be any.
        let mut of = self.slots.keys().filter(|(vm, _)| *vm == r.vm);
        let (Some((_, offset)), None) = (of.next(), of.next()) else { return None };
        let (start, end) = (r.start.checked_sub(*offset)?, r.end.checked_sub(*offset)?);
        at(start >> 12, end >> 12)
    }
}
