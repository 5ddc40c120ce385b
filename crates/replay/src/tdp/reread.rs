//! Events that read an entry again: `kvm_mmu_set_spte`, which names its page, `mark_mmio_spte` and `fast_page_fault`. The engine's step brings them
//! here first, and to the rules of the silent MMUs ([`crate::silent`]) where `false` says that the entry is not one of the TDP MMU's.

use mmuscope_spte::{State as SpteState, Unlink};
use mmuscope_trace::FastPfResult;

use crate::engine::Engine;
use crate::gaps::Reread;
use crate::keys::{EntryIx, Key, TableIx, index_of, key_of};
use crate::model::{Certainty, EvidenceKind, Reason, Shade, pages_of};
use crate::moment::At;
use crate::reported::{FastFault, MarkMmio, SetSpte};
use crate::tdp::change::{Change, Fit, Found};
use crate::threads::Install;

impl Engine {
    /// `kvm_mmu_set_spte` of a TDP table: its address names the table. Returns whether it was one.
    pub(crate) fn tdp_set_spte(&mut self, at: At, s: &SetSpte) -> bool {
        let SetSpte { gfn, level, .. } = *s;
        let idx = (s.sptep >> 3 & 511) as u16;
        let install = self.threads[at.th].install.take().filter(|i| i.gfn == gfn && i.level == level);
        if let Some(i) = install {
            if idx == index_of(level, gfn) {
                self.locate_install(at, &i, s);
            } else {
                let r = &self.store.tables[i.table];
                let key = Key { as_id: i.as_id, level, gfn: r.gfn };
                let values = (Some(u64::from(index_of(level, gfn))), Some(u64::from(idx)));
                self.evidence(EvidenceKind::Index, At { vm: r.vm, ..at }, Some(i.entry), key, gfn, values);
            }
            return true;
        }
        let page = s.sptep & !0xfff;
        let t = self.attached.in_page(page).filter(|t| {
            let r = &self.store.tables[*t];
            !r.silent && self.vms.is_tdp(r.vm) && self.key_is(*t, key_of(r.as_id, level, gfn))
        });
        let Some(t) = t.filter(|_| idx == index_of(level, gfn)) else {
            return self.set_in_unknown_page(at, s, idx);
        };
        // Nothing changed: another vCPU was faster. The value is evidence all the same.
        self.seen_alive(t);
        let r = &self.store.tables[t];
        let (vm, lossy, born, key) = (r.vm, r.lossy, r.born, key_of(r.as_id, level, gfn));
        let entry = self.store.slot_mut(t, idx);
        let careful = self.vms.careful(vm);
        match self.store.now(entry) {
            Some((cur, m)) if m.has_value && self.same(cur, s.spte, level) => {
                if m.certainty > Certainty::Observed {
                    self.observe(entry, level, s.spte, at.ev);
                }
            }
            Some((cur, m)) => {
                if careful || m.certainty >= Certainty::Assumed || lossy {
                    self.observe(entry, level, s.spte, at.ev);
                } else {
                    // A change by another CPU whose event is still to come, most likely.
                    let known = cur;
                    self.leave_reread(Reread {
                        vm,
                        key,
                        entry,
                        gfn,
                        known,
                        seen: s.spte,
                        ev: at.ev,
                        ts: at.ts,
                    });
                }
            }
            // Read before the store (5.11): a new table is empty anyway.
            None if !careful && !lossy && born && self.same(self.layout.zapped, s.spte, level) => {}
            None => self.observe(entry, level, s.spte, at.ev),
        }
        true
    }

    /// `mark_mmio_spte` of an entry that the thread's change has just set: the change said it all, and this one joins the entry's virtual and physical
    /// addresses. Returns whether it was one.
    pub(crate) fn tdp_mark_mmio(&mut self, at: At, m: &MarkMmio) -> bool {
        let Some(i) = self.threads[at.th].install.filter(|i| i.gfn == m.gfn) else { return false };
        let page = self.store.tables[i.table].page;
        if let Some(v) = m.sptep
            && page != 0
        {
            self.learn_distance(v, page + u64::from(index_of(i.level, m.gfn)) * 8);
        }
        true
    }

    /// The page of the table that an install went to.
    fn locate_install(&mut self, at: At, i: &Install, s: &SetSpte) {
        let page = s.sptep & !0xfff;
        let t = i.table;
        let r = &self.store.tables[t];
        let key = Key { as_id: i.as_id, level: i.level, gfn: r.gfn };
        let careful = self.vms.careful(r.vm);
        if r.page == page {
            if careful && !self.same(s.spte, i.spte, i.level) {
                // Changed again at once, and the event of that may have come before, or not at all.
                self.make_stale(i.entry, at.ev, Reason::Incomplete);
            } else if i.ambiguous {
                self.store.confirm(i.span);
            }
            self.seen_alive(t);
            return;
        }
        let other = self
            .attached
            .in_page(page)
            .filter(|x| *x != t && self.key_is(*x, key) && !self.store.tables[*x].silent);
        if r.page == 0 && (other.is_none() || r.lossy) {
            if let Some(other) = other {
                self.move_install(at, i, other, s, careful);
                return;
            }
            self.retire_page(page, at.ev, at.ts);
            if self.store.tables[t].attached() {
                self.store.tables[t].page = page;
                self.attached.lies_in(t, page);
                self.locate_install(at, i, s);
            }
            return;
        }
        // It went somewhere else than we thought.
        let recent = || {
            let page_is = |x: &TableIx| self.store.tables[*x].page == page && self.key_is(*x, key);
            self.attached.lately().find(page_is)
        };
        if let Some(other) = if careful { other } else { other.or_else(recent) } {
            self.move_install(at, i, other, s, careful);
        } else if careful {
            // A table that no event has named.
            let at = At { vm: r.vm, ..at };
            let root = r.root;
            self.retire_page(page, at.ev, at.ts);
            let new = self.make_table(at.vm, key, None, EntryIx::NONE, at);
            let r = &mut self.store.tables[new];
            (r.page, r.lossy, r.root) = (page, true, root);
            self.attached.lies_in(new, page);
            self.move_install(at, i, new, s, careful);
        } else {
            let values = (Some(r.page), Some(page));
            self.evidence(EvidenceKind::SetSpte, At { vm: r.vm, ..at }, Some(i.entry), key, s.gfn, values);
        }
    }

    /// A value in a page that no event has named, with no change before it: a fault that found it done, in a table of before the trace or
    /// the loss. Or a shadow page beside the tree, a nested guest's: then what it holds may change without an event.
    fn set_in_unknown_page(&mut self, at: At, s: &SetSpte, idx: u16) -> bool {
        let page = s.sptep & !0xfff;
        let taken = self.attached.in_page(page).is_some_and(|t| self.store.tables[t].silent);
        if taken
            || idx != index_of(s.level, s.gfn)
            || at.nobodys()
            || !self.vms.is_tdp(at.vm)
            || self.vms.several_roots(at.vm)
            || self.makes_shadow_page(at, s.level)
        {
            return false;
        }
        self.retire_page(page, at.ev, at.ts);
        let key = key_of(0, s.level, s.gfn);
        let held =
            self.layout.is_shadow_present(s.spte).then(|| self.nameless_with(at.vm, key, idx, s)).flatten();
        let t = held.unwrap_or_else(|| self.make_table(at.vm, key, None, EntryIx::NONE, at));
        let r = &mut self.store.tables[t];
        (r.page, r.lossy) = (page, true);
        self.attached.lies_in(t, page);
        let entry = self.store.slot_mut(t, idx);
        let shade = self.shade(s.spte, s.level);
        let certainty = if held.is_some() { Certainty::Implied } else { Certainty::Stale };
        self.store.push(entry, at.ev, Some(s.spte), shade, certainty, Reason::Incomplete);
        true
    }

    /// The one table of a place whose page no event has named and whose entry held this very value, as after a loss between a change and
    /// the `kvm_mmu_set_spte` that follows it.
    fn nameless_with(&self, vm: u16, key: Key, idx: u16, s: &SetSpte) -> Option<TableIx> {
        let mut fitting = self.attached.at(&key).iter().copied().filter(|t| {
            let r = &self.store.tables[*t];
            r.vm == vm && r.page == 0 && !r.silent && self.fit(*t, idx, s.spte, s.level) == Fit::Exact
        });
        let t = fitting.next()?;
        fitting.next().is_none().then_some(t)
    }

    fn observe(&mut self, entry: EntryIx, level: u8, spte: u64, ev: u32) {
        let shade = self.shade(spte, level);
        self.store.push(entry, ev, Some(spte), shade, Certainty::Observed, Reason::Reread);
    }

    /// Kept apart from gaps: a later event that starts from the value seen explains it, and then nothing is wrong.
    fn leave_reread(&mut self, r: Reread) {
        if let Some(oldest) = self.unexplained.leave_reread(r) {
            self.report_reread(&oldest);
        }
    }

    /// An install was attributed to the wrong table: undo it there, do it here.
    fn move_install(&mut self, at: At, i: &Install, other: TableIx, s: &SetSpte, careful: bool) {
        let back = self.store.value_before(i.span).unwrap_or((self.layout.zapped, Shade::Nonpresent));
        if self.store.last_span(i.entry) == Some(i.span) && self.store.tables[i.table].attached() {
            let ev = at.ev;
            self.store.push(i.entry, ev, Some(back.0), back.1, Certainty::Implied, Reason::Contradicted);
        }
        let entry = self.store.slot_mut(other, (s.sptep >> 3 & 511) as u16);
        if self.store.tables[other].attached() {
            let shade = self.shade(i.spte, i.level);
            let (certainty, reason) = if careful && !self.same(s.spte, i.spte, i.level) {
                (Certainty::Stale, Reason::Incomplete)
            } else {
                (Certainty::Exact, Reason::Stated)
            };
            self.store.push(entry, at.ev, Some(i.spte), shade, certainty, reason);
            self.seen_alive(other);
        } else {
            self.unexplained.filled_late(entry);
        }
    }

    /// `fast_page_fault` in a TDP tree; returns whether an entry was found.
    pub(crate) fn tdp_fast_fault(&mut self, at: At, f: &FastFault) -> bool {
        let At { th, ev, .. } = at;
        let FastFault { old, new, .. } = *f;
        let gfn = f.gpa >> 12;
        self.date_opening(at, f);
        let Some(FastHit { entry, level, key, named, other, .. }) = self.entry_for_fast(at, f) else {
            let found = self.fast_fault_unseen(at, f);
            if !found && f.result == FastPfResult::Fixed && self.vms.careful_at(at) {
                let levels = if self.is_large(old) { 2..=3 } else { 1..=1 };
                levels.for_each(|level| self.unattributed.insert(level, gfn));
            }
            return found;
        };
        let table = self.store.place(entry).table;
        let r = &self.store.tables[table];
        let vm = r.vm;
        let at = At { vm, ..at };
        if named && self.virt_minus_phys.is_none() {
            self.virt_minus_phys =
                f.sptep.map(|s| s.wrapping_sub(r.page + u64::from(index_of(level, gfn)) * 8));
        }
        if f.result != FastPfResult::Fixed {
            return true;
        }
        if other.is_some() {
            self.doubt_fast_rivals(at, f, entry);
        }
        let l = self.layout;
        // `new` is re-read when the event is recorded; the store itself can only have given back what the fault wanted.
        let fixed =
            if l.is_shadow_present(new) && self.pfn_bits(new) == self.pfn_bits(old) && new & 2 >= old & 2 {
                new
            } else {
                old | 2
            };
        let careful = self.vms.careful(vm);
        let r = &self.store.tables[table];
        let sure = named
            || other.is_none()
                && (!careful || r.alive && !self.vms.several_roots(vm) && self.store.top_as_id == 0);
        let (cur, m) = self.store.now(entry).map_or((l.zapped, None), |(c, m)| (c, Some(m)));
        let known = |m: crate::store::Meta| {
            if careful { m.certainty <= Certainty::Observed } else { m.certainty != Certainty::Stale }
        };
        if self.same(cur, fixed, level) && m.is_some_and(known) {
            return true;
        }
        let prev = self.threads[th].prev_ts;
        let tid = self.threads[th].tid;
        if let Some(g) = self.unexplained.gaps.find(gfn, |g| {
            g.entry == entry
                && g.tid != tid
                && prev <= g.ts
                && self.same(g.from, old, level)
                && self.same(g.to, fixed, level)
        }) {
            // The fault came first, another CPU's change was traced first.
            self.unexplained.gaps.remove(g);
            self.evidence(EvidenceKind::Reordered, at, Some(entry), key, gfn, (Some(old), Some(fixed)));
            return true;
        }
        if m.is_some_and(known)
            && !self.same(cur, old, level)
            && (!l.is_shadow_present(cur) || self.pfn_bits(cur) != self.pfn_bits(old))
        {
            self.evidence(EvidenceKind::FastFault, at, Some(entry), key, gfn, (Some(cur), Some(old)));
            if careful {
                self.make_stale(entry, ev, Reason::Incomplete);
            }
            return true;
        }
        if careful {
            let c = Change { at, key, idx: index_of(level, gfn), gfn, old, new: fixed };
            self.doubt_others(&c, Some(Found { table, fit: Fit::Exact, sure }));
            if named {
                self.seen_alive(table);
            }
        }
        let shade = self.shade(fixed, level);
        let (certainty, reason) = if sure && (!careful || self.same(new, fixed, level)) {
            (Certainty::Observed, Reason::FastFault)
        } else if other.is_some() {
            (Certainty::Implied, Reason::Ambiguous)
        } else {
            (Certainty::Implied, Reason::Incomplete)
        };
        let span = self.store.push(entry, ev, Some(fixed), shade, certainty, reason);
        self.threads[th].fault.changed(span, level, shade);
        true
    }

    /// A fast fault stores first and is traced then. If another thread's change comes in between, that change's old value is what the fault
    /// stored, and the entry held it for no longer than the fault has lasted.
    fn date_opening(&mut self, at: At, f: &FastFault) {
        let begun = self.threads[at.th].prev_ts;
        if f.result == FastPfResult::Fixed && f.old & 2 == 0 {
            let (stored, hardware) = (f.old | 2, self.ad_bits());
            self.store.date_opening(f.gpa >> 12, begun, |old| (old ^ stored) & !hardware == 0);
        }
    }

    /// `fast_page_fault` on an entry that no event has shown: it shows a leaf, whose level is in its value, in a table of before the trace or
    /// the loss. Returns whether one was found.
    fn fast_fault_unseen(&mut self, at: At, f: &FastFault) -> bool {
        let At { vm, ev, ts, .. } = at;
        let l = self.layout;
        let gfn = f.gpa >> 12;
        let leaf = |level| l.state(f.old, level) == SpteState::Present;
        // A huge page's bit is in larger leaves only; which of the sizes it is shows where the frame is aligned to one of them.
        let level = match (leaf(1), leaf(2), (self.pfn_bits(f.old) >> 12).is_multiple_of(pages_of(3))) {
            (true, false, _) => 1,
            (_, true, false) => 2,
            _ => return false,
        };
        let idx = index_of(level, gfn);
        if at.nobodys() || !self.vms.careful_at(at) || f.sptep.is_some_and(|s| (s >> 3 & 511) as u16 != idx) {
            return false;
        }
        let key = key_of(0, level, gfn);
        let of_vm = |t: &TableIx| self.store.tables[*t].vm == vm;
        let mut here = self.attached.at(&key).iter().copied().filter(of_vm);
        let table = match (here.next(), here.next()) {
            (None, _) => self.make_table(vm, key, None, EntryIx::NONE, at),
            (Some(t), None) if self.fit(t, idx, f.old, level) == Fit::Unknown => t,
            _ => return false,
        };
        if !self.store.tables[table].born {
            self.store.tables[table].lossy = true;
        }
        let entry = self.store.slot_mut(table, idx);
        let shade = self.shade(f.old, level);
        let traced = self.vms.is_tdp(vm) && !self.unattributed.may_be_of(level, gfn, true);
        // Where a huge page took the place of a table whose entries are traced first, the change that did it may still be to come.
        let late = level > 1 && self.traces.unlink == Unlink::Last;
        let since = if traced && !late { self.since() } else { ts };
        self.store.push_old(entry, ev, f.old, shade, since);
        let fixed =
            f.result == FastPfResult::Fixed && leaf(level) && self.pfn_bits(f.new) == self.pfn_bits(f.old);
        let now = if fixed { f.new } else { f.old };
        // An MMU that has shown no change of an entry may make others without an event.
        let certainty = if self.vms.is_tdp(vm) { Certainty::Implied } else { Certainty::Stale };
        let shade = self.shade(now, level);
        let span = self.store.push(entry, ev, Some(now), shade, certainty, Reason::Incomplete);
        if fixed {
            self.threads[at.th].fault.changed(span, level, shade);
        }
        true
    }

    /// All that held the old value of a fast fault may have been meant.
    fn doubt_fast_rivals(&mut self, at: At, f: &FastFault, entry: EntryIx) {
        let gfn = f.gpa >> 12;
        let mut hit = Vec::new();
        for level in 1..=3u8 {
            for as_id in 0..=self.store.top_as_id.min(1) {
                let tables = self.attached.at(&key_of(as_id, level, gfn)).iter();
                let entries = tables.filter_map(|t| self.store.slot(*t, index_of(level, gfn)));
                hit.extend(entries.filter(|e| {
                    *e != entry && self.store.now(*e).is_some_and(|(v, _)| self.same(v, f.old, level))
                }));
            }
        }
        for e in hit {
            self.make_stale(e, at.ev, Reason::Ambiguous);
        }
    }

    /// Whether a leaf has the bit that only leaves of 2M and more have.
    fn is_large(&self, leaf: u64) -> bool {
        self.layout.state(leaf, 2) == SpteState::Present
    }

    /// The entry that the lockless path worked on, as far as the event names it.
    fn entry_for_fast(&self, at: At, f: &FastFault) -> Option<FastHit> {
        let FastFault { sptep, old, .. } = *f;
        let gfn = f.gpa >> 12;
        let root = self.threads[at.th].root;
        // Which roots are valid is not known for certain then.
        let careful = self.vms.careful_at(at);
        let large = self.is_large(old);
        let mut best: Option<(i32, FastHit)> = None;
        for level in 1..=3u8 {
            let idx = index_of(level, gfn);
            if sptep.is_some_and(|s| (s >> 3 & 511) as u16 != idx) {
                continue;
            }
            // A change may be traced after the fault that found what it stored: where a table became a huge page, the table still seems to be there.
            if self.layout.is_shadow_present(old) && large != (level > 1) {
                continue;
            }
            for as_id in 0..=self.store.top_as_id.min(1) {
                let key = key_of(as_id, level, gfn);
                let c = self.attached.at(&key);
                for &t in c {
                    let r = &self.store.tables[t];
                    if !r.direct || r.silent || at.vm_known && r.vm != at.vm {
                        continue;
                    }
                    let Some(entry) = self.store.slot(t, idx) else { continue };
                    let Some((cur, m)) = self.store.now(entry) else { continue };
                    if m.shade == Shade::Table {
                        continue;
                    }
                    let fits = self.same(cur, old, level);
                    let mut score = 0;
                    if r.vm != at.vm {
                        if !self.layout.is_shadow_present(old) || !fits {
                            continue;
                        }
                        score -= 15;
                    }
                    let mut named = false;
                    if let Some(s) = sptep
                        && r.page != 0
                    {
                        let d = s.wrapping_sub(r.page + u64::from(idx) * 8);
                        // Virtual and physical addresses differ by one constant, of whole GiB.
                        if self.virt_minus_phys.map_or(d & 0x3fff_ffff != 0, |v| v != d) {
                            continue;
                        }
                        named = true;
                        score += 100;
                    }
                    if fits {
                        score += 20;
                    } else if self.layout.is_shadow_present(cur) && self.pfn_bits(cur) == self.pfn_bits(old) {
                        score += 10;
                    }
                    if r.root == root {
                        score += 3;
                    }
                    if r.alive && score > 0 {
                        score += 40;
                    }
                    let valid = !self.attached.is_obsolete(r.root);
                    if !valid {
                        score -= 6;
                    }
                    let hit =
                        FastHit { entry, level, key, named, fits: fits && (valid || careful), other: None };
                    match &mut best {
                        Some((b, h)) if *b >= score => h.rival(&hit),
                        _ => {
                            let mut hit = hit;
                            if let Some((_, h)) = &best {
                                hit.rival(h);
                            }
                            best = Some((score, hit));
                        }
                    }
                }
            }
        }
        best.filter(|b| b.0 >= 3).map(|b| b.1)
    }
}

/// Where a fast fault was.
#[derive(Clone, Copy, Debug)]
struct FastHit {
    entry: EntryIx,
    level: u8,
    key: Key,
    /// Its address says so.
    named: bool,
    /// It held the old value, and is of a valid root.
    fits: bool,
    /// So did another entry, as of the other address space of a guest in SMM.
    other: Option<EntryIx>,
}

impl FastHit {
    fn rival(&mut self, h: &FastHit) {
        if h.fits && !self.named {
            self.other = Some(h.entry);
        }
    }
}
