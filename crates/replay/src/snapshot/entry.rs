//! One entry that was read in memory: whether that is what was known, settles what was not, or is ahead of the trace. Called for each entry of a
//! table that was read, and for each change, which may be the one that memory was ahead by.

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx, key_of};
use crate::model::{Certainty, MmuKind, Reason, Shade};
use crate::moment::At;
use crate::snapshot::state::{Ahead, difference};

/// Changes that may be made in memory and not yet traced.
const MOST_AHEAD: usize = 4096;

impl Engine {
    /// An entry was read: `found` is its value with how that is shown, `from` when reading of its table began, `gfn` its first frame. The result is
    /// `true` if it holds something else than was known.
    pub(crate) fn entry_read(
        &mut self,
        at: At,
        entry: EntryIx,
        found: (u64, Shade),
        from: u64,
        key: Key,
        gfn: u64,
    ) -> bool {
        let (value, shade) = found;
        let Some(s) = self.store.last_span(entry) else {
            let t = &self.store.tables[self.store.table_of(entry)];
            if t.born && !t.lossy && !t.silent && t.start_ev != at.ev {
                // What no event has shown of a table that was seen from its beginning is empty.
                let (claimed, certainty) = (t.empty, Certainty::Implied);
                self.ahead(at, entry, (key, gfn), (claimed, value), certainty);
            } else {
                self.settled(1);
            }
            self.store.push(entry, at.ev, Some(value), shade, Certainty::Observed, Reason::Snapshot);
            return true;
        };
        let m = self.store.meta(s);
        let claimed = self.store.s_spte[s];
        let same = m.shade == shade && (!m.has_value || self.same(claimed, value, key.level));
        let empty = |x: Shade| matches!(x, Shade::Nonpresent | Shade::Removed);
        if empty(shade) && empty(m.shade) {
            if m.certainty == Certainty::Stale {
                self.settled(1);
                self.store.push(entry, at.ev, Some(value), shade, Certainty::Observed, Reason::Snapshot);
            }
            return false;
        }
        if !same && self.store.start(s) >= from {
            // An event says what happened since.
            return false;
        }
        let fact = m.certainty < Certainty::Stale && m.shade != Shade::Unknown;
        if same && fact {
            if let Some(x) = self.snapshots.done.last_mut() {
                x.equal += 1;
            }
            // Accessed and Dirty may have been set since, and what followed from other events is now seen.
            if m.certainty > Certainty::Observed || !m.has_value || claimed != value {
                self.store.push(entry, at.ev, Some(value), shade, Certainty::Observed, Reason::Snapshot);
            }
            return false;
        }
        if fact {
            self.ahead(at, entry, (key, gfn), (claimed, value), m.certainty);
        } else {
            self.settled(1);
        }
        self.store.push(entry, at.ev, Some(value), shade, Certainty::Observed, Reason::Snapshot);
        true
    }

    /// Memory shows another value than what was claimed as fact.
    fn ahead(&mut self, at: At, entry: EntryIx, place: (Key, u64), values: (u64, u64), certainty: Certainty) {
        let of = self.snapshots.done.len().saturating_sub(1);
        let ((key, gfn), (claimed, found)) = (place, values);
        let a = Ahead { key, gfn, entry, claimed, found, certainty, vm: at.vm, of };
        // Only few changes can be made and not yet traced: one for each CPU, and those whose thread was interrupted.
        if self.snapshots.ahead.len() >= MOST_AHEAD {
            if let Some(s) = self.snapshots.done.last_mut() {
                s.differ(difference(&a));
            }
            return;
        }
        self.snapshots.ahead.push(a);
    }

    fn settled(&mut self, n: u64) {
        if let Some(s) = self.snapshots.done.last_mut() {
            s.settled += n;
        }
    }

    /// A change whose result was read in memory before it was traced: nothing is new about it.
    pub(crate) fn was_read(&mut self, at: At, key: Key, gfn: u64, old: u64, new: u64) -> bool {
        if self.snapshots.ahead.is_empty() {
            return false;
        }
        let fits = |a: &Ahead| {
            a.key == key
                && a.gfn == gfn
                && self.same(a.claimed, old, key.level)
                && self.same(a.found, new, key.level)
        };
        let Some(i) = self.snapshots.ahead.iter().position(fits) else { return false };
        let a = self.snapshots.ahead.swap_remove(i);
        if let Some(s) = self.snapshots.done.get_mut(a.of) {
            s.equal += 1;
        }
        let shade = self.shade(new, key.level);
        self.store.push(a.entry, at.ev, Some(new), shade, Certainty::Exact, Reason::Stated);
        true
    }

    /// Notes which MMU a VM has, and that it has this address space, as a table that was read shows.
    pub(crate) fn kind_read(&mut self, at: At, kind: MmuKind, as_id: u8) {
        self.mmu_kind(at.vm, kind);
        self.vms.as_id(at.vm, as_id);
    }

    /// The table may be in the middle of its teardown, which is traced only now.
    pub(super) fn note_unlinked(&mut self, table: TableIx, ts: u64) {
        let r = &self.store.tables[table];
        let (vm, key) = (r.vm, key_of(r.as_id, r.level, r.gfn));
        self.snapshots.note_unlinked(vm, key, ts);
    }
}
