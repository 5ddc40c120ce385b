//! Tables that come out of reach: with all that lies below them, because their link is cut, because their page is another table's by now, or because
//! they are an obsolete root that is empty. Whoever ends a table of the TDP MMU calls these.

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx};
use crate::model::{Reason, Shade};
use crate::store::NONE;

impl Engine {
    /// A table and everything below it is out of reach.
    pub(crate) fn detach_tree(&mut self, table: TableIx, ev: u32, ts: u64) {
        if !self.store.tables[table].attached() {
            return;
        }
        self.doubt_below(table, ev);
        let mut stack = vec![table];
        while let Some(t) = stack.pop() {
            let r = &self.store.tables[t];
            if !r.attached() {
                continue;
            }
            if r.silent {
                // A table that was known by its installs only: what is remembered of its slots goes with it.
                self.drop_silent(t, ev, ts);
                continue;
            }
            let (key, page, level) = (Key { as_id: r.as_id, level: r.level, gfn: r.gfn }, r.page, r.level);
            if level > 1 {
                stack.extend(self.store.table_entries(t).filter_map(|e| self.attached.below(e)));
            }
            self.store.detach(t, ev, ts);
            self.attached.detach(t, key, page);
        }
    }

    /// A table is unlinked that was made before the trace, or lived through a loss: tables within its range whose own links no event has
    /// shown may lie below it, and are out of reach then. Their entries are not known any more until their own events come.
    fn doubt_below(&mut self, table: TableIx, ev: u32) {
        let r = &self.store.tables[table];
        if r.born && !r.lossy {
            return;
        }
        for t in self.store.take_unlinked_below(table) {
            let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
            for e in entries {
                self.make_stale(e, ev, Reason::Incomplete);
            }
        }
    }

    /// A host page holds a new table: whatever table it was before is gone.
    pub(crate) fn retire_page(&mut self, page: u64, ev: u32, ts: u64) {
        if page != 0
            && let Some(t) = self.attached.in_page(page)
        {
            if self.store.tables[t].silent {
                self.drop_silent(t, ev, ts);
                return;
            }
            let parent = self.store.tables[t].parent;
            self.attached.unlink_from(parent, t);
            self.detach_tree(t, ev, ts);
            self.store.free_table(t, ev, ts);
        }
    }

    /// A page is a new table's: what was torn down in it, by a thread that has made no event since, is gone.
    pub(super) fn free_page(&mut self, page: u64, ev: u32, ts: u64) {
        if let Some(t) = self.attached.reuse(page).filter(|t| self.store.tables[*t].dead_ev == NONE) {
            self.store.free_table(t, ev, ts);
        }
    }

    /// A root that is obsolete and empty is freed without an event.
    pub(super) fn check_obsolete_root(&mut self, table: TableIx, ev: u32, ts: u64) {
        if !self.attached.is_obsolete(table) || self.store.tables[table].lossy {
            return;
        }
        let busy = self.store.table_entries(table).any(|e| {
            self.store.now(e).is_some_and(|(_, m)| !matches!(m.shade, Shade::Nonpresent | Shade::Removed))
        });
        if !busy {
            self.attached.obsolete_ended(table);
            self.detach_tree(table, ev, ts);
            self.store.free_table(table, ev, ts);
        }
    }
}
