//! Guests that write their own page tables: what shadow pages hold of a table that was written, or is out of sync with its page, is known no
//! longer. The events of pages, the ends of faults and exits for invalidations come here.

use mmuscope_trace::Page;

use crate::engine::Engine;
use crate::keys::TableIx;
use crate::model::Reason;
use crate::moment::{At, NO_VM};
use crate::recorded::kind;
use crate::silent::fresh::Fresh;
use crate::silent::shadow::SpKey;
use crate::store::TableRec;

impl Engine {
    pub(super) fn unsync_page(&mut self, at: At, page: &Page) {
        let key = SpKey::of(at.vm, page);
        self.silent.unsync.insert(key);
        if !self.recorded.has(kind::SYNC_PAGE) {
            self.sync(at.vm, page.role.level, key, at.ev);
        }
    }

    pub(crate) fn sync_page(&mut self, at: At, page: &Page) {
        if self.silent.active {
            let key = SpKey::of(at.vm, page);
            self.sync(at.vm, page.role.level, key, at.ev);
            self.silent.unsync.remove(&key);
        }
    }

    /// A page was brought up to date: entries whose guest entry had changed were dropped or changed.
    pub(super) fn sync(&mut self, vm: u16, level: u8, key: SpKey, ev: u32) {
        let of = |vm| self.silent.table_of.get(&SpKey { vm, ..key }).copied();
        let tables = match of(vm) {
            Some(t) => vec![t],
            None if vm == NO_VM => {
                let named = self.silent.tables.keys().filter_map(|v| of(*v));
                named.chain(self.unnamed(vm, |t| t.level == level)).collect()
            }
            None => self.unnamed(vm, |t| t.level == level),
        };
        self.stale_in(&tables, ev, Reason::Synced);
    }

    /// The guest may have written a table of its own.
    pub(super) fn guest_table_written(&mut self, vm: u16, gfn: Option<u64>, ev: u32) {
        let tables = match gfn {
            Some(g) => {
                let vms = self.meant(vm);
                let shadows = vms.iter().filter_map(|v| self.silent.shadows.get(&(*v, g)));
                let mut tables: Vec<TableIx> = shadows.flatten().copied().collect();
                tables.extend(self.unnamed(vm, |_| true));
                tables
            }
            None => self.fresh_tables(vm).collect(),
        };
        let shadow = |t: &TableIx| !self.store.tables[*t].direct;
        let tables: Vec<TableIx> = tables.into_iter().filter(shadow).collect();
        self.stale_in(&tables, ev, Reason::GuestTable);
    }

    /// One address (the page of it, where known) was invalidated: its entry in a page that is out of sync may be gone. Others are not
    /// looked at.
    pub(super) fn address_invalidated(&mut self, vm: u16, page: Option<u64>, ev: u32) {
        let mut tables: Vec<TableIx> = if self.vms.sure() {
            self.silent.unsync.iter().filter_map(|k| self.silent.table_of.get(k)).copied().collect()
        } else {
            self.fresh_tables(vm).collect()
        };
        tables.extend(self.unnamed(vm, |t| t.level == 1));
        tables.retain(|t| !self.store.tables[*t].direct && self.store.tables[*t].level == 1);
        let mut hit = self.known_in(&tables);
        if let Some(page) = page {
            hit.retain(|e| u64::from(self.store.place(*e).index) == page & 511);
        }
        self.stale_list(hit, ev, Reason::GuestTable);
    }

    fn fresh_tables(&self, vm: u16) -> impl Iterator<Item = TableIx> + '_ {
        self.meant(vm).into_iter().filter_map(|v| self.silent.fresh.get(&v)).flat_map(Fresh::tables)
    }

    /// Tables that hold something known, and whose making is not in the trace.
    fn unnamed(&self, vm: u16, which: impl Fn(&TableRec) -> bool) -> Vec<TableIx> {
        let mut out = Vec::new();
        for v in self.meant(vm) {
            let (Some(unnamed), Some(fresh)) = (self.silent.unnamed.get(&v), self.silent.fresh.get(&v))
            else {
                continue;
            };
            let of = |t: &TableIx| which(&self.store.tables[*t]);
            if unnamed.len() < fresh.tables().len() {
                out.extend(unnamed.iter().copied().filter(|t| of(t)));
            } else {
                out.extend(fresh.tables().filter(|t| unnamed.contains(t)).filter(of));
            }
        }
        out
    }
}
