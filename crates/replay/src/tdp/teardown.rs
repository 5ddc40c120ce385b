//! Tables that are torn down: what their end takes with it, in whichever order the events come ([`Unlink`](mmuscope_spte::Unlink)). A table is
//! detached when its link is cut, and freed when its thread goes on to something else; nothing here decides which table an event means where
//! several may be meant, except where a thread announced one.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::{Body, Event, Page};

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx, ThreadIx, key_of};
use crate::model::{Certainty, EvidenceKind, Reason, Shade, State};
use crate::moment::At;
use crate::store::NONE;
use crate::tdp::change::{Change, Fit, Found};
use crate::threads::NewPage;

impl Engine {
    /// A change in a table that is being, or was, torn down.
    pub(super) fn apply_dying(&mut self, c: &Change, found: Found, shade: Shade, careful: bool) {
        let Change { at: At { th, vm, ev, ts, .. }, key, idx, old, new, .. } = *c;
        let l = self.layout;
        let table = found.table;
        let level = key.level;
        let old_state = l.state(old, level);
        if old_state == SpteState::Table && level > 1 {
            // Depth first: the child's entries come next.
            let page = self.pfn_bits(old);
            let known = self.store.slot(table, idx).and_then(|e| self.attached.unlink(e));
            let by_page = self.attached.in_page(page).filter(|t| self.key_is(*t, c.child_key()));
            let known = if careful { by_page.or(known) } else { known };
            let child = known.or_else(|| self.attached.lately().find(|c| self.store.tables[*c].page == page));
            if let Some(c) = child {
                self.detach_tree(c, ev, ts);
                // Unless they came before (7.2 and later).
                if !self.threads[th].tearing.contains(&c)
                    && !self.threads[th].unlinking.iter().any(|u| u.0 == c)
                {
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
                if found.fit == Fit::No && !self.store.tables[table].lossy {
                    let from = self.store.now(entry).map_or(l.zapped, |b| b.0);
                    if !self.unexplained.take_filled_late(entry) {
                        self.leave_gap(c, entry, from);
                    }
                }
                if self.store.tables[table].dead_ev == NONE {
                    let leaf =
                        |m: crate::store::Meta| matches!(m.shade.state(), State::Present | State::Mmio);
                    if !self.store.now(entry).is_some_and(|(_, m)| leaf(m)) {
                        self.push_old_value(c, entry, found.fit, careful);
                    }
                    // Its memory is freed soon, without an event: no fact that lasts.
                    let (certainty, reason) = (Certainty::Implied, Reason::PageZapped);
                    self.store.push(entry, ev, Some(new), shade, certainty, reason);
                }
            }
        } else {
            // Another thread filled an entry just before the table was unlinked, and its event comes now.
            let entry = self.store.slot_mut(table, idx);
            self.unexplained.filled_late(entry);
            self.note(EvidenceKind::Reordered, c, None, (Some(old), Some(new)));
            if l.state(new, level) == SpteState::Table && level > 1 {
                let child_key = c.child_key();
                let page = self.pfn_bits(new);
                self.retire_page(page, ev, ts);
                let child = self.make_table(vm, child_key, None, entry, c.at);
                self.store.tables[child].page = page;
                self.attached.link(entry, child);
                self.detach_tree(child, ev, ts);
                self.threads[th].went_through(child);
            }
        }
    }

    /// A table is being torn down. Since 7.2 its unlinking is traced only after its entries.
    pub(crate) fn tdp_prepare_zap(&mut self, at: At, page: &Page) {
        let Some(gfn) = page.gfn else { return };
        let level = page.role.level;
        let is = |s: &Self, t: TableIx| {
            let r = &s.store.tables[t];
            r.level == level && r.gfn == gfn
        };
        let At { th, ev, ts, .. } = at;
        let thread = &self.threads[th];
        if thread.tearing.iter().any(|t| is(self, *t)) || thread.cut == Some((level, gfn)) {
            return;
        }
        let vm = thread.vm;
        let prev = thread.prev_ts;
        let announced = &mut self.threads[th].announced;
        if announced.len() < 8 && !announced.contains(&(level, gfn)) {
            announced.push((level, gfn));
        }
        let thread = &self.threads[th];
        let mut rivals = false;
        // Below what it is tearing down already, else a table still linked.
        let below = self.attached.lately().find(|t| {
            is(self, *t) && self.store.tables[*t].dead_ev == NONE && {
                let p = self.store.tables[*t].parent;
                p != EntryIx::NONE && thread.tearing.contains(&self.store.place(p).table)
            }
        });
        // Another CPU found the entry empty and traced that first: the table was taken for unlinked then.
        let raced = || {
            self.attached.lately().find(|t| {
                let r = &self.store.tables[*t];
                is(self, *t)
                    && r.parent != EntryIx::NONE
                    && self.unexplained.gaps.iter().any(|g| g.entry == r.parent)
            })
        };
        let table = below.or_else(raced).or_else(|| {
            let smm = page.role.smm;
            let mut c: Vec<TableIx> = (0..=1u8)
                .filter(|as_id| smm.is_none_or(|s| s == (*as_id == 1)))
                .flat_map(|as_id| self.attached.at(&Key { as_id, level, gfn }))
                .copied()
                .filter(|t| {
                    let r = &self.store.tables[*t];
                    vm.is_none_or(|v| v == r.vm)
                        && r.parent != EntryIx::NONE
                        && page.role.mirror.is_none_or(|m| m == r.mirror)
                })
                .collect();
            let zapping = thread.zapping;
            let other = |t: &TableIx| self.attached.is_obsolete(self.store.tables[*t].root) != zapping;
            c.sort_by_key(other);
            let space = |t: &TableIx| (self.store.tables[*t].vm, self.store.tables[*t].as_id);
            // Its entries will show of which VM and address space it is.
            rivals =
                c.first().is_some_and(|f| c.iter().any(|t| other(t) == other(f) && space(t) != space(f)));
            c.first().copied().filter(|_| !rivals)
        });
        if rivals && !self.vms.careful_at(at) {
            self.threads[th].unclear = Some((level, gfn, prev));
        }
        if let Some(t) = table {
            if self.vms.careful_at(at) {
                // It may be one that no event has named. The cut of its link will show which it is.
                let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
                for e in entries {
                    self.make_stale(e, ev, Reason::Incomplete);
                }
                return;
            }
            self.detach_tree(t, ev, ts);
            self.threads[th].tearing.push(t);
            self.threads[th].unlinking.push((t, prev));
        }
    }

    /// The table that the thread said it would tear down, now that its first entry shows which it was.
    pub(super) fn find_announced(&mut self, c: &Change) -> Option<Found> {
        let At { th, ev, ts, .. } = c.at;
        let (level, gfn, prev) = self.threads[th].unclear.take()?;
        if (c.key.level, c.key.gfn) != (level, gfn) || self.layout.is_shadow_present(c.new) {
            return None;
        }
        let vm = self.threads[th].vm;
        let zapping = self.threads[th].zapping;
        let found = self.attached.at(&c.key).iter().copied().filter(|t| {
            let r = &self.store.tables[*t];
            vm.is_none_or(|v| v == r.vm) && r.parent != EntryIx::NONE
        });
        let rank = |t: &TableIx| {
            let other = self.attached.is_obsolete(self.store.tables[*t].root) != zapping;
            (!other, self.fit(*t, c.idx, c.old, level))
        };
        let found: Vec<TableIx> = found.collect();
        let t = found.iter().copied().max_by_key(rank)?;
        // Of another VM it may be as well, where the thread's is not known.
        if found.iter().any(|x| rank(x) == rank(&t) && self.store.tables[*x].vm != self.store.tables[t].vm) {
            return None;
        }
        let fit = self.fit(t, c.idx, c.old, level);
        self.detach_tree(t, ev, ts);
        self.threads[th].tearing.push(t);
        self.threads[th].unlinking.push((t, prev));
        Some(Found { table: t, fit, sure: true })
    }

    /// Whether an event is part of what its thread is tearing down.
    pub(crate) fn belongs_to_teardown(&self, th: ThreadIx, e: &Event) -> bool {
        let t = &self.threads[th];
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, .. } => {
                let key = key_of(as_id, level, gfn);
                let page = self.pfn_bits(old_spte);
                t.tearing.iter().rev().any(|x| self.key_is(*x, key))
                    || t.unlinking.iter().any(|(x, _)| {
                        let r = &self.store.tables[*x];
                        r.page == page && r.level + 1 == level
                    })
            }
            Body::PrepareZapPage { page } => {
                let level = page.role.level;
                page.role.direct
                    && t.tearing.iter().any(|x| {
                        let r = &self.store.tables[*x];
                        // Where links are traced as cut after the entries, the tables below come before theirs.
                        let below = || {
                            t.unlinking.iter().any(|u| u.0 == *x)
                                && r.level == level + 1
                                && page.gfn.is_none_or(|g| key_of(r.as_id, r.level, g).gfn == r.gfn)
                        };
                        r.level == level && page.gfn.is_none_or(|g| g == r.gfn) || below()
                    })
            }
            _ => false,
        }
    }

    /// The thread went on: torn-down tables are gone, frozen entries released.
    pub(crate) fn settle(&mut self, th: ThreadIx, ev: u32, ts: u64) {
        let tearing = std::mem::take(&mut self.threads[th].tearing);
        self.threads[th].unlinking.clear();
        for t in tearing {
            self.store.free_table(t, ev, ts);
        }
        let frozen = std::mem::take(&mut self.threads[th].frozen);
        if !self.traces.releases_untraced() {
            return;
        }
        for e in frozen {
            let attached = self.store.tables[self.store.place(e).table].attached();
            if attached && self.store.now(e).is_some_and(|(_, m)| m.shade == Shade::Removed) {
                self.store.push(
                    e,
                    ev,
                    Some(self.layout.zapped),
                    Shade::Nonpresent,
                    Certainty::Assumed,
                    Reason::Unfrozen,
                );
            }
        }
    }

    /// A direct page was made: a table of the TDP MMU may lie in it before long.
    pub(crate) fn tdp_page_made(&mut self, at: At, page: &Page) {
        let At { th, vm, ev, ts, .. } = at;
        if page.role.level < 1 {
            return;
        }
        let t = &mut self.threads[th];
        if t.pages.len() >= 16 {
            t.pages.remove(0);
        }
        let np = NewPage {
            level: page.role.level,
            gfn: page.gfn,
            mirror: page.role.mirror.unwrap_or(false),
            as_id: page.role.smm.map(u8::from),
            ev,
            ts,
        };
        t.pages.push(np);
        if np.mirror {
            self.vms.has_mirror(vm);
        }
        if page.role.level >= 4 && page.gfn.is_none_or(|g| g == 0) {
            self.vms.new_root(vm, np, &page.role);
        }
    }

    /// All roots of a VM become obsolete, and this thread zaps them.
    pub(crate) fn tdp_zap_all(&mut self, at: At) {
        let At { th, vm, .. } = at;
        let roots: Vec<TableIx> = self
            .attached
            .all()
            .filter(|t| {
                let r = &self.store.tables[*t];
                // What a mirror tree stands for cannot be built anew so fast: it stays.
                r.vm == vm && r.root == *t && !r.mirror
            })
            .collect();
        self.attached.make_obsolete(roots);
        self.threads[th].zapping = true;
    }
}
