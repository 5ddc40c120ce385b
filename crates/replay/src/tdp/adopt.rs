//! Tables that were taken for those of another MMU, until the first change event showed that the VM has the TDP MMU. Called for every change
//! and does something once for each VM; what the tables held stays known as it was.

use crate::engine::Engine;
use crate::keys::{EntryIx, index_of, key_of};
use crate::model::{Certainty, MmuKind, Reason, Shade, State};
use crate::moment::At;

impl Engine {
    /// A trace that begins late may show installs and MMIO entries before any event shows which MMU made them. What they showed stays: it was
    /// in tables of the TDP MMU, which end otherwise than those of another, and are not unlinked now.
    pub(super) fn adopt(&mut self, at: At) {
        let At { vm, ev, .. } = at;
        if !matches!(self.vms.kind_of(vm), MmuKind::Unknown | MmuKind::Direct) {
            return;
        }
        for t in self.take_nameless(vm) {
            let page = self.store.tables[t].page;
            let mut entries: Vec<EntryIx> = self.store.table_entries(t).collect();
            entries.sort_unstable();
            let held: Vec<_> = entries
                .into_iter()
                .filter_map(|e| Some((e, self.store.place(e), self.store.now(e)?)))
                .filter(|(_, _, (_, m))| matches!(m.shade.state(), State::Present | State::Mmio))
                .collect();
            for (e, ..) in &held {
                self.store.push(*e, ev, None, Shade::Unknown, Certainty::Stale, Reason::Incomplete);
            }
            self.drop_silent(t, ev, at.ts);
            for (_, p, (value, m)) in held {
                let key = key_of(0, p.level, p.gfn);
                if p.index != index_of(p.level, p.gfn) {
                    continue;
                }
                let found = self.attached.at(&key).iter().copied().find(|t| {
                    let r = &self.store.tables[*t];
                    r.vm == vm && r.page == page
                });
                let table = found.unwrap_or_else(|| self.make_table(vm, key, None, EntryIx::NONE, at));
                let r = &mut self.store.tables[table];
                (r.page, r.lossy) = (page, true);
                if page != 0 {
                    self.attached.lies_in(table, page);
                }
                let entry = self.store.slot_mut(table, p.index);
                let value = m.has_value.then_some(value);
                self.store.push(entry, ev, value, m.shade, Certainty::Stale, Reason::Incomplete);
            }
        }
    }
}
