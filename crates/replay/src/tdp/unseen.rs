//! What may happen to tables of the TDP MMU without an event of this trace, because a class of events was not recorded.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::Reason;
use crate::moment::At;
use crate::recorded::kind;
use crate::threads::NewPage;

impl Engine {
    /// The TDP MMU set an entry that the fast path may open later, and neither that nor the fault would show.
    pub(super) fn unseen_opening(&mut self, entry: EntryIx, ev: u32) {
        if self.recorded.has(kind::FAST_FAULT) || self.recorded.has(kind::PAGE_FAULT) {
            return;
        }
        if self.store.now(entry).is_some_and(|(v, m)| self.may_open(v, m.shade)) {
            self.make_stale(entry, ev, Reason::Unrecorded);
        }
    }

    /// A root is filled while one of its kind is in use: that one is obsolete, which `kvm_mmu_zap_all_fast` shows where it is recorded.
    pub(super) fn unseen_zap_all(&mut self, at: At, as_id: u8, root: &NewPage) {
        if self.recorded.has(kind::ZAP_ALL) {
            return;
        }
        let alike = self.store.tables.numbered().any(|(i, t)| {
            t.attached()
                && !t.silent
                && t.root == i
                && t.vm == at.vm
                && t.level == root.level
                && t.mirror == root.mirror
                && t.as_id == as_id
        });
        if !alike {
            return;
        }
        self.vms.doubt(at.vm);
        for t in self.store.tables.slice_mut() {
            if t.vm == at.vm {
                (t.lossy, t.alive) = (true, false);
            }
        }
        let live: Vec<TableIx> = self.attached.all().collect();
        let mut hit = Vec::new();
        for t in live.into_iter().filter(|t| self.store.tables[*t].vm == at.vm) {
            hit.extend(self.store.table_entries(t));
        }
        self.stale_list(hit, at.ev, Reason::Unrecorded);
    }
}
