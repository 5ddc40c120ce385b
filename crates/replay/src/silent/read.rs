//! Tables of MMUs that do not trace every change, as they were read in memory: shadow pages, pages of the legacy MMU, and those of the TDP MMU of
//! 5.10. What is read settles everything that happened to them without an event.

use mmuscope_trace::snapshot::Table;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx, key_of};
use crate::model::{Certainty, MmuKind, Reason, Shade, pages_of};
use crate::moment::At;
use crate::store::TableRec;

impl Engine {
    /// The tables of a VM that are known here.
    pub(crate) fn silent_tables(&self, vm: u16) -> Vec<TableIx> {
        self.silent.tables.get(&vm).into_iter().flatten().copied().collect()
    }

    /// Takes in a table; gives its number here.
    pub(crate) fn silent_read(&mut self, at: At, t: &Table) -> TableIx {
        self.silent.active = true;
        self.kind_read(at, if t.direct { MmuKind::Direct } else { MmuKind::Shadow }, t.as_id);
        let table = self.silent_table_read(at, t);
        self.silent.read.insert(table, (t.gfn, t.direct));
        for (i, value) in t.entries.iter().enumerate() {
            let value = *value;
            let shade = self.shade(value, t.level);
            let gfn = match t.gfns.get(i) {
                Some(g) if !t.direct => *g,
                _ => t.gfn.wrapping_add(i as u64 * pages_of(t.level)),
            };
            self.silent_entry_read(at, t, table, i as u16, gfn, (value, shade));
        }
        table
    }

    /// The entry of a table that was read, by its page and index.
    pub(crate) fn entry_read_at(&self, table: TableIx, page: u64, index: u16) -> Option<EntryIx> {
        if self.store.tables[table].silent {
            self.silent.slots.get(&(page + 8 * u64::from(index))).copied()
        } else {
            self.store.slot(table, index)
        }
    }

    /// An event shows another value of an entry than the one that was just read.
    pub(crate) fn becomes(
        &mut self,
        at: At,
        entry: EntryIx,
        value: u64,
        level: u8,
        how: (Certainty, Reason),
    ) {
        let shade = self.shade(value, level);
        self.forget(entry);
        self.store.push(entry, at.ev, Some(value), shade, how.0, how.1);
        if !self.store.tables[self.store.place(entry).table].silent {
            return;
        }
        if shade == Shade::Nonpresent {
            self.holds_no_mapping(at, entry);
        } else {
            let known = self.known(entry);
            self.silent.fresh.entry(at.vm).or_default().insert(known);
        }
    }

    fn silent_entry_read(
        &mut self,
        at: At,
        t: &Table,
        table: TableIx,
        index: u16,
        gfn: u64,
        found: (u64, Shade),
    ) {
        let sptep = t.page + 8 * u64::from(index);
        let leaf = !matches!(found.1, Shade::Nonpresent | Shade::Table | Shade::Removed | Shade::Unknown);
        let known = self.silent.slots.get(&sptep).copied();
        let entry = match known {
            Some(e) if self.store.place(e).gfn == gfn || !leaf => e,
            None if !leaf => return,
            other => {
                if let Some(e) = other {
                    self.forget(e);
                    self.store.push(e, at.ev, None, Shade::Nonpresent, Certainty::Observed, Reason::Snapshot);
                }
                let e = self.store.free_slot(table, index, gfn);
                self.silent.lies_at(sptep, e);
                if t.direct {
                    self.silent.direct_at.entry((at.vm, t.level, gfn)).or_default().push(e);
                }
                e
            }
        };
        if found.1 == Shade::Mmio {
            self.place_is_known(at, gfn);
        }
        let key = key_of(t.as_id, t.level, gfn);
        self.forget(entry);
        let gfn = self.store.place(entry).gfn;
        self.entry_read(at, entry, found, t.from, key, gfn);
        if matches!(found.1, Shade::Nonpresent | Shade::Table) {
            self.holds_no_mapping(at, entry);
        }
        if leaf {
            let known = self.known(entry);
            self.silent.fresh.entry(at.vm).or_default().insert(known);
            self.snapshots.waiting.push(entry);
        }
    }

    fn silent_table_read(&mut self, at: At, t: &Table) -> TableIx {
        let At { vm, ev, ts, .. } = at;
        if let Some(x) = self.attached.in_page(t.page) {
            let r = &self.store.tables[x];
            let base = key_of(t.as_id, t.level, t.gfn).gfn;
            if r.silent && r.vm == vm && r.level == t.level && (!t.direct || r.gfn == base) {
                return x;
            }
            self.retire_page(t.page, ev, ts);
        }
        let base = if t.direct { key_of(t.as_id, t.level, t.gfn).gfn } else { t.gfn };
        let mut rec = TableRec::new(vm, t.as_id, t.level, base, ev, ts);
        (rec.page, rec.direct, rec.silent) = (t.page, t.direct, true);
        let x = self.store.add_table(rec);
        self.store.tables[x].root = x;
        self.attached.lies_in(x, t.page);
        self.silent.tables.entry(vm).or_default().insert(x);
        self.silent.unnamed.entry(vm).or_default().insert(x);
        x
    }
}
