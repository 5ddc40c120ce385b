//! Tables of the TDP MMU that were read in memory. Parents come before their children, so that a table that is new here is linked at once.

use mmuscope_trace::snapshot::Table;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx, key_of};
use crate::model::{MmuKind, Shade};
use crate::moment::At;

impl Engine {
    /// Takes in a table; gives its number here.
    pub(super) fn tdp_read(&mut self, at: At, t: &Table) -> TableIx {
        self.kind_read(at, MmuKind::Tdp, t.as_id);
        let parent = t.parent.and_then(|(page, index)| {
            let above = self.attached.in_page(page)?;
            // A made-up file may name any page: what does not lie one level up is no parent.
            let r = &self.store.tables[above];
            let fits = !r.silent && r.vm == at.vm && r.level == t.level + 1 && r.attached();
            fits.then(|| self.store.slot_mut(above, index))
        });
        let (table, new) = self.tdp_table(at, t, parent.unwrap_or(EntryIx::NONE));
        if t.invalid && t.root {
            self.attached.make_obsolete([table]);
        }
        let born = self.store.tables[table].born && !self.store.tables[table].lossy;
        for (i, value) in t.entries.iter().enumerate() {
            let (i, value) = (i as u16, *value);
            let shade = self.shade(value, t.level);
            if self.store.slot(table, i).is_none_or(|e| self.store.last_span(e).is_none()) {
                let empty = shade == Shade::Nonpresent;
                // What a table that was made here holds besides is said of it as a whole.
                if empty && (new || born) {
                    continue;
                }
            }
            let entry = self.store.slot_mut(table, i);
            let gfn = t.gfn.wrapping_add(u64::from(i) << (9 * (u32::from(t.level) - 1)));
            let key = key_of(t.as_id, t.level, gfn);
            let changed = self.entry_read(at, entry, (value, shade), t.from, key, gfn);
            // Another table than the one that was linked: the old one is gone.
            if changed
                && let Some(child) = self.attached.below(entry)
                && (shade != Shade::Table || self.store.tables[child].page != self.pfn_bits(value))
            {
                self.attached.unlink(entry);
                self.note_unlinked(child, at.ts);
                self.detach_tree(child, at.ev, at.ts);
                self.store.free_table(child, at.ev, at.ts);
            }
        }
        let r = &mut self.store.tables[table];
        (r.lossy, r.born) = (false, true);
        table
    }

    /// The table that lies in a page, found or made, and whether it is new here.
    fn tdp_table(&mut self, at: At, t: &Table, parent: EntryIx) -> (TableIx, bool) {
        let At { vm, ev, ts, .. } = at;
        let key = key_of(t.as_id, t.level, t.gfn);
        let here: Vec<TableIx> = self.attached.at(&key).to_vec();
        let of_it = |page: u64| {
            here.iter().copied().find(|x| {
                let r = &self.store.tables[*x];
                r.vm == vm && r.page == page && r.mirror == t.mirror && (page != 0 || r.parent == parent)
            })
        };
        if let Some(x) = of_it(t.page).or_else(|| of_it(0)) {
            if self.store.tables[x].page == 0 {
                self.retire_page(t.page, ev, ts);
                self.store.tables[x].page = t.page;
                self.attached.lies_in(x, t.page);
            }
            let before = self.store.tables[x].parent;
            if parent != EntryIx::NONE && before != parent {
                // It lies below another entry than the one that the trace had shown.
                if before != EntryIx::NONE {
                    self.attached.unlink(before);
                }
                self.adopt_child(x, parent);
            }
            return (x, false);
        }
        self.retire_page(t.page, ev, ts);
        let x = self.make_table(vm, key, None, parent, at);
        let r = &mut self.store.tables[x];
        (r.page, r.mirror, r.born, r.read) = (t.page, t.mirror, true, true);
        (r.start_ev, r.start_ts) = (ev, ts);
        self.attached.lies_in(x, t.page);
        if parent != EntryIx::NONE {
            self.adopt_child(x, parent);
        }
        if t.root {
            self.vms.root_read(vm, t.level, t.mirror || t.guest_mode);
        }
        (x, true)
    }

    fn adopt_child(&mut self, child: TableIx, parent: EntryIx) {
        let above = self.store.tables[self.store.table_of(parent)].root;
        let r = &mut self.store.tables[child];
        (r.parent, r.root) = (parent, above);
        self.attached.link(parent, child);
    }
}
