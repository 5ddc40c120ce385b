//! Old values and re-read values that did not fit, waiting for the change that explains them. The TDP MMU's rules leave them here and look for
//! them; what is not explained in time becomes evidence.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

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
        if let Some(g) = self.list.swap_remove_back(i) {
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
