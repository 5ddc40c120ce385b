//! Which shadow page a table of the silent MMUs is, and the end of what is kept of a table. Installs and pages name tables here, and whoever ends one
//! calls [`Engine::drop_silent`]; nothing here decides that one ends.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::silent::shadow::SpKey;

impl Engine {
    /// The page that was made, or looked up, is this table. Text does not print all of a role (SMM's pages look like others): of two alike
    /// neither is known by it.
    pub(super) fn name_table(&mut self, t: TableIx, key: SpKey) {
        self.unname(t);
        let before = self.silent.table_of.get(&key).copied();
        if before.is_some_and(|b| self.store.tables[b].attached()) {
            self.silent.twins.insert(key);
            if let Some(b) = before {
                self.unname(b);
            }
        }
        if self.silent.twins.contains(&key) {
            self.silent.unnamed.entry(key.vm).or_default().extend(before.into_iter().chain([t]));
            return;
        }
        self.silent.table_of.insert(key, t);
        self.silent.key_of_table.insert(t, key);
        self.silent.was.insert(t, key);
        if let Some(s) = self.silent.unnamed.get_mut(&key.vm) {
            s.remove(&t);
        }
        if let Some(g) = key.gfn {
            self.silent.shadows.entry((key.vm, g)).or_default().push(t);
        }
    }

    fn unname(&mut self, t: TableIx) {
        let Some(key) = self.silent.key_of_table.remove(&t) else { return };
        if self.silent.table_of.get(&key) == Some(&t) {
            self.silent.table_of.remove(&key);
        }
        if let Some(g) = key.gfn
            && let Some(v) = self.silent.shadows.get_mut(&(key.vm, g))
        {
            v.retain(|x| *x != t);
            if v.is_empty() {
                self.silent.shadows.remove(&(key.vm, g));
            }
        }
    }

    pub(crate) fn drop_silent(&mut self, t: TableIx, ev: u32, ts: u64) {
        let vm = self.store.tables[t].vm;
        let page = self.store.tables[t].page;
        let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
        for e in &entries {
            self.forget(*e);
        }
        for i in 0..512u64 {
            self.silent.slots.remove(&(page + i * 8));
        }
        for e in &entries {
            let p = self.store.place(*e);
            if let Some(v) = self.silent.direct_at.get_mut(&(vm, p.level, p.gfn)) {
                v.retain(|x| x != e);
            }
        }
        self.unname(t);
        self.silent.read.remove(&t);
        for tables in [&mut self.silent.tables, &mut self.silent.unnamed] {
            if let Some(s) = tables.get_mut(&vm) {
                s.remove(&t);
            }
        }
        self.attached.leaves(t, page);
        self.store.free_table(t, ev, ts);
    }

    /// Takes the tables of a VM whose making is not in the trace, and which may be of any MMU, those of MMIO entries known by frame only among them.
    pub(crate) fn take_nameless(&mut self, vm: u16) -> Vec<TableIx> {
        if !self.silent.active {
            return Vec::new();
        }
        let named = |t: &TableIx| self.silent.key_of_table.contains_key(t);
        let mut out: Vec<TableIx> = self.silent.tables.get(&vm).into_iter().flatten().copied().collect();
        out.extend(self.silent.mmio_tables.remove(&vm));
        out.retain(|t| !named(t) && self.store.tables[*t].attached());
        out.sort_unstable();
        self.silent.mmio.retain(|k, _| k.0 != vm);
        out
    }
}
