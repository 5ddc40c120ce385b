//! Facts that end: an entry whose value may have changed without an event is stale from there on. Every rule that doubts a value calls
//! [`Engine::make_stale`] or one of its kind, also those of the TDP MMU; which entries a rule doubts, and why, is the rule's to say.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, Reason, Shade, pages_of};
use crate::moment::{At, NO_VM};
use crate::silent::fresh::{Fresh, Known};

impl Engine {
    /// What is kept about an entry while it is known, by the value it has now.
    pub(crate) fn known(&self, entry: EntryIx) -> Known {
        let p = self.store.place(entry);
        let aside = self.store.tables[p.table].as_id != 0;
        Known { entry, table: p.table, level: p.level, gfn: p.gfn, pfn: self.host_frame(entry), aside }
    }

    /// Takes an entry from those that are known. To be called before its value changes.
    pub(crate) fn forget(&mut self, entry: EntryIx) {
        if !self.silent.active {
            return;
        }
        let table = self.store.place(entry).table;
        let vm = self.store.tables[table].vm;
        if self.silent.fresh.get(&vm).is_some_and(|f| f.contains(table, entry)) {
            let known = self.known(entry);
            if let Some(f) = self.silent.fresh.get_mut(&vm) {
                f.remove(known);
            }
        }
    }

    pub(crate) fn make_stale(&mut self, entry: EntryIx, ev: u32, reason: Reason) {
        if !self.shows_in_probes(entry, reason) {
            self.stale_now(entry, ev, reason);
        }
    }

    /// The same where no probe shows it.
    pub(crate) fn stale_now(&mut self, entry: EntryIx, ev: u32, reason: Reason) {
        self.forget(entry);
        let table = self.store.place(entry).table;
        if let Some((spte, m)) = self.store.now(entry)
            && m.certainty != Certainty::Stale
            && self.store.tables[table].attached()
        {
            self.store.push(entry, ev, m.has_value.then_some(spte), m.shade, Certainty::Stale, reason);
        }
    }

    pub(crate) fn stale_list(&mut self, mut hit: Vec<EntryIx>, ev: u32, reason: Reason) {
        // The order of a set is not the order of anything.
        hit.sort_unstable();
        hit.dedup();
        for x in hit {
            self.make_stale(x, ev, reason);
        }
    }

    /// That it is mapped is known, that it still is writable no longer.
    pub(super) fn doubt_writable(&mut self, entry: EntryIx, ev: u32) {
        if let Some((spte, m)) = self.store.now(entry)
            && m.shade == Shade::Writable
            && m.certainty <= Certainty::Observed
            && !self.probed()
        {
            let (certainty, reason) = (Certainty::Assumed, Reason::MaybeProtected);
            self.store.push(entry, ev, Some(spte), m.shade, certainty, reason);
        }
    }

    /// The VMs that an event may mean.
    pub(super) fn meant(&self, vm: u16) -> Vec<u16> {
        // Where threads were sorted into VMs by what they share, a loss may have torn a VM in two.
        let known = vm != NO_VM && (self.vms.sure() || !self.vms.careful(vm));
        if known { vec![vm] } else { self.every_vm() }
    }

    pub(super) fn every_vm(&self) -> Vec<u16> {
        self.silent.fresh.keys().copied().collect()
    }

    pub(super) fn stale_all(&mut self, vm: u16, ev: u32, reason: Reason) {
        let hit =
            self.meant(vm).iter().filter_map(|v| self.silent.fresh.get(v)).flat_map(Fresh::all).collect();
        self.stale_list(hit, ev, reason);
    }

    /// What is known in some tables.
    pub(super) fn known_in(&self, tables: &[TableIx]) -> Vec<EntryIx> {
        let known = |t: &TableIx| self.silent.fresh.get(&self.store.tables[*t].vm).map(|f| (f, *t));
        tables.iter().filter_map(known).flat_map(|(f, t)| f.of_table(t)).collect()
    }

    pub(super) fn stale_in(&mut self, tables: &[TableIx], ev: u32, reason: Reason) {
        let hit = self.known_in(tables);
        self.stale_list(hit, ev, reason);
    }

    /// What is known of entries that map any of some frames.
    pub(super) fn stale_covering(&mut self, vm: u16, frames: (u64, u64), level: u8, ev: u32, reason: Reason) {
        let (first, last) = frames;
        let hit = self
            .meant(vm)
            .iter()
            .filter_map(|v| self.silent.fresh.get(v))
            .flat_map(|f| f.covering(first, last, level))
            .collect();
        self.stale_list(hit, ev, reason);
    }

    /// A VM turns out to have the TDP MMU: what was taken for an MMU that does not trace its zaps may be a table of that.
    pub(crate) fn silent_no_more(&mut self, at: At) {
        if self.silent.active && !self.vms.is_tdp(at.vm) {
            self.stale_all(at.vm, at.ev, Reason::Incomplete);
        }
    }

    /// First and last host frame that an entry maps.
    pub(super) fn host_frames(&self, entry: EntryIx) -> Option<(u64, u64)> {
        let first = self.host_frame(entry)?;
        Some((first, first.saturating_add(pages_of(self.store.place(entry).level) - 1)))
    }

    /// First host frame that an entry maps.
    pub(super) fn host_frame(&self, entry: EntryIx) -> Option<u64> {
        let (spte, m) = self.store.now(entry)?;
        (m.has_value && m.shade != Shade::Mmio && m.shade != Shade::Nonpresent)
            .then(|| self.pfn_bits(spte) >> 12)
    }
}
