//! What a change does to the tables, once its table is known: the entry gets a span, what it linked is detached, what it links is attached.
//! [`Engine::tdp_changed`](crate::tdp) alone calls [`Engine::apply`]; it never asks whether the change was made in another table.

use mmuscope_spte::State as SpteState;

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx};
use crate::model::{Certainty, EvidenceKind, Reason, Shade};
use crate::moment::At;
use crate::tdp::change::{Change, Fit, Found};
use crate::tdp::fit::same;
use crate::threads::Install;

/// Most children that splits may imply: what a file can make us store stays in proportion to it.
const IMPLIED_BASE: u64 = 4 << 20;

impl Engine {
    pub(super) fn apply(&mut self, c: &Change, found: Found, careful: bool) {
        let Change { at: At { th, ev, ts, .. }, key, idx, gfn, old, new } = *c;
        let level = key.level;
        let table = found.table;
        let l = self.layout;
        let attached = self.store.tables[table].attached();
        let shade = self.shade(new, level);
        self.note_end(c, table, shade);
        if !attached {
            self.apply_dying(c, found, shade, careful);
            return;
        }
        // Where freezes are not traced, the removed value is traced only in a table that is being torn down: the event that its link was
        // cut must have been lost.
        let t = &self.store.tables[table];
        let (mirror, unseen) = (t.mirror, !t.born);
        if shade == Shade::Removed && !self.traces.freeze && t.lossy && !mirror {
            self.detach_tree(table, ev, ts);
            self.threads[th].tearing.push(table);
            self.apply_dying(c, found, shade, careful);
            return;
        }
        let entry = self.store.slot_mut(table, idx);
        let before = self.store.now(entry);
        if found.fit == Fit::No {
            let from = before.map_or(l.zapped, |b| b.0);
            self.leave_gap(c, entry, from);
        }
        self.unexplained.explain_rereads(|r| {
            r.entry == entry && (same(&l, r.seen, old, level) || same(&l, r.seen, new, level))
        });
        self.check_values(c, entry);
        self.push_old_value(c, entry, found.fit, careful);
        let old_child = self.attached.below(entry);
        let old_state = l.state(old, level);
        let new_state = l.state(new, level);
        let (certainty, reason) = if shade == Shade::Removed && !self.traces.freeze && !mirror && unseen {
            // As above, of a table that was made before the trace began: so its link may have been cut before.
            (Certainty::Implied, Reason::PageZapped)
        } else {
            Self::how_known(found, careful)
        };
        let span = self.store.push(entry, ev, Some(new), shade, certainty, reason);
        if !found.sure && !careful {
            self.note(EvidenceKind::Ambiguous, c, Some(entry), (None, Some(new)));
        }
        // What the entry pointed to is unlinked, unless it still does.
        let same_page = |t: TableIx| self.store.tables[t].page == self.layout.masks.base_addr_mask & new;
        let keeps = new_state == SpteState::Table && old_child.is_some_and(same_page);
        let child_key = c.child_key();
        if level > 1 && !keeps && (old_state == SpteState::Table || old_child.is_some()) {
            self.cut(c, entry, old_child, found.sure, careful);
        } else {
            self.threads[th].went_through(table);
        }
        if level > 1 && new_state == SpteState::Table && !keeps {
            if careful && self.cut_before(c) {
                self.make_stale(entry, ev, Reason::Incomplete);
            } else {
                self.link(c, child_key, entry, table, careful);
            }
        }
        self.unseen_opening(entry, ev);
        let thread = &mut self.threads[th];
        if shade == Shade::Removed {
            thread.frozen.push(entry);
        }
        // Also in place of a table, or of a leaf: `kvm_mmu_set_spte` follows whatever a fault has put there.
        if matches!(new_state, SpteState::Present | SpteState::Mmio) {
            thread.root = self.store.tables[table].root;
            thread.install = Some(Install {
                table,
                entry,
                span,
                gfn,
                level,
                as_id: key.as_id,
                spte: new,
                ambiguous: !found.sure,
            });
        }
        // Split in place: what was mapped as a whole is mapped page by page.
        let split = old_state == SpteState::Present && new_state == SpteState::Table;
        let (made, size) = if split { (self.shade(old, level), level - 1) } else { (shade, level) };
        self.threads[th].fault.changed(span, size, made);
        self.check_obsolete_root(table, ev, ts);
    }

    /// The table that an entry linked is detached, and this thread tears it down.
    fn cut(&mut self, c: &Change, entry: EntryIx, old_child: Option<TableIx>, sure: bool, careful: bool) {
        let At { th, vm, ev, ts, .. } = c.at;
        // In doubt the page says which table ends: the caller sees to that.
        let child = if careful {
            old_child.filter(|t| sure || Some(self.store.tables[*t].page) == c.cut_page(&self.layout))
        } else {
            old_child.or_else(|| self.orphan_for(vm, c.child_key(), self.pfn_bits(c.old)))
        };
        let Some(child) = child else { return };
        self.attached.unlink(entry);
        // Where it was unlinked before, another thread is tearing it down.
        if self.store.tables[child].attached() {
            self.detach_tree(child, ev, ts);
            self.threads[th].tearing.push(child);
        }
    }

    /// What a change says of its VM: that it lives, or that this may be its end.
    fn note_end(&mut self, c: &Change, table: TableIx, shade: Shade) {
        let t = &self.store.tables[table];
        let (vm, root) = (t.vm, t.parent == EntryIx::NONE && t.level >= self.vms.top_level(t.vm));
        if matches!(shade, Shade::Nonpresent | Shade::Removed) {
            let cut = root && self.layout.state(c.old, c.key.level) == SpteState::Table;
            let thread = &self.threads[c.at.th];
            self.vms.note_zap(c.at, vm, thread, self.faults.leaving_is_traced, cut);
        } else {
            self.vms.lives(vm, false);
        }
    }

    /// How the value of a change is known in the table it was found to belong to.
    fn how_known(found: Found, careful: bool) -> (Certainty, Reason) {
        match (found.sure, careful) {
            // Until the event of the change that must have come before arrives, from another CPU.
            (true, _) if found.fit == Fit::No => (Certainty::Implied, Reason::Contradicted),
            (true, _) => (Certainty::Exact, Reason::Stated),
            (false, false) => (Certainty::Implied, Reason::Ambiguous),
            (false, true) => (Certainty::Implied, Reason::Incomplete),
        }
    }

    /// A table seen before what links it.
    fn orphan_for(&self, vm: u16, key: Key, page: u64) -> Option<TableIx> {
        let c = self.attached.at(&key);
        c.iter().copied().find(|t| self.store.tables[*t].page == page).or_else(|| {
            c.iter().copied().find(|t| {
                let r = &self.store.tables[*t];
                r.vm == vm && r.parent == EntryIx::NONE && r.page == 0
            })
        })
    }

    pub(crate) fn link(&mut self, c: &Change, key: Key, entry: EntryIx, table: TableIx, careful: bool) {
        let Change { at: At { th, vm, ev, ts, .. }, old, new, .. } = *c;
        let page = self.pfn_bits(new);
        if let Some(t) = self.attached.in_page(page) {
            let r = &self.store.tables[t];
            let fresh = if careful {
                r.lossy && r.start_ev > self.noted.last_loss().unwrap_or(0)
            } else {
                r.root != t
            };
            if r.parent == EntryIx::NONE && fresh && self.key_is(t, key) {
                // Seen before it was linked.
                self.store.tables[t].parent = entry;
                self.attached.link(entry, t);
                return;
            }
            if r.parent != EntryIx::NONE && !careful && !self.noted.loss_seen() {
                self.note(EvidenceKind::TableShared, c, Some(entry), (None, Some(new)));
            }
            self.retire_page(page, ev, ts);
        } else {
            self.free_page(page, ev, ts);
        }
        let pages = &mut self.threads[th].pages;
        let np = pages
            .iter()
            .rposition(|p| p.level == key.level && p.gfn.is_none_or(|g| g == key.gfn))
            .map(|i| pages.remove(i));
        if let Some(np) = np {
            self.vms.linked(vm, np.ev);
        }
        let t = self.make_table(vm, key, np, entry, c.at);
        let root = self.store.tables[table].root;
        let mirror = self.store.tables[table].mirror;
        let r = &mut self.store.tables[t];
        r.page = page;
        r.root = root;
        r.mirror |= mirror;
        // It was made before; it holds anything from the moment it was linked.
        r.start_ev = ev;
        r.start_ts = ts;
        self.attached.lies_in(t, page);
        self.attached.link(entry, t);
        self.threads[th].went_through(t);
        // Obsolete roots are not filled.
        self.seen_alive(table);
        self.seen_alive(t);
        if self.layout.state(old, key.level + 1) == SpteState::Present {
            self.split(t, key, old, ev);
        }
    }

    /// A huge page became a table: its 512 children map what it mapped.
    pub(crate) fn split(&mut self, table: TableIx, key: Key, huge: u64, ev: u32) {
        if self.implied > IMPLIED_BASE + u64::from(self.clock.events()) * 64 {
            self.store.tables[table].born = false;
            return;
        }
        self.implied += 512;
        let l = self.layout;
        let step = 1u64 << (9 * (u32::from(key.level) - 1));
        let mut child = huge;
        if key.level == 1 {
            child &= !l.large;
            // NX huge pages: what was not executable as a whole is, page by page (a TDP page's role allows everything).
            let tracked = self.shade(child, 1) == Shade::AccessTracked;
            let open = if tracked { l.restore(child) } else { child };
            if !l.is_executable(open) {
                let open = (open & !l.masks.nx_mask) | l.masks.x_mask | l.masks.xu_mask;
                child = if tracked { l.track(open) } else { open };
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

    /// A change that came before one that another CPU traced first: it closes the gap which that one left.
    pub(super) fn fill_gap(&mut self, c: &Change, careful: bool) -> bool {
        let Change { at: At { th, .. }, key, gfn, old, new, .. } = *c;
        let page = self.pfn_bits(old);
        let prev = self.threads[th]
            .unlinking
            .iter()
            .find(|(t, _)| {
                let r = &self.store.tables[*t];
                r.page == page && r.level + 1 == key.level
            })
            .map_or(self.threads[th].prev_ts, |u| u.1);
        let tid = self.threads[th].tid;
        // The change itself happened after the thread's event before; only then can it have been before the one that left the gap.
        let Some(i) = self.unexplained.gaps.find(gfn, |g| {
            g.key == key
                && g.tid != tid
                && prev <= g.ts
                && match (self.same(g.from, old, key.level), self.same(g.to, new, key.level)) {
                    (from, to) if careful => from && to,
                    (from, to) => from || to,
                }
        }) else {
            return false;
        };
        let Some(g) = self.unexplained.gaps.get(i).copied() else { return false };
        if careful {
            // What was lost may have left the gap as well.
            self.make_stale(g.entry, c.at.ev, Reason::Incomplete);
        }
        let (from, to) = (self.same(g.from, old, key.level), self.same(g.to, new, key.level));
        if from && to {
            self.unexplained.gaps.remove(i);
            let last = self.store.last_span(g.entry);
            if let Some(s) = last.filter(|s| !careful && self.store.s_ev[*s] == g.ev) {
                self.store.confirm(s);
            }
        } else if from {
            self.unexplained.gaps.set(i, new, g.to);
        } else {
            self.unexplained.gaps.set(i, g.from, old);
        }
        self.evidence(
            EvidenceKind::Reordered,
            At { vm: g.vm, ..c.at },
            Some(g.entry),
            key,
            gfn,
            (Some(old), Some(new)),
        );
        true
    }
}
