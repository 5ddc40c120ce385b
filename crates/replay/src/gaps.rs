//! [`Unexplained`] holds what the events of several CPUs leave open when they are traced in another order than they happened in: old values and
//! re-read values that did not fit, waiting for the change that explains them. The TDP MMU's rules leave them here and look for them; what is
//! not explained in time becomes evidence. It also keeps links that were cut before any event made them, and entries that a late event filled.
//! Nothing here looks at tables.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::keys::{EntryIx, Key};
use crate::model::{Evidence, EvidenceKind, VmId};

/// Gaps that wait at a time; the oldest gives way.
const MOST: usize = 256;

/// An old value that did not fit: the change that must have come before may still come, from another CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    pub(crate) vm: u16,
    pub(crate) key: Key,
    pub(crate) entry: EntryIx,
    pub(crate) gfn: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
    pub(crate) tid: u32,
    pub(crate) kind: EvidenceKind,
}

/// Those that wait, oldest first, and how many at each frame: most changes have none at theirs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    list: VecDeque<Gap>,
    at: FxHashMap<u64, u32>,
}

impl Gaps {
    /// Gives back the one that waited longest where there is no room for another.
    pub(crate) fn push(&mut self, gap: Gap) -> Option<Gap> {
        let oldest = if self.list.len() >= MOST { self.list.pop_front() } else { None };
        if let Some(g) = oldest {
            self.forget(g.gfn);
        }
        *self.at.entry(gap.gfn).or_default() += 1;
        self.list.push_back(gap);
        oldest
    }

    fn forget(&mut self, gfn: u64) {
        if let Some(n) = self.at.get_mut(&gfn) {
            *n -= 1;
            if *n == 0 {
                self.at.remove(&gfn);
            }
        }
    }

    /// The first at a frame that `is` holds of.
    pub(crate) fn find(&self, gfn: u64, is: impl Fn(&Gap) -> bool) -> Option<usize> {
        if self.list.is_empty() || !self.at.contains_key(&gfn) {
            return None;
        }
        self.list.iter().position(|g| g.gfn == gfn && is(g))
    }

    pub(crate) fn get(&self, i: usize) -> Option<&Gap> {
        self.list.get(i)
    }

    /// The values of one became others: frame and place stay.
    pub(crate) fn set(&mut self, i: usize, from: u64, to: u64) {
        if let Some(g) = self.list.get_mut(i) {
            (g.from, g.to) = (from, to);
        }
    }

    pub(crate) fn remove(&mut self, i: usize) {
        if let Some(g) = self.list.remove(i) {
            self.forget(g.gfn);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.list.iter()
    }
}

/// A value that `kvm_mmu_set_spte` re-read and no event explains yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reread {
    pub(crate) vm: u16,
    pub(crate) key: Key,
    pub(crate) entry: EntryIx,
    pub(crate) gfn: u64,
    pub(crate) known: u64,
    pub(crate) seen: u64,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

/// The number of re-read values, and of links that were cut before they were seen, that wait at a time; the oldest gives way.
const FEW: usize = 64;

/// What waits for an event that explains it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unexplained {
    pub(crate) gaps: Gaps,
    rereads: Vec<Reread>,
    /// Pages whose link was cut before any event made it: with thread and time.
    cuts: Vec<(u64, u32, u64)>,
    /// Entries of torn-down tables that a late event said were filled.
    late: FxHashSet<EntryIx>,
}

impl Unexplained {
    /// Events may be missing from here on, so that no change will explain what waits. Re-read values are dropped; old values are returned, to be
    /// reported.
    pub(crate) fn give_up(&mut self) -> Gaps {
        self.rereads.clear();
        std::mem::take(&mut self.gaps)
    }

    /// The old values that wait are of tables that are gone.
    pub(crate) fn forget_gaps(&mut self) {
        self.gaps = Gaps::default();
    }

    /// A value was read that nothing explains. Returns the one that waited longest where there is no room for another.
    pub(crate) fn leave_reread(&mut self, r: Reread) -> Option<Reread> {
        let oldest = (self.rereads.len() >= FEW).then(|| self.rereads.remove(0));
        self.rereads.push(r);
        oldest
    }

    /// Those re-read values that `explained` holds of wait no more.
    pub(crate) fn explain_rereads(&mut self, explained: impl Fn(&Reread) -> bool) {
        self.rereads.retain(|r| !explained(r));
    }

    /// The link to a page was cut, and no event has made it yet.
    pub(crate) fn cut_first(&mut self, page: u64, tid: u32, ts: u64) {
        if self.cuts.len() >= FEW {
            self.cuts.remove(0);
        }
        self.cuts.push((page, tid, ts));
    }

    /// Whether another thread than `tid` was seen to cut the link to a page at `since` or later.
    pub(crate) fn was_cut_first(&self, page: u64, tid: u32, since: u64) -> bool {
        self.cuts.iter().any(|(p, by, ts)| *p == page && *by != tid && *ts >= since)
    }

    /// An event said that an entry of a torn-down table was filled.
    pub(crate) fn filled_late(&mut self, entry: EntryIx) {
        self.late.insert(entry);
    }

    /// Whether one did, which is answered once.
    pub(crate) fn take_filled_late(&mut self, entry: EntryIx) -> bool {
        self.late.remove(&entry)
    }

    /// What still waits, as the evidence that it is if nothing more comes; `after_loss` says of a time whether events may be missing there.
    pub(crate) fn as_evidence(&self, after_loss: impl Fn(u64) -> bool) -> Vec<Evidence> {
        let gaps = self.gaps.iter().map(|g| gap_evidence(g, after_loss(g.ts)));
        gaps.chain(self.rereads.iter().map(|r| reread_evidence(r, after_loss(r.ts)))).collect()
    }
}

pub(crate) fn gap_evidence(g: &Gap, after_loss: bool) -> Evidence {
    Evidence {
        kind: g.kind,
        ts: g.ts,
        event: g.ev,
        vm: VmId(g.vm),
        entry: Some(g.entry.id()),
        as_id: g.key.as_id,
        level: g.key.level,
        gfn: g.gfn,
        expected: Some(g.from),
        found: Some(g.to),
        after_loss,
    }
}

pub(crate) fn reread_evidence(r: &Reread, after_loss: bool) -> Evidence {
    Evidence {
        kind: EvidenceKind::SetSpte,
        ts: r.ts,
        event: r.ev,
        vm: VmId(r.vm),
        entry: Some(r.entry.id()),
        as_id: r.key.as_id,
        level: r.key.level,
        gfn: r.gfn,
        expected: Some(r.known),
        found: Some(r.seen),
        after_loss,
    }
}
