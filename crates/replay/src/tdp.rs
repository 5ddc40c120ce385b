//! The TDP MMU: every change is an event, none names its table.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::{FastPfResult, Page};

use crate::engine::{Engine, Fit, Gap, Install, Key, NewPage, Reread, index_of, key_of};
use crate::model::{Certainty, EvidenceKind, MmuKind, Reason, Shade};
use crate::store::{NONE, TableRec};

/// Most children that splits may imply: what a file can make us store stays in proportion to it.
const IMPLIED_BASE: u64 = 4 << 20;

/// The table an event was found to belong to.
#[derive(Clone, Copy, Debug)]
struct Found {
    table: u32,
    fit: Fit,
    ambiguous: bool,
}

impl Engine {
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn tdp_changed(
        &mut self,
        th: usize,
        ev: u32,
        ts: u64,
        as_id: u8,
        gfn: u64,
        level: u8,
        old: u64,
        new: u64,
    ) {
        let vm = self.vm_of(th);
        self.mmu_kind(vm, MmuKind::Tdp);
        self.vms.as_id(vm, as_id);
        let key = key_of(as_id, level, gfn);
        let idx = index_of(level, gfn);
        if gfn & ((1 << (9 * (u32::from(level) - 1))) - 1) != 0 {
            self.evidence(EvidenceKind::Misaligned, ev, ts, vm, None, key, gfn, (None, Some(new)));
        }
        // Told after its entries (7.2 and later): with the link cut, the teardown is complete.
        if let Some(&top) = self.threads[th].tearing.first()
            && self.threads[th].unlinking.iter().any(|u| u.0 == top)
        {
            let r = &self.store.tables[top as usize];
            if r.level + 1 == level && r.page == self.pfn_bits(old) {
                self.torn.push(th);
            }
        }
        if !self.gaps.is_empty() && self.fill_gap(th, key, gfn, old, new, ev, ts) {
            return;
        }
        if let Some(found) = self.find_table(th, vm, key, idx, old, new, ev, ts) {
            self.apply(th, vm, key, idx, gfn, found, old, new, ev, ts);
        }
        if self.loss_seen {
            if level > 1 {
                self.end_unlinked_page(th, vm, key, gfn, old, new, ev, ts);
            }
            self.doubt_other_trees(vm, key, idx, ev);
        }
    }

    /// After losses a tree can be taken for alive whose end was never seen, and the change booked on it: the same entry of every other tree
    /// is no longer a fact, nor is what lies below it.
    fn doubt_other_trees(&mut self, vm: u16, key: Key, idx: u16, ev: u32) {
        let Some(tables) = self.live.get(&key).filter(|c| c.len() > 1) else { return };
        let store = &self.store;
        let of_vm = tables.iter().filter(|t| store.tables[**t as usize].vm == vm);
        let stated_now = |e: &u32| store.last_span(*e).is_some_and(|s| store.span(s).opened_by == Some(ev));
        let mut doubted: Vec<u32> =
            of_vm.filter_map(|t| store.slot(*t, idx)).filter(|e| !stated_now(e)).collect();
        while let Some(entry) = doubted.pop() {
            if let Some(child) = self.child_of.get(&entry).copied() {
                doubted.extend(self.store.table_entries(child));
            }
            self.make_stale(entry, ev, Reason::Lost);
        }
    }

    /// A host page is one table at a time. Once events are lost the link that is cut here may have been booked on another tree than the one
    /// the page was seen in: the page says which table ends.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn end_unlinked_page(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        gfn: u64,
        old: u64,
        new: u64,
        ev: u32,
        ts: u64,
    ) {
        let page = self.pfn_bits(old);
        let table = SpteState::Table;
        let cut = self.layout.state(old, key.level) == table
            && (self.layout.state(new, key.level) != table || self.pfn_bits(new) != page);
        let Some(&t) = self.by_page.get(&page).filter(|_| cut) else { return };
        let r = &self.store.tables[t as usize];
        if r.vm == vm && r.level + 1 == key.level && r.gfn == gfn && r.attached() {
            self.detach_tree(t, ev, ts);
            self.threads[th].tearing.push(t);
        }
    }

    /// A change that another CPU told before: it closes the gap it left.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn fill_gap(&mut self, th: usize, key: Key, gfn: u64, old: u64, new: u64, ev: u32, ts: u64) -> bool {
        let page = self.pfn_bits(old);
        let prev = self.threads[th]
            .unlinking
            .iter()
            .find(|(t, _)| {
                let r = &self.store.tables[*t as usize];
                r.page == page && r.level + 1 == key.level
            })
            .map_or(self.threads[th].prev_ts, |u| u.1);
        let tid = self.threads[th].tid;
        // The change itself happened after the thread's event before; only then can it have been before the one that left the gap.
        let Some(i) = self.gaps.iter().position(|g| {
            g.gfn == gfn
                && g.key == key
                && g.tid != tid
                && prev <= g.ts
                && (self.same(g.from, old, key.level) || self.same(g.to, new, key.level))
        }) else {
            return false;
        };
        let g = self.gaps[i];
        let (from, to) = (self.same(g.from, old, key.level), self.same(g.to, new, key.level));
        if from && to {
            self.gaps.swap_remove(i);
        } else if from {
            self.gaps[i].from = new;
        } else {
            self.gaps[i].to = old;
        }
        self.evidence(EvidenceKind::Reordered, ev, ts, g.vm, Some(g.entry), key, gfn, (Some(old), Some(new)));
        true
    }

    /// Same value but for what hardware sets.
    fn same(&self, a: u64, b: u64, level: u8) -> bool {
        if a == b {
            return true;
        }
        let l = &self.layout;
        if l.is_shadow_present(a) && l.is_shadow_present(b) {
            return (a ^ b) & !self.ad_bits() == 0;
        }
        let empty = |x: u64| matches!(l.state(x, level), SpteState::Nonpresent | SpteState::Removed);
        // Never filled, zapped and released after freezing are one state.
        empty(a) && empty(b)
    }

    fn fit(&self, table: u32, idx: u16, old: u64, level: u8) -> Fit {
        let t = &self.store.tables[table as usize];
        let l = &self.layout;
        let now = self.store.slot(table, idx).and_then(|e| self.store.now(e));
        let Some((cur, m)) = now else {
            return if t.born && !t.lossy {
                if self.same(l.zapped, old, level) { Fit::Exact } else { Fit::No }
            } else {
                Fit::Unknown
            };
        };
        if m.shade == Shade::Unknown {
            return Fit::Unknown;
        }
        if m.has_value && self.same(cur, old, level) {
            return Fit::Exact;
        }
        if l.is_shadow_present(cur)
            && l.is_shadow_present(old)
            && self.pfn_bits(cur) == self.pfn_bits(old)
            && l.state(cur, level) == l.state(old, level)
        {
            return Fit::Volatile;
        }
        if m.certainty == Certainty::Stale { Fit::Unknown } else { Fit::No }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn find_table(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        idx: u16,
        old: u64,
        new: u64,
        ev: u32,
        ts: u64,
    ) -> Option<Found> {
        let level = key.level;
        let l = self.layout;
        let installs =
            !l.is_shadow_present(old) && !l.is_removed(new) && (l.is_shadow_present(new) || l.is_mmio(new));
        // What this thread is tearing down comes first: only it touches that.
        let tearing = &self.threads[th].tearing;
        if !tearing.is_empty()
            && !installs
            && let Some(i) = tearing.iter().rposition(|t| self.key_is(*t, key))
        {
            let t = tearing[i];
            // Depth first: what was pushed after this table is done with.
            for done in self.threads[th].tearing.split_off(i + 1) {
                self.store.bury(done, ev, ts);
            }
            let fit = self.fit(t, idx, old, level);
            return Some(Found { table: t, fit, ambiguous: false });
        }
        let thread = &self.threads[th];
        let prev = thread.prev_ts;
        let mut best: Option<(i32, u32, Fit)> = None;
        let mut second = i32::MIN;
        let mut consider = |t: u32, fit: Fit, bonus: i32, best: &mut Option<(i32, u32, Fit)>| {
            let score = match fit {
                Fit::Exact => 40,
                Fit::Volatile => 30,
                Fit::Unknown => 20,
                Fit::No => 0,
            } + bonus;
            match *best {
                Some((b, ..)) if b >= score => second = second.max(score),
                _ => {
                    second = second.max(best.map_or(i32::MIN, |b| b.0));
                    *best = Some((score, t, fit));
                }
            }
        };
        if let Some(c) = self.live.get(&key) {
            for &t in c.iter().rev() {
                let r = &self.store.tables[t as usize];
                let fit = self.fit(t, idx, old, level);
                let mut bonus = 0;
                if thread.vm.is_some_and(|v| v != r.vm) {
                    // Host frames of two VMs do not coincide: the very value is proof that the thread was taken for another VM's.
                    if fit != Fit::Exact || !l.is_shadow_present(old) {
                        continue;
                    }
                    bonus -= 18;
                }
                if thread.path.contains(&t) {
                    bonus += 15;
                }
                if installs && thread.root == r.root {
                    bonus += 5;
                }
                let obsolete = self.obsolete.contains(&r.root);
                if installs && obsolete {
                    bonus -= 30;
                }
                if !installs && !self.obsolete.is_empty() {
                    // Whoever made the roots obsolete zaps those and no other; write-protection and the like leave them alone.
                    let zap = !l.is_shadow_present(new);
                    if thread.zapping {
                        bonus += if obsolete { 25 } else { -25 };
                    } else if !zap && obsolete {
                        bonus -= 8;
                    }
                }
                consider(t, fit, bonus, &mut best);
            }
        }
        // The change may lie as far back as the thread's event before: tables unlinked since are candidates too.
        if best.is_none_or(|b| {
            b.2 < Fit::Volatile || thread.path.iter().any(|t| !self.store.tables[*t as usize].attached())
        }) {
            for &t in self.recent.iter().rev() {
                let r = &self.store.tables[t as usize];
                if r.detach_ts < prev {
                    break;
                }
                if self.key_is(t, key) && thread.vm.is_none_or(|v| v == r.vm) && best.is_none_or(|b| b.1 != t)
                {
                    let fit = self.fit(t, idx, old, level);
                    if fit >= Fit::Unknown {
                        consider(t, fit, if thread.path.contains(&t) { 15 } else { -5 }, &mut best);
                    }
                }
            }
        }
        if let Some((score, table, fit)) = best
            && fit != Fit::No
        {
            // A notifier zaps all trees, the newest first: that is the order they are tried in.
            let notifier_zap = !installs && !l.is_shadow_present(new);
            return Some(Found { table, fit, ambiguous: second >= score && second >= 30 && !notifier_zap });
        }
        // Nothing fits. A root nobody has named yet?
        let lossy = best.is_some_and(|b| self.store.tables[b.1 as usize].lossy);
        if level >= 4
            && let Some(np) = self.vms.take_root(vm, level, key.as_id)
        {
            let t = self.make_table(vm, key, Some(np), NONE, ev, ts);
            return Some(Found { table: t, fit: Fit::Exact, ambiguous: false });
        }
        if let Some((_, table, fit)) = best {
            // A link into an entry that is linked already, at the top: another tree, whose root was made before the trace began.
            let top = self.vms.top_level(vm) <= level;
            if !(top && installs && !lossy) {
                return Some(Found { table, fit, ambiguous: false });
            }
        } else if self.known_elsewhere(vm, key, idx) {
            // What lies above is known, and it is not a link to such a table: the table was torn down before this thread told its change.
            self.evidence(EvidenceKind::DeadTable, ev, ts, vm, None, key, key.gfn, (None, Some(new)));
            return None;
        }
        let root = if self.vms.top_level(vm) <= level { NONE } else { self.root_above(vm, key) };
        let t = self.make_table(vm, key, None, NONE, ev, ts);
        if root != NONE {
            self.store.tables[t as usize].root = root;
        }
        if root == NONE && self.vms.top_level(vm) > level && self.vms.complete(vm) {
            self.evidence(EvidenceKind::Orphan, ev, ts, vm, None, key, key.gfn, (None, Some(new)));
        }
        Some(Found { table: t, fit: Fit::Unknown, ambiguous: false })
    }

    /// Whether an entry above is known to hold something else than a link to a table with this key.
    fn known_elsewhere(&self, vm: u16, key: Key, _idx: u16) -> bool {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            let idx = index_of(level, key.gfn);
            let Some(c) = self.live.get(&k) else { continue };
            let mut any = false;
            for &t in c {
                let r = &self.store.tables[t as usize];
                if r.vm != vm {
                    continue;
                }
                any = true;
                if r.lossy {
                    return false;
                }
                match self.store.slot(t, idx).and_then(|e| self.store.now(e)) {
                    None if !r.born => return false,
                    Some((_, m)) if m.shade == Shade::Unknown || m.certainty == Certainty::Stale => {
                        return false;
                    }
                    // Linked, but to a table no event has shown: it is this one.
                    Some((_, m))
                        if m.shade == Shade::Table && level == key.level + 1 && !self.child_known(t, idx) =>
                    {
                        return false;
                    }
                    _ => {}
                }
            }
            if any {
                return true;
            }
        }
        false
    }

    fn child_known(&self, table: u32, idx: u16) -> bool {
        self.store.slot(table, idx).is_some_and(|e| self.child_of.contains_key(&e))
    }

    fn root_above(&self, vm: u16, key: Key) -> u32 {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            if let Some(t) = self
                .live
                .get(&k)
                .and_then(|c| c.iter().rev().find(|t| self.store.tables[**t as usize].vm == vm))
            {
                return self.store.tables[*t as usize].root;
            }
        }
        NONE
    }

    /// A new table; `np` is its `kvm_mmu_get_page`, `parent` the entry that links it.
    pub(crate) fn make_table(
        &mut self,
        vm: u16,
        key: Key,
        np: Option<NewPage>,
        parent: u32,
        ev: u32,
        ts: u64,
    ) -> u32 {
        let mut t = TableRec::new(
            vm,
            key.as_id,
            key.level,
            key.gfn,
            np.map_or(ev, |n| n.ev),
            np.map_or(ts, |n| n.ts),
        );
        t.parent = parent;
        t.born = np.is_some() || parent != NONE;
        t.mirror = np.is_some_and(|n| n.mirror);
        t.empty = self.layout.zapped;
        let id = self.store.add_table(t);
        self.store.tables[id as usize].root = id;
        self.live.entry(key).or_default().push(id);
        id
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn apply(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        idx: u16,
        gfn: u64,
        found: Found,
        old: u64,
        new: u64,
        ev: u32,
        ts: u64,
    ) {
        let level = key.level;
        let table = found.table;
        let l = self.layout;
        if self.threads[th].vm.is_none() && found.fit >= Fit::Volatile {
            let v = self.store.tables[table as usize].vm;
            self.vms.adopt(&mut self.threads[th], v);
        }
        let attached = self.store.tables[table as usize].attached();
        let shade = self.shade(new, level);
        if !attached {
            self.apply_dying(th, vm, key, idx, gfn, found, old, new, shade, ev, ts);
            return;
        }
        // Where releases are traced (6.10 and later) a frozen value is only ever told of a table being torn down: that its link was cut
        // must have been lost.
        if shade == Shade::Removed
            && !self.releases_silently
            && self.store.tables[table as usize].lossy
            && !self.store.tables[table as usize].mirror
        {
            self.detach_tree(table, ev, ts);
            self.threads[th].tearing.push(table);
            self.apply_dying(th, vm, key, idx, gfn, found, old, new, shade, ev, ts);
            return;
        }
        let entry = self.store.slot_mut(table, idx);
        let before = self.store.now(entry);
        if found.fit == Fit::No {
            let from = before.map_or(l.zapped, |b| b.0);
            self.leave_gap(th, vm, key, entry, gfn, from, old, ev, ts);
        }
        if !self.rereads.is_empty() {
            let explained = |r: &Reread| {
                r.entry == entry && (self.same(r.seen, old, level) || self.same(r.seen, new, level))
            };
            let keep: Vec<Reread> = self.rereads.iter().filter(|r| !explained(r)).copied().collect();
            self.rereads = keep;
        }
        self.check_values(vm, key, entry, gfn, old, new, ev, ts);
        let old_child = self.child_of.get(&entry).copied();
        let old_state = l.state(old, level);
        let new_state = l.state(new, level);
        let (certainty, reason) = if found.ambiguous {
            (Certainty::Implied, Reason::Ambiguous)
        } else {
            (Certainty::Exact, Reason::Stated)
        };
        let span = self.store.push(entry, ev, Some(new), shade, certainty, reason);
        if found.ambiguous {
            self.evidence(EvidenceKind::Ambiguous, ev, ts, vm, Some(entry), key, gfn, (None, Some(new)));
        }
        let thread = &mut self.threads[th];
        // What the entry pointed to is unlinked, unless it still does.
        let keeps = new_state == SpteState::Table
            && old_child.is_some_and(|c| {
                self.store.tables[c as usize].page == self.layout.masks.base_addr_mask & new
            });
        let child_key = Key { as_id: key.as_id, level: level.saturating_sub(1), gfn };
        if level > 1 && !keeps && (old_state == SpteState::Table || old_child.is_some()) {
            let child = old_child.or_else(|| self.orphan_for(vm, child_key, self.pfn_bits(old)));
            if let Some(c) = child {
                self.child_of.remove(&entry);
                // Unlinked before by the one who is tearing it down: his, not this thread's.
                if self.store.tables[c as usize].attached() {
                    self.detach_tree(c, ev, ts);
                    self.threads[th].tearing.push(c);
                }
            }
        } else {
            thread.went_through(table);
        }
        if level > 1 && new_state == SpteState::Table && !keeps {
            self.link(th, vm, child_key, entry, table, old, new, ev, ts);
        }
        let thread = &mut self.threads[th];
        if shade == Shade::Removed {
            thread.frozen.push(entry);
        }
        if !matches!(old_state, SpteState::Present | SpteState::Table)
            && matches!(new_state, SpteState::Present | SpteState::Mmio)
        {
            thread.root = self.store.tables[table as usize].root;
            thread.install = Some(Install {
                table,
                entry,
                span,
                gfn,
                level,
                as_id: key.as_id,
                spte: new,
                ambiguous: found.ambiguous,
            });
        }
        self.threads[th].fault.changed(span, level);
        self.check_obsolete_root(table, ev, ts);
    }

    /// A change in a table that is being, or was, torn down.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn apply_dying(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        idx: u16,
        gfn: u64,
        found: Found,
        old: u64,
        new: u64,
        shade: Shade,
        ev: u32,
        ts: u64,
    ) {
        let l = self.layout;
        let table = found.table;
        let level = key.level;
        let old_state = l.state(old, level);
        if old_state == SpteState::Table && level > 1 {
            // Depth first: the child's entries come next.
            let child = self.store.slot(table, idx).and_then(|e| self.child_of.remove(&e)).or_else(|| {
                let page = self.pfn_bits(old);
                self.recent.iter().rev().copied().find(|c| self.store.tables[*c as usize].page == page)
            });
            if let Some(c) = child {
                self.detach_tree(c, ev, ts);
                if !self.threads[th].tearing.contains(&c) {
                    self.threads[th].tearing.push(c);
                }
            }
        }
        if idx == 511
            && self.threads[th].tearing.first() == Some(&table)
            && old_state != SpteState::Table
            && !self.threads[th].unlinking.iter().any(|u| u.0 == table)
        {
            self.torn.push(th);
        }
        if matches!(shade, Shade::Removed | Shade::Nonpresent) {
            let known = self.store.slot(table, idx).is_some_and(|e| self.store.used(e));
            // Entries that were never filled are removed with their table by the hundreds: the table's end says it.
            if known || old_state != SpteState::Nonpresent {
                let entry = self.store.slot_mut(table, idx);
                if found.fit == Fit::No && !self.store.tables[table as usize].lossy {
                    let from = self.store.now(entry).map_or(l.zapped, |b| b.0);
                    if !self.late.remove(&entry) {
                        self.leave_gap(th, vm, key, entry, gfn, from, old, ev, ts);
                    }
                }
                if self.store.tables[table as usize].dead_ev == NONE {
                    self.store.push(entry, ev, Some(new), shade, Certainty::Exact, Reason::Stated);
                }
            }
        } else {
            // Another thread filled an entry just before the table was unlinked, and tells it now.
            let entry = self.store.slot_mut(table, idx);
            self.late.insert(entry);
            self.evidence(EvidenceKind::Reordered, ev, ts, vm, None, key, gfn, (Some(old), Some(new)));
            if l.state(new, level) == SpteState::Table && level > 1 {
                let child_key = Key { as_id: key.as_id, level: level - 1, gfn };
                let page = self.pfn_bits(new);
                self.retire_page(page, ev, ts);
                let c = self.make_table(vm, child_key, None, entry, ev, ts);
                self.store.tables[c as usize].page = page;
                self.child_of.insert(entry, c);
                self.detach_tree(c, ev, ts);
                self.threads[th].went_through(c);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn leave_gap(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        entry: u32,
        gfn: u64,
        from: u64,
        to: u64,
        ev: u32,
        ts: u64,
    ) {
        if self.gaps.len() >= 256 {
            let g = self.gaps.remove(0);
            self.report_gap(&g);
        }
        let tid = self.threads[th].tid;
        self.gaps.push(Gap { vm, key, entry, gfn, from, to, ev, ts, tid, kind: EvidenceKind::OldValue });
    }

    /// Things the kernel itself calls bugs.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn check_values(
        &mut self,
        vm: u16,
        key: Key,
        entry: u32,
        gfn: u64,
        old: u64,
        new: u64,
        ev: u32,
        ts: u64,
    ) {
        let l = &self.layout;
        let (o, n) = (l.state(old, key.level), l.state(new, key.level));
        if o == SpteState::Present && n == SpteState::Present && self.pfn_bits(old) != self.pfn_bits(new) {
            self.evidence(
                EvidenceKind::PfnChanged,
                ev,
                ts,
                vm,
                Some(entry),
                key,
                gfn,
                (Some(old), Some(new)),
            );
        } else if o == SpteState::Nonpresent && n == SpteState::Nonpresent && old != new {
            self.evidence(
                EvidenceKind::NonpresentChanged,
                ev,
                ts,
                vm,
                Some(entry),
                key,
                gfn,
                (Some(old), Some(new)),
            );
        } else if n == SpteState::Present
            && new & 2 != 0
            && l.masks.mmu_writable_mask != 0
            && new & l.masks.mmu_writable_mask == 0
        {
            self.evidence(EvidenceKind::WritableBits, ev, ts, vm, Some(entry), key, gfn, (None, Some(new)));
        }
    }

    /// A table seen before what links it.
    fn orphan_for(&self, vm: u16, key: Key, page: u64) -> Option<u32> {
        let c = self.live.get(&key)?;
        c.iter().copied().find(|t| self.store.tables[*t as usize].page == page).or_else(|| {
            c.iter().copied().find(|t| {
                let r = &self.store.tables[*t as usize];
                r.vm == vm && r.parent == NONE && r.page == 0
            })
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    fn link(
        &mut self,
        th: usize,
        vm: u16,
        key: Key,
        entry: u32,
        table: u32,
        old: u64,
        new: u64,
        ev: u32,
        ts: u64,
    ) {
        let page = self.pfn_bits(new);
        if let Some(t) = self.by_page.get(&page).copied() {
            let r = &self.store.tables[t as usize];
            if r.parent == NONE && r.root != t && self.key_is(t, key) {
                // Seen before it was linked.
                self.store.tables[t as usize].parent = entry;
                self.child_of.insert(entry, t);
                return;
            }
            if r.parent != NONE && !self.loss_seen {
                self.evidence(
                    EvidenceKind::TableShared,
                    ev,
                    ts,
                    vm,
                    Some(entry),
                    key,
                    key.gfn,
                    (None, Some(new)),
                );
            }
            self.retire_page(page, ev, ts);
        }
        let pages = &mut self.threads[th].pages;
        let np = pages
            .iter()
            .rposition(|p| p.level == key.level && p.gfn.is_none_or(|g| g == key.gfn))
            .map(|i| pages.remove(i));
        if let Some(np) = np {
            self.vms.linked(vm, np.ev);
        }
        let t = self.make_table(vm, key, np, entry, ev, ts);
        let root = self.store.tables[table as usize].root;
        let mirror = self.store.tables[table as usize].mirror;
        let r = &mut self.store.tables[t as usize];
        r.page = page;
        r.root = root;
        r.mirror |= mirror;
        // It was made before; it holds anything from the moment it was linked.
        r.start_ev = ev;
        r.start_ts = ts;
        self.by_page.insert(page, t);
        self.child_of.insert(entry, t);
        self.threads[th].went_through(t);
        if self.layout.state(old, key.level + 1) == SpteState::Present {
            self.split(t, key, old, ev);
        }
    }

    /// A huge page became a table: its 512 children map what it mapped.
    fn split(&mut self, table: u32, key: Key, huge: u64, ev: u32) {
        if self.implied > IMPLIED_BASE + u64::from(self.next_ev) * 64 {
            self.store.tables[table as usize].born = false;
            return;
        }
        self.implied += 512;
        let l = self.layout;
        let step = 1u64 << (9 * (u32::from(key.level) - 1));
        let mut child = huge;
        if key.level == 1 {
            child &= !l.large;
            // NX huge pages: what was not executable as a whole is, page by page (a TDP page's role allows everything).
            if !l.is_executable(child) {
                child = (child & !l.masks.nx_mask) | l.masks.x_mask | l.masks.xu_mask;
            }
        }
        let shade = self.shade(child, key.level);
        for i in 0..512u16 {
            let e = self.store.slot_mut(table, i);
            self.store.push(
                e,
                ev,
                Some(child | (u64::from(i) * step) << 12),
                shade,
                Certainty::Implied,
                Reason::Split,
            );
        }
    }

    /// A table and everything below it is out of reach.
    pub(crate) fn detach_tree(&mut self, table: u32, ev: u32, ts: u64) {
        if !self.store.tables[table as usize].attached() {
            return;
        }
        let mut stack = vec![table];
        while let Some(t) = stack.pop() {
            let r = &self.store.tables[t as usize];
            if !r.attached() {
                continue;
            }
            let (key, page, level) = (Key { as_id: r.as_id, level: r.level, gfn: r.gfn }, r.page, r.level);
            if let Some(c) = self.live.get_mut(&key) {
                c.retain(|x| *x != t);
                if c.is_empty() {
                    self.live.remove(&key);
                }
            }
            if self.by_page.get(&page) == Some(&t) {
                self.by_page.remove(&page);
            }
            if level > 1 {
                stack.extend(self.store.table_entries(t).filter_map(|e| self.child_of.get(&e).copied()));
            }
            self.store.detach(t, ev, ts);
            if self.recent.len() >= 256 {
                self.recent.drain(..128);
            }
            self.recent.push(t);
        }
    }

    /// A table is being torn down. Since 7.2 its unlinking is told only after its entries.
    pub(crate) fn tdp_prepare_zap(&mut self, th: usize, ev: u32, ts: u64, page: &Page) {
        let Some(gfn) = page.gfn else { return };
        let level = page.role.level;
        let is = |s: &Self, t: u32| {
            let r = &s.store.tables[t as usize];
            r.level == level && r.gfn == gfn
        };
        let thread = &self.threads[th];
        if thread.tearing.iter().any(|t| is(self, *t)) {
            return;
        }
        let vm = thread.vm;
        let prev = thread.prev_ts;
        // Below what it is tearing down already, else a table still linked.
        let below = self.recent.iter().rev().copied().find(|t| {
            is(self, *t) && self.store.tables[*t as usize].dead_ev == NONE && {
                let p = self.store.tables[*t as usize].parent;
                p != NONE && thread.tearing.contains(&self.store.place(p).table)
            }
        });
        // Another CPU found the entry empty and told so first: the table was taken for unlinked then.
        let raced = || {
            self.recent.iter().rev().copied().find(|t| {
                let r = &self.store.tables[*t as usize];
                is(self, *t) && r.parent != NONE && self.gaps.iter().any(|g| g.entry == r.parent)
            })
        };
        let table = below.or_else(raced).or_else(|| {
            let mut c: Vec<u32> = (0..=1u8)
                .filter_map(|as_id| self.live.get(&Key { as_id, level, gfn }))
                .flatten()
                .copied()
                .filter(|t| {
                    let r = &self.store.tables[*t as usize];
                    vm.is_none_or(|v| v == r.vm) && r.parent != NONE
                })
                .collect();
            let zapping = thread.zapping;
            c.sort_by_key(|t| self.obsolete.contains(&self.store.tables[*t as usize].root) != zapping);
            c.first().copied()
        });
        if let Some(t) = table {
            self.detach_tree(t, ev, ts);
            self.threads[th].tearing.push(t);
            self.threads[th].unlinking.push((t, prev));
        }
    }

    /// A host page holds a new table: whatever table it was before is gone.
    pub(crate) fn retire_page(&mut self, page: u64, ev: u32, ts: u64) {
        if page != 0
            && let Some(t) = self.by_page.get(&page).copied()
        {
            let parent = self.store.tables[t as usize].parent;
            if parent != NONE && self.child_of.get(&parent) == Some(&t) {
                self.child_of.remove(&parent);
            }
            self.detach_tree(t, ev, ts);
            self.store.bury(t, ev, ts);
        }
    }

    /// A root that is obsolete and empty is freed without an event.
    fn check_obsolete_root(&mut self, table: u32, ev: u32, ts: u64) {
        if self.obsolete.is_empty() || !self.obsolete.contains(&table) {
            return;
        }
        let busy = self.store.table_entries(table).any(|e| {
            self.store.now(e).is_some_and(|(_, m)| !matches!(m.shade, Shade::Nonpresent | Shade::Removed))
        });
        if !busy {
            self.obsolete.remove(&table);
            self.detach_tree(table, ev, ts);
            self.store.bury(table, ev, ts);
        }
    }

    /// `kvm_mmu_set_spte` of a TDP table: it tells which table. Returns whether it was one.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn tdp_set_spte(
        &mut self,
        th: usize,
        ev: u32,
        ts: u64,
        gfn: u64,
        spte: u64,
        sptep: u64,
        level: u8,
    ) -> bool {
        let page = sptep & !0xfff;
        let idx = (sptep >> 3 & 511) as u16;
        let install = self.threads[th].install.take().filter(|i| i.gfn == gfn && i.level == level);
        if let Some(i) = install {
            let t = i.table;
            let r = &self.store.tables[t as usize];
            let key = Key { as_id: i.as_id, level, gfn: r.gfn };
            if idx != index_of(level, gfn) {
                let vm = r.vm;
                self.evidence(
                    EvidenceKind::Index,
                    ev,
                    ts,
                    vm,
                    Some(i.entry),
                    key,
                    gfn,
                    (Some(u64::from(index_of(level, gfn))), Some(u64::from(idx))),
                );
                return true;
            }
            if r.page == page {
                if i.ambiguous {
                    self.store.confirm(i.span);
                }
                return true;
            }
            if r.page == 0 {
                if let Some(other) = self.by_page.get(&page).copied()
                    && other != t
                    && self.key_is(other, key)
                {
                    self.move_install(&i, other, idx, ev);
                    return true;
                }
                self.retire_page(page, ev, ts);
                if self.store.tables[t as usize].attached() {
                    self.store.tables[t as usize].page = page;
                    self.by_page.insert(page, t);
                }
                return true;
            }
            // It went somewhere else than we thought.
            let other = self
                .by_page
                .get(&page)
                .copied()
                .or_else(|| {
                    self.recent.iter().rev().copied().find(|x| self.store.tables[*x as usize].page == page)
                })
                .filter(|x| self.key_is(*x, key));
            if let Some(other) = other {
                self.move_install(&i, other, idx, ev);
            } else if self.store.tables[t as usize].lossy {
                // The table we thought of is gone, and the link of the one that is there now was lost.
                let (vm, parent) = (self.store.tables[t as usize].vm, self.store.tables[t as usize].parent);
                self.child_of.remove(&parent);
                self.detach_tree(t, ev, ts);
                self.store.bury(t, ev, ts);
                let new = self.make_table(vm, key, None, NONE, ev, ts);
                let r = &mut self.store.tables[new as usize];
                r.page = page;
                r.lossy = true;
                self.by_page.insert(page, new);
                self.move_install(&i, new, idx, ev);
            } else {
                let vm = self.store.tables[t as usize].vm;
                self.evidence(
                    EvidenceKind::SetSpte,
                    ev,
                    ts,
                    vm,
                    Some(i.entry),
                    key,
                    gfn,
                    (Some(self.store.tables[t as usize].page), Some(page)),
                );
            }
            return true;
        }
        let Some(t) = self.by_page.get(&page).copied() else { return false };
        let r = &self.store.tables[t as usize];
        let key = key_of(r.as_id, level, gfn);
        if !self.key_is(t, key) || idx != index_of(level, gfn) {
            return false;
        }
        if !self.vms.is_tdp(r.vm) {
            return false;
        }
        // Nothing changed: another vCPU was faster. The value is evidence all the same.
        let vm = r.vm;
        let entry = self.store.slot_mut(t, idx);
        match self.store.now(entry) {
            Some((cur, m)) if m.has_value && self.same(cur, spte, level) => {
                if m.certainty == Certainty::Stale {
                    self.observe(entry, level, spte, ev);
                }
            }
            Some((cur, m)) => {
                if m.certainty == Certainty::Stale
                    || m.certainty == Certainty::Assumed
                    || self.store.tables[t as usize].lossy
                {
                    self.observe(entry, level, spte, ev);
                } else {
                    // A change by another CPU whose event is still to come, most likely.
                    self.leave_reread(Reread { vm, key, entry, gfn, known: cur, seen: spte, ev, ts });
                }
            }
            None => self.observe(entry, level, spte, ev),
        }
        true
    }

    pub(crate) fn observe(&mut self, entry: u32, level: u8, spte: u64, ev: u32) {
        let shade = self.shade(spte, level);
        self.store.push(entry, ev, Some(spte), shade, Certainty::Observed, Reason::Reread);
    }

    /// Kept apart from gaps: a later event that starts from the value seen explains it, and then nothing is wrong.
    fn leave_reread(&mut self, r: Reread) {
        if self.rereads.len() >= 64 {
            let old = self.rereads.remove(0);
            self.report_reread(&old);
        }
        self.rereads.push(r);
    }

    /// An install was booked on the wrong table: undo it there, book it here.
    fn move_install(&mut self, i: &Install, other: u32, idx: u16, ev: u32) {
        if other == i.table {
            return;
        }
        let back = self.store.value_before(i.span).unwrap_or((self.layout.zapped, Shade::Nonpresent));
        if self.store.last_span(i.entry) == Some(i.span) && self.store.tables[i.table as usize].attached() {
            self.store.push(i.entry, ev, Some(back.0), back.1, Certainty::Implied, Reason::Contradicted);
        }
        let entry = self.store.slot_mut(other, idx);
        if self.store.tables[other as usize].attached() {
            let shade = self.shade(i.spte, i.level);
            self.store.push(entry, ev, Some(i.spte), shade, Certainty::Exact, Reason::Stated);
        } else {
            self.late.insert(entry);
        }
    }

    /// `fast_page_fault` in a TDP tree; returns whether an entry was found.
    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(crate) fn tdp_fast_fault(
        &mut self,
        th: usize,
        ev: u32,
        ts: u64,
        gpa: u64,
        sptep: Option<u64>,
        old: u64,
        new: u64,
        result: FastPfResult,
    ) -> bool {
        let vm = self.vm_of(th);
        let gfn = gpa >> 12;
        let Some((entry, level, key)) = self.entry_for_fast(th, vm, gfn, sptep, old) else { return false };
        let vm = self.store.tables[self.store.place(entry).table as usize].vm;
        if result != FastPfResult::Fixed {
            return true;
        }
        let l = self.layout;
        // `new` is re-read when the event is recorded; the store itself can only have given back what the fault wanted.
        let fixed =
            if l.is_shadow_present(new) && self.pfn_bits(new) == self.pfn_bits(old) && new & 2 >= old & 2 {
                new
            } else {
                old | 2
            };
        let (cur, m) = self.store.now(entry).map_or((l.zapped, None), |(c, m)| (c, Some(m)));
        if self.same(cur, fixed, level) && m.is_some_and(|m| m.certainty != Certainty::Stale) {
            return true;
        }
        let prev = self.threads[th].prev_ts;
        let tid = self.threads[th].tid;
        if let Some(g) = self.gaps.iter().position(|g| {
            g.entry == entry
                && g.tid != tid
                && prev <= g.ts
                && self.same(g.from, old, level)
                && self.same(g.to, fixed, level)
        }) {
            // The fault came first, another CPU's change was told first.
            self.gaps.swap_remove(g);
            self.evidence(
                EvidenceKind::Reordered,
                ev,
                ts,
                vm,
                Some(entry),
                key,
                gfn,
                (Some(old), Some(fixed)),
            );
            return true;
        }
        if m.is_some_and(|m| m.certainty != Certainty::Stale)
            && !self.same(cur, old, level)
            && (!l.is_shadow_present(cur) || self.pfn_bits(cur) != self.pfn_bits(old))
        {
            self.evidence(EvidenceKind::FastFault, ev, ts, vm, Some(entry), key, gfn, (Some(cur), Some(old)));
            return true;
        }
        let shade = self.shade(fixed, level);
        let span = self.store.push(entry, ev, Some(fixed), shade, Certainty::Observed, Reason::FastFault);
        self.threads[th].fault.changed(span, level);
        true
    }

    fn entry_for_fast(
        &self,
        th: usize,
        vm: u16,
        gfn: u64,
        sptep: Option<u64>,
        old: u64,
    ) -> Option<(u32, u8, Key)> {
        let root = self.threads[th].root;
        let mut best: Option<(i32, u32, u8, Key)> = None;
        for level in 1..=3u8 {
            for as_id in 0..=1u8 {
                let key = key_of(as_id, level, gfn);
                let Some(c) = self.live.get(&key) else { continue };
                for &t in c {
                    let r = &self.store.tables[t as usize];
                    if !r.direct {
                        continue;
                    }
                    let idx = index_of(level, gfn);
                    if sptep.is_some_and(|s| (s >> 3 & 511) as u16 != idx) {
                        continue;
                    }
                    let Some(e) = self.store.slot(t, idx) else { continue };
                    let Some((cur, m)) = self.store.now(e) else { continue };
                    if m.shade == Shade::Table {
                        continue;
                    }
                    let mut score = 0;
                    if r.vm != vm {
                        if !self.layout.is_shadow_present(old) || !self.same(cur, old, level) {
                            continue;
                        }
                        score -= 15;
                    }
                    if let (Some(s), Some(d)) = (sptep, self.virt_minus_phys)
                        && r.page != 0
                    {
                        if s.wrapping_sub(d) == r.page + u64::from(idx) * 8 {
                            score += 100;
                        } else {
                            continue;
                        }
                    }
                    if self.same(cur, old, level) {
                        score += 20;
                    } else if self.layout.is_shadow_present(cur) && self.pfn_bits(cur) == self.pfn_bits(old) {
                        score += 10;
                    }
                    if r.root == root {
                        score += 3;
                    }
                    if self.obsolete.contains(&r.root) {
                        score -= 2;
                    }
                    if best.is_none_or(|b| score > b.0) {
                        best = Some((score, e, level, key));
                    }
                }
            }
        }
        best.filter(|b| b.0 >= 3).map(|b| (b.1, b.2, b.3))
    }
}
