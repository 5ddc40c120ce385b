//! What an install is worth once its thread goes on: other threads may change the entry from then on. [`Engine::unguard`] is called at a thread's
//! next entry into the guest or exit from it, and where such events are not recorded, at once.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, Reason, Shade};

impl Engine {
    /// The thread that set an entry has gone on: what can happen without an event may have happened.
    pub(crate) fn unguard(&mut self, entry: EntryIx, ev: u32) {
        let p = self.store.place(entry);
        let table = &self.store.tables[p.table];
        let Some((spte, m)) = self.store.now(entry) else { return };
        if !table.attached() {
            return;
        }
        let unseen = self.goes_unseen(p.table, spte, m.shade);
        if m.shade == Shade::Mmio {
            if unseen {
                self.make_stale(entry, ev, Reason::Unrecorded);
            }
            return;
        }
        let kept = m.certainty <= Certainty::Observed || m.reason == Reason::MaybeProtected;
        if !kept {
            return;
        }
        if unseen && self.silent.ranges.recorded {
            self.make_stale(entry, ev, Reason::Unrecorded);
            return;
        }
        // Up to 5.12 notifiers zap without any event. When dirty logging ends, small pages are zapped where the host's is a huge one, so
        // that a huge one is mapped: in direct tables, where frames of guest and host lie alike in their huge pages.
        let pages = crate::model::pages_of(p.level + 1);
        let shadow = self.silent.key_of_table.get(&p.table).is_some_and(|k| !k.role.direct);
        let alike = p.level < 3 && (self.pfn_bits(spte) >> 12) % pages == p.gfn % pages;
        // The local APIC's page is zapped when its acceleration goes on or off.
        if !self.silent.ranges.recorded
            || alike && !shadow && !self.split_by_tables(p.table, p.level, p.gfn)
            || p.gfn == 0xfee00
        {
            self.make_stale(entry, ev, Reason::SilentKernel);
        } else if m.shade == Shade::Writable {
            self.doubt_writable(entry, ev);
        }
    }

    /// Whether no larger mapping is allowed here: there are guest tables under it.
    fn split_by_tables(&self, table: TableIx, level: u8, gfn: u64) -> bool {
        let pages = crate::model::pages_of(level + 1);
        let first = gfn / pages * pages;
        let vm = self.store.tables[table].vm;
        self.vms.sure()
            && self.silent.guest_tables.range((vm, first)..=(vm, first + (pages - 1))).next().is_some()
    }
}
