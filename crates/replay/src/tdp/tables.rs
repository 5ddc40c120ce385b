//! New tables of the TDP MMU, and what is known above them.

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx, index_of, key_of};
use crate::model::{Certainty, Shade};
use crate::moment::At;
use crate::store::TableRec;
use crate::threads::NewPage;

impl Engine {
    /// Whether an entry above is known to hold something else than a link to a table with this key.
    pub(super) fn known_elsewhere(&self, vm: u16, key: Key) -> bool {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            let idx = index_of(level, key.gfn);
            let c = self.attached.at(&k);
            let mut any = false;
            for &t in c {
                let r = &self.store.tables[t];
                if r.vm != vm {
                    continue;
                }
                any = true;
                if r.lossy {
                    return false;
                }
                match self.store.slot(t, idx).and_then(|e| self.store.now(e)) {
                    None if !r.born => return false,
                    Some((_, m)) if m.shade == Shade::Unknown || m.certainty == Certainty::Stale => {
                        return false;
                    }
                    // Linked, but to a table no event has shown: it is this one.
                    Some((_, m))
                        if m.shade == Shade::Table && level == key.level + 1 && !self.child_known(t, idx) =>
                    {
                        return false;
                    }
                    _ => {}
                }
            }
            if any {
                return true;
            }
        }
        false
    }

    fn child_known(&self, table: TableIx, idx: u16) -> bool {
        self.store.slot(table, idx).is_some_and(|e| self.attached.below(e).is_some())
    }

    pub(super) fn root_above(&self, vm: u16, key: Key) -> TableIx {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            if let Some(t) = self.attached.at(&k).iter().rev().find(|t| self.store.tables[**t].vm == vm) {
                return self.store.tables[*t].root;
            }
        }
        TableIx::NONE
    }

    /// A new table; `np` is its `kvm_mmu_get_page`, `parent` the entry that links it.
    pub(crate) fn make_table(
        &mut self,
        vm: u16,
        key: Key,
        np: Option<NewPage>,
        parent: EntryIx,
        at: At,
    ) -> TableIx {
        let mut t = TableRec::new(
            vm,
            key.as_id,
            key.level,
            key.gfn,
            np.map_or(at.ev, |n| n.ev),
            np.map_or(at.ts, |n| n.ts),
        );
        t.parent = parent;
        t.born = np.is_some() || parent != EntryIx::NONE;
        t.mirror = np.is_some_and(|n| n.mirror);
        t.empty = self.layout.zapped;
        let id = self.store.add_table(t);
        let again = self.attached.attach(id, vm, key);
        let r = &mut self.store.tables[id];
        (r.root, r.again) = (id, again);
        id
    }
}
