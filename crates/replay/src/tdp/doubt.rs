//! Finding the table when the trace does not hold all that came before: it began later, or events were lost.
//!
//! Then trees may be alive that no event has named, and trees taken for alive may be gone. What a change says of its entry is a fact only
//! where the table is beyond doubt, for one of these reasons:
//!
//! - `kvm_mmu_set_spte` named the table's page.
//! - A page of the host is one table at a time: the change cuts the very link that is known to lead to that page.
//! - Faults fill, and dirty logging and aging visit, valid roots only, and a role has one valid root at a time. A table that a fault was
//!   seen to work on since ([`TableRec::alive`](crate::store::TableRec)) is the valid root's for its place until its link is cut or all
//!   roots become obsolete, both of which are traced. So any change there is its own, save zaps: those reach obsolete trees too. What an
//!   `mmu_notifier` invalidates is zapped in every tree.
//!
//! Any other change may be in any table of its place: where the old value fits, that entry's value is no longer known.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, Reason, Shade};
use crate::moment::At;
use crate::store::NONE;
use crate::tdp::change::{Change, Fit, Found};

impl Engine {
    /// Something that only happens to tables of valid roots happened in this one.
    pub(super) fn seen_alive(&mut self, table: TableIx) {
        let r = &self.store.tables[table];
        if r.alive || !self.vms.careful(r.vm) || !r.attached() || self.attached.is_obsolete(r.root) {
            return;
        }
        let (vm, root, page) = (r.vm, r.root, r.page);
        let key = crate::keys::Key { as_id: r.as_id, level: r.level, gfn: r.gfn };
        // One valid root has one table at a place.
        for t in self.attached.at(&key).iter().copied() {
            let o = &mut self.store.tables[t];
            if o.vm == vm && (o.page != page || o.root != root) {
                o.alive = false;
            }
        }
        self.store.tables[table].alive = true;
    }

    /// The table of the valid root at the place of a change, if one was seen.
    fn valid_table(&self, c: &Change) -> Option<TableIx> {
        if c.at.nobodys() || self.vms.several_roots(c.at.vm) {
            return None;
        }
        let mut alive = self.attached.at(&c.key).iter().copied().filter(|t| {
            let r = &self.store.tables[*t];
            r.alive && r.vm == c.at.vm
        });
        let t = alive.next()?;
        alive.next().is_none().then_some(t)
    }

    /// The table of a change, where one of the rules above decides it.
    pub(super) fn find_beyond_doubt(&self, c: &Change) -> Option<Found> {
        let l = &self.layout;
        if let Some(page) = c.cut_page(&self.layout) {
            let child = self.attached.in_page(page)?;
            let r = &self.store.tables[child];
            if r.level + 1 != c.key.level || r.gfn != c.gfn || r.parent == EntryIx::NONE {
                return None;
            }
            let p = self.store.place(r.parent);
            if !self.key_is(p.table, c.key) || !self.store.tables[p.table].attached() {
                return None;
            }
            let known = self.store.now(r.parent).is_some_and(|(v, m)| {
                m.certainty <= Certainty::Observed && m.has_value && self.same(v, c.old, c.key.level)
            });
            let fit = self.fit(p.table, c.idx, c.old, c.key.level);
            return Some(Found { table: p.table, fit, sure: known });
        }
        if l.is_removed(c.new) && !self.traces.freeze {
            // Frozen for good, in a table that is being torn down.
            return None;
        }
        let t = self.valid_table(c)?;
        let fit = self.fit(t, c.idx, c.old, c.key.level);
        let zap = !l.is_shadow_present(c.new) && !l.is_mmio(c.new);
        // Aging goes through obsolete trees as well.
        let aged =
            self.shade(c.new, c.key.level) == Shade::AccessTracked || self.same(c.old, c.new, c.key.level);
        let thread = &self.threads[c.at.th];
        // Whose VM a thread works for may be a guess; a page that one VM may write is not another's (the zero page is everybody's).
        let own = self.shade(c.old, c.key.level) == Shade::Writable && fit == Fit::Exact;
        let ours = c.at.vm_known || own;
        let fits = fit >= Fit::Volatile;
        let valid_only = !zap && !aged || thread.fault.is_open() || zap && thread.notifying && fits;
        // Where the VM is a guess, what does not fit speaks against it.
        if valid_only && (c.at.vm_known || fit != Fit::No) {
            return Some(Found { table: t, fit, sure: ours && fit != Fit::No });
        }
        (fit >= Fit::Volatile && !self.threads[c.at.th].zapping).then_some(Found {
            table: t,
            fit,
            sure: false,
        })
    }

    /// A change that may be in another table than the one it was attributed to: what the others hold at its place is not known any more.
    pub(super) fn doubt_others(&mut self, c: &Change, found: Option<Found>) {
        if found.is_some_and(|f| f.sure) {
            return;
        }
        let target = found.map(|f| f.table);
        let whose = c.at.vm_known.then_some(c.at.vm);
        let hit: Vec<EntryIx> = self
            .attached
            .at(&c.key)
            .iter()
            .copied()
            .filter(|t| Some(*t) != target && whose.is_none_or(|v| v == self.store.tables[*t].vm))
            .filter(|t| self.fit(*t, c.idx, c.old, c.key.level) >= Fit::Volatile)
            .filter_map(|t| self.store.slot(t, c.idx))
            .collect();
        for e in hit {
            self.make_stale(e, c.at.ev, Reason::Lost);
        }
    }

    /// Entries that map the same page as the old value of a change, but with other permissions: they may have changed without an event.
    pub(super) fn doubt_volatile(&mut self, c: &Change) {
        let tables = self.attached.at(&c.key).iter().copied();
        let hit: Vec<EntryIx> = tables
            .filter(|t| self.fit(*t, c.idx, c.old, c.key.level) == Fit::Volatile)
            .filter_map(|t| self.store.slot(t, c.idx))
            .collect();
        for e in hit {
            self.make_stale(e, c.at.ev, Reason::Incomplete);
        }
    }

    /// Accessed and Dirty bits of an entry changed, or of one that looks like it: all else of it is known as it was.
    pub(super) fn apply_volatile(&mut self, c: &Change, table: TableIx) {
        let entry = self.store.slot_mut(table, c.idx);
        if let Some((v, m)) = self.store.now(entry)
            && v != c.new
            && self.store.tables[table].attached()
        {
            let shade = self.shade(c.new, c.key.level);
            self.store.push(entry, c.at.ev, Some(c.new), shade, m.certainty, m.reason);
        }
    }

    /// A host page is one table at a time: whichever table the cut of its link was attributed to, this one ends.
    pub(super) fn end_cut_page(&mut self, c: &Change) {
        let Some(page) = c.cut_page(&self.layout) else { return };
        let Some(t) = self.attached.in_page(page) else {
            // The event of the link itself may come only now, from another CPU.
            self.unexplained.cut_first(page, self.threads[c.at.th].tid, c.at.ts);
            self.end_unseen(c, page);
            return;
        };
        let r = &self.store.tables[t];
        if r.attached() && r.start_ev < c.at.ev {
            self.detach_tree(t, c.at.ev, c.at.ts);
            self.threads[c.at.th].tearing.push(t);
        }
    }

    /// A table ends whose page no event has named: who cut its link tears it down next. It may be one that was filled before.
    fn end_unseen(&mut self, c: &Change, page: u64) {
        let At { th, vm, ev, ts, .. } = c.at;
        if c.at.nobodys() {
            return;
        }
        let key = c.child_key();
        // Where the link itself showed which table it was, that one is being torn down already.
        let begun = |t: &TableIx| self.key_is(*t, key) && self.store.tables[*t].dead_ev == NONE;
        if self.attached.dying_in(page).is_some_and(|t| begun(&t)) {
            return;
        }
        // Or its entries came first.
        let tearing = &self.threads[th].tearing;
        let nameless = |t: &&TableIx| self.key_is(**t, key) && self.store.tables[**t].page == 0;
        if let Some(t) = tearing.iter().find(nameless).copied() {
            self.store.tables[t].page = page;
            self.attached.dies_in(t, page);
            return;
        }
        let nameless: Vec<TableIx> = self
            .attached
            .at(&key)
            .iter()
            .copied()
            .filter(|t| {
                let r = &self.store.tables[*t];
                r.vm == vm && r.page == 0 && r.parent == EntryIx::NONE
            })
            .collect();
        let t = match nameless[..] {
            // The valid root's table may be another one, whose page is not known either: outside of a fault, obsolete trees end as well.
            [t] if self.store.tables[t].alive && !self.threads[th].fault.is_open() => {
                self.doubt_tree(t, ev);
                self.make_table(vm, key, None, EntryIx::NONE, c.at)
            }
            [t] => t,
            _ => self.make_table(vm, key, None, EntryIx::NONE, c.at),
        };
        let r = &mut self.store.tables[t];
        (r.page, r.lossy) = (page, true);
        self.attached.lies_in(t, page);
        self.detach_tree(t, ev, ts);
        self.threads[th].tearing.push(t);
    }

    /// A table may be gone, and with it all that is below: nothing there is known until its next event.
    fn doubt_tree(&mut self, table: TableIx, ev: u32) {
        let mut stack = vec![table];
        while let Some(t) = stack.pop() {
            let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
            stack.extend(entries.iter().filter_map(|e| self.attached.below(*e)));
            for e in entries {
                self.make_stale(e, ev, Reason::Incomplete);
            }
        }
    }

    /// Whether the link to a page that a change makes was traced as cut before, by another CPU, so that it is gone already.
    pub(super) fn cut_before(&self, c: &Change) -> bool {
        let page = self.pfn_bits(c.new);
        let t = &self.threads[c.at.th];
        self.unexplained.was_cut_first(page, t.tid, t.prev_ts)
    }

    /// All roots of a VM become obsolete: no table of before is a valid root's any more. When that happens once more, the roots of the
    /// first time are gone: the kernel finishes with them before it goes on.
    pub(crate) fn obsolete_in_doubt(&mut self, at: At) {
        if !self.vms.careful_at(at) {
            return;
        }
        let of_vm: Vec<TableIx> =
            self.attached.all().filter(|t| !at.vm_known || self.store.tables[*t].vm == at.vm).collect();
        let before = if at.vm_known { self.vms.all_obsolete_again(at.vm, at.ev) } else { None };
        // Of those that were known the last time, what faults were seen to work on since is the valid root's, of a place known before.
        let of_before = |t: &TableIx| {
            let r = &self.store.tables[*t];
            before.is_some_and(|ev| r.start_ev < ev) && r.lossy && !r.alive
        };
        let gone: Vec<TableIx> = of_vm.iter().copied().filter(of_before).collect();
        for t in &of_vm {
            self.store.tables[*t].alive = false;
        }
        if before.is_none() {
            return;
        }
        self.unexplained.forget_gaps();
        for t in gone {
            self.drop_table(t, at);
        }
    }

    /// A table is gone, though no event said when.
    pub(crate) fn drop_table(&mut self, t: TableIx, at: At) {
        let parent = self.store.tables[t].parent;
        self.attached.unlink_from(parent, t);
        self.detach_tree(t, at.ev, at.ts);
        self.store.free_table(t, at.ev, at.ts);
    }
}
