//! Entries above the 4K level that hold no mapping. Shadow and legacy MMUs trace neither that a table is linked there nor that it is unlinked:
//! no probe sits on either. Both come with an event of the table, [`Engine::links_may_change`]: a table is made or looked up before it is linked,
//! and zapped when its links are cut. Until then an entry that was seen without a mapping stays what it was.

use mmuscope_trace::Page;

use crate::engine::Engine;
use crate::keys::EntryIx;
use crate::model::{Certainty, Reason, Shade, pages_of};
use crate::moment::At;
use crate::recorded::kind;
use crate::silent::live::Made;

impl Engine {
    /// An entry was seen without a mapping. It stays so until an event of a table that may be linked there, if such events are in the trace: one
    /// may have come just before it began, or be that of a thread that takes a huge page away to link the table in its place.
    pub(super) fn holds_no_mapping(&mut self, at: At, entry: EntryIx) {
        let p = self.store.place(entry);
        if p.level < 2 {
            return;
        }
        let recorded = self.recorded.has(kind::GET_PAGE) && self.recorded.has(kind::PREPARE_ZAP);
        if !recorded || self.silent.ranges.unseen(at.ts) || self.link_under_way(entry) {
            self.doubt_links(vec![entry], at.ev);
            return;
        }
        let t = &self.store.tables[p.table];
        if t.direct {
            self.silent.links.direct.insert((t.vm, p.level, p.gfn, entry));
        } else {
            self.silent.links.shadow.insert((t.vm, p.level, entry));
        }
    }

    /// A table was made, looked up or zapped: it may be linked to an entry now, or no longer.
    pub(super) fn links_may_change(&mut self, vm: u16, page: &Page, ev: u32) {
        // The TDP MMU of 5.10 prints the level of the entry that points to the table.
        let above = self.silent.above.contains(&vm);
        for level in [page.role.level + 1].into_iter().chain(above.then_some(page.role.level)) {
            let pages = pages_of(level.min(6));
            let gfn = page.gfn.filter(|_| page.role.direct).map(|g| g / pages * pages);
            for v in self.meant(vm) {
                let hit = self.silent.links.take(v, level, gfn);
                self.doubt_links(hit, ev);
            }
        }
    }

    /// Whether these entries hold a link now is not known.
    pub(super) fn doubt_links(&mut self, mut hit: Vec<EntryIx>, ev: u32) {
        hit.sort_unstable();
        for entry in hit {
            let attached = self.store.tables[self.store.place(entry).table].attached();
            let held = self.store.now(entry).map(|(_, m)| (m.shade, m.certainty));
            if attached
                && let Some((Shade::Nonpresent | Shade::Table, c)) = held
                && c != Certainty::Stale
            {
                self.store.push(entry, ev, None, Shade::Unknown, Certainty::Stale, Reason::Linked);
            }
        }
    }

    /// Whether a thread is about to link a table to this entry: it made or looked up one that belongs there.
    fn link_under_way(&self, entry: EntryIx) -> bool {
        let p = self.store.place(entry);
        let pages = pages_of(p.level.min(6));
        self.silent.made.values().flatten().any(|Made { key, .. }| {
            let there = !key.role.direct || key.gfn.is_none_or(|g| g / pages * pages == p.gfn);
            key.role.level + 1 == p.level && there
        })
    }
}
