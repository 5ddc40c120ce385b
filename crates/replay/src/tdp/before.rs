//! What an entry held before a change, as the change says: a gap where that does not fit what was known ([`crate::gaps`]), an earlier value where
//! nothing was, and what the kernel itself calls a bug. Asked by the rules that apply a change; none of them is called from here.

use mmuscope_spte::State as SpteState;

use crate::engine::Engine;
use crate::gaps::Gap;
use crate::keys::EntryIx;
use crate::model::{EvidenceKind, State};
use crate::moment::At;
use crate::tdp::change::{Change, Fit};

impl Engine {
    /// What does not fit, about a change.
    pub(crate) fn note(
        &mut self,
        kind: EvidenceKind,
        c: &Change,
        entry: Option<EntryIx>,
        values: (Option<u64>, Option<u64>),
    ) {
        self.evidence(kind, c.at, entry, c.key, c.gfn, values);
    }

    pub(super) fn leave_gap(&mut self, c: &Change, entry: EntryIx, from: u64) {
        let Change { at: At { th, vm, ev, ts, .. }, key, gfn, old: to, .. } = *c;
        let tid = self.threads[th].tid;
        let gap = Gap { vm, key, entry, gfn, from, to, ev, ts, tid, kind: EvidenceKind::OldValue };
        if let Some(oldest) = self.unexplained.gaps.push(gap) {
            self.report_gap(&oldest);
        }
    }

    /// What an entry held until a change, where only that change shows it: the change is an event of the page all the same.
    pub(super) fn push_old_value(&mut self, c: &Change, entry: EntryIx, fit: Fit, careful: bool) {
        if !(fit == Fit::Unknown || fit == Fit::No && careful) {
            return;
        }
        let shade = self.shade(c.old, c.key.level);
        if !matches!(shade.state(), State::Present | State::Mmio | State::Table) {
            return;
        }
        // What is removed may be in a table whose link was cut before the trace began: then it was out of reach already.
        let attached = self.store.tables[self.store.table_of(entry)].attached();
        let removed = self.layout.is_removed(c.new) && (attached || !self.threads[c.at.th].tears_reached);
        // Up to 5.11 what is torn down is emptied like any other entry: a thread that did nothing else so far may be in the middle of that.
        let removed = removed
            || self.layout.removed.is_none()
                && !self.threads[c.at.th].did_more_than_zap
                && !self.layout.is_shadow_present(c.new);
        let r = &self.store.tables[self.store.table_of(entry)];
        let leaf = shade.state() != State::Table;
        let doubt = r.again && !r.born || self.unattributed.may_be_of(c.key.level, c.gfn, leaf);
        let since = if removed || doubt { c.at.ts } else { self.since() };
        let since = if r.born { since.max(r.start_ts) } else { since };
        self.store.push_old(entry, c.at.ev, c.old, shade, since);
    }

    /// When the trace began, or last lost something: every change of a TDP table since then is an event.
    pub(crate) fn since(&self) -> u64 {
        match self.noted.last_loss() {
            Some(ev) => self.store.ev_ts.get(ev as usize),
            None => self.clock.first().unwrap_or(0),
        }
    }

    /// Things the kernel itself calls bugs.
    pub(super) fn check_values(&mut self, c: &Change, entry: EntryIx) {
        let Change { key, old, new, .. } = *c;
        let l = &self.layout;
        let (o, n) = (l.state(old, key.level), l.state(new, key.level));
        if o == SpteState::Present && n == SpteState::Present && self.pfn_bits(old) != self.pfn_bits(new) {
            self.note(EvidenceKind::PfnChanged, c, Some(entry), (Some(old), Some(new)));
        } else if o == SpteState::Nonpresent && n == SpteState::Nonpresent && old != new {
            self.note(EvidenceKind::NonpresentChanged, c, Some(entry), (Some(old), Some(new)));
        } else if n == SpteState::Present
            && new & 2 != 0
            && l.masks.mmu_writable_mask != 0
            && new & l.masks.mmu_writable_mask == 0
        {
            self.note(EvidenceKind::WritableBits, c, Some(entry), (None, Some(new)));
        }
    }
}
